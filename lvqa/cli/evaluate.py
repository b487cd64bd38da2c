"""`lvqa eval` and `lvqa report`: run a benchmark in several arms, and say what came out."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lvqa.cli.main import Setup, common, silence
from lvqa.cli.make_videos import make_videos_with_progress
from lvqa.cli.terminal import Progress, one_line, say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lvqa.evaluation import Run, RunConfig


@click.command("eval")
@click.argument("files", nargs=-1, required=True, metavar="CONFIG ...", type=click.Path(path_type=Path))
@click.option(
    "--folder",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="The run folder.  [default: runs/ and the name of CONFIG, or of the folder of several]",
)
@click.option("--limit", metavar="N", type=int, help="Only the first N questions about each video.")
@click.option("--workers", metavar="N", type=int, help="Processes over Ray; 0: no Ray.")
@click.option("--ray-address", metavar="HOST:PORT", help="A Ray cluster to work on, rather than this machine.")
@click.option("--gpus-per-worker", metavar="X", type=float, help="0.5: two workers share a GPU.")
@click.option("--allow-missing", is_flag=True, help="Go on without the videos that have no file.")
@common
def evaluate(
    setup: Setup,
    *,
    files: tuple[Path, ...],
    folder: Path | None,
    limit: int | None,
    workers: int | None,
    ray_address: str | None,
    gpus_per_worker: float | None,
    allow_missing: bool,
) -> None:
    """Ask a benchmark's questions in the arms of CONFIG, a YAML file; a run that was cut short goes on.

    Several files are one run of all their arms, which does once what they have in common: eval configs/ablations/*.

    Every answer is a row of answers.jsonl in the run folder. Options stand above -s, and -s above CONFIG. A method that
    is a Python file (own.py) is a selector of your own: its code is run.
    """
    if setup.file is not None:
        raise click.UsageError("eval takes its settings as CONFIG, and no -c")
    from lvqa.evaluation.run import check_run
    from lvqa.evaluation.run import evaluate as run_benchmark

    options = {
        "benchmark.limit": limit,
        "workers": workers,
        "ray_address": ray_address,
        "gpus_per_worker": gpus_per_worker,
        "allow_missing": allow_missing or None,
        "model.name": setup.model,
        "model.device": setup.device,
        "store.folder": setup.store and str(setup.store),
    }
    given = [f"{key}={json.dumps(value)}" for key, value in options.items() if value is not None]
    config = _configured(files, [*setup.settings, *given])
    check_run(config)
    _make_missing_videos(config, quiet=setup.quiet)
    prepare = functools.partial(silence, downloads=setup.shows_downloads)
    name = files[0].stem if len(files) == 1 else files[0].absolute().parent.name
    with Progress(quiet=setup.quiet) as progress:
        run = run_benchmark(config, folder or Path("runs") / name, progress=progress, prepare=prepare)
    failed = sum(row["error"] is not None for row in run.rows)
    click.echo(_summary(run, failed))
    if failed:
        click.get_current_context().exit(1 if failed == len(run.rows) else 3)


def _configured(files: Sequence[Path], overrides: Sequence[str]) -> RunConfig:
    """The run of these files. Of several, the arms of "2_pool_size.yaml" are named "pool size: ..."."""
    from lvqa.evaluation import join_runs, load_run_config
    from lvqa.records import LvqaError

    configs: dict[str, RunConfig] = {}
    for file in files:
        title = file.stem.lstrip("0123456789").strip("_").replace("_", " ") or file.stem
        if title in configs:
            raise LvqaError(f"{file}: another file's arms are named {title!r} too; give it another name")
        configs[title] = load_run_config(file, overrides)
    return join_runs(configs) if len(configs) > 1 else configs[title]


def _make_missing_videos(config: RunConfig, *, quiet: bool) -> None:
    """Those of `benchmark.make`, if it is there. The folder's questions are written anew, so they must be made ones."""
    from lvqa.records import LvqaError

    folder, make = config.benchmark.folder, config.benchmark.make
    if folder is None or make is None:
        return
    try:
        lines = (folder / "video_info.meta.jsonl").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    if any('"type": "made film"' not in line for line in lines):
        raise LvqaError(f"benchmark.make would overwrite the questions in {folder}, which are not of made films")
    make_videos_with_progress(
        folder, num_videos=make.videos, minutes=make.minutes, num_questions=make.questions, seed=make.seed, quiet=quiet
    )


def _summary(run: Run, failed: int) -> str:
    """The accuracies, and where the rest is."""
    from lvqa.report.conditions import NamedRun, conditions_of
    from lvqa.report.tables import overview_table, to_markdown

    table = to_markdown(overview_table(conditions_of([NamedRun(run.folder.name, run)])))
    told = f"{run.num_questions} questions, {len(run.rows)} answers, {failed} of them failed and so wrong"
    told += f"; {len(run.missing)} videos are missing" if run.missing else ""
    return f"{table}\n\n{told}; more: lvqa report {one_line(run.folder)}"


@click.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUN ...", type=click.Path(path_type=Path))
@click.option(
    "--html", metavar="F.html", type=click.Path(path_type=Path), help="[default: report.html in the first RUN]"
)
@click.option("--csv", metavar="F.csv", type=click.Path(path_type=Path), help="[default: report.csv in the first RUN]")
@click.option("--quiet", is_flag=True, help="No remarks.")
def report(*, runs: tuple[Path, ...], html: Path | None, csv: Path | None, quiet: bool) -> None:
    """Print the tables of run folders in Markdown, and write them with plots as a page, and as CSV."""
    from lvqa.report import write_report

    html, csv = html or runs[0] / "report.html", csv or runs[0] / "report.csv"
    click.echo(write_report(runs, html=html, csv=csv), nl=False)
    if not quiet:
        say(f"written: {html}, {csv}")

"""`lvqa eval` and `lvqa report`: run a benchmark in several arms, and report the results."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lvqa.cli.main import CommonOptions, common_options, silence_libraries
from lvqa.cli.make_videos import make_videos_with_progress
from lvqa.cli.ray_options import run_overrides, worker_options
from lvqa.cli.terminal import Progress, echo_message, one_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lvqa.evaluation import Run, RunConfig


MAX_FAILED_SHARE = 0.01
"""If more answers have failed, the command ends with exit code 3."""
SYNTHETIC_MARKERS = ('"type": "synthetic video"', '"type": "made film"')
"""What the annotation of a synthetic video contains. lvqa 0.1 wrote the second one."""


@click.command("eval")
@click.argument("files", nargs=-1, required=True, metavar="CONFIG ...", type=click.Path(path_type=Path))
@click.option(
    "--folder",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Write the run into this folder.  [default: runs/ and the name of CONFIG, or of the folder of several]",
)
@click.option("--limit", metavar="N", type=int, help="Ask only the first N questions about each video.")
@worker_options()
@click.option("--retry-failed", is_flag=True, help="Ask all questions again that failed.")
@click.option("--allow-missing", is_flag=True, help="Leave out the videos that have no file.")
@common_options
def evaluate(
    common: CommonOptions,
    *,
    files: tuple[Path, ...],
    folder: Path | None,
    limit: int | None,
    workers: int | str | None,
    ray_address: str | None,
    gpus_per_worker: float | None,
    runtime_env: Path | None,
    retry_failed: bool,
    allow_missing: bool,
) -> None:
    """Ask a benchmark's questions in the arms of CONFIG.

    CONFIG is a YAML file. Several files are one run with all their arms, and work that arms share is done once:
    lvqa eval configs/ablations/*. A run that was interrupted continues where it stopped.

    Every answer is a row of answers.jsonl in the run folder. Options override -s, and -s overrides CONFIG. A method
    that is a Python file (own.py) is a selector of your own: its code is run.
    """
    from lvqa.evaluation.run import check_run
    from lvqa.evaluation.run import evaluate as run_benchmark

    options = {
        "benchmark.limit": limit,
        "workers": workers,
        "ray_address": ray_address,
        "gpus_per_worker": gpus_per_worker,
        "runtime_env": runtime_env and str(runtime_env),
        "allow_missing": allow_missing or None,
    }
    config = _run_config(files, run_overrides(common, options))
    check_run(config)
    _make_missing_videos(config, quiet=common.quiet)
    prepare = functools.partial(silence_libraries, downloads=common.shows_downloads)
    name = files[0].stem if len(files) == 1 else files[0].absolute().parent.name
    with Progress(quiet=common.quiet) as progress:
        run = run_benchmark(
            config,
            folder or Path("runs") / name,
            progress=progress,
            prepare=prepare,
            status=progress.status,
            retry_failed=retry_failed,
        )
    click.echo(_summary(run))
    if run.num_failed or run.num_unjudged:
        _advise(run)


def _run_config(files: Sequence[Path], overrides: Sequence[str]) -> RunConfig:
    """Return the run of these files. If there are several, the arms of "2_pool_size.yaml" are "pool size: ..."."""
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
    """Make the videos of `benchmark.make`. It replaces the questions in the folder, so they must be synthetic, too."""
    from lvqa.records import LvqaError

    folder, make = config.benchmark.folder, config.benchmark.make
    if folder is None or make is None:
        return
    try:
        lines = (folder / "video_info.meta.jsonl").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    if not all(any(marker in line for marker in SYNTHETIC_MARKERS) for line in lines):
        raise LvqaError(
            f"benchmark.make would overwrite the questions in {folder}, which are not about synthetic videos"
        )
    make_videos_with_progress(folder, make, quiet=quiet)


def _advise(run: Run) -> None:
    """Say what to do about answers that failed or wait for their judge; exit code 3 if they are more than a few."""
    from lvqa.records import counted

    if run.num_unjudged:
        echo_message(
            f"{counted(run.num_unjudged, 'open answer')} could not be judged, and count neither as correct nor as "
            f"wrong{_why_unjudged(run)}: run the same command again, and they are judged"
        )
    if run.num_failed_by_place:
        echo_message(
            f"{counted(run.num_failed_by_place, 'answer')} failed by what the machines did, not by a question or a "
            "video: run the same command again, and they are asked again"
        )
    if run.num_failed > run.num_failed_by_place:
        echo_message(f"look into {one_line(run.folder / 'logs')}; --retry-failed asks all failed questions again")
    if run.rows and run.num_failed == len(run.rows):
        click.get_current_context().exit(1)
    if run.num_unjudged or run.num_failed_by_place or run.num_failed > MAX_FAILED_SHARE * len(run.rows):
        click.get_current_context().exit(3)


def _why_unjudged(run: Run) -> str:
    """Return what a judge said of one answer in place of yes or no, in brackets; "" if it was not reached."""
    from lvqa.evaluation import is_unjudged
    from lvqa.records import shorten

    texts = [row["judge_text"] for row in run.rows if is_unjudged(row) and row["judge_text"]]
    return f" (the judge replied {shorten(texts[0])})" if texts else ""


def _summary(run: Run) -> str:
    """Return the overview of the run, its numbers of answers, and the command for the full report."""
    from lvqa.records import counted
    from lvqa.report.conditions import NamedRun, conditions_of, failed_share
    from lvqa.report.tables import overview_table, to_markdown

    named = NamedRun(run.folder.name, run)
    table = to_markdown(overview_table(conditions_of([named])))
    numbers = f"{counted(run.num_questions, 'question')}, {counted(len(run.rows), 'answer')}, "
    numbers += f"{run.num_failed} of them failed (counted as wrong)"
    if run.missing:
        numbers += f"; {counted(len(run.missing), 'video')} {'is' if len(run.missing) == 1 else 'are'} missing"
    return f"{failed_share([named])}\n\n{table}\n\n{numbers}; more: lvqa report {one_line(run.folder)}"


@click.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUN ...", type=click.Path(path_type=Path))
@click.option(
    "--html",
    metavar="F.html",
    type=click.Path(path_type=Path),
    help="Write the page to this file.  [default: report.html in RUN; beside the first of several]",
)
@click.option(
    "--csv",
    metavar="F.csv",
    type=click.Path(path_type=Path),
    help="Write the figures to this file.  [default: as the page, .csv]",
)
@click.option(
    "--latex",
    metavar="F.tex",
    type=click.Path(path_type=Path),
    help="Write the tables and a methods paragraph in LaTeX, for the package booktabs.",
)
@click.option(
    "--figures",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Write every plot into this folder as PDF, SVG and PNG.",
)
@click.option(
    "--submissions",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Write the files that LVBench, Video-MME, LongVideoBench or MLVU take into this folder.",
)
@click.option("--view", metavar="URL", help="Link the page's plot to the runs' questions: a page of lvqa view.")
@click.option("--quiet", is_flag=True, help="Print no remarks.")
def report(
    *,
    runs: tuple[Path, ...],
    html: Path | None,
    csv: Path | None,
    latex: Path | None,
    figures: Path | None,
    submissions: Path | None,
    view: str | None,
    quiet: bool,
) -> None:
    """Report the results of run folders: tables and plots.

    The tables are printed in Markdown. A page with the tables and plots, and a CSV file, are written as well.
    """
    from lvqa.report import Report

    html = html or _default_page(runs)
    csv = csv or html.with_suffix(".csv")
    result = Report(runs)
    click.echo(result.to_markdown(), nl=False)  # first, since a file may not be written
    result.write(html=html, csv=csv, latex=latex, figures=figures, submissions=submissions, view=view)
    if not quiet:
        files = [str(path) for path in (html, csv, latex, figures, submissions) if path is not None]
        echo_message(f"written: {', '.join(files)}")


def _default_page(runs: Sequence[Path]) -> Path:
    """Return where the page of these runs is written: a report of several runs never replaces that of one."""
    if len(runs) == 1:
        return runs[0] / "report.html"
    names = "-".join(run.resolve().name for run in runs)[:100]
    return runs[0].resolve().parent / f"report-{names}.html"

"""`lvqa retrieve`: run a retrieval dataset in several arms."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lvqa.cli.evaluate import MAX_FAILED_SHARE
from lvqa.cli.main import CommonOptions, common_options, silence_libraries
from lvqa.cli.ray_options import run_overrides, worker_options
from lvqa.cli.terminal import Progress, echo_message, one_line

if TYPE_CHECKING:
    from lvqa.evaluation.retrieval.run import RetrieveRun
    from lvqa.evaluation.retrieval.settings import RetrieveConfig


@click.command()
@click.argument("file", metavar="CONFIG", type=click.Path(path_type=Path))
@click.option(
    "--folder",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Write the run into this folder.  [default: runs/ and the name of CONFIG]",
)
@click.option("--limit", metavar="N", type=int, help="Search only the first N queries of each set.")
@worker_options()
@click.option("--retry-failed", is_flag=True, help="Do all again that failed.")
@common_options
def retrieve(
    common: CommonOptions,
    *,
    file: Path,
    folder: Path | None,
    limit: int | None,
    workers: int | str | None,
    ray_address: str | None,
    gpus_per_worker: float | None,
    runtime_env: Path | None,
    retry_failed: bool,
) -> None:
    """Rank a dataset's candidates in the arms of CONFIG.

    CONFIG is a YAML file that names a retrieval dataset: MMEB, MMEB-V2's videos, Flickr30K, COCO, ShareGPT4V, Urban1K,
    SugarCrepe, or sets of your own. A run that was interrupted continues where it stopped.

    Every ranking is a row of rankings.jsonl in the run folder. The tables are printed in Markdown, and written into
    report.md; the folder vlm2vec has the files that VLM2Vec's evaluation writes. Options override -s, and -s overrides
    CONFIG.
    """
    from lvqa.evaluation.retrieval.run import retrieve as run_dataset
    from lvqa.evaluation.retrieval.settings import load_retrieve_config

    options = {
        "dataset.queries": limit,
        "workers": workers,
        "ray_address": ray_address,
        "gpus_per_worker": gpus_per_worker,
        "runtime_env": runtime_env and str(runtime_env),
    }
    config = load_retrieve_config(file, run_overrides(common, options))
    _make_missing_sets(config)
    with Progress(quiet=common.quiet) as progress:
        run = run_dataset(
            config,
            folder or Path("runs") / file.stem,
            progress=progress,
            prepare=functools.partial(silence_libraries, downloads=common.shows_downloads),
            status=progress.status,
            retry_failed=retry_failed,
        )
    _print_tables(run)
    _advise(run)


def _make_missing_sets(config: RetrieveConfig) -> None:
    """Make the sets of `dataset.make`."""
    from lvqa.validation import require

    settings = config.dataset
    if settings.make is None or settings.folder is None:
        return
    require(settings.name == "own", "dataset.name", settings.name, "own, where dataset.make makes synthetic sets")
    from lvqa.synthetic.retrieval import make_sets

    make_sets(settings.folder, queries=settings.make.queries, seed=settings.make.seed)


def _print_tables(run: RetrieveRun) -> None:
    """Print the tables, and write them into the run folder."""
    from lvqa.files import write_atomically
    from lvqa.records import LvqaError
    from lvqa.report.rankings import rankings_page

    page = rankings_page(run)
    click.echo(page)
    try:
        write_atomically(run.folder / "report.md", page + "\n")
    except OSError as error:
        raise LvqaError(f"cannot write {run.folder / 'report.md'}: {error.strerror or error}") from error


def _advise(run: RetrieveRun) -> None:
    """Say what to do about rankings that failed; exit code 3 if they are more than a few, 1 if there is no other."""
    from lvqa.records import counted

    if run.num_failed_by_place:
        echo_message(
            f"{counted(run.num_failed_by_place, 'ranking')} failed by what the machines did, not by a query: run the "
            "same command again, and they are made again"
        )
    if run.num_failed > run.num_failed_by_place:
        failed = counted(run.num_failed - run.num_failed_by_place, "ranking")
        echo_message(
            f"{failed} failed (counted as wrong); look into {one_line(run.folder / 'rankings.jsonl')}; "
            "--retry-failed makes all failed ones again"
        )
    if run.rows and run.num_failed == len(run.rows):
        click.get_current_context().exit(1)
    if run.num_failed_by_place or run.num_failed > MAX_FAILED_SHARE * len(run.rows):
        click.get_current_context().exit(3)

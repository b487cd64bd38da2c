"""`lvqa index`: index one video in this process, or many in workers."""

from __future__ import annotations

import functools
import time
from collections.abc import Generator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lvqa.cli.main import CommonOptions, common_options, inspect_video, silence_libraries
from lvqa.cli.terminal import Progress, echo_message, one_line, print_json

if TYPE_CHECKING:
    from lvqa.config import Config
    from lvqa.library import Indexed


@click.command()
@click.argument("paths", nargs=-1, required=True, metavar="PATH ...", type=click.Path(path_type=Path))
@click.option("--rebuild", is_flag=True, help="Rebuild an index that exists, for example a damaged one.")
@click.option("--workers", type=int, default=0, show_default=True, help="Number of worker processes on Ray; 0: no Ray.")
@click.option("--ray-address", metavar="HOST:PORT", help="Run the workers on this Ray cluster.")
@click.option(
    "--gpus-per-worker",
    type=float,
    default=0,
    show_default=True,
    help="Give each worker this share of GPUs; 0.5: two workers share one.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object for each file.")
@common_options
def index(
    common: CommonOptions,
    *,
    paths: tuple[Path, ...],
    rebuild: bool,
    workers: int,
    ray_address: str | None,
    gpus_per_worker: float,
    as_json: bool,
) -> None:
    """Index videos, so that later questions start at once.

    PATH is a video file, or a folder: then all video files in it are indexed. One file is indexed in this process.
    Several files are indexed in another process, so that a file that crashes it costs no other file. With --workers,
    they are indexed in as many processes, which also share the work on long videos.
    """
    config = common.config()
    videos, failures = videos_in(paths)
    num_items = len(videos) + len(failures)
    if num_items == len(videos) == 1 and not workers and ray_address is None:
        results = _index_here(common, config, videos[0], rebuild=rebuild)
    else:
        results = _index_in_workers(
            common,
            config,
            videos,
            rebuild=rebuild,
            workers=workers,
            address=ray_address,
            gpus_per_worker=gpus_per_worker,
        )
    with closing(results):
        for result in results:
            if result.error is not None:
                failures.append((result.path, result.error))
                echo_message(result.error)
            else:
                _print_result(result, as_json=as_json)
    for path, message in failures:
        if as_json:
            print_json({"path": str(path), "error": message})
    if failures:
        click.get_current_context().exit(1 if len(failures) == num_items else 3)


def videos_in(paths: Sequence[Path]) -> tuple[list[Path], list[tuple[Path, str]]]:
    """Return the video files at these paths, in order, and each folder without any, with a message."""
    from lvqa.records import VIDEO_SUFFIXES

    videos: list[Path] = []
    failures: list[tuple[Path, str]] = []
    for path in paths:
        if not path.is_dir():
            videos.append(path)
            continue
        try:
            files = sorted(file for file in path.iterdir() if file.suffix.lower() in VIDEO_SUFFIXES and file.is_file())
        except OSError as error:
            files = []
            message = f"{path}: {error.strerror}"
        else:
            message = f"{path}: this folder contains no video file; looked for {', '.join(sorted(VIDEO_SUFFIXES))}"
        videos += files
        if not files:
            failures.append((path, message))
            echo_message(message)
    return videos, failures


def _index_here(common: CommonOptions, config: Config, path: Path, *, rebuild: bool) -> Generator[Indexed]:
    inspect_video(path, config)
    from lvqa.library import Indexed
    from lvqa.records import LvqaError

    with common.load_pipeline(config) as qa:
        started = time.perf_counter()
        try:
            use = qa.index(path, rebuild=rebuild)
        except LvqaError as error:
            yield Indexed(path, None, str(error), time.perf_counter() - started)
        else:
            yield Indexed(path, use, None, time.perf_counter() - started)


def _index_in_workers(
    common: CommonOptions, config: Config, paths: Sequence[Path], *, rebuild: bool, **ray_options: Any
) -> Generator[Indexed]:
    if paths:
        from lvqa.library import index_videos

        prepare = functools.partial(silence_libraries, downloads=common.shows_downloads)
        with Progress(quiet=common.quiet) as progress:
            yield from index_videos(paths, config, rebuild=rebuild, progress=progress, prepare=prepare, **ray_options)


def _print_result(result: Indexed, *, as_json: bool) -> None:
    from lvqa.records import counted

    use = result.use
    assert use is not None
    if as_json:
        index = {"path": str(result.path), "reused": use.reused, "clips": use.clips, "index": str(use.path)}
        print_json({**index, "seconds": round(result.seconds, 4), "error": None})
    else:
        outcome = "already indexed" if use.reused else f"indexed in {result.seconds:.1f} s"
        click.echo(f"{one_line(result.path)}: {counted(use.clips, 'clip')}, {outcome}")

"""`lvqa index`: one video in this process, or many in workers."""

from __future__ import annotations

import functools
import time
from collections.abc import Generator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lvqa.cli.main import Setup, common, probed, silence
from lvqa.cli.terminal import Progress, one_line, print_json, say

if TYPE_CHECKING:
    from lvqa.config import Config
    from lvqa.library import Indexed


@click.command()
@click.argument("paths", nargs=-1, required=True, metavar="PATH ...", type=click.Path(path_type=Path))
@click.option("--rebuild", is_flag=True, help="Make it anew, even if there is one; mends a damaged index.")
@click.option("--workers", type=int, default=0, show_default=True, help="Processes over Ray; 0: no Ray.")
@click.option("--ray-address", metavar="HOST:PORT", help="A Ray cluster to work on, rather than this machine.")
@click.option("--gpus-per-worker", type=float, default=0, show_default=True, help="0.5: two workers share a GPU.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a file.")
@common
def index(
    setup: Setup,
    *,
    paths: tuple[Path, ...],
    rebuild: bool,
    workers: int,
    ray_address: str | None,
    gpus_per_worker: float,
    as_json: bool,
) -> None:
    """Index video files, or all video files in folders, so that later questions start at once.

    One file is indexed in this process. Several are in a process of their own, so that a file that kills it costs no
    other, or in as many as --workers says, which share long videos too.
    """
    config = setup.config()
    videos, failures = videos_in(paths)
    num_items = len(videos) + len(failures)
    if num_items == len(videos) == 1 and not workers and ray_address is None:
        done = _in_this_process(setup, config, videos[0], rebuild=rebuild)
    else:
        done = _in_workers(
            setup,
            config,
            videos,
            rebuild=rebuild,
            workers=workers,
            address=ray_address,
            gpus_per_worker=gpus_per_worker,
        )
    with closing(done):
        for indexed in done:
            if indexed.error is not None:
                failures.append((indexed.path, indexed.error))
                say(indexed.error)
            else:
                _tell(indexed, as_json=as_json)
    for path, message in failures:
        if as_json:
            print_json({"path": str(path), "error": message})
    if failures:
        click.get_current_context().exit(1 if len(failures) == num_items else 3)


def videos_in(paths: Sequence[Path]) -> tuple[list[Path], list[tuple[Path, str]]]:
    """The files that are meant, in order, and the folders in which there is none."""
    from lvqa.records import VIDEO_SUFFIXES

    videos: list[Path] = []
    failures: list[tuple[Path, str]] = []
    for path in paths:
        if not path.is_dir():
            videos.append(path)
            continue
        try:
            held = sorted(file for file in path.iterdir() if file.suffix.lower() in VIDEO_SUFFIXES and file.is_file())
        except OSError as error:
            held = []
            message = f"{path}: {error.strerror}"
        else:
            message = f"{path}: this folder holds no video file; looked for {', '.join(sorted(VIDEO_SUFFIXES))}"
        videos += held
        if not held:
            failures.append((path, message))
            say(message)
    return videos, failures


def _in_this_process(setup: Setup, config: Config, path: Path, *, rebuild: bool) -> Generator[Indexed]:
    probed(path, config)
    from lvqa.library import Indexed
    from lvqa.records import LvqaError

    with setup.loaded(config) as qa:
        started = time.perf_counter()
        try:
            use = qa.index(path, rebuild=rebuild)
        except LvqaError as error:
            yield Indexed(path, None, str(error), time.perf_counter() - started)
        else:
            yield Indexed(path, use, None, time.perf_counter() - started)


def _in_workers(
    setup: Setup, config: Config, paths: Sequence[Path], *, rebuild: bool, **where: Any
) -> Generator[Indexed]:
    if paths:
        from lvqa.library import index_videos

        prepare = functools.partial(silence, downloads=setup.shows_downloads)
        with Progress(quiet=setup.quiet) as progress:
            yield from index_videos(paths, config, rebuild=rebuild, progress=progress, prepare=prepare, **where)


def _tell(indexed: Indexed, *, as_json: bool) -> None:
    use = indexed.use
    assert use is not None
    if as_json:
        told = {"path": str(indexed.path), "reused": use.reused, "clips": use.clips, "index": str(use.path)}
        print_json({**told, "seconds": round(indexed.seconds, 4), "error": None})
    else:
        done = "already indexed" if use.reused else f"indexed in {indexed.seconds:.1f} s"
        click.echo(f"{one_line(indexed.path)}: {use.clips} clips, {done}")

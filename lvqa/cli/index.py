"""`lvqa index`: index one video in this process, or many in workers."""

from __future__ import annotations

import functools
import itertools
import logging
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from lvqa.cli.main import CommonOptions, common_options, inspect_video, silence_libraries
from lvqa.cli.ray_options import worker_options
from lvqa.cli.remote import check_alone, index_server, server_option
from lvqa.cli.terminal import Location, Progress, echo_message, echo_result, echo_warnings, one_line, print_json

if TYPE_CHECKING:
    from lvqa.config import Config
    from lvqa.library import Indexed

_log = logging.getLogger(__name__)


@click.command()
@click.argument("paths", nargs=-1, required=True, metavar="PATH ...", type=Location())
@click.option("--recursive", is_flag=True, help="Index the videos in the subfolders of a folder, too.")
@click.option("--rebuild", is_flag=True, help="Rebuild an index that exists, for example a damaged one.")
@worker_options(default=0)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object for each file.")
@click.option("--upload", is_flag=True, help="With --server: send the files there first, and index them there.")
@server_option
@common_options
def index(
    common: CommonOptions,
    *,
    paths: tuple[Path, ...],
    recursive: bool,
    rebuild: bool,
    workers: int | Literal["max"],
    ray_address: str | None,
    gpus_per_worker: float,
    runtime_env: Path | None,
    as_json: bool,
    upload: bool,
    server: str | None,
) -> None:
    """Index videos, so that later questions start at once.

    PATH is a video file, or a folder, here or at s3://BUCKET/FOLDER or gs://: then all video files in it are indexed,
    and with --recursive those in its subfolders, too. One file is indexed in this process. Several files are indexed in
    another process, so that a file that crashes it costs no other file. With --workers, they are indexed in as many
    processes, which also share the work on long videos.
    """
    if upload and server is None:
        raise click.UsageError("--upload goes with --server URL")
    videos, failures = videos_in(paths, recursive=recursive)
    num_items = len(videos) + len(failures)
    if server is not None:
        check_alone(common, {"--workers": workers, "--ray-address": ray_address})
        num_failed = index_server(common, server, videos, upload=upload, rebuild=rebuild, as_json=as_json)
        return _exit(num_failed + len(failures), num_items)
    config = common.config()
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
            runtime_env=runtime_env,
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
    _exit(len(failures), num_items)


def _exit(num_failed: int, num_items: int) -> None:
    """End with the exit code that says how many have failed: none, all or some."""
    if num_failed:
        click.get_current_context().exit(1 if num_failed == num_items else 3)


def videos_in(paths: Sequence[Path], *, recursive: bool = False) -> tuple[list[Path], list[tuple[Path, str]]]:
    """Return the video files at these paths, and which folders hold none or can't be read.

    Args:
        paths: Files, which are returned as they are, and folders.
        recursive: Whether the folders' subfolders are searched, too. If not, a warning says that they hold videos.

    Returns:
        The video files, in the order of the paths, of the folders and of their names; and folders, with a message each.
    """
    videos: list[Path] = []
    failures: list[tuple[Path, str]] = []
    for path in paths:
        if path.is_dir():
            files, problems = _search_folder(path, recursive=recursive)
            videos += files
            failures += problems
        else:
            videos.append(path)
    for _, message in failures:
        echo_message(message)
    return videos, failures


def _search_folder(path: Path, *, recursive: bool) -> tuple[list[Path], list[tuple[Path, str]]]:
    """Do for one folder what `videos_in` does for paths."""
    from lvqa.records import VIDEO_SUFFIXES

    unreadable: list[OSError] = []
    by_folder = _videos_by_folder(path, unreadable)
    files = list(itertools.chain.from_iterable(by_folder)) if recursive else next(by_folder, [])
    problems = [(Path(error.filename or path), _reason(error)) for error in unreadable]
    below = next(filter(None, by_folder), None)  # nothing if all were searched
    if below and files:
        _log.warning("%s: its subfolders hold videos, too, for example %s; add --recursive", path, below[0])
    if not files and not problems:
        looked_for = f"looked for {', '.join(sorted(VIDEO_SUFFIXES))}"
        advice = f"its subfolders do, for example {below[0]}: add --recursive" if below else looked_for
        problems.append((path, f"{path}: this folder contains no video file; {advice}"))
    return files, problems


def _reason(error: OSError) -> str:
    return f"{error.filename}: {error.strerror}" if error.filename else str(error)


def _videos_by_folder(path: Path, unreadable: list[OSError]) -> Iterator[list[Path]]:
    """Yield the video files of a folder, and then of each folder below it, by name; links to folders are not followed.

    Args:
        path: The folder.
        unreadable: Gets the error of each folder that can't be read.
    """
    from lvqa.places import files_by_folder
    from lvqa.records import VIDEO_SUFFIXES

    for files in files_by_folder(path, unreadable.append):
        yield [file for file in files if file.suffix.lower() in VIDEO_SUFFIXES]


def _index_here(common: CommonOptions, config: Config, path: Path, *, rebuild: bool) -> Generator[Indexed]:
    video = inspect_video(path, config)
    from lvqa.library import Indexed
    from lvqa.records import LvqaError

    with common.load_pipeline(config) as qa:
        started = time.perf_counter()
        try:
            use = qa.index(path, rebuild=rebuild)
        except LvqaError as error:
            yield Indexed(path, None, str(error), time.perf_counter() - started, video=video)
        else:
            yield Indexed(path, use, None, time.perf_counter() - started, video=video)


def _index_in_workers(
    common: CommonOptions, config: Config, paths: Sequence[Path], *, rebuild: bool, **ray_options: Any
) -> Generator[Indexed]:
    if paths:
        from lvqa.library import index_videos

        prepare = functools.partial(silence_libraries, downloads=common.shows_downloads)
        with Progress(quiet=common.quiet) as progress:
            yield from index_videos(
                paths,
                config,
                rebuild=rebuild,
                progress=progress,
                prepare=prepare,
                status=progress.status,
                **ray_options,
            )


def _print_result(result: Indexed, *, as_json: bool) -> None:
    from lvqa.records import counted

    use, video = result.use, result.video
    assert use is not None and video is not None
    if as_json:
        index = {"path": str(result.path), "reused": use.reused, "clips": use.clips, "index": str(use.path)}
        file = {"id": video.id, "duration_seconds": video.duration_seconds, "warnings": result.warnings}
        damage = {"frames": use.frames, "frames_substituted": use.frames_substituted}
        print_json({**index, "seconds": round(result.seconds, 4), **file, **damage, "error": None})
    else:
        outcome = "already indexed" if use.reused else f"indexed in {result.seconds:.1f} s"
        echo_result(f"{one_line(result.path)}: {counted(use.clips, 'clip')}, {outcome}")
    echo_warnings(video.path, result.warnings)

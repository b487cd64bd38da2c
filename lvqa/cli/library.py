"""`lvqa library`: list the videos that the store knows, forget one, prune what is of no use any more."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lvqa.cli.terminal import Location, echo_message, one_line, print_json

if TYPE_CHECKING:
    from lvqa.library import Library, LibraryVideo, Removal, StoredIndex


def _library_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options of all subcommands."""
    options = (
        click.option("--store", metavar="DIR", type=Location(), help="Look at the store in this folder."),
        click.option("--json", "as_json", is_flag=True, help="Print one JSON object."),
    )
    for option in reversed(options):
        command = option(command)
    return command


@click.group(short_help="List, forget and prune what is kept of videos.")
def library() -> None:
    """List, forget and prune what is kept of videos.

    The store keeps indexes, visual tokens and what is known of files. The files of the videos themselves are only read.
    """


@library.command("list")
@_library_options
def list_videos(*, store: Path | None, as_json: bool) -> None:
    """List the videos that the store knows.

    A video is ok; moved: its file was found under another name, which is known from now on; changed: another content
    lies at its last known path; missing; or unreadable. A file whose size or times changed is hashed again.
    """
    from lvqa.records import counted

    opened = _open(store)
    videos = opened.videos()
    if as_json:
        print_json({"store": str(opened.store.folder), "videos": [_video_json(video) for video in videos]})
        return
    for video in videos:
        click.echo(_video_line(video))
        for index in video.indexes:
            click.echo(f"{'':10} {_index_line(index)}")
    total, tokens = sum(video.num_bytes for video in videos), sum(video.num_token_bytes for video in videos)
    sizes = f"{size_text(total)} ({size_text(tokens)} of it visual tokens)"
    echo_message(f"{counted(len(videos), 'video')}, {sizes} in {opened.store.folder}")


@library.command()
@click.argument("video")
@_library_options
def forget(*, video: str, store: Path | None, as_json: bool) -> None:
    """Remove all that is kept of VIDEO: indexes, visual tokens, what is known of its file.

    VIDEO is the path of a file, which may be gone, or an id. The file itself is not touched. Equal files are one video.
    """
    opened = _open(store)
    _print_removals(opened, opened.forget(video), as_json=as_json, dry_run=False)


@library.command()
@click.option("--dry-run", is_flag=True, help="Remove nothing; print what would be removed.")
@_library_options
def prune(*, dry_run: bool, store: Path | None, as_json: bool) -> None:
    """Remove what is kept of videos that are gone, what can't be read, and visual tokens that no index was made of.

    A video is gone if its file is missing, or has another content. What this version of lvqa can't read was made by
    another one, or is damaged. Files of videos are not touched. A disk that is not mounted looks like missing files.
    """
    opened = _open(store)
    _print_removals(opened, opened.prune(dry_run=dry_run), as_json=as_json, dry_run=dry_run)


def _open(store: Path | None) -> Library:
    from lvqa.index import Store
    from lvqa.library import Library

    return Library(Store(store))


def size_text(num_bytes: int) -> str:
    """Return a size for people: "812 bytes", "1.6 MB"."""
    size, unit = float(num_bytes), "bytes"
    for larger in ("kB", "MB", "GB", "TB"):
        if size < 1000:
            break
        size, unit = size / 1000, larger
    return f"{size:.0f} {unit}" if unit == "bytes" or size >= 100 else f"{size:.1f} {unit}"


def _name(video: LibraryVideo) -> str:
    return "(no known path)" if video.location.path is None else one_line(video.location.path)


def _video_line(video: LibraryVideo) -> str:
    from lvqa.report import clock

    duration = "" if video.duration_seconds is None else clock(video.duration_seconds)
    previous = video.location.previous_path
    was = "" if previous is None else f"  (was {one_line(previous)})"
    return f"{video.location.state:10} {duration:>8}  {_name(video)}{was}  id {video.id}, {size_text(video.num_bytes)}"


def _index_line(index: StoredIndex) -> str:
    from lvqa.records import counted

    if index.problem is not None:
        return f"index of no use: {one_line(index.problem)}; lvqa library prune removes it"
    return f"index of {index.model}: {counted(index.num_clips, 'clip')}, {size_text(index.num_bytes)}"


def _video_json(video: LibraryVideo) -> dict[str, Any]:
    location = video.location
    return {
        "id": video.id,
        "path": None if location.path is None else str(location.path),
        "state": location.state,
        "previous_path": None if location.previous_path is None else str(location.previous_path),
        "duration_seconds": video.duration_seconds,
        "bytes": video.num_bytes,
        "visual_token_bytes": video.num_token_bytes,
        "indexes": [
            {
                "model": index.model,
                "clips": index.num_clips,
                "bytes": index.num_bytes,
                "path": str(index.path),
                "problem": index.problem,
            }
            for index in video.indexes
        ],
    }


def _print_removals(opened: Library, removals: list[Removal], *, as_json: bool, dry_run: bool) -> None:
    from lvqa.records import counted

    total = sum(removal.num_bytes for removal in removals)
    if as_json:
        print_json({"dry_run": dry_run, "bytes": total, "removed": [_removal_json(removal) for removal in removals]})
        return
    for removal in removals:
        name = removal.files[0].name if removal.video is None else f"{_name(removal.video)}, id {removal.video.id}"
        click.echo(f"{name}: {removal.reason}; {counted(len(removal.files), 'file')}, {size_text(removal.num_bytes)}")
    verb = "would be removed" if dry_run else "removed"
    echo_message(f"{size_text(total)} {verb} from {opened.store.folder}; no file of a video is touched")


def _removal_json(removal: Removal) -> dict[str, Any]:
    video = removal.video
    return {
        "id": None if video is None else video.id,
        "path": None if video is None or video.location.path is None else str(video.location.path),
        "reason": removal.reason,
        "files": [str(path) for path in removal.files],
        "bytes": removal.num_bytes,
    }

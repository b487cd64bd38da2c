"""The options that say which videos of the library a command takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from lvqa.library import LibraryFilter

_DATE = click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S"])


def library_filters(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options; the command gets them as keyword arguments, and `filter_of` reads these."""
    options = (
        click.option("--video", metavar="V", multiple=True, help="With --library: take this video, a path or an id."),
        click.option("--folder", metavar="DIR", help="With --library: take the videos in this folder and below it."),
        click.option("--since", type=_DATE, help="With --library: take files that were changed then or later."),
        click.option("--until", type=_DATE, help="With --library: take files that were changed before then."),
        click.option("--min-minutes", type=float, help="With --library: take videos that are as long, or longer."),
        click.option("--max-minutes", type=float, help="With --library: take videos that are as long, or shorter."),
    )
    for option in reversed(options):
        command = option(command)
    return command


def filter_of(conditions: Mapping[str, Any], *, library: bool) -> LibraryFilter:
    """Return the filter that the options make.

    Raises:
        click.UsageError: One was given without --library.
    """
    from lvqa.library import LibraryFilter
    from lvqa.places import as_path

    given = [f"--{name.replace('_', '-')}" for name, value in conditions.items() if value not in (None, ())]
    if given and not library:
        raise click.UsageError(f"{', '.join(given)} {'goes' if len(given) == 1 else 'go'} with --library")
    folder = conditions["folder"]
    return LibraryFilter(
        videos=tuple(map(_video, conditions["video"])),
        folder=None if folder is None else as_path(folder).absolute(),
        since=_seconds(conditions["since"]),
        until=_seconds(conditions["until"]),
        min_seconds=_in_seconds(conditions["min_minutes"]),
        max_seconds=_in_seconds(conditions["max_minutes"]),
    )


def _video(text: str) -> str:
    """Return an id as it is, and a path absolute: an id has neither a point nor a slash."""
    from lvqa.places import as_path

    return text if text.isalnum() and not Path(text).exists() else str(as_path(text).absolute())


def _seconds(moment: datetime | None) -> float | None:
    return None if moment is None else moment.timestamp()


def _in_seconds(minutes: float | None) -> float | None:
    return None if minutes is None else 60 * minutes

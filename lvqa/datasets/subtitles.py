"""Subtitles as benchmarks publish them: a file for each video, in three forms."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from lvqa.records import LvqaError, Subtitle, shorten
from lvqa.validation import FiniteFloat, convert, decode_json, parse_json

MAX_BYTES = 16 << 20
"""A bound on a file of subtitles; the published ones have a megabyte at most."""


@dataclass(frozen=True, slots=True)
class SubtitleFile:
    """The subtitles of a video, in a file that is read when they are needed."""

    path: Path
    form: str
    """A name in FORMS."""
    video_starts_seconds: float = 0.0
    """Where the video begins on the subtitles' clock, if it was cut from a longer one."""

    def read(self) -> tuple[Subtitle, ...]:
        """Return the subtitles in the order of the file, with times from the beginning of the video.

        Raises:
            LvqaError: The file can't be read.
        """
        try:
            if (size := self.path.stat().st_size) > MAX_BYTES:
                raise LvqaError(f"{self.path}: the file has {size >> 20} MiB; allowed: {MAX_BYTES >> 20} MiB")
            content = self.path.read_bytes()
        except OSError as error:
            raise LvqaError(f"{self.path}: {error.strerror or error}") from error
        shift = self.video_starts_seconds
        return tuple(
            Subtitle(line.start_seconds - shift, line.end_seconds - shift, line.text)
            for line in FORMS[self.form](content, str(self.path))
        )


def _srt(content: bytes, origin: str) -> Iterator[Subtitle]:
    """SubRip: blocks with a number, a line of times, and text; marks as in HTML are taken off."""
    text = content.decode("utf-8-sig", errors="replace").replace("\r\n", "\n")
    for block in re.split(r"\n\s*\n", text):
        before, arrow, after = block.partition("-->")
        if arrow:
            end, _, lines = after.partition("\n")
            start = before.strip().rpartition("\n")[2]
            yield Subtitle(_clock(start, origin), _clock(end, origin), _plain(lines))


class _Times(TypedDict, total=False):
    timestamp: tuple[FiniteFloat, FiniteFloat | None]
    text: str
    start: str
    end: str
    line: str


def _longvideobench(content: bytes, origin: str) -> Iterator[Subtitle]:
    """LongVideoBench: a list of {timestamp: [start, end], text}, or of {start, end, line} with clocks."""
    for row in convert(parse_json(content, origin=origin), list[_Times], origin=origin):
        if "timestamp" in row and "text" in row:
            start, end = row["timestamp"]
            yield Subtitle(start, float("inf") if end is None else end, row["text"].strip())
        elif "start" in row and "end" in row and "line" in row:
            yield Subtitle(_clock(row["start"], origin), _clock(row["end"], origin), row["line"].strip())
        else:
            raise LvqaError(f"a subtitle has timestamp and text, or start, end and line; got {shorten(row)} ({origin})")


class _Word(TypedDict):
    text: str
    start_time: FiniteFloat
    end_time: FiniteFloat


def _words(content: bytes, origin: str) -> Iterator[Subtitle]:
    """Video-MME-v2: JSON Lines with a word in each."""
    for i, line in enumerate(content.splitlines(), start=1):
        if line.strip():
            word = decode_json(line, _Word, origin=f"{origin}, line {i}")
            yield Subtitle(word["start_time"], word["end_time"], word["text"].strip())


FORMS: Mapping[str, Callable[[bytes, str], Iterator[Subtitle]]] = {
    "srt": _srt,
    "longvideobench": _longvideobench,
    "words": _words,
}
"""The forms of files."""


def _clock(text: str, origin: str) -> float:
    """Return HH:MM:SS,mmm in seconds; the milliseconds may follow a point, or be left out."""
    match = re.fullmatch(r"\s*(\d{1,3}):(\d{1,2}):(\d{1,2})(?:[.,](\d{1,6}))?\s*", text)
    if match is None:
        raise LvqaError(f"a time of subtitles must be HH:MM:SS,mmm, got {shorten(text)} ({origin})")
    hours, minutes, seconds, fraction = match.groups(default="0")
    return 3600 * int(hours) + 60 * int(minutes) + float(f"{seconds}.{fraction}")


def _plain(text: str) -> str:
    """Return a text without its marks, on one line."""
    return " ".join(re.sub(r"<[^>]*>", "", text).split())

"""Subtitles as benchmarks publish them: a file for each video, in three forms."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from lvqa.records import LvqaError, Subtitle, shorten
from lvqa.subtitles import clock_seconds, parse_srt, read_content
from lvqa.validation import FiniteFloat, convert, decode_json, parse_json


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
        shift = self.video_starts_seconds
        return tuple(
            Subtitle(line.start_seconds - shift, line.end_seconds - shift, line.text)
            for line in FORMS[self.form](read_content(self.path), str(self.path))
        )


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
            yield Subtitle(clock_seconds(row["start"], origin), clock_seconds(row["end"], origin), row["line"].strip())
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
    "srt": parse_srt,
    "longvideobench": _longvideobench,
    "words": _words,
}
"""The forms of files."""

"""Files of subtitles: SubRip (.srt) and WebVTT (.vtt), and which one lies beside a video."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from lvqa.places import PlaceError, RemotePath
from lvqa.records import LvqaError, Subtitle, shorten

MAX_BYTES = 16 << 20
"""A bound on a file of subtitles; the published ones have a megabyte at most."""
MAX_LINES = 100_000
"""So many lines of a video are read at most: a day of speech has a third of that."""
REPEAT_SECONDS = 0.5
"""A line that follows an equal one so soon is the same line: captions that roll up repeat what is still to be seen."""


class SpokenSource(NamedTuple):
    """Where the lines that are said in a video come from."""

    subtitles: str = "off"
    """`auto`, `off` or a file."""
    speech_model: str = ""
    """What writes them down, where there are none."""

    @property
    def is_off(self) -> bool:
        """Whether no lines are wanted."""
        return self.subtitles == "off"


OFF = SpokenSource()
"""No lines are searched or shown."""


def read_content(path: Path) -> bytes:
    """Return the content of a file of subtitles. Raises LvqaError for one that can't be read, or is too large."""
    try:
        if (size := path.stat().st_size) > MAX_BYTES:
            raise LvqaError(f"{path}: the file has {size >> 20} MiB; allowed: {MAX_BYTES >> 20} MiB")
        return path.read_bytes()
    except PlaceError:
        raise
    except OSError as error:
        raise LvqaError(f"{path}: {error.strerror or error}") from error


def parse_srt(content: bytes, origin: str) -> Iterator[Subtitle]:
    """SubRip: blocks with a number, a line of times, and text; marks as in HTML are taken off."""
    for start, end, lines in _blocks(content):
        yield Subtitle(clock_seconds(start, origin), clock_seconds(end, origin), plain_text(lines))


def parse_vtt(content: bytes, origin: str) -> Iterator[Subtitle]:
    """WebVTT: like SubRip, with settings behind the times, hours that may be left out, and characters as in HTML."""
    for start, end, lines in _blocks(content):
        first, last = (clock_seconds(_with_hours(time), origin) for time in (start, (end.split() or [""])[0]))
        yield Subtitle(first, last, html.unescape(plain_text(lines)).replace("\N{NO-BREAK SPACE}", " "))


PARSERS: Mapping[str, Callable[[bytes, str], Iterator[Subtitle]]] = {".srt": parse_srt, ".vtt": parse_vtt}
"""Suffix -> what reads such a file, with the name of it for messages."""


def _blocks(content: bytes) -> Iterator[tuple[str, str, str]]:
    """Yield the start, the end and the text of each block that has times."""
    is_wide = content[:2] in (b"\xff\xfe", b"\xfe\xff")
    text = content.decode("utf-16" if is_wide else "utf-8-sig", errors="replace").replace("\r\n", "\n")
    for block in re.split(r"\n\s*\n", text):
        before, arrow, after = block.partition("-->")
        if arrow:
            end, _, lines = after.partition("\n")
            yield before.strip().rpartition("\n")[2], end, lines


def clock_seconds(text: str, origin: str) -> float:
    """Return HH:MM:SS,mmm in seconds; the milliseconds may follow a point, or be left out."""
    match = re.fullmatch(r"\s*(\d{1,3}):(\d{1,2}):(\d{1,2})(?:[.,](\d{1,6}))?\s*", text)
    if match is None:
        raise LvqaError(f"a time of subtitles must be HH:MM:SS,mmm, got {shorten(text)} ({origin})")
    hours, minutes, seconds, fraction = match.groups(default="0")
    return 3600 * int(hours) + 60 * int(minutes) + float(f"{seconds}.{fraction}")


def _with_hours(time: str) -> str:
    return f"0:{time.strip()}" if time.count(":") == 1 else time


def plain_text(text: str) -> str:
    """Return a text without its marks (<i>, {\\an8}), on one line."""
    return " ".join(re.sub(r"<[^>]*>|\{\\[^}]*\}", "", text).split())


def read_subtitles(path: Path) -> tuple[Subtitle, ...]:
    """Return the lines of a file of subtitles, in the order of the file.

    Raises:
        LvqaError: The file can't be read, or has another suffix than those of PARSERS.
    """
    parse = PARSERS.get(path.suffix.lower())
    if parse is None:
        raise LvqaError(f"{path}: a file of subtitles has the suffix {' or '.join(PARSERS)}")
    return tuple(parse(read_content(path), str(path)))


def sidecar_of(video: Path) -> Path | None:
    """Return the file of subtitles that lies beside a video, or None.

    That is the one with the video's name (talk.srt, talk.vtt), else the English one (talk.en.srt), else the first of
    another language by name. Elsewhere than on this machine only the first two kinds are looked for.
    """
    names = [f"{video.stem}{tag}{suffix}" for tag in ("", ".en") for suffix in PARSERS]
    if not isinstance(video, RemotePath):
        tagged = re.compile(rf"{re.escape(video.stem)}\.[A-Za-z-]{{2,12}}({'|'.join(map(re.escape, PARSERS))})")
        names += sorted(path.name for path in video.parent.iterdir() if tagged.fullmatch(path.name))
    return next((path for name in names if (path := video.with_name(name)).is_file()), None)


def tidied(lines: Iterable[Subtitle], duration_seconds: float) -> tuple[Subtitle, ...]:
    """Return lines in the order of time, inside the video, without empty ones and without repetitions.

    Args:
        lines: As a file has them.
        duration_seconds: Where the video ends.
    """
    inside = (
        Subtitle(max(0.0, line.start_seconds), min(duration_seconds, line.end_seconds), line.text)
        for line in lines
        if line.text and math.isfinite(line.start_seconds) and not math.isnan(line.end_seconds)
    )
    kept: list[Subtitle] = []
    for line in sorted(inside, key=lambda line: line.start_seconds):
        if not line.start_seconds < line.end_seconds:
            continue
        if kept and kept[-1].text == line.text and line.start_seconds - kept[-1].end_seconds <= REPEAT_SECONDS:
            kept[-1] = replace(kept[-1], end_seconds=max(line.end_seconds, kept[-1].end_seconds))
        elif len(kept) < MAX_LINES:
            kept.append(line)
    return tuple(kept)

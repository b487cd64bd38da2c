"""Compare what the header of a file says with what can be read of it: half a download is shorter than its header."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from lvqa.records import SYNTHETIC_TAG
from lvqa.video.container import MATROSKA, MP4, convert_errors, open_stream, packets_of_all_streams
from lvqa.video.timeline import Timeline

if TYPE_CHECKING:
    import av

MISSING_SECONDS, MISSING_SHARE = 2.0, 0.001
"""A file is told to be shorter than its header says from so many seconds on, or this share of it if that is more.

Sound and pictures rarely end together, and headers are rounded: whole files differ by less than a second.
"""

_FORMATS = (MP4, MATROSKA, "avi", "flv", "ivf", "mxf", "rm")
"""The containers whose header says how long they last; of others FFmpeg guesses it from the end or the bit rate."""

_TS_PACKETS = ((188, 0), (192, 4), (204, 0))
"""How many bytes a packet of a transport stream has, and which of them is 0x47: broadcast, Blu-ray, with parity."""

_ASF_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
"""What the header of an ASF file has 40 bytes before the file's size."""


@dataclass(frozen=True, slots=True)
class Header:
    """What a file says of itself before its frames."""

    is_synthetic: bool
    """Whether `lvqa make-videos` made it."""
    warnings: tuple[str, ...]
    """That a part of it is missing: one line, or none."""


def declared_seconds(path: Path) -> float:
    """Return how long a video is by what its header says, 0 if it says nothing; nothing but the header is read.

    Raises:
        VideoError: The file can't be read as a video.
    """
    with convert_errors(path), open_stream(path) as stream:
        return max(0.0, _declared(stream)[0])


def read_header(path: Path, timeline: Timeline) -> Header:
    """Return what the header of a file says, compared with its timeline.

    Raises:
        VideoError, av.error.FFmpegError: The file can't be read as a video.
    """
    with open_stream(path) as stream:
        container = stream.container
        is_synthetic = SYNTHETIC_TAG in (container.metadata.get("comment"), container.metadata.get("COMMENT"))
        format_name, (seconds, is_of_video) = container.format.name, _declared(stream)
    if format_name == "mpegts":
        warnings = _warn_of_partial_packet(path)
    elif format_name == "asf":
        warnings = _warn_of_missing_bytes(path)
    elif format_name in _FORMATS and not timeline.warnings:  # a broken clock can't be compared
        warnings = _warn_of_missing_end(path, timeline, seconds, is_of_video=is_of_video)
    else:
        warnings = ()
    return Header(is_synthetic, warnings)


def _declared(stream: av.VideoStream) -> tuple[float, bool]:
    """Return how many seconds the header says, 0 if it says nothing; and whether that is of the video stream alone."""
    if stream.container.format.name == "avi" and stream.frames and stream.average_rate:
        return float(stream.frames / stream.average_rate), True  # FFmpeg makes the duration smaller itself
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base), True
    # Matroska's track has it as a tag, the time at which the track ends.
    if clock := re.match(r"(\d+):(\d+):(\d+(?:\.\d+)?)", stream.metadata.get("DURATION", "")):
        hours, minutes, seconds = map(float, clock.groups())
        return 3600 * hours + 60 * minutes + seconds, True
    container = cast("av.container.InputContainer", stream.container)
    return (container.duration or 0) / 1e6, False


def _warn_of_missing_end(path: Path, timeline: Timeline, declared: float, *, is_of_video: bool) -> tuple[str, ...]:
    """Return a line if the frames end long before the time that the header says."""
    end = float(timeline.end_tick * timeline.tick_seconds)  # from the container's zero, where the video may begin later
    readable, margin = max(timeline.duration_seconds, end), max(MISSING_SECONDS, MISSING_SHARE * declared)
    if declared - readable < margin:
        return ()
    if not is_of_video and declared - _end_of_all_streams(path) < margin:  # the sound goes on without pictures
        return ()
    return (
        f"its header says {declared:.0f} s, and only {readable:.0f} s can be read: "
        "a part is missing, as after half a download",
    )


def _end_of_all_streams(path: Path) -> float:
    """Return the second at which the last packet of any stream ends, from the container's zero."""
    with open_stream(path) as stream:
        packets = packets_of_all_streams(stream)
        ends = (((packet.pts or 0) + (packet.duration or 0)) * (packet.time_base or 0) for packet in packets)
        return float(max(ends, default=0))


def _warn_of_partial_packet(path: Path) -> tuple[str, ...]:
    """Return a line if a transport stream ends within a packet; it has no header that says how long it lasts."""
    num_bytes, start = path.stat().st_size, _read_start(path)
    sizes = [size for size, sync in _TS_PACKETS if start[sync::size][:3] == b"GGG"]
    if not sizes or num_bytes % sizes[0] == 0:
        return ()
    return ("it ends within a packet, as after half a download; how much is missing can't be known",)


def _warn_of_missing_bytes(path: Path) -> tuple[str, ...]:
    """Return a line if an ASF file is shorter than its header says; FFmpeg does not believe its duration then."""
    start, num_bytes = _read_start(path), path.stat().st_size
    size_at = start.find(_ASF_PROPERTIES) + 40
    declared = int.from_bytes(start[size_at : size_at + 8], "little") if size_at >= 40 else 0
    if declared - num_bytes < MISSING_SHARE * declared:
        return ()
    return (
        f"its header says {declared:,} bytes, and it has {num_bytes:,}: a part is missing, as after half a download",
    )


def _read_start(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(65536)

"""Find the video packets of an MP4 file by its tables, without reading them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from operator import attrgetter
from typing import TYPE_CHECKING

import numpy as np

from lvqa.video.file_bytes import FileBytes

if TYPE_CHECKING:
    import av

_VALUES = attrgetter("timestamp", "pos", "size", "is_keyframe", "is_discard")
"""What FFmpeg's index tells of a sample."""

_RUN = np.dtype([("count", ">u4"), ("delay", ">i4")])
"""So many samples in a row are presented so many ticks after they are decoded; FFmpeg takes all as signed."""


def sample_rows(stream: av.VideoStream, data: FileBytes, *, with_edges: bool) -> np.ndarray | None:
    """Return where the packets of the one video track lie.

    Args:
        stream: The stream, just opened.
        data: The content of its file.
        with_edges: Whether the first and the last byte of each packet are wanted; else they are 0.

    Returns:
        (packets, 7) int64 in decode order, as `block_rows` has them, but for a number that all times of presentation
        lack; None if there may be other packets than those that FFmpeg has listed.
    """
    entries = getattr(stream, "index_entries", ())  # which PyAV has since 17
    if not len(entries) or len(entries) != stream.frames:  # fragments are listed when they are read
        return None
    values = itertools.chain.from_iterable(map(_VALUES, entries))
    listed = np.fromiter(values, np.int64, len(entries) * 5).reshape(-1, 5)
    delays = _delays(data, len(entries))
    if delays is None or listed[:, 4].any():  # an edit list cuts some samples off
        return None
    rows = np.zeros((len(entries), 7), dtype=np.int64)
    rows[:, 1:5] = listed[:, :4]
    rows[:, 0] = rows[:, 1] + delays
    if with_edges and rows[:, 2:4].min() >= 0:
        rows[:, 5] = data.parts(rows[:, 2], 1)[:, 0]
        rows[:, 6] = data.parts(rows[:, 2] + rows[:, 3] - 1, 1)[:, 0]
    return rows


def _delays(data: FileBytes, num_samples: int) -> np.ndarray | None:
    """Return how many ticks after its decoding each sample is presented; None if the tables do not tell.

    FFmpeg does not hand them on.
    """
    headers = [data[begin:end] for name, begin, end in _boxes(data, 0, len(data)) if name == b"moov"]
    tracks = [_within(track, b"mdia") for header in headers for track in _within(header, b"trak")]
    media = [
        parts[0] for parts in tracks if parts and any(part[8:12] == b"vide" for part in _within(parts[0], b"hdlr"))
    ]
    if len(headers) != 1 or len(media) != 1:
        return None
    tables = [table for part in _within(media[0], b"minf") for table in _within(part, b"stbl")]
    delays = [part for table in tables for part in _within(table, b"ctts")]
    if not delays:
        return np.zeros(num_samples, dtype=np.int64)
    runs = np.frombuffer(delays[0][8 : len(delays[0]) // 8 * 8], dtype=_RUN)
    if len(delays) > 1 or int.from_bytes(delays[0][4:8], "big") != len(runs) or int(runs["count"].sum()) != num_samples:
        return None
    return np.repeat(runs["delay"].astype(np.int64), runs["count"])


def _within(content: bytes, name: bytes) -> list[bytes]:
    """Return the contents of the boxes of this name in the content of a box."""
    return [content[begin:end] for kind, begin, end in _boxes(content, 0, len(content)) if kind == name]


def _boxes(data: FileBytes | bytes, begin: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield the name of each box, and where its content begins and ends; none behind one that is damaged."""
    while begin + 8 <= end:
        head = data[begin : begin + 16]
        size, name, header_bytes = int.from_bytes(head[:4], "big"), head[4:8], 8
        if size == 1:
            size, header_bytes = int.from_bytes(head[8:16], "big"), 16
        elif size == 0:
            size = end - begin  # to the end
        if size < header_bytes or begin + size > end:
            return
        yield name, begin + header_bytes, begin + size
        begin += size

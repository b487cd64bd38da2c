"""Find the video packets of a Matroska or WebM file by the heads of its elements, without reading their content."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from lvqa.video.file_bytes import FileBytes

_SEGMENT, _TRACKS, _CLUSTER = 0x18538067, 0x1654AE6B, 0x1F43B675
_TRACK, _TRACK_NUMBER, _TRACK_TYPE, _ENCODINGS, _TIME_SCALE = 0xAE, 0xD7, 0x83, 0x6D80, 0x23314F
_CLUSTER_TIME, _SIMPLE_BLOCK, _BLOCK_GROUP, _BLOCK, _REFERENCE = 0xE7, 0xA3, 0xA0, 0xA1, 0xFB
_SKIPPED_IN_SEGMENT = (0x114D9B74, 0x1549A966, 0x1C53BB6B, 0x1254C367, 0x1043A770, 0x1941A469, 0xEC, 0xBF)
"""Seek heads, titles, cues, tags, chapters, attachments, room, checksums."""
_SKIPPED_IN_CLUSTER = (0xA7, 0xAB, 0xEC, 0xBF)
"""Its position, the size of the one before, room, checksums."""
_KNOWN_IN_GROUP = {_BLOCK, _REFERENCE, 0x9B, 0xEC, 0xBF}
"""Besides: how long the block lasts, room, checksums."""

_VIDEO = 1
_KEYFRAME, _UNUSUAL = 0x80, 0x7E
"""Flags of a block; the second are lacing, that it is invisible, and those that have no meaning."""


class _UnknownLayoutError(Exception):
    """The file has something of which it is not known here what FFmpeg makes of it."""


def block_rows(data: FileBytes) -> np.ndarray | None:
    """Return where the packets of the one video track lie.

    Args:
        data: The content of the file.

    Returns:
        (packets, 7) int64 in the order of the file: the ticks of a packet's presentation and decoding, where it
        begins, its size, whether the file calls it a keyframe, its first byte, its last one; None if the file has
        several video tracks, is cut off, or has elements that are not known here.
    """
    blocks = _Blocks()
    try:
        (segment,) = ((begin, end) for kind, begin, end in _elements(data, 0, len(data)) if kind == _SEGMENT)
        tracks = None
        for kind, begin, end in _elements(data, *segment):
            if kind == _TRACKS:
                tracks = _read_tracks(data, begin, end)
            elif kind == _CLUSTER:
                _read_cluster(data[begin:end], begin, blocks)
            elif kind not in _SKIPPED_IN_SEGMENT:
                raise _UnknownLayoutError
        return None if tracks is None else _rows_of_track(blocks, *tracks)
    except (_UnknownLayoutError, IndexError, ValueError):
        return None


@dataclass(slots=True)
class _Blocks:
    """The blocks of all tracks, in the order of the file."""

    num: int = 0
    rows: list[np.ndarray] = field(default_factory=list)
    """Of each cluster, (blocks, 9) int64: its time, where a block begins and ends, the four bytes of its head, the
    first byte of its packet, and the last one."""
    grouped: dict[int, tuple[bool, bool]] = field(default_factory=dict)
    """A block that lies in a group, by its number -> whether it refers to others, and whether all of it is known."""


def _rows_of_track(blocks: _Blocks, track: int, others: list[int]) -> np.ndarray:
    """Return the rows of one track's blocks; all others must belong to some other tracks."""
    times, begins, ends, number, high, low, flags, first, last = np.concatenate(blocks.rows).T
    is_own = number == track
    is_keyframe = flags & _KEYFRAME != 0
    for i, (has_reference, is_known) in blocks.grouped.items():
        is_keyframe[i] = not has_reference
        if is_own[i] and not is_known:
            raise _UnknownLayoutError
    if not np.isin(number[~is_own], others).all() or np.any(flags[is_own] & _UNUSUAL):
        raise _UnknownLayoutError
    ticks = times + (high << 8 | low) - (high >> 7 << 16)  # a signed number
    rows: np.ndarray = np.stack([ticks, ticks, begins + 4, ends - begins - 4, is_keyframe, first, last], axis=1)[is_own]
    return rows


def _elements(data: FileBytes | bytes, begin: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Yield the id of each element, and where its content begins and ends."""
    while begin < end:
        kind = data[begin]
        if kind < 0x80:
            kind = int.from_bytes(data[begin : begin + 9 - kind.bit_length()], "big")
        begin += 1 + (kind > 0xFF) + (kind > 0xFFFF) + (kind > 0xFFFFFF)
        size = data[begin]
        length, unknown = 9 - size.bit_length(), 0xFF
        if length == 2:  # most are so
            size, unknown = size << 8 | data[begin + 1], 0x7FFF
        elif length > 2:
            size, unknown = int.from_bytes(data[begin : begin + length], "big"), (2 << 7 * length) - 1
        begin += length
        stop = begin + size - (1 << 7 * length)  # the first bit that is set tells of how many bytes a size is
        if stop > end or size == unknown:  # a live stream has no sizes
            raise _UnknownLayoutError
        yield kind, begin, stop
        begin = stop


def _read_tracks(data: FileBytes | bytes, begin: int, end: int) -> tuple[int, list[int]]:
    """Return the number of the one video track, as blocks have it, and those of the others."""
    videos: list[int] = []
    others: list[int] = []
    for kind, track_begin, track_end in _elements(data, begin, end):
        if kind != _TRACK:
            continue
        fields = {kind: (first, last) for kind, first, last in _elements(data, track_begin, track_end)}
        number, media = (
            int.from_bytes(data[slice(*fields[field])], "big") if field in fields else 0
            for field in (_TRACK_NUMBER, _TRACK_TYPE)
        )
        if not 0 < number < 127 or (media == _VIDEO and fields.keys() & {_ENCODINGS, _TIME_SCALE}):
            raise _UnknownLayoutError  # blocks have smaller numbers in one byte
        (videos if media == _VIDEO else others).append(0x80 | number)
    (video,) = videos
    return video, others


def _read_cluster(content: bytes, position: int, blocks: _Blocks) -> None:
    """Append the blocks of a cluster that begins at a position of the file."""
    time, begin = None, 0
    begins: list[int] = []
    ends: list[int] = []
    while begin < len(content):
        if content[begin] == _SIMPLE_BLOCK:  # nearly all elements are so
            begin = _skip_simple_blocks(content, begin, begins, ends)
            continue
        kind, first, begin = next(_elements(content, begin, len(content)))
        if kind == _BLOCK_GROUP:
            elements = {kind: (first, last) for kind, first, last in _elements(content, first, begin)}
            if _BLOCK not in elements:
                raise _UnknownLayoutError
            blocks.grouped[blocks.num + len(begins)] = _REFERENCE in elements, elements.keys() <= _KNOWN_IN_GROUP
            begins.append(elements[_BLOCK][0])
            ends.append(elements[_BLOCK][1])
        elif begins:  # where blocks are, other elements are damage
            raise _UnknownLayoutError
        elif kind == _CLUSTER_TIME:
            time = int.from_bytes(content[first:begin], "big")
        elif kind not in _SKIPPED_IN_CLUSTER:
            raise _UnknownLayoutError
    if time is None:
        raise _UnknownLayoutError
    starts, stops = np.array(begins, np.int64), np.array(ends, np.int64)
    if np.any(stops - starts < 5):
        raise _UnknownLayoutError  # a head alone, without a packet
    data, rows = np.frombuffer(content, dtype=np.uint8), np.empty((len(starts), 9), dtype=np.int64)
    rows[:, 0], rows[:, 1], rows[:, 2] = time, position + starts, position + stops
    rows[:, 3:8], rows[:, 8] = data[starts[:, None] + np.arange(5)], data[stops - 1]
    blocks.rows.append(rows)
    blocks.num += len(starts)


def _skip_simple_blocks(content: bytes, begin: int, begins: list[int], ends: list[int]) -> int:
    """Append where the simple blocks from a position on begin and end; return where something else follows."""
    end = len(content)
    while begin < end and content[begin] == _SIMPLE_BLOCK:
        size = content[begin + 1]
        length, mark = 9 - size.bit_length(), 0x80
        first = begin + 1 + length
        if length == 2:  # most are so
            size, mark = size << 8 | content[begin + 2], 0x4000
        elif length > 2:
            size, mark = int.from_bytes(content[begin + 1 : first], "big"), 1 << 7 * length
        begin = first + size - mark
        if begin > end or size == 2 * mark - 1:  # a live stream has no sizes
            raise _UnknownLayoutError
        begins.append(first)
        ends.append(begin)
    return begin

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

_WINDOW_BYTES = 2 << 20
"""How much of the file is read at once, if a cluster is not larger: little enough for a processor's cache."""

_HEAD_BYTES = 12
"""How long the id and the size of an element are together, at most."""

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
    tracks, clusters = None, []
    try:
        (segment,) = ((begin, end) for kind, begin, end in _elements(data, 0, len(data)) if kind == _SEGMENT)
        for kind, begin, end in _elements(data, *segment):
            if kind == _TRACKS:
                tracks = _read_tracks(data, begin, end)
            elif kind == _CLUSTER:
                clusters.append((begin, end))
            elif kind not in _SKIPPED_IN_SEGMENT:
                raise _UnknownLayoutError
        if tracks is None:
            return None
        return np.concatenate([_rows_of_clusters(data, window, *tracks) for window in _windows(clusters)])
    except (_UnknownLayoutError, IndexError, ValueError):
        return None


@dataclass(slots=True)
class _Blocks:
    """Blocks of all tracks, in the order of the file."""

    begins: list[int] = field(default_factory=list)
    """Where each begins, behind its size."""
    ends: list[int] = field(default_factory=list)
    grouped: dict[int, tuple[bool, bool]] = field(default_factory=dict)
    """A block that lies in a group, by its number -> whether it refers to others, and whether all of it is known."""


def _elements(data: FileBytes | bytes, begin: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Yield the id of each element, and where its content begins and ends."""
    while begin < end:
        head = data[begin : begin + _HEAD_BYTES]
        at = 9 - head[0].bit_length()  # the first bit that is set tells of how many bytes a number is
        kind, length = int.from_bytes(head[:at], "big"), 9 - head[at].bit_length()
        size, mark = int.from_bytes(head[at : at + length], "big"), 1 << 7 * length
        begin += at + length
        stop = begin + size - mark
        if not begin <= stop <= end or size == 2 * mark - 1:  # a live stream has no sizes
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


def _windows(clusters: list[tuple[int, int]]) -> Iterator[list[tuple[int, int]]]:
    """Yield clusters that are read together, since they lie next to each other."""
    window: list[tuple[int, int]] = []
    for begin, end in clusters:
        if window and end - window[0][0] > _WINDOW_BYTES:
            yield window
            window = []
        window.append((begin, end))
    if window:
        yield window


def _rows_of_clusters(data: FileBytes, clusters: list[tuple[int, int]], track: int, others: list[int]) -> np.ndarray:
    """Return the rows of one track's blocks in some clusters; all others must belong to some other tracks.

    Of each cluster it is given where its content begins and ends.
    """
    position = clusters[0][0]
    content = data[position : clusters[-1][1]]
    blocks = _Blocks()
    times, counts = [], []
    for first, last in clusters:
        times.append(_read_cluster(content, first - position, last - position, blocks))
        counts.append(len(blocks.begins))
    begins, ends = np.array(blocks.begins, np.int64), np.array(blocks.ends, np.int64)
    if np.any(ends - begins < 5):
        raise _UnknownLayoutError  # a head alone, without a packet
    octets = np.frombuffer(content, dtype=np.uint8)
    number, high, low, flags, first = octets[begins + np.arange(5)[:, None]].astype(np.int64)
    is_own = number == track
    is_keyframe = flags & _KEYFRAME != 0
    for i, (has_reference, is_known) in blocks.grouped.items():
        is_keyframe[i] = not has_reference
        if is_own[i] and not is_known:
            raise _UnknownLayoutError
    if not np.isin(number[~is_own], others).all() or np.any(flags[is_own] & _UNUSUAL):
        raise _UnknownLayoutError
    ticks = np.repeat(times, np.diff(counts, prepend=0)) + (high << 8 | low) - (high >> 7 << 16)  # a signed number
    columns = [ticks, ticks, position + begins + 4, ends - begins - 4, is_keyframe, first, octets[ends - 1]]
    return np.stack([column[is_own] for column in columns], axis=1)


def _read_cluster(content: bytes, begin: int, end: int, blocks: _Blocks) -> int:
    """Append the blocks of a cluster that lies in some content, and return its time."""
    time, num_before = None, len(blocks.begins)
    while begin < end:
        if content[begin] == _SIMPLE_BLOCK:  # nearly all elements are so
            begin = _skip_simple_blocks(content, begin, end, blocks)
            continue
        kind, first, begin = next(_elements(content, begin, end))
        if kind == _BLOCK_GROUP:
            elements = {kind: (first, last) for kind, first, last in _elements(content, first, begin)}
            if _BLOCK not in elements:
                raise _UnknownLayoutError
            blocks.grouped[len(blocks.begins)] = _REFERENCE in elements, elements.keys() <= _KNOWN_IN_GROUP
            blocks.begins.append(elements[_BLOCK][0])
            blocks.ends.append(elements[_BLOCK][1])
        elif len(blocks.begins) > num_before:  # where blocks are, other elements are damage
            raise _UnknownLayoutError
        elif kind == _CLUSTER_TIME:
            time = int.from_bytes(content[first:begin], "big")
        elif kind not in _SKIPPED_IN_CLUSTER:
            raise _UnknownLayoutError
    if time is None or time >> 62:  # which may be of any length
        raise _UnknownLayoutError
    return time


def _skip_simple_blocks(content: bytes, begin: int, end: int, blocks: _Blocks) -> int:
    """Append the simple blocks from a position on; return where something else follows."""
    begins, ends = blocks.begins, blocks.ends
    while begin < end and content[begin] == _SIMPLE_BLOCK:
        size = content[begin + 1]
        if 0x40 <= size < 0x7F:  # most sizes have two bytes
            begin += 3
            begins.append(begin)
            begin += (size & 0x3F) << 8 | content[begin - 1]
        else:
            _, first, begin = next(_elements(content, begin, end))
            begins.append(first)
        ends.append(begin)
    if begin > end:
        raise _UnknownLayoutError
    return begin

"""List the packets of a stream: from the container's own tables where they can be relied on, or by reading them all."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lvqa.video.container import MATROSKA, MP4, demux, open_stream
from lvqa.video.file_bytes import FileBytes
from lvqa.video.matroska import block_rows
from lvqa.video.mp4 import sample_rows
from lvqa.video.references import is_key_frame

if TYPE_CHECKING:
    import av


NO_TICK = np.iinfo(np.int64).min  # as FFmpeg writes it

PACKET_COLUMNS = [
    ("pts", "i8"),
    ("dts", "i8"),
    ("duration", "i8"),
    ("size", "i8"),
    ("is_keyframe", "?"),
    ("is_presented", "?"),
]

_COMPARED_PACKETS = 16
"""How many packets at both ends of a file are read, to see whether the tables tell of them what reading them does."""

_CODECS = {MP4: ("av1", "h264", "hevc", "vp9"), MATROSKA: ("av1", "vp9")}
"""The codecs whose packets are listed by the tables of a container."""

_MAX_UNITS = 16
"""How many units of a packet of H.264 come before its first slice, at most."""
_SLICE, _IDR_SLICE, _SEI = 1, 5, 6
_UNITS = (_SLICE, _IDR_SLICE, _SEI, 7, 8, 9)
"""The units of H.264 that are known here; the last ones are parameters of a sequence or picture, and a delimiter."""


def read_packets(stream: av.VideoStream, path: Path) -> np.ndarray:
    """Return the PACKET_COLUMNS of all packets of a stream, in decode order.

    Args:
        stream: The stream, just opened.
        path: Its file.
    """
    table = read_tables(stream, path)
    return demux_rows(stream) if table is None else table


def demux_rows(stream: av.VideoStream) -> np.ndarray:
    """Return the PACKET_COLUMNS of all packets, by reading them."""
    return np.fromiter((_packet_row(packet) for packet in demux(stream)), dtype=PACKET_COLUMNS)


def _packet_row(packet: av.Packet[av.VideoStream]) -> tuple[int, int, int, int, bool, bool]:
    """Return the packet's PACKET_COLUMNS."""
    return (
        NO_TICK if packet.pts is None else packet.pts,
        NO_TICK if packet.dts is None else packet.dts,
        packet.duration or 0,
        packet.size,
        packet.is_keyframe,
        not (packet.is_discard or _is_hidden(packet)),  # an edit list discards what it cuts off
    )


def _is_hidden(packet: av.Packet[av.VideoStream]) -> bool:
    """Return whether a packet has a picture that others are predicted from, and that is not presented itself."""
    codec, data = packet.stream.codec_context.name, memoryview(packet)
    if codec == "vp8":
        return not data[0] & 0x10
    return codec == "vp9" and _is_hidden_vp9(data[0], data[-1])


def _is_hidden_vp9(first: Any, last: Any) -> Any:
    """Return whether a packet is hidden; of a superframe one of the pictures is presented.

    Args:
        first: Its first byte, or those of many packets as an array of int64.
        last: Its last byte, or bytes.
    """
    return (_vp9_bits(first) & 0x0A == 0) & (last & 0xE0 != 0xC0)


def _vp9_bits(first: Any) -> Any:
    """Return the first byte of a packet, or of many, so that the bits are at the same place in every profile.

    Two bits of a marker, two of the profile, and a reserved one in profile 3; then (0x08) whether a stored picture is
    shown, (0x04) whether this one is no keyframe, and (0x02) whether it is shown.
    """
    return first << (first & 0x30 == 0x30)


def read_tables(stream: av.VideoStream, path: Path) -> np.ndarray | None:
    """Return the PACKET_COLUMNS as the container's tables have them; None where they may not tell all.

    VP9 and AV1 are read so from both containers, since their packets come in the order of presentation and tell by few
    bytes what they are; HEVC from MP4, which has both times of a packet. How long a packet lasts is filled in
    at both ends only.
    """
    codec, container = stream.codec_context.codec.canonical_name, stream.container.format.name
    if codec not in _CODECS.get(container, ()):
        return None
    try:
        table = _read_table(stream, path, codec, is_mp4=container == MP4)
    except (IndexError, OSError):  # the file was cut meanwhile, or the disk fails: reading the packets will tell
        return None
    return table if table is not None and _complete_ends(table, path) else None


def _read_table(stream: av.VideoStream, path: Path, codec: str, *, is_mp4: bool) -> np.ndarray | None:
    """Return the PACKET_COLUMNS without durations; None where the tables may not tell all."""
    with FileBytes(path) as data:
        rows = sample_rows(stream, data, with_edges=codec == "vp9") if is_mp4 else block_rows(data)
        if rows is None or not len(rows):
            return None
        presented, decoded, begins, sizes, is_keyframe, first, last = rows.T
        is_damaged = begins.min() < 0 or sizes.min() <= 0 or int((begins + sizes).max()) > len(data)
        if is_damaged or np.any(np.diff(decoded) <= 0):
            return None
        table = np.zeros(len(rows), dtype=PACKET_COLUMNS)
        table["pts"], table["dts"], table["size"], table["is_keyframe"] = presented, decoded, sizes, is_keyframe
        table["is_presented"] = True
        if codec == "vp9":
            can_be_used = _complete_vp9(table, first, last)
        elif codec == "av1":
            can_be_used = _are_key_frames(table, data, begins)
        else:
            can_be_used = codec != "h264" or _complete_h264(table, data, begins, stream.codec_context.extradata or b"")
    return table if can_be_used else None


def _complete_vp9(table: np.ndarray, first: np.ndarray, last: np.ndarray) -> bool:
    """Fill in which packets are keyframes and which are hidden, as they say themselves; return whether all say it.

    Args:
        table: What is completed, (packets,).
        first: The first byte of each packet, (packets,) int64.
        last: The last one.
    """
    table["is_keyframe"] = _vp9_bits(first) & 0x0C == 0
    table["is_presented"] = ~_is_hidden_vp9(first, last)
    return not np.any((first & 0xC0 != 0x80) | (first & 0x38 == 0x38))


def _complete_h264(table: np.ndarray, data: FileBytes, begins: np.ndarray, extradata: bytes) -> bool:
    """Fill in which packets are keyframes, as they themselves tell FFmpeg; return whether that could be read of all.

    A packet is one if its first slice belongs to an IDR picture, or if a message before it says that decoding can begin
    there. Where there are messages before other slices, it is not known here what FFmpeg makes of them.

    Args:
        table: What is completed, (packets,).
        data: The content of the file.
        begins: Where each packet begins, (packets,) int64.
        extradata: What MP4 says of the stream: how many bytes the length of a unit has, among others.
    """
    if extradata[:1] != b"\x01" or extradata[4] & 3 != 3:
        return False
    table["is_keyframe"] = False
    # Packets of which no slice was met yet: which they are, where their next unit begins, and where they end.
    rest, begins, ends = np.arange(len(table)), begins, begins + table["size"]
    has_message = np.zeros(len(table), dtype=bool)
    for _ in range(_MAX_UNITS):
        heads = data.parts(begins, 5).astype(np.int64)
        sizes, kinds = heads[:, :4] @ np.array([1 << 24, 1 << 16, 1 << 8, 1]), heads[:, 4] & 0x1F
        begins = begins + 4 + sizes
        is_unknown = (sizes == 0) | (begins > ends) | ~np.isin(kinds, _UNITS) | (has_message & (kinds == _SLICE))
        if np.any(is_unknown):
            return False
        table["is_keyframe"][rest[kinds == _IDR_SLICE]] = True
        goes_on = kinds > _IDR_SLICE
        if not np.any(goes_on):
            return True
        rest, begins, ends = rest[goes_on], begins[goes_on], ends[goes_on]
        has_message = (has_message | (kinds == _SEI))[goes_on]
    return False


def _are_key_frames(table: np.ndarray, data: FileBytes, begins: np.ndarray) -> bool:
    """Return whether the packets of AV1 that the file calls keyframes are some."""
    keyframes = np.flatnonzero(table["is_keyframe"])
    ends = begins + table["size"]
    return all(is_key_frame(data[begins[i] : ends[i]]) for i in keyframes.tolist())


def _complete_ends(table: np.ndarray, path: Path) -> bool:
    """Read the first packets and those of the last group, at least, and return whether they are as the table has them.

    What the tables do not hold, how long packets last, is filled in; only the last one's is of interest.
    """
    import av

    (keyframes,) = np.nonzero(table["is_keyframe"])
    if not len(keyframes) or keyframes[0]:
        return False
    with open_stream(path) as stream:
        head = list(itertools.islice(demux(stream), _COMPARED_PACKETS))
        if not head or head[0].pts is None or head[0].pts < 0:
            return False
        table["pts"] += head[0].pts - table["pts"][0]  # FFmpeg moves all times by what an edit list begins with
        try:
            stream.container.seek(int(table["pts"][keyframes[-1]]), stream=stream)  # type: ignore[attr-defined]
        except av.error.FFmpegError:
            return False
        before = int(keyframes[-2:][0])  # where the seek leads if the frames are not equally long
        tail = list(itertools.islice(demux(stream), len(table) - before + 1))
        rows = [np.array([_packet_row(packet) for packet in part], dtype=PACKET_COLUMNS) for part in (head, tail)]
    if not len(table) - keyframes[-1] <= len(tail) <= len(table) - before:
        return False
    for part, known in zip(rows, (table[: len(head)], table[-len(tail) :]), strict=True):
        if len(part) != len(known):
            return False
        known["duration"] = part["duration"]
        if np.any(part != known):
            return False
    return True

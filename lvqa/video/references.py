"""Read which AV1 frames are predicted from which, and leave out of packets the frames that no wanted one needs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import av


MAX_GROUP_PACKETS = 1024
"""How many packets of a group are held in memory to see which are needed; what follows them may need any of them."""

_ALL_SLOTS = 0xFF
"""A bit for each of the eight slots in which a decoder keeps frames that later ones refer to."""

_HEADER_BYTES = 64
"""How much of an OBU is read: the fields that count come before this."""

_SEQUENCE_HEADER, _FRAME_HEADER, _TILE_GROUP, _FRAME, _REPEATED_HEADER = 1, 3, 4, 6, 7
_KEY_FRAME, _INTER_FRAME, _INTRA_FRAME, _SWITCH_FRAME = range(4)
_SELECTED_BY_FRAME = 2

Packet = tuple[int, "av.Packet[av.VideoStream]"]
"""The tick of a packet, and the packet."""


class _UnknownSyntaxError(Exception):
    """A stream says something of which the dependencies are not read; all its frames are decoded."""


@dataclass(frozen=True, slots=True)
class _Frame:
    """A frame of a packet, and what it does to the decoder's slots."""

    begin: int
    """Its first byte in the packet."""
    end: int
    """The end of its bytes, exclusive."""
    is_shown: bool
    is_reset: bool
    """Whether it is a key frame that is shown at once: nothing after it needs anything before it."""
    needs: int
    """The slots from which it is predicted, as bits."""
    fills: int
    """The slots in which it is kept, as bits."""


@dataclass(frozen=True, slots=True)
class _Sequence:
    """What a sequence header says about the frame headers after it."""

    screen_content: int
    integer_motion: int
    order_bits: int
    """How long the number of a frame in the order of presentation is; 0 if frames have none."""


class _Bits:
    """The bits of an OBU, the first one first."""

    def __init__(self, data: memoryview) -> None:
        head = data[:_HEADER_BYTES]
        self._value, self._left = int.from_bytes(head, "big"), 8 * len(head)

    def read(self, count: int) -> int:
        """Return the next bits as a number."""
        self._left -= count
        if self._left < 0:
            raise _UnknownSyntaxError
        return self._value >> self._left & ((1 << count) - 1)


def prune(packets: Iterable[Packet], targets: set[int]) -> Iterator[Packet]:
    """Leave out the frames that are neither wanted nor referred to, directly or not, by one that is.

    A decoder gives the same pixels for the wanted frames. Streams with several layers, with frame numbers of their own
    or with a decoder model, and groups that can't be read, come as they are.

    Args:
        packets: Packets of AV1 in decode order, for a decoder that is flushed after them.
        targets: The ticks of the wanted frames.

    Yields:
        The packets that are left. Of one with several frames some may be left out.
    """
    reader = _FrameHeaders()
    group: list[tuple[Packet, list[_Frame] | None]] = []
    for tick, packet in packets:
        frames = reader.frames(memoryview(packet))
        is_start = frames is not None and bool(frames) and frames[0].is_reset
        if group and (is_start or len(group) == MAX_GROUP_PACKETS):
            yield from _prune_group(group, targets, needed_after=0 if is_start else _ALL_SLOTS)
            group = []
        group.append(((tick, packet), frames))
    yield from _prune_group(group, targets, needed_after=0)


def is_key_frame(data: bytes) -> bool:
    """Return whether a packet, which says itself how it is to be read, begins with a key frame that is shown."""
    return bool(_FrameHeaders().frames(memoryview(data)))


def _prune_group(group: list[tuple[Packet, list[_Frame] | None]], targets: set[int], needed_after: int) -> list[Packet]:
    """Return what is left of packets, if the packets after them need some slots."""
    needed, left = needed_after, []
    for (tick, packet), frames in reversed(group):
        if frames is None:
            needed = _ALL_SLOTS
            left.append((tick, packet))
            continue
        dropped = []
        for frame in reversed(frames):
            if frame.fills & needed or (frame.is_shown and tick in targets):
                needed = needed & ~frame.fills | frame.needs
            else:
                dropped.append(frame)
        if not dropped:
            left.append((tick, packet))
        elif len(dropped) < len(frames):
            left.append((tick, _without(packet, dropped[::-1])))
    return left[::-1]


def _without(packet: av.Packet[av.VideoStream], dropped: list[_Frame]) -> av.Packet[av.VideoStream]:
    """Return a packet without some of its frames."""
    import av

    data, position, parts = memoryview(packet), 0, []
    for frame in dropped:
        parts.append(data[position : frame.begin])
        position = frame.end
    rest: av.Packet[Any] = av.Packet(b"".join([*parts, data[position:]]))
    rest.pts, rest.dts, rest.time_base = packet.pts, packet.dts, packet.time_base
    rest.is_keyframe = packet.is_keyframe
    return rest


class _FrameHeaders:
    """Reads the frame headers of a stream, in decode order."""

    def __init__(self) -> None:
        self._sequence: _Sequence | None = None
        self._key_slots = 0
        """The slots that hold key frames, as bits; to show one of them later fills all slots with it."""
        self._is_readable = False
        """Whether all frames since the last shown key frame could be read."""

    def frames(self, data: memoryview) -> list[_Frame] | None:
        """Return the frames of the next packet; None if what it depends on is not known."""
        try:
            frames = self._read_frames(data)
        except (_UnknownSyntaxError, IndexError):
            frames = None
        self._is_readable = frames is not None and (self._is_readable or (bool(frames) and frames[0].is_reset))
        return frames if self._is_readable else None

    def _read_frames(self, data: memoryview) -> list[_Frame]:
        frames: list[_Frame] = []
        position, is_open = 0, False
        while position < len(data):
            begin, kind, position, end = _read_obu(data, position)
            if kind == _SEQUENCE_HEADER:
                self._sequence = _read_sequence(_Bits(data[position:end]))
            elif kind in (_FRAME, _FRAME_HEADER):
                frames.append(self._read_frame(_Bits(data[position:end]), begin, end))
                is_open = kind == _FRAME_HEADER
            elif kind in (_TILE_GROUP, _REPEATED_HEADER):
                if not is_open:
                    raise _UnknownSyntaxError
                last = frames[-1]
                frames[-1] = _Frame(last.begin, end, last.is_shown, last.is_reset, last.needs, last.fills)
            position = end
        return frames

    def _read_frame(self, bits: _Bits, begin: int, end: int) -> _Frame:
        sequence = self._sequence
        if sequence is None:
            raise _UnknownSyntaxError
        if bits.read(1):  # a frame that was decoded before is shown now
            slot = 1 << bits.read(3)
            fills = _ALL_SLOTS if slot & self._key_slots else 0
            self._key_slots |= fills
            return _Frame(begin, end, is_shown=True, is_reset=False, needs=slot, fills=fills)
        kind, is_shown = bits.read(2), bits.read(1)
        if not is_shown:
            bits.read(1)  # whether it can be shown later
        is_reset = kind == _KEY_FRAME and bool(is_shown)
        is_resilient = kind == _SWITCH_FRAME or is_reset or bits.read(1)
        is_intra = kind in (_KEY_FRAME, _INTRA_FRAME)
        bits.read(1)  # whether its statistics are kept
        has_screen_content = bits.read(1) if sequence.screen_content == _SELECTED_BY_FRAME else sequence.screen_content
        if has_screen_content and sequence.integer_motion == _SELECTED_BY_FRAME:
            bits.read(1)
        if kind != _SWITCH_FRAME:
            bits.read(1)  # whether it has a size of its own
        bits.read(sequence.order_bits)
        if not (is_intra or is_resilient):
            bits.read(3)  # which of the frames that it refers to lends its statistics
        fills = _ALL_SLOTS if kind == _SWITCH_FRAME or is_reset else bits.read(8)
        needs = 0 if is_intra else _read_references(bits, sequence, is_resilient=bool(is_resilient))
        self._key_slots = self._key_slots & ~fills | (fills if kind == _KEY_FRAME else 0)
        return _Frame(begin, end, bool(is_shown), is_reset, needs, fills)


def _read_references(bits: _Bits, sequence: _Sequence, *, is_resilient: bool) -> int:
    """Return the slots that a frame names, as bits."""
    if sequence.order_bits and is_resilient:
        bits.read(8 * sequence.order_bits)
    if sequence.order_bits and bits.read(1):
        return _ALL_SLOTS  # most of them follow from what is in the slots
    needs = 0
    for _ in range(7):
        needs |= 1 << bits.read(3)
    return needs


def _read_obu(data: memoryview, begin: int) -> tuple[int, int, int, int]:
    """Return where an open bitstream unit begins, its type, and where its content begins and ends."""
    head = data[begin]
    position = begin + 1
    if head & 0x04:
        raise _UnknownSyntaxError  # it belongs to one of several layers
    if not head & 0x02:
        return begin, head >> 3 & 15, position, len(data)
    size = shift = 0
    while True:
        byte = data[position]
        position += 1
        size |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            break
    if position + size > len(data):
        raise _UnknownSyntaxError
    return begin, head >> 3 & 15, position, position + size


def _read_sequence(bits: _Bits) -> _Sequence:
    """Return what a sequence header says.

    Raises:
        _UnknownSyntaxError: There are still pictures, layers, numbers of frames, or a model of the decoder.
    """
    bits.read(3)  # the profile
    is_still, is_reduced, has_timing = bits.read(1), bits.read(1), bits.read(1)
    if is_still or is_reduced:
        raise _UnknownSyntaxError
    if has_timing:
        _skip_timing(bits)
    has_delay, more_points = bits.read(1), bits.read(5)
    layers = bits.read(12)
    if more_points or layers:
        raise _UnknownSyntaxError
    if bits.read(5) > 7:
        bits.read(1)
    if has_delay and bits.read(1):
        bits.read(4)
    width_bits, height_bits = bits.read(4), bits.read(4)
    bits.read(width_bits + 1 + height_bits + 1)
    if bits.read(1):  # frames have numbers of their own
        raise _UnknownSyntaxError
    bits.read(7)  # tools that don't count here
    has_order = bits.read(1)
    if has_order:
        bits.read(2)
    screen_content = _SELECTED_BY_FRAME if bits.read(1) else bits.read(1)
    integer_motion = _SELECTED_BY_FRAME
    if screen_content and not bits.read(1):
        integer_motion = bits.read(1)
    return _Sequence(screen_content, integer_motion, 1 + bits.read(3) if has_order else 0)


def _skip_timing(bits: _Bits) -> None:
    """Read past how fast frames follow."""
    bits.read(64)
    if bits.read(1):  # all frames are equally long; the number of their ticks is as long as the zeros before it
        zeros = 0
        while not bits.read(1):
            zeros += 1
        bits.read(zeros)
    if bits.read(1):  # a model of the decoder, with times in every frame
        raise _UnknownSyntaxError

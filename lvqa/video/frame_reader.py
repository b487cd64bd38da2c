"""Read and decode the packets that some frames of a file need, wherever in the file they lie."""

from __future__ import annotations

import atexit
import itertools
import os
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from lvqa.video.container import VideoError, decode, decode_stream, demux, marks_keyframes, open_stream
from lvqa.video.packets import NO_TICK
from lvqa.video.references import prune
from lvqa.video.timeline import Timeline

if TYPE_CHECKING:
    import av


MAX_SKIPPED_PACKETS = 50
"""How many packets are read and dropped; over a longer distance the reader seeks."""

BEGUN_ELSEWHERE = "the reading was begun in another process; read the frames again in this one"
"""Why a process that was forked can't go on with what its parent had begun."""

_MAX_COMPARED_PACKETS = 50
"""How many packets after a seek are compared with the timeline, to find out where the seek has led."""

_MAX_IDLE_READERS = 8
"""How many files stay open for the next reading: enough for a few threads that read one video."""


class FrameState(Enum):
    """How far a decoded frame can be relied on."""

    GOOD = "good"
    """It has the pixels that decoding from the start gives."""
    DAMAGED = "damaged"
    """It is damaged, or may depend on a damaged one."""
    UNCONFIRMED = "unconfirmed"
    """The decoder began at a packet that only the container calls a keyframe, and has met no true one yet."""


class FrameReader:
    """Decodes frames of one open file. To read forward costs nothing extra; to any other packet the reader seeks."""

    def __init__(self, path: Path, timeline: Timeline) -> None:
        self._path, self.timeline = path, timeline
        self._process_id = os.getpid()
        self._file = ExitStack()
        self._position = 0
        """The position of the next packet, in decode order."""
        self._packets: Iterator[av.Packet[av.VideoStream]] = iter(())
        """The packets from `_position` on."""
        self._marks_keyframes: bool | None = None
        """Whether the decoder marks keyframes; None until it matters."""
        self._can_seek = True
        """False after a seek to a wrong packet: MPEG-TS, for one, has no index of its keyframes."""

        self._reopen()

    @property
    def is_own(self) -> bool:
        """Whether this process opened the file: one that was forked shares its position with its parent."""
        return self._process_id == os.getpid()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def frames(self, ticks: np.ndarray, extra_groups: int) -> Iterator[tuple[int, av.VideoFrame | None, FrameState]]:
        """Yield the frames at some ticks, and those that are decoded on the way, in the order of presentation.

        Args:
            ticks: (n,) ticks of frames, ascending.
            extra_groups: How many groups of pictures before each needed one are decoded, too.

        Yields:
            The tick, the frame, and its state. Without a frame: no frame up to this tick could be confirmed.

        Raises:
            VideoError: Another process began, and this one was forked from it.
        """
        frames: Iterable[tuple[int, av.VideoFrame | None, FrameState]]
        if self.timeline.packet_ticks is None:
            self._reopen()
            all_ticks = self.timeline.frame_ticks.tolist()
            decoded = zip(all_ticks, decode_stream(self._stream), strict=False)
            frames = ((tick, frame, FrameState.GOOD) for tick, frame in decoded)
        else:
            frames = self._decode_needed(ticks, extra_groups)
        is_damaged = False
        for tick, frame, state in frames:
            if frame is not None and state is not FrameState.UNCONFIRMED:
                # Frames after a corrupt one depend on it, and mostly the decoder does not report them.
                is_damaged = frame.is_corrupt or state is FrameState.DAMAGED or (is_damaged and not frame.key_frame)
                state = FrameState.DAMAGED if is_damaged else FrameState.GOOD
            yield tick, frame, state
            if not self.is_own:
                raise VideoError(f"{self._path}: {BEGUN_ELSEWHERE}")

    def nearest_keyframe(self, tick: int) -> av.VideoFrame | None:
        """Return the last undamaged keyframe before a tick, or else the first one after it; None if there is none."""
        if self.timeline.packet_ticks is None:
            return None
        ticks = self.timeline.packet_ticks[self.timeline.keyframe_positions]
        for key_tick in [*ticks[ticks < tick][::-1], *ticks[ticks >= tick]]:
            for frame_tick, frame, state in self.frames(np.array([key_tick]), extra_groups=0):
                if frame_tick == key_tick and state is FrameState.GOOD:
                    return frame
        return None

    def _decode_needed(
        self, ticks: np.ndarray, extra_groups: int
    ) -> Iterator[tuple[int, av.VideoFrame | None, FrameState]]:
        """Decode the needed packets; a frame is damaged if the decoder refused a packet that it may depend on."""
        packet_ticks = self.timeline.packet_ticks
        assert packet_ticks is not None
        targets = set(ticks.tolist())
        suspects: set[int] = set()
        for begin, end in _merge_spans(*self.timeline.packet_spans(ticks, extra_groups)):
            is_suspect, was_needed = False, None
            # Nothing can be decoded before the first keyframe, so what comes after it is as good as it gets.
            is_confirmed, last_tick = begin <= self.timeline.keyframe_positions[0], NO_TICK
            # The decoder is flushed at the end of a span: over a gap it would put open groups in a wrong order.
            packets = self._read_packets(begin, end)
            if self._stream.codec_context.codec.canonical_name == "av1" and not extra_groups:
                packets = prune(packets, targets)
            for tick, packet in itertools.chain(packets, [(NO_TICK, None)]):
                codec = self._stream.codec_context  # of a file that may have been opened again for the first packet
                # Frames that no other one depends on are dropped undecoded, which changes no pixel of the rest.
                is_needed = packet is None or tick in targets or packet.is_keyframe
                if is_needed is not was_needed:
                    codec.skip_frame, was_needed = "DEFAULT" if is_needed else "NONREF", is_needed
                frames = decode(codec, packet)
                if packet is not None and (frames is None or is_suspect):
                    is_suspect = frames is None or not packet.is_keyframe
                    suspects.update([tick] * is_suspect)
                for frame in frames or ():
                    if frame.pts is None:
                        continue
                    if not is_confirmed and self._confirms(frame):
                        is_confirmed = True
                        yield frame.pts - 1, None, FrameState.UNCONFIRMED
                    last_tick = frame.pts
                    state = FrameState.DAMAGED if frame.pts in suspects else FrameState.GOOD
                    yield frame.pts, frame, state if is_confirmed else FrameState.UNCONFIRMED
            if not is_confirmed:
                yield max(last_tick, int(packet_ticks[begin:end].max())), None, FrameState.UNCONFIRMED

    def _confirms(self, frame: av.VideoFrame) -> bool:
        """Return whether a frame shows that a fresh decoder began at a true keyframe, whatever the container says."""
        if frame.key_frame:
            return True
        # H.264 may refresh the picture bit by bit, without a keyframe; its decoder reports what is not yet whole.
        if self._stream.codec_context.name == "h264":
            return not frame.is_corrupt
        if self._marks_keyframes is None:
            self._marks_keyframes = marks_keyframes(self._path)
        return not self._marks_keyframes

    def _read_packets(self, begin: int, end: int) -> Iterator[tuple[int, av.Packet[av.VideoStream]]]:
        """Yield the packets at positions [begin, end), for a decoder without any memory of other packets.

        The tick of each comes with it: that of both fields, if each is a packet.
        """
        packet_ticks = self.timeline.packet_ticks
        assert packet_ticks is not None
        self._move_to(begin)
        self._stream.codec_context.flush_buffers()
        for packet in itertools.islice(self._packets, end - begin):
            self._position += 1
            yield int(packet_ticks[self._position - 1]), packet

    def _move_to(self, position: int) -> None:
        """Make the packet at a position the next one."""
        if self._can_seek and not 0 <= position - self._position <= MAX_SKIPPED_PACKETS:
            self._can_seek = self._seek(position)
            if not self._can_seek:
                self._reopen()
        if position < self._position:
            self._reopen()
        for _ in itertools.islice(self._packets, position - self._position):
            self._position += 1

    def _seek(self, position: int) -> bool:
        """Seek towards a packet; return whether that led to it, or to one before it that is no step back."""
        import av

        ticks, sizes, order = self.timeline.packet_ticks, self.timeline.packet_sizes, self.timeline.tick_order
        assert ticks is not None
        container = cast("av.container.InputContainer", self._stream.container)
        try:
            container.seek(int(ticks[position]), stream=self._stream)
        except av.error.FFmpegError:
            return False
        packets = demux(self._stream)
        for packet in itertools.islice(packets, _MAX_COMPARED_PACKETS):
            if packet.pts is None:
                continue
            first, end = np.searchsorted(ticks, [packet.pts, packet.pts + 1], sorter=order)
            matches = order[first:end]
            matches = matches[sizes[matches] == packet.size]
            if len(matches) == 1:
                before, self._position = self._position, int(matches[0])
                self._packets = itertools.chain([packet], packets)
                return self._position <= position and (before <= self._position or position < before)
        return False

    def _reopen(self) -> None:
        """Open the file at its first packet, again if it is open."""
        self._file.close()
        self._stream = self._file.enter_context(open_stream(self._path))
        self._position, self._packets = 0, demux(self._stream)


def _merge_spans(begins: np.ndarray, ends: np.ndarray) -> Iterator[tuple[int, int]]:
    """Merge spans [begin, end) into as few as possible, ascending and without overlap."""
    order = np.argsort(begins, kind="stable")
    begins, ends = begins[order], np.maximum.accumulate(ends[order])
    gaps = np.flatnonzero(begins[1:] > ends[:-1])
    return zip(begins[np.r_[0, gaps + 1]].tolist(), ends[np.r_[gaps, -1]].tolist(), strict=True)


class _IdleReaders:
    """Open files that wait for the next reading, in this process alone.

    A reading that nobody finished ends when garbage collection comes to it: anywhere, also in a thread that is inside
    of a method of this class. So what a reading does as it ends waits for nobody, and changes nothing that is being
    gone through: its reader is put aside, and becomes idle when nobody else is at work here. And readers in use are
    kept here, too: else their files would be collected, and so closed, together with the reading.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._readers: deque[FrameReader] = deque()
        self._returned: deque[FrameReader] = deque()
        """Readers that are no longer in use, and not yet among the idle ones."""
        self._in_use: set[FrameReader] = set()

    def take(self, path: Path, timeline: Timeline) -> FrameReader:
        """Return an idle reader of the video with this very timeline, no longer idle, or a new one."""
        with self._lock:
            self._accept_returned()
            reader = next((idle for idle in self._readers if idle.timeline is timeline), None)
            if reader is not None:
                self._readers.remove(reader)
        reader = reader or FrameReader(path, timeline)
        self._in_use.add(reader)
        return reader

    def discard(self, reader: FrameReader) -> None:
        """Close a reader that was in use."""
        self._in_use.discard(reader)
        reader.close()

    def add(self, reader: FrameReader) -> None:
        """Keep a reader open for the next reading; close the oldest one where there are too many."""
        if not reader.is_own:
            self.discard(reader)
            return
        self._returned.append(reader)
        self._in_use.discard(reader)
        if self._lock.acquire(blocking=False):
            try:
                self._accept_returned()
            finally:
                self._lock.release()

    def _accept_returned(self) -> None:
        """Make the readers that were returned idle ones; whoever calls this has the lock."""
        while self._returned:
            self._readers.append(self._returned.popleft())
        while len(self._readers) > _MAX_IDLE_READERS:
            self._readers.popleft().close()

    def close(self) -> None:
        """Close all files."""
        for readers in (self._readers, self._returned):
            while readers:
                readers.popleft().close()

    def close_inherited(self) -> None:
        """Close the files in a process that was forked just now, since it shares their positions with its parent."""
        self._lock = threading.Lock()  # a thread that is not here any more may hold the old one
        self.close()


_idle_readers = _IdleReaders()
atexit.register(_idle_readers.close)  # while the libraries are still loaded
os.register_at_fork(after_in_child=_idle_readers.close_inherited)


@contextmanager
def open_reader(path: Path, timeline: Timeline) -> Iterator[FrameReader]:
    """Open a file, or take an idle reader of it; at the end of the block the reader becomes idle.

    Readers are known by their timeline, since a file that has changed has another one.
    """
    reader = _idle_readers.take(path, timeline)
    try:
        yield reader
    except GeneratorExit:  # the caller wants no more frames
        _idle_readers.add(reader)
        raise
    except BaseException:
        _idle_readers.discard(reader)
        raise
    else:
        _idle_readers.add(reader)

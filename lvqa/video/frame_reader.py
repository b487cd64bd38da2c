"""A film that is open: the packets that wanted frames need, wherever they lie, decoded."""

from __future__ import annotations

import atexit
import itertools
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from lvqa.video.container import all_frames, decoded, demuxed, opened
from lvqa.video.timeline import Timeline

if TYPE_CHECKING:
    import av


def _stretches(begins: np.ndarray, ends: np.ndarray) -> Iterator[tuple[int, int]]:
    """What the spans [begin, end) cover together, as few spans without overlap, ascending."""
    order = np.argsort(begins, kind="stable")
    begins, ends = begins[order], np.maximum.accumulate(ends[order])
    gaps = np.flatnonzero(begins[1:] > ends[:-1])
    return zip(begins[np.r_[0, gaps + 1]].tolist(), ends[np.r_[gaps, -1]].tolist(), strict=True)


_NEAR_PACKETS, _STRANGE_PACKETS = 50, 50
"""So many packets are read over sooner than a seek is made, and looked at behind it to find out where it has led."""


class Reader:
    """A film that is open, and where in its packets it is. Reading on is free; elsewhere it goes by a seek."""

    def __init__(self, path: Path, timeline: Timeline) -> None:
        self._path, self.timeline = path, timeline
        self._file = ExitStack()
        self._place = 0
        self._rest: Iterator[av.Packet[av.VideoStream]] = iter(())
        """The packets from `_place` on."""
        self._seeks = True
        """Until a seek leads astray: MPEG-TS, for one, has no index of its key frames."""

        self._open()

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def frames(self, wanted: np.ndarray, lead: int) -> Iterator[tuple[int, av.VideoFrame, bool]]:
        """(tick, frame, whether damage hurt it) as presented: all wanted ones, and those decoded on the way."""
        frames: Iterable[tuple[int, av.VideoFrame, bool]]
        if self.timeline.packets is None:
            self._open()
            shown = self.timeline.shown.tolist()
            frames = ((tick, frame, False) for tick, frame in zip(shown, all_frames(self._stream), strict=False))
        else:
            frames = self._needed_frames(wanted, lead)
        hurt = False
        for tick, frame, suspect in frames:
            # What follows a corrupt frame leans on it, mostly without a word from the decoder.
            hurt = frame.is_corrupt or suspect or (hurt and not frame.key_frame)
            yield tick, frame, hurt

    def key_frame_near(self, tick: int) -> av.VideoFrame | None:
        """The last key frame before a tick that can be decoded, or else the first one after it."""
        if self.timeline.packets is None:
            return None
        ticks = self.timeline.packets[self.timeline.keys]
        for key in [*ticks[ticks < tick][::-1], *ticks[ticks >= tick]]:
            for found, frame, hurt in self.frames(np.array([key]), lead=0):
                if found == key and not hurt:
                    return frame
        return None

    def _needed_frames(self, wanted: np.ndarray, lead: int) -> Iterator[tuple[int, av.VideoFrame, bool]]:
        """Decodes the needed packets: (tick, frame, whether a packet that it may lean on was refused)."""
        targets = set(wanted.tolist())
        suspects: set[int | None] = set()
        for begin, end in _stretches(*self.timeline.spans(wanted, lead)):
            is_hurt = False
            # Emptied at the end: over a gap, the decoder would put the frames of open groups in a wrong order.
            for packet in itertools.chain(self._packets(begin, end), [None]):
                if packet is not None:
                    # Frames that no other one leans on are dropped undecoded, which changes no pixel of the rest.
                    is_whole = packet.pts in targets or packet.is_keyframe
                    self._stream.codec_context.skip_frame = "DEFAULT" if is_whole else "NONREF"
                frames = decoded(self._stream.codec_context, packet)
                if packet is not None:
                    is_hurt = frames is None or (is_hurt and not packet.is_keyframe)
                    suspects.update([packet.pts] * is_hurt)
                yield from (
                    (frame.pts, frame, frame.pts in suspects) for frame in frames or [] if frame.pts is not None
                )

    def _packets(self, begin: int, end: int) -> Iterator[av.Packet[av.VideoStream]]:
        """Those at the places [begin, end), for a decoder that remembers nothing."""
        self._go_to(begin)
        self._stream.codec_context.flush_buffers()
        for packet in itertools.islice(self._rest, end - begin):
            self._place += 1
            yield packet

    def _go_to(self, place: int) -> None:
        if self._seeks and not 0 <= place - self._place <= _NEAR_PACKETS:
            self._seeks = self._sought(place)
            if not self._seeks:
                self._open()
        if place < self._place:
            self._open()
        for _ in itertools.islice(self._rest, place - self._place):
            self._place += 1

    def _sought(self, place: int) -> bool:
        """Whether a seek led to that packet, or to one before it that is no step back."""
        import av

        ticks, sizes = self.timeline.packets, self.timeline.sizes
        assert ticks is not None
        container = cast("av.container.InputContainer", self._stream.container)
        try:
            container.seek(int(ticks[place]), stream=self._stream)
        except av.error.FFmpegError:
            return False
        rest = demuxed(self._stream)
        for packet in itertools.islice(rest, _STRANGE_PACKETS):
            (same,) = np.nonzero((ticks == packet.pts) & (sizes == packet.size))
            if len(same) == 1:
                before, self._place = self._place, int(same[0])
                self._rest = itertools.chain([packet], rest)
                return self._place <= place and (before <= self._place or place < before)
        return False

    def _open(self) -> None:
        """At the first packet, again if need be."""
        self._file.close()
        self._stream = self._file.enter_context(opened(self._path))
        self._place, self._rest = 0, demuxed(self._stream)


_idle: deque[Reader] = deque()
_idle_lock = threading.Lock()
_MOST_IDLE = 8
"""Files that are held open for the next reading: for a few threads that read one film."""


@contextmanager
def reader_of(path: Path, timeline: Timeline) -> Iterator[Reader]:
    """The film, open: as an earlier reading left it, or anew. A file that was changed has another timeline."""
    with _idle_lock:
        reader = next((idle for idle in _idle if idle.timeline is timeline), None)
        if reader is not None:
            _idle.remove(reader)
    reader = reader or Reader(path, timeline)
    try:
        yield reader
    except GeneratorExit:  # no more is wanted
        _put_aside(reader)
        raise
    except BaseException:
        reader.close()
        raise
    else:
        _put_aside(reader)


@atexit.register
def _close_idle() -> None:
    """While the libraries are still there."""
    while _idle:
        _idle.popleft().close()


def _put_aside(reader: Reader) -> None:
    with _idle_lock:
        _idle.append(reader)
        if len(_idle) > _MOST_IDLE:
            _idle.popleft().close()

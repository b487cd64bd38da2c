"""When each frame of a file is shown, and which packets it needs, known before anything is decoded."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lvqa.video.container import VideoError, all_frames, demuxed, opened

if TYPE_CHECKING:
    import av


# A frame that starts this little after t is the one meant: k / fps and pts * time_base round differently.
TOLERANCE_SECONDS = 1e-6


_NO_TICK = np.iinfo(np.int64).min  # as FFmpeg writes it


_no_ticks = partial(np.zeros, 0, dtype=np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class Timeline:
    """Every frame's place in time, known before anything is decoded. A tick is the file's own unit of time."""

    shown: np.ndarray
    """(frames,) int64 ticks of the presented frames, ascending and distinct."""
    end: Fraction
    """The tick at which the last of them ends."""
    tick_seconds: Fraction
    packets: np.ndarray | None = None
    """(packets,) int64 ticks in decode order; None if only decoding tells the times."""
    sizes: np.ndarray = field(default_factory=_no_ticks)
    """(packets,) int64 bytes, which tell packets of the same tick apart."""
    keys: np.ndarray = field(default_factory=_no_ticks)
    """Ascending places in `packets` where decoding can begin."""
    by_tick: np.ndarray = field(init=False)
    """The places in `packets`, by tick."""

    def __post_init__(self) -> None:
        by_tick = _no_ticks() if self.packets is None else np.argsort(self.packets, kind="stable")
        object.__setattr__(self, "by_tick", by_tick)

    def is_sound(self) -> bool:
        """Whether it can be that of a film."""
        columns = [column for column in (self.shown, self.packets, self.sizes, self.keys) if column is not None]
        if any(column.dtype != np.int64 or column.ndim != 1 for column in columns) or not len(self.shown):
            return False
        if self.tick_seconds <= 0 or self.end <= int(self.shown[-1]) or np.any(np.diff(self.shown) <= 0):
            return False
        if self.packets is None:
            return True
        first, last = (int(place) for place in self.keys[[0, -1]])
        return bool(
            len(self.sizes) == len(self.packets)
            and np.all(np.diff(self.keys) > 0)
            and 0 <= first <= last < len(self.packets)
            and np.isin(self.shown, self.packets[first:]).all()
        )

    @property
    def duration_seconds(self) -> float:
        return float((self.end - int(self.shown[0])) * self.tick_seconds)

    def seconds_of(self, ticks: np.ndarray) -> np.ndarray:
        """Seconds from the first frame."""
        seconds: np.ndarray = (ticks - self.shown[0]) * float(self.tick_seconds)
        return seconds

    def ticks_at(self, times: np.ndarray) -> np.ndarray:
        """The tick of the frame shown at each time, in seconds from the first frame."""
        places = np.searchsorted(self.seconds_of(self.shown), times + TOLERANCE_SECONDS, side="right") - 1
        return self.shown[places]

    def key_seconds(self) -> np.ndarray:
        """(keys,) when the key frames are shown; none if only decoding tells."""
        keys = self.keys if self.packets is None else self.packets[self.keys]
        return self.seconds_of(np.intersect1d(keys, self.shown))

    def spans(self, wanted: np.ndarray, lead: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Which packets [begin, end) each wanted tick needs: from the key frame before it to itself.

        With `lead` from so many key frames before that one.
        """
        assert self.packets is not None
        first = self.by_tick[np.searchsorted(self.packets, wanted, sorter=self.by_tick)]
        last = self.by_tick[np.searchsorted(self.packets, wanted, side="right", sorter=self.by_tick) - 1]
        groups = np.searchsorted(self.keys, first, side="right") - 1
        # A picture shown before its group's key frame may lean on the group before, too (open groups).
        groups -= self.packets[first] < self.packets[self.keys[groups]]
        return self.keys[np.maximum(0, groups - lead)], last + 1

    def runs(self, times: np.ndarray) -> list[np.ndarray]:
        """The times cut between groups, in runs that cost about as much as _RUN_PACKETS packets."""
        if self.packets is None:
            return [times]
        wanted, places = np.unique(self.ticks_at(times), return_index=True)
        begins, ends = self.spans(wanted)
        read = np.maximum.accumulate(ends)
        to_come = np.minimum.accumulate(begins[::-1])[::-1]
        cost = np.cumsum(ends - np.maximum(begins, np.r_[0, read[:-1]]).clip(max=ends) + _FRAME_PACKETS)
        cuts = 1 + np.flatnonzero(read[:-1] <= to_come[1:])
        return np.split(times, places[cuts[np.diff(cost[cuts - 1] // _RUN_PACKETS, prepend=0) > 0]])


_RUN_PACKETS, _FRAME_PACKETS = 512, 8
"""Two groups of pictures of the usual length: small enough to share out the 64 frames of an answer, large enough for
what a run costs of its own. A frame that is scaled and handed on costs as much as so many packets."""


def read_timeline(path: Path) -> Timeline:
    with opened(path) as stream:
        timeline = _timeline_of_packets(stream)
    if timeline is None:
        with opened(path) as stream:
            timeline = _timeline_by_decoding(stream)
    if timeline is None:
        raise VideoError(f"{path}: not one frame can be decoded; expected a video file that plays")
    return timeline


def _timeline_of_packets(stream: av.VideoStream) -> Timeline | None:
    """The timeline from the packets' own times; None if they have none, or if their clock jumps back."""
    columns = [("tick", "i8"), ("clock", "i8"), ("length", "i8"), ("size", "i8"), ("key", "?"), ("shown", "?")]
    packets = np.fromiter((_packet_row(packet) for packet in demuxed(stream)), dtype=columns)
    ticks, clock = packets["tick"], packets["clock"][packets["clock"] != _NO_TICK]
    # AVI stores no times: for H.264 with B-frames FFmpeg makes some up, in decode order.
    made_up = stream.container.format.name == "avi" and stream.codec_context.has_b_frames and np.all(np.diff(ticks) > 0)
    if made_up or np.any(ticks == _NO_TICK) or np.any(np.diff(clock) < 0):
        return None
    packets["key"][:1] |= not packets["key"].any()  # a stream with no key frame marked can only begin at its first
    keys = np.flatnonzero(packets["key"])
    # Nothing that lies before the first key frame, in the file or in time, can be decoded.
    places = np.flatnonzero(
        packets["shown"] & (ticks >= ticks[keys[:1]].sum()) & np.cumsum(packets["key"]).astype(bool)
    )
    if not len(places):
        return None
    tick_seconds = stream.time_base or Fraction(1)
    shown = np.unique(ticks[places])
    last = places[np.argmax(ticks[places])]
    end = _end_of(shown, int(packets["length"][last]), stream, tick_seconds)
    return Timeline(shown, end, tick_seconds, ticks, packets["size"], keys)


def _packet_row(packet: av.Packet[av.VideoStream]) -> tuple[int, int, int, int, bool, bool]:
    # VP8 keeps pictures to predict from in packets of their own: bit 4 of the first byte says whether it is shown.
    hidden = packet.stream.codec_context.name == "vp8" and not memoryview(packet)[0] & 0x10
    return (
        _NO_TICK if packet.pts is None else packet.pts,
        _NO_TICK if packet.dts is None else packet.dts,
        packet.duration or 0,
        packet.size,
        packet.is_keyframe,
        not (packet.is_discard or hidden),  # an edit list discards what it cuts off
    )


def _end_of(shown: np.ndarray, last_length: int, stream: av.VideoStream, tick_seconds: Fraction) -> Fraction:
    """The tick at which the last frame ends; where the file does not say, it is as long as the others."""
    usual = Fraction(int(shown[-1] - shown[0]), max(1, len(shown) - 1))
    length = max(0, last_length) or usual or 1 / (Fraction(stream.average_rate or 25) * tick_seconds)
    return int(shown[-1]) + Fraction(length)


def _timeline_by_decoding(stream: av.VideoStream) -> Timeline | None:
    """For packets without times: those of the frames, in order, or their count at the usual rate. None for no frame."""
    ticks = [frame.pts for frame in all_frames(stream)]
    if not ticks:
        return None
    tick_seconds = stream.time_base or Fraction(1)
    shown = np.array(sorted(tick for tick in set(ticks) if tick is not None), dtype=np.int64)
    if len(shown) < len(ticks):
        shown, tick_seconds = np.arange(len(ticks)), 1 / Fraction(stream.average_rate or 25)
    return Timeline(shown, _end_of(shown, 0, stream, tick_seconds), tick_seconds)

"""Find out when each frame of a file is presented, and which packets it needs, before any frame is decoded."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lvqa.video.clock import close_gaps, continue_clock, describe_gaps, has_clock, join_fields, max_step, usual_step
from lvqa.video.container import VideoError, decode_stream, marks_keyframes, open_stream
from lvqa.video.packets import NO_TICK, read_packets

if TYPE_CHECKING:
    import av


TOLERANCE_SECONDS = 1e-6
"""How far behind a time t the frame at t may start, since k / fps and pts * time_base round differently."""

CHUNK_PACKETS = 512
"""How many packets one chunk of times costs to decode, about.

It is two groups of pictures of the usual length: small enough to share out the 64 frames of an answer, and large enough
for what a chunk costs of its own.
"""

_PROBED_PACKETS = 16
"""How many packets are looked at to see whether each is a picture or a field."""

_LEADING_CODECS = ("hevc", "vvc")
"""Codecs whose pictures from before a keyframe may depend on it alone. Their decoders drop those that do not."""

_FRAME_PACKETS = 8
"""How many packets cost as much to decode as one frame costs to scale and to hand on."""

_no_packets = partial(np.zeros, 0, dtype=np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class Timeline:
    """The time of every frame, known before any is decoded. A tick is the file's own unit of time."""

    frame_ticks: np.ndarray
    """(frames,) int64 ticks at which frames are presented, ascending and distinct."""
    end_tick: Fraction
    """The tick at which the last frame ends."""
    tick_seconds: Fraction
    """How long a tick is."""
    packet_ticks: np.ndarray | None = None
    """(packets,) int64 ticks in decode order; None if the times are known from decoding only."""
    packet_sizes: np.ndarray = field(default_factory=_no_packets)
    """(packets,) int64 bytes; they distinguish packets of the same tick."""
    keyframe_positions: np.ndarray = field(default_factory=_no_packets)
    """(keyframes,) int64 positions in `packet_ticks` at which decoding can begin, ascending."""
    warnings: tuple[str, ...] = ()
    """What is wrong with the file's clock, and what was made of it, in one line each."""
    tick_order: np.ndarray = field(init=False)
    """(packets,) int64 positions in `packet_ticks`, sorted by tick."""
    frame_seconds: np.ndarray = field(init=False)
    """(frames,) float64 seconds from the first frame, ascending. Gaps of a broken clock are closed."""

    def __post_init__(self) -> None:
        ticks = self.packet_ticks
        order = _no_packets() if ticks is None else np.argsort(ticks, kind="stable")
        object.__setattr__(self, "tick_order", order)
        closed = close_gaps(self.frame_ticks, self.tick_seconds)
        object.__setattr__(self, "frame_seconds", closed * float(self.tick_seconds))

    def is_valid(self) -> bool:
        """Return whether the columns fit together, so that they can be those of a video."""
        columns = (self.frame_ticks, self.packet_ticks, self.packet_sizes, self.keyframe_positions)
        if any(column is not None and (column.dtype != np.int64 or column.ndim != 1) for column in columns):
            return False
        if not len(self.frame_ticks) or np.any(np.diff(self.frame_ticks) <= 0):
            return False
        if self.tick_seconds <= 0 or self.end_tick <= int(self.frame_ticks[-1]):
            return False
        if not all(isinstance(warning, str) and warning.isprintable() for warning in self.warnings):
            return False
        return self.packet_ticks is None or self._has_valid_packets(self.packet_ticks)

    def _has_valid_packets(self, packet_ticks: np.ndarray) -> bool:
        """Return whether keyframes and frames refer to packets that are there."""
        positions = self.keyframe_positions
        return bool(
            len(positions)
            and len(self.packet_sizes) == len(packet_ticks)
            and np.all(np.diff(positions) > 0)
            and positions[0] >= 0
            and positions[-1] < len(packet_ticks)
            and np.isin(self.frame_ticks, packet_ticks[positions[0] :]).all()
        )

    @property
    def duration_seconds(self) -> float:
        """How long it takes from the start of the first frame to the end of the last one."""
        closed = close_gaps(self.frame_ticks, self.tick_seconds)
        return float((int(closed[-1]) + self.end_tick - int(self.frame_ticks[-1])) * self.tick_seconds)

    def seconds_of(self, ticks: np.ndarray) -> np.ndarray:
        """Return the seconds from the first frame to each of some frames' ticks."""
        seconds: np.ndarray = self.frame_seconds[np.searchsorted(self.frame_ticks, ticks)]
        return seconds

    def ticks_at(self, times_seconds: np.ndarray) -> np.ndarray:
        """Return the tick of the frame that is on screen at each time, in seconds from the first frame."""
        times = times_seconds + TOLERANCE_SECONDS
        return self.frame_ticks[np.searchsorted(self.frame_seconds, times, side="right") - 1]

    def keyframe_seconds(self) -> np.ndarray:
        """Return (keyframes,) when the keyframes are presented; none if the times are known from decoding only."""
        positions = self.keyframe_positions
        ticks = positions if self.packet_ticks is None else self.packet_ticks[positions]
        frames = np.searchsorted(self.frame_ticks, ticks).clip(max=len(self.frame_ticks) - 1)
        seconds: np.ndarray = self.frame_seconds[np.unique(frames[self.frame_ticks[frames] == ticks])]
        return seconds

    def packet_spans(self, ticks: np.ndarray, extra_groups: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Return which packets each frame needs: from the keyframe before it to the frame itself.

        Args:
            ticks: (n,) ticks of frames.
            extra_groups: How many groups of pictures before that keyframe are decoded, too.

        Returns:
            (n,) first positions and (n,) ends, exclusive, in decode order.
        """
        assert self.packet_ticks is not None
        order, keyframes = self.tick_order, self.keyframe_positions
        first = order[np.searchsorted(self.packet_ticks, ticks, sorter=order)]
        last = order[np.searchsorted(self.packet_ticks, ticks, side="right", sorter=order) - 1]
        groups = np.searchsorted(keyframes, first, side="right") - 1
        # A picture presented before its group's keyframe may depend on the group before, too (open groups).
        groups -= self.packet_ticks[first] < self.packet_ticks[keyframes[groups]]
        return keyframes[np.maximum(0, groups - extra_groups)], last + 1

    def split_times(self, times_seconds: np.ndarray) -> list[np.ndarray]:
        """Split ascending times between groups of pictures, in chunks that cost about CHUNK_PACKETS packets each."""
        if self.packet_ticks is None:
            return [times_seconds]
        ticks, firsts = np.unique(self.ticks_at(times_seconds), return_index=True)
        begins, ends = self.packet_spans(ticks)
        read_until = np.maximum.accumulate(ends)
        next_begin = np.minimum.accumulate(begins[::-1])[::-1]
        new_packets = ends - np.maximum(begins, np.r_[0, read_until[:-1]]).clip(max=ends)
        cost = np.cumsum(new_packets + _FRAME_PACKETS)
        cuts = 1 + np.flatnonzero(read_until[:-1] <= next_begin[1:])
        return np.split(times_seconds, firsts[cuts[np.diff(cost[cuts - 1] // CHUNK_PACKETS, prepend=0) > 0]])


def read_timeline(path: Path) -> Timeline:
    """Return the timeline of a file: from its packets, or by decoding all of it where they have no usable times.

    Raises:
        VideoError: Not one frame can be decoded.
    """
    with open_stream(path) as stream:
        timeline = _timeline_of_packets(stream, path)
    if timeline is None:
        with open_stream(path) as stream:
            timeline = _timeline_by_decoding(stream)
    if timeline is None:
        raise VideoError(f"{path}: not one frame can be decoded; expected a video file that plays")
    return timeline


def _timeline_of_packets(stream: av.VideoStream, path: Path) -> Timeline | None:
    """Return the timeline from the packets' own times; None if they have none, or if their clock jumps back."""
    packets = read_packets(stream, path)
    ticks, clock = packets["pts"].copy(), packets["dts"][packets["dts"] != NO_TICK]  # a column of its own is searched
    # AVI stores no times: for H.264 with B-frames FFmpeg invents some, in decode order.
    is_invented = (
        stream.container.format.name == "avi" and stream.codec_context.has_b_frames and np.all(np.diff(ticks) > 0)
    )
    if is_invented or np.any(ticks == NO_TICK) or np.any(np.diff(clock) < 0):
        return None
    field_ticks = _field_ticks(stream, path, packets)
    if field_ticks:
        ticks = join_fields(ticks, packets["duration"], field_ticks)
    is_keyframe = packets["is_keyframe"] & (ticks == packets["pts"])  # decoding can't begin at a second field
    if len(packets) > 1 and is_keyframe.all() and not marks_keyframes(path):
        is_keyframe[:] = False  # the container has no list of keyframes, and the decoder does not tell them either
    is_keyframe[:1] |= not is_keyframe.any()  # a stream with no keyframe marked can begin only at its first packet
    keyframes = np.flatnonzero(is_keyframe)
    # Nothing that lies before the first keyframe, in the file or in time, can be decoded. Of pictures in two fields
    # FFmpeg shows the one right before it, too.
    first_tick = ticks[keyframes[:1]].sum() - 2 * field_ticks
    if stream.codec_context.name in _LEADING_CODECS and np.any(ticks[keyframes[:1].sum() :] < first_tick):
        first_tick = _first_decoded_tick(path, first_tick)
    is_decodable = (ticks >= first_tick) & np.cumsum(is_keyframe).astype(bool)
    positions = np.flatnonzero(packets["is_presented"] & is_decodable)
    if not len(positions):
        return None
    tick_seconds = stream.time_base or Fraction(1)
    frame_ticks = np.sort(ticks[positions])  # which takes a tenth of the time that `np.unique` does
    frame_ticks = frame_ticks[np.diff(frame_ticks, prepend=frame_ticks[0] - 1) > 0]
    last = positions[np.argmax(ticks[positions])]
    last_duration = max(int(packets["duration"][last]), 2 * field_ticks)
    warnings = describe_gaps(frame_ticks, tick_seconds)
    if last_duration > max_step(frame_ticks, tick_seconds):
        seconds = float(last_duration * tick_seconds)
        warnings += (f"its last frame is said to last {seconds:,.0f} s; it is taken to be as long as the others",)
    if not has_clock(stream.container.format.name):
        tick_seconds = 1 / (_assumed_rate(stream) * usual_step(frame_ticks))
        warnings = _describe_rate(stream)
    return Timeline(
        frame_ticks=frame_ticks,
        end_tick=_end_tick(frame_ticks, last_duration, stream, tick_seconds),
        tick_seconds=tick_seconds,
        packet_ticks=ticks,
        packet_sizes=packets["size"].copy(),
        keyframe_positions=keyframes,
        warnings=warnings,
    )


def _first_decoded_tick(path: Path, keyframe_tick: int) -> int:
    """Return the tick of the first frame that a fresh decoder gives, if it comes before the first keyframe."""
    with open_stream(path) as stream:
        frame = next(decode_stream(stream), None)
    return keyframe_tick if frame is None or frame.pts is None else min(keyframe_tick, frame.pts)


def _field_ticks(stream: av.VideoStream, path: Path, packets: np.ndarray) -> int:
    """Return how many ticks a field lasts, if fields of a picture come as packets of their own; else 0.

    Cameras (AVCHD) and broadcasters code interlaced H.264 so. The decoder joins two fields to a frame with the time of
    the first.
    """
    head = packets[:_PROBED_PACKETS]
    follows = np.flatnonzero(head["pts"][1:] == head["pts"][:-1] + head["duration"][:-1])
    if stream.codec_context.name != "h264" or stream.container.format.name != "mpegts" or not len(follows):
        return 0
    with open_stream(path) as second:
        frames = list(itertools.islice(decode_stream(second), _PROBED_PACKETS // 2))
    ticks = [frame.pts for frame in frames if frame.interlaced_frame and frame.pts is not None]
    step = usual_step(np.array(ticks, dtype=np.int64))
    field_ticks = int(head["duration"][follows[0]])
    return field_ticks if len(ticks) > 1 and step == 2 * field_ticks else 0


def _end_tick(frame_ticks: np.ndarray, last_duration: int, stream: av.VideoStream, tick_seconds: Fraction) -> Fraction:
    """Return the tick at which the last frame ends; without a duration in the file it is as long as the others."""
    mean = Fraction(int(close_gaps(frame_ticks, tick_seconds)[-1]), max(1, len(frame_ticks) - 1))
    is_broken = last_duration > max_step(frame_ticks, tick_seconds)
    duration = (
        (0 if is_broken else max(0, last_duration)) or mean or 1 / (Fraction(stream.average_rate or 25) * tick_seconds)
    )
    return int(frame_ticks[-1]) + Fraction(duration)


def _timeline_by_decoding(stream: av.VideoStream) -> Timeline | None:
    """Return the timeline of a stream without usable packet times; None if no frame can be decoded.

    The times are those of the decoded frames, or follow from their count and their rate.
    """
    ticks = [frame.pts for frame in decode_stream(stream)]
    if not ticks:
        return None
    tick_seconds = stream.time_base or Fraction(1)
    known = [tick for tick in ticks if tick is not None]
    is_ascending = bool(np.all(np.diff(known) > 0))
    warnings: tuple[str, ...] = ()
    if len(known) < len(ticks) or (stream.container.format.name == "avi" and not is_ascending):
        frame_ticks, tick_seconds = np.arange(len(ticks)), 1 / _assumed_rate(stream)
        warnings = _describe_rate(stream)
    else:
        frame_ticks, warnings = continue_clock(known, tick_seconds)
    return Timeline(frame_ticks, _end_tick(frame_ticks, 0, stream, tick_seconds), tick_seconds, warnings=warnings)


def _assumed_rate(stream: av.VideoStream) -> Fraction:
    """Return the frames a second of a stream without times."""
    # The average rate of bare pictures is the demuxer's default; the other one is what the pictures themselves say.
    rate = stream.average_rate if has_clock(stream.container.format.name) else stream.guessed_rate
    return Fraction(rate or stream.average_rate or 25)


def _describe_rate(stream: av.VideoStream) -> tuple[str, ...]:
    """Return what is wrong with a stream without times whose pictures were decoded: one line, or none."""
    rate, assumed = stream.codec_context.framerate, _assumed_rate(stream)
    if has_clock(stream.container.format.name) or rate == assumed:
        return ()
    claim = f"says that {float(rate):g} frames come in a second" if rate else "says nowhere how fast its frames follow"
    return (f"it {claim}; {float(assumed):g} a second are assumed",)

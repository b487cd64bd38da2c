"""Choose the frames that stand for a video, and cut them into clips."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Self

import numpy as np

from lvqa.records import Clip, LvqaError, Video
from lvqa.video.container import VideoError, convert_errors
from lvqa.video.metadata import timeline_of
from lvqa.video.timeline import TOLERANCE_SECONDS, Timeline

FRAMES_FORMAT = 4
"""The version of all frames. Raise it when other frames or pixels are read for the same times and size, or when the
same settings give another grid, other clips or other scene changes."""

MAX_KEYFRAME_GAP_SECONDS = 60.0
"""How far apart keyframes may lie to stand for a video. Encoders usually set one every 2 to 10 s."""

MAX_STEP_SECONDS = 60.0
"""How far apart two frames may lie to be neighbours, if that is more than MAX_USUAL_STEPS."""

MAX_USUAL_STEPS = 4
"""How many times the usual step two frames may lie apart to be neighbours: a time-lapse may have a frame an hour."""

MAX_SPARSE_RATIO = 1.1
"""How many times as many clips a video whose frames stay long has at most, as the same frames would fill otherwise."""

MIN_CLIPS = 64
"""How many clips a video may have all the same: some more than are reranked, so that each slide of a talk can be found.
"""


@dataclass(frozen=True, slots=True, eq=False)
class FrameGrid:
    """The frames that stand for a video: everything that a model ever receives of it.

    Each is one of the video's own coded frames, once. Two neighbours are a pair; a frame without a neighbour is a pair
    of its own.
    """

    times_seconds: np.ndarray
    """(num_frames,) float64, ascending and distinct: grid frame k is the video's frame at the k-th time."""
    step_seconds: float | None = None
    """The step of an exact grid, where a frame that stays longer is all that can be seen; None: others may be between.
    """
    max_step_seconds: float = field(init=False)
    """Frames that follow each other at a longer distance are no neighbours: no pair and no clip has both."""
    pair_ids: np.ndarray = field(init=False)
    """(num_frames,) int64, ascending from 0: the pair of each frame."""

    def __post_init__(self) -> None:
        steps, frames = np.diff(self.times_seconds), np.arange(self.num_frames)
        max_step = max(MAX_STEP_SECONDS, MAX_USUAL_STEPS * float(np.median(steps)) if len(steps) else 0.0)
        starts_run = np.r_[True, steps > max_step]
        run_firsts = np.maximum.accumulate(np.where(starts_run, frames, 0))
        object.__setattr__(self, "max_step_seconds", max_step)
        object.__setattr__(self, "pair_ids", np.cumsum((frames - run_firsts) % 2 == 0) - 1)

    @classmethod
    def exact(cls, video: Video, frames_per_second: float) -> Self:
        """Return the grid of the frames that are on screen at the times k / frames_per_second.

        The time of a frame is the first of these at which it is on screen. At 1 frame per second 10 s of ordinary video
        have 10 frames, and 10.1 s have 11; seven pictures in a minute have 7.

        Raises:
            LvqaError: The rate is not a finite number above 0.
            VideoError: The file can't be read.
        """
        _check_rate(frames_per_second)
        with convert_errors(video.path):
            times = times_on_screen(timeline_of(video.path), frames_per_second)
        return cls(times, 1 / frames_per_second)

    @classmethod
    def keyframes(cls, video: Video, frames_per_second: float) -> Self:
        """Return the grid of the video's own keyframes at their true times, at most so many per second.

        Each is decoded by itself, so a long video is quick to skim: the coarse filter of FreeRet's appendix A.5.

        Raises:
            LvqaError: The rate is not a finite number above 0.
            VideoError: The file marks no keyframes, or they lie too far apart to stand for the video.
        """
        _check_rate(frames_per_second)
        with convert_errors(video.path):
            times = timeline_of(video.path).keyframe_seconds()
        gap = np.diff([*times, video.duration_seconds]).max(initial=0.0)
        if not len(times) or gap > MAX_KEYFRAME_GAP_SECONDS:
            distance = f"lie {gap:.0f} s apart, more than {MAX_KEYFRAME_GAP_SECONDS:g}"
            reason = distance if len(times) else "are not marked"
            raise VideoError(f"{video.path}: its keyframes {reason}; use video.sampling: exact for this video")
        grid_times = [times[0]]
        for seconds in times[1:]:
            if seconds - grid_times[-1] >= 1 / frames_per_second - TOLERANCE_SECONDS:
                grid_times.append(seconds)
        return cls(np.array(grid_times))

    @property
    def num_frames(self) -> int:
        """How many frames the grid has."""
        return len(self.times_seconds)

    @property
    def num_pairs(self) -> int:
        """How many pairs of frames the grid has."""
        return int(self.pair_ids[-1]) + 1

    def pair(self, pair_id: int) -> tuple[int, int]:
        """Return the frames of a pair, twice the same if it has one."""
        first, end = np.searchsorted(self.pair_ids, [pair_id, pair_id + 1]).tolist()
        return first, end - 1

    def are_neighbours(self, first: int, second: int) -> bool:
        """Return whether a frame follows another one on the grid, without a gap in time."""
        return second == first + 1 and self.seconds_of(second) - self.seconds_of(first) <= self.max_step_seconds

    def seconds_of(self, frame: int) -> float:
        """Return the time of a grid frame.

        Raises:
            IndexError: The grid has no such frame.
        """
        if not 0 <= frame < self.num_frames:
            raise IndexError(f"frame {frame} of a grid of {self.num_frames}")
        return float(self.times_seconds[frame])

    def frame_at(self, seconds: float) -> int:
        """Return the last grid frame at or before a time; outside the grid, its first or its last frame."""
        return max(0, int(np.searchsorted(self.times_seconds, seconds, side="right")) - 1)


def times_on_screen(timeline: Timeline, frames_per_second: float) -> np.ndarray:
    """Return the times k / frames_per_second at which another frame is on screen than at the one before."""
    # Rounded, since 0.1 s * 30 is 3.0000000000000004 and must not make a fourth time.
    num_times = max(1, math.ceil(round(timeline.duration_seconds * frames_per_second, 6)))
    if num_times <= len(timeline.frame_ticks):
        steps = np.arange(num_times)
    else:  # a day has few pictures of a time-lapse and many seconds: only those next to a frame's start are looked at
        before = np.floor(timeline.frame_seconds * frames_per_second).astype(np.int64)
        steps = np.unique([before, before + 1])
        steps = steps[steps < num_times]
    times = steps / frames_per_second
    on_screen = timeline.ticks_at(times)
    return times[np.r_[True, on_screen[1:] != on_screen[:-1]]]


SAMPLINGS: dict[str, Callable[[Video, float], FrameGrid]] = {
    "exact": FrameGrid.exact,
    "keyframes": FrameGrid.keyframes,
}
"""How to make a grid from a video and a rate, by the names that `video.sampling` takes."""


def cut_clips(video: Video, grid: FrameGrid, clip_seconds: float, boundaries: Sequence[float] = ()) -> list[Clip]:
    """Cut a video into clips: runs of neighbouring pairs, whose times cover [0, duration) in order and without a gap.

    A clip lasts until the first frame of the next one, so there is none without a frame.

    Args:
        video: The video.
        grid: Its frames.
        clip_seconds: The length of a clip. Each ends at the pair nearest to that, and has at least one pair; the last
            clip may be shorter. Of a video with few pictures, as a time-lapse, clips are longer: what makes them a
            tenth more than its frames would fill otherwise does not count, and MIN_CLIPS may always be there.
        boundaries: Scene changes in seconds. At the pair nearest to each a clip ends, and the next one starts with its
            full length ahead of it.

    Raises:
        LvqaError: The length is not a finite number above 0.
    """
    if not 0 < clip_seconds < math.inf:
        raise LvqaError(f"clip_seconds is {clip_seconds}; expected a number above 0")
    firsts = np.searchsorted(grid.pair_ids, np.arange(grid.num_pairs))
    frame_edges = np.append(grid.times_seconds, video.duration_seconds)
    frame_edges[0] = 0.0  # the first keyframe may come later
    edges = frame_edges[[*firsts, -1]]
    lengths = _counted_edges(frame_edges, grid.step_seconds, clip_seconds)[[*firsts, -1]]
    ends = {*_nearest(edges, boundaries), *grid.pair_ids[1:][np.diff(grid.times_seconds) > grid.max_step_seconds]}
    cuts = [0]
    for end in sorted({*ends, grid.num_pairs} - {0}):
        while cuts[-1] < end:
            (nearest,) = _nearest(lengths, [lengths[cuts[-1]] + clip_seconds])
            cuts.append(min(end, max(cuts[-1] + 1, nearest)))
    return [Clip(video.id, start, end) for start, end in itertools.pairwise(edges[cuts].tolist())]


def _nearest(edges: np.ndarray, values: Sequence[float]) -> list[int]:
    """Return which of ascending edges is nearest to each value.

    Of two equally near the first counts, even if both are rounded: clips of an even grid are equally long.
    """
    nearest: list[int] = np.searchsorted((edges[1:] + edges[:-1]) / 2 + TOLERANCE_SECONDS, values).tolist()
    return nearest


def _counted_edges(frame_edges: np.ndarray, step_seconds: float | None, clip_seconds: float) -> np.ndarray:
    """Return the (n + 1,) edges of frames in time as it counts for the length of clips: a long stay counts less."""
    if step_seconds is None:
        return frame_edges
    stays = np.diff(frame_edges)
    num_frames, ascending = len(stays), np.sort(stays)
    # How much all stays count together if none counts more than each of them.
    totals = np.cumsum(ascending) + ascending * np.arange(num_frames)[::-1]
    limit = max(MIN_CLIPS * clip_seconds, MAX_SPARSE_RATIO * num_frames * step_seconds)
    longest = np.interp(limit, np.r_[0.0, totals], np.r_[0.0, ascending])
    counted: np.ndarray = np.cumsum(np.r_[0.0, np.minimum(stays, min(longest, clip_seconds))])
    return counted


def _check_rate(frames_per_second: float) -> None:
    """Raise LvqaError unless the rate is a finite number above 0."""
    if not 0 < frames_per_second < math.inf:
        raise LvqaError(f"frames_per_second is {frames_per_second}; expected a number above 0")

"""Choose the frames that stand for a video, and cut them into clips."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from lvqa.records import Clip, LvqaError, Video
from lvqa.video.container import VideoError, convert_errors
from lvqa.video.metadata import timeline_of
from lvqa.video.timeline import TOLERANCE_SECONDS

FRAMES_FORMAT = 2
"""The version of all frames. Raise it when other frames or pixels are read for the same times and size, or when the
same settings give another grid, other clips or other scene changes."""

MAX_KEYFRAME_GAP_SECONDS = 60.0
"""How far apart keyframes may lie to stand for a video. Encoders usually set one every 2 to 10 s."""


@dataclass(frozen=True, slots=True, eq=False)
class FrameGrid:
    """The frames that stand for a video: everything that a model ever receives of it.

    Pair p is frames (2p, 2p + 1); the last pair of an odd grid has its frame twice.
    """

    times_seconds: np.ndarray
    """(num_frames,) float64, ascending and distinct: grid frame k is the video's frame at the k-th time."""

    @classmethod
    def exact(cls, video: Video, frames_per_second: float) -> Self:
        """Return the grid of all k / frames_per_second < duration, from k = 0.

        At 1 frame per second 10 s have 10 frames, and 10.1 s have 11.

        Raises:
            LvqaError: The rate is not a finite number above 0.
        """
        _check_rate(frames_per_second)
        # Rounded, since 0.1 s * 30 is 3.0000000000000004 and must not make a fourth frame.
        num_frames = math.ceil(round(video.duration_seconds * frames_per_second, 6))
        return cls(np.arange(max(1, num_frames)) / frames_per_second)

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
        return (self.num_frames + 1) // 2

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


SAMPLINGS: dict[str, Callable[[Video, float], FrameGrid]] = {
    "exact": FrameGrid.exact,
    "keyframes": FrameGrid.keyframes,
}
"""How to make a grid from a video and a rate, by the names that `video.sampling` takes."""


def cut_clips(video: Video, grid: FrameGrid, clip_seconds: float, boundaries: Sequence[float] = ()) -> list[Clip]:
    """Cut a video into clips: runs of whole pairs that cover [0, duration) in order and without a gap.

    Args:
        video: The video.
        grid: Its frames.
        clip_seconds: The length of a clip. Each ends at the pair nearest to that, and has at least one pair; the last
            clip may be shorter.
        boundaries: Scene changes in seconds. At the pair nearest to each a clip ends, and the next one starts with its
            full length ahead of it.

    Raises:
        LvqaError: The length is not a finite number above 0.
    """
    if not 0 < clip_seconds < math.inf:
        raise LvqaError(f"clip_seconds is {clip_seconds}; expected a number above 0")
    edges = np.append(grid.times_seconds[::2], video.duration_seconds)
    edges[0] = 0.0  # the first keyframe may come later

    # Of two edges equally near the first counts, even if both are rounded: clips of an even grid are equally long.
    midpoints = (edges[1:] + edges[:-1]) / 2 + TOLERANCE_SECONDS

    def nearest_pair(seconds: float) -> int:
        return int(np.searchsorted(midpoints, seconds))

    cuts = [0]
    for end in sorted({*map(nearest_pair, boundaries), grid.num_pairs} - {0}):
        while cuts[-1] < end:
            cuts.append(min(end, max(cuts[-1] + 1, nearest_pair(edges[cuts[-1]] + clip_seconds))))
    return [Clip(video.id, start, end) for start, end in itertools.pairwise(edges[cuts].tolist())]


def _check_rate(frames_per_second: float) -> None:
    """Raise LvqaError unless the rate is a finite number above 0."""
    if not 0 < frames_per_second < math.inf:
        raise LvqaError(f"frames_per_second is {frames_per_second}; expected a number above 0")

"""The frames that a video is known by, and the clips that they make."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from lvqa.records import Clip, LvqaError, Video
from lvqa.video.container import VideoError, naming
from lvqa.video.metadata import timeline_of
from lvqa.video.timeline import TOLERANCE_SECONDS


@dataclass(frozen=True, slots=True, eq=False)
class FrameGrid:
    """The frames that a video is known by, and all that is ever shown of it.

    Pair p is frames (2p, 2p + 1); the last pair of an odd grid shows its frame twice.
    """

    times_seconds: np.ndarray
    """(num_frames,) float64, ascending and distinct: grid frame k is what is shown at the k-th of them."""

    @classmethod
    def of(cls, video: Video, frames_per_second: float) -> Self:
        """All k / frames_per_second < duration, from k = 0: 10 s at 1 fps are 10 frames, 10.1 s are 11."""
        _check_rate(frames_per_second)
        # Rounded, since 0.1 s * 30 is 3.0000000000000004 and must not make a fourth frame.
        num_frames = math.ceil(round(video.duration_seconds * frames_per_second, 6))
        return cls(np.arange(max(1, num_frames)) / frames_per_second)

    @classmethod
    def of_key_frames(cls, video: Video, frames_per_second: float) -> Self:
        """The film's own key frames, at their true times, at most `frames_per_second` of them.

        Each is decoded by itself, which makes a quick look at a long film: the coarse filter of FreeRet's appendix A.5.
        Raises VideoError if they are too few to stand for the film.
        """
        _check_rate(frames_per_second)
        with naming(video.path):
            times = timeline_of(video.path).key_seconds()
        gap = np.diff([*times, video.duration_seconds]).max(initial=0.0)
        if not len(times) or gap > _SKIPPED_SECONDS:
            told = f"lie {gap:.0f} s apart, more than {_SKIPPED_SECONDS:g}" if len(times) else "are not marked"
            raise VideoError(f"{video.path}: its key frames {told}; use video.sampling: exact for this film")
        kept = [times[0]]
        for seconds in times[1:]:
            if seconds - kept[-1] >= 1 / frames_per_second - TOLERANCE_SECONDS:
                kept.append(seconds)
        return cls(np.array(kept))

    @property
    def num_frames(self) -> int:
        return len(self.times_seconds)

    @property
    def num_pairs(self) -> int:
        return (self.num_frames + 1) // 2

    def seconds_of(self, frame: int) -> float:
        """When grid frame `frame` is shown. Raises IndexError outside the grid."""
        if not 0 <= frame < self.num_frames:
            raise IndexError(f"frame {frame} of a grid of {self.num_frames}")
        return float(self.times_seconds[frame])

    def frame_at(self, seconds: float) -> int:
        """The last grid frame at or before `seconds`, or the grid's first or last beyond its ends."""
        return max(0, int(np.searchsorted(self.times_seconds, seconds, side="right")) - 1)


_SKIPPED_SECONDS = 60.0
"""More of a film than this is not passed over without a word. Encoders set a key frame every 2 to 10 s or so."""


def _check_rate(frames_per_second: float) -> None:
    if not 0 < frames_per_second < math.inf:
        raise LvqaError(f"frames_per_second is {frames_per_second}; expected a number above 0")


SAMPLINGS: dict[str, Callable[[Video, float], FrameGrid]] = {
    "exact": FrameGrid.of,
    "keyframes": FrameGrid.of_key_frames,
}


def cut_clips(video: Video, grid: FrameGrid, clip_seconds: float, boundaries: Sequence[float] = ()) -> list[Clip]:
    """Runs of whole pairs that cover [0, duration) without a gap, in order.

    Each ends at the pair nearest to `clip_seconds` after its start, and has at least one; the last may be shorter.
    `boundaries` are scene changes in seconds: at the pair nearest to each a clip ends, and the next one begins with its
    full length ahead of it.
    """
    if not 0 < clip_seconds < math.inf:
        raise LvqaError(f"clip_seconds is {clip_seconds}; expected a number above 0")
    edges = np.append(grid.times_seconds[::2], video.duration_seconds)
    edges[0] = 0.0  # the first key frame may come later

    # Of two edges as near the first, though both be rounded: clips of an even grid are equally long.
    middles = (edges[1:] + edges[:-1]) / 2 + TOLERANCE_SECONDS

    def nearest(seconds: float) -> int:
        return int(np.searchsorted(middles, seconds))

    cuts = [0]
    for end in sorted({*map(nearest, boundaries), grid.num_pairs} - {0}):
        while cuts[-1] < end:
            cuts.append(min(end, max(cuts[-1] + 1, nearest(edges[cuts[-1]] + clip_seconds))))
    return [Clip(video.id, start, end) for start, end in itertools.pairwise(edges[cuts].tolist())]

"""Selectors that share the budget out over the score curve: AKS and BOLT, as published and as released."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from lvqa.records import FrameSelection
from lvqa.selection.protocol import ScoreBased, SelectorInput, argsort_descending
from lvqa.validation import is_whole, require, require_number, require_positive


@dataclass(frozen=True, slots=True, kw_only=True)
class AksSelector(ScoreBased):
    """AKS, adaptive keyframe sampling (CVPR 2025, arXiv 2502.21271).

    A segment of the video stays whole if its best frames stand out, by `stand_out` above its mean, on scores scaled
    to [0, 1]; else it is halved, `depth` times at most. Each segment at depth d gives its floor(M / 2^d) best frames,
    and as many are "its best" in the test. The depth is at most log2(M), so that no segment is left without a frame;
    the rest of the budget goes to the highest scores that are not chosen. Evenly spaced frames if all scores are equal.
    The paper's second threshold, on the standard deviation, is off in its settings and left out.
    """

    stand_out: float = 0.8
    """t1 in the paper."""
    depth: int = 5
    """L in the paper."""

    def __post_init__(self) -> None:
        require_number(self.stand_out, "stand_out", 0, 1)
        require(is_whole(self.depth) and 0 <= self.depth <= 20, "depth", self.depth, "a whole number from 0 to 20")

    def select(self, inputs: SelectorInput) -> FrameSelection:
        if inputs.is_flat:
            return inputs.evenly_spaced()
        return inputs.fill_budget(self._frames(inputs.normalized_scores(), inputs.budget))

    def _frames(self, scores: np.ndarray, num_frames: int) -> list[int]:
        depth = min(self.depth, num_frames.bit_length() - 1)
        return aks_frames(scores, num_frames, stand_out=self.stand_out, depth=depth)


@dataclass(frozen=True, slots=True, kw_only=True)
class AksReleasedSelector(AksSelector):
    """AKS as its released code has it, with two differences to the paper.

    A segment is tested by its M best frames whatever its depth, which stand out less the smaller it is, so nearly all
    are halved to the end. And the depth is not bounded: of 32 segments each gives floor(M / 32) frames, which is none
    for M = 16. The code then returns fewer frames; here the highest scores that are not chosen fill the budget, so that
    at 16 it is mostly the 16 best frames.
    """

    def _frames(self, scores: np.ndarray, num_frames: int) -> list[int]:
        return aks_frames(scores, num_frames, stand_out=self.stand_out, depth=self.depth, released=True)


def aks_frames(
    scores: np.ndarray, num_frames: int, *, stand_out: float, depth: int, released: bool = False
) -> list[int]:
    """Return the frames that AKS's segments give, in the order of the segments.

    Args:
        scores: (n,) in [0, 1].
        num_frames: The budget M.
        stand_out: How far the best of a segment must be above its mean.
        depth: How often a segment is halved at most.
        released: Whether a segment is tested by its M best frames, as in the released code.

    Returns:
        Indices of frames: `num_frames` or fewer.
    """

    def segment_frames(start: int, end: int, level: int) -> Iterator[int]:
        segment, share = scores[start:end], num_frames >> level
        best = np.sort(segment)[::-1][: num_frames if released else share]
        if level == depth or not len(segment) or (len(best) and best.mean() - segment.mean() > stand_out):
            yield from (start + argsort_descending(segment)[:share]).tolist()
        else:
            middle = start + len(segment) // 2
            yield from segment_frames(start, middle, level + 1)
            yield from segment_frames(middle, end, level + 1)

    return list(segment_frames(0, len(scores), 0))


@dataclass(frozen=True, slots=True, kw_only=True)
class BoltSelector(ScoreBased):
    """BOLT's inverse transform sampling (CVPR 2025, arXiv 2503.21483).

    Scores scaled to [0, 1] and raised to `power` are a density over the video, and the frames are those at its
    quantiles (i + 1/2) / M. Where several quantiles lie in one frame, the highest scores that are not chosen replace
    the repetitions. Evenly spaced frames if all scores are equal.
    """

    power: float = 3.0
    """alpha in the paper: 3 for Video-MME and MLVU, 2.5 for LongVideoBench."""

    def __post_init__(self) -> None:
        require_positive(self.power, "power")

    def select(self, inputs: SelectorInput) -> FrameSelection:
        if inputs.is_flat:
            return inputs.evenly_spaced()
        frames = bolt_frames(inputs.normalized_scores(), self._quantiles(inputs.budget), power=self.power)
        return inputs.fill_budget(frames)

    def _quantiles(self, num_frames: int) -> np.ndarray:
        quantiles: np.ndarray = (np.arange(num_frames) + 0.5) / num_frames
        return quantiles


@dataclass(frozen=True, slots=True, kw_only=True)
class BoltReleasedSelector(BoltSelector):
    """BOLT as its released code has it: the quantiles are M even steps from 1/M to 1 - 1/M.

    Those are not the middles of M parts: two are the same for M = 2, and for M = 1 it is the end of the video. The code
    also repeats a frame as often as it is hit; here, as in `bolt`, each is chosen once and the highest scores that are
    not chosen fill the budget.
    """

    def _quantiles(self, num_frames: int) -> np.ndarray:
        return released_quantiles(num_frames)


def released_quantiles(num_frames: int) -> np.ndarray:
    """Return the quantiles (num_frames,) at which BOLT's released code takes frames."""
    return np.linspace(1 / num_frames, 1 - 1 / num_frames, num_frames)


def bolt_frames(scores: np.ndarray, quantiles: np.ndarray, *, power: float) -> list[int]:
    """Return for each quantile the frame in which it lies, so maybe the same one several times; scores in [0, 1]."""
    cumulative = np.cumsum(scores**power)
    frames = np.searchsorted(cumulative, quantiles * cumulative[-1])
    clipped: list[int] = np.minimum(frames, len(scores) - 1).tolist()
    return clipped

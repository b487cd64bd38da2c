"""Selectors that share the budget out over the score curve: AKS and BOLT, as published and as released."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from lvqa.records import FrameSelection
from lvqa.selection.protocol import ByScores, SelectorInput, descending
from lvqa.validation import is_whole, require, require_number, require_positive


@dataclass(frozen=True, slots=True, kw_only=True)
class AksSelector(ByScores):
    """AKS, adaptive keyframe sampling (CVPR 2025, arXiv 2502.21271).

    A part of the video is kept whole if its best frames stand out, by `stand_out` above its mean, on scores stretched
    to [0, 1]; else it is halved, `depth` times at most. Each part at depth d gives its floor(M / 2^d) best frames, and
    as many are "its best" in the test. The depth is at most log2(M), so that no part is left without a frame; what is
    left of the budget goes to the highest scores that are not taken. Evenly spaced frames if all scores are equal. The
    paper's second threshold, on the standard deviation, is off in its settings and left out.
    """

    stand_out: float = 0.8
    """t1 in the paper."""
    depth: int = 5
    """L in the paper."""

    def __post_init__(self) -> None:
        require_number(self.stand_out, "stand_out", 0, 1)
        require(is_whole(self.depth) and 0 <= self.depth <= 20, "depth", self.depth, "a whole number from 0 to 20")

    def select(self, grid: SelectorInput) -> FrameSelection:
        if grid.is_flat:
            return grid.even()
        return grid.filled(self._frames(grid.unit_scores(), grid.budget))

    def _frames(self, scores: np.ndarray, num_frames: int) -> list[int]:
        depth = min(self.depth, num_frames.bit_length() - 1)
        return aks_frames(scores, num_frames, stand_out=self.stand_out, depth=depth)


@dataclass(frozen=True, slots=True, kw_only=True)
class AksReleasedSelector(AksSelector):
    """AKS as its released code has it, with two differences to the paper.

    A part is tested by its M best frames whatever its depth, which stand out less the smaller it is, so nearly all is
    halved to the end. And the depth is not bounded: of 32 parts each gives floor(M / 32) frames, which is none for
    M = 16. The code then returns fewer frames; here the highest scores that are not taken fill the budget, so that at
    16 it is mostly the 16 best frames.
    """

    def _frames(self, scores: np.ndarray, num_frames: int) -> list[int]:
        return aks_frames(scores, num_frames, stand_out=self.stand_out, depth=self.depth, released=True)


def aks_frames(
    scores: np.ndarray, num_frames: int, *, stand_out: float, depth: int, released: bool = False
) -> list[int]:
    """What the parts of scores (n,) in [0, 1] give, in the order of the parts: `num_frames` or fewer."""

    def parts(begin: int, end: int, at: int) -> Iterator[int]:
        part, share = scores[begin:end], num_frames >> at
        tested = np.sort(part)[::-1][: num_frames if released else share]
        if at == depth or not len(part) or (len(tested) and tested.mean() - part.mean() > stand_out):
            yield from (begin + descending(part)[:share]).tolist()
        else:
            middle = begin + len(part) // 2
            yield from parts(begin, middle, at + 1)
            yield from parts(middle, end, at + 1)

    return list(parts(0, len(scores), 0))


@dataclass(frozen=True, slots=True, kw_only=True)
class BoltSelector(ByScores):
    """BOLT's inverse transform sampling (CVPR 2025, arXiv 2503.21483).

    Scores stretched to [0, 1] and raised to `power` are a density over the video, and frames are taken at its quantiles
    (i + 1/2) / M. Where several quantiles lie in one frame, the highest scores that are not taken stand in. Evenly
    spaced frames if all scores are equal.
    """

    power: float = 3.0
    """alpha in the paper: 3 for Video-MME and MLVU, 2.5 for LongVideoBench."""

    def __post_init__(self) -> None:
        require_positive(self.power, "power")

    def select(self, grid: SelectorInput) -> FrameSelection:
        if grid.is_flat:
            return grid.even()
        return grid.filled(bolt_frames(grid.unit_scores(), self._quantiles(grid.budget), power=self.power))

    def _quantiles(self, num_frames: int) -> np.ndarray:
        quantiles: np.ndarray = (np.arange(num_frames) + 0.5) / num_frames
        return quantiles


@dataclass(frozen=True, slots=True, kw_only=True)
class BoltReleasedSelector(BoltSelector):
    """BOLT as its released code has it: the quantiles are M even steps from 1/M to 1 - 1/M.

    Those are not the middles of M parts: two are the same for M = 2, and for M = 1 it is the end of the video. The code
    also keeps a frame as often as it is hit; here, as in `bolt`, each is shown once and the highest scores that are not
    taken fill the budget.
    """

    def _quantiles(self, num_frames: int) -> np.ndarray:
        return released_quantiles(num_frames)


def released_quantiles(num_frames: int) -> np.ndarray:
    """(num_frames,) where BOLT's released code cuts the density."""
    return np.linspace(1 / num_frames, 1 - 1 / num_frames, num_frames)


def bolt_frames(scores: np.ndarray, quantiles: np.ndarray, *, power: float) -> list[int]:
    """For each quantile the frame in which it lies, so maybe the same one several times; scores (n,) in [0, 1]."""
    reached = np.cumsum(scores**power)
    frames = np.searchsorted(reached, quantiles * reached[-1])
    kept: list[int] = np.minimum(frames, len(scores) - 1).tolist()
    return kept

"""Determinantal point processes: frames that fit the question and differ from each other. DPP, and MDP3 over segments.

Both are of MDP3 (arXiv 2501.02885). A set S of frames is worth J(S) = (2 / lambda) sum log r_i + log det L_S, where
L_ij = k(f_i, f_j) is how alike two frames are and r_i = k(f_i, q) how well one fits the question, by a kernel
k(x, y) = sum over u of exp(-|x - y|^2 / (2 * 2^u)).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from lvqa.records import FrameSelection, LvqaError
from lvqa.selection.protocol import ByFeatures, SelectorInput, evenly_spaced
from lvqa.validation import require_positive, require_whole

PAPER_WIDTHS = (-3, -2, 0, 1, 2)
"""The exponents u in the paper."""
RELEASED_WIDTHS = (-3, -2, -1, 0, 1)
"""Those of the released code."""

_JITTER = 1e-6
"""Added to the diagonal of L, so that frames with one vector still have a determinant; and the least r."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DppSelector(ByFeatures):
    """The frames that a greedy search takes for J, one after the other, among all frames of the grid."""

    trade_off: float = 0.2
    """lambda: the smaller, the more the question counts."""

    def __post_init__(self) -> None:
        require_positive(self.trade_off, "trade_off")

    def select(self, grid: SelectorInput) -> FrameSelection:
        worth = SetWorth.of(grid, "dpp", trade_off=self.trade_off)
        return grid.selection(worth.greedy(np.arange(len(grid)), grid.budget)[0])


@dataclass(frozen=True, slots=True, kw_only=True)
class Mdp3Selector(ByFeatures):
    """MDP3 (arXiv 2501.02885): the budget shared out over segments by dynamic programming, each filled greedily.

    `candidates` evenly spaced frames (all of the budget, if that is more) form segments of `segment` of them, or one
    segment if the budget is more than that. A segment's frames are worth J of them and the last frame taken before,
    less J of that frame alone.
    """

    trade_off: float = 0.2
    """lambda: the smaller, the more the question counts."""
    candidates: int = 128
    segment: int = 32

    def __post_init__(self) -> None:
        require_positive(self.trade_off, "trade_off")
        require_whole(self.candidates, "candidates")
        require_whole(self.segment, "segment")

    def select(self, grid: SelectorInput) -> FrameSelection:
        return self._select(SetWorth.of(grid, "mdp3", trade_off=self.trade_off), grid)

    def _select(self, worth: SetWorth, grid: SelectorInput, *, released: bool = False) -> FrameSelection:
        candidates = evenly_spaced(len(grid), max(self.candidates, grid.budget))
        length = self.segment if grid.budget <= self.segment else len(candidates)
        segments = [candidates[begin : begin + length] for begin in range(0, len(candidates), length)]
        return grid.selection(mdp3_frames(worth, segments, grid.budget, released=released))


@dataclass(frozen=True, slots=True, kw_only=True)
class Mdp3ReleasedSelector(Mdp3Selector):
    """MDP3 as its released code has it, with two differences to the paper.

    The kernel's exponents are (-3, -2, -1, 0, 1); and a segment's frames are worth J of them and the last frame taken
    before, without subtracting J of that frame, which rewards taking frames from many segments. The code fails where
    the last segment is shorter; here it may be.
    """

    def select(self, grid: SelectorInput) -> FrameSelection:
        worth = SetWorth.of(grid, "mdp3_released", trade_off=self.trade_off, widths=RELEASED_WIDTHS)
        return self._select(worth, grid, released=True)


@dataclass(frozen=True, slots=True, eq=False)
class SetWorth:
    """J over the frames of a grid. Frames with one vector share the rows, so long grids stay small."""

    likeness: Callable[[int, np.ndarray], np.ndarray]
    """Frame i and frames (c,) -> (c,) k of each with i, without what is added to the diagonal."""
    fit: np.ndarray
    """(n,) (2 / lambda) log r."""
    alone: float
    """L_ii, the same for all."""

    @classmethod
    def of(
        cls, grid: SelectorInput, selector: str, *, trade_off: float, widths: Sequence[int] = PAPER_WIDTHS
    ) -> SetWorth:
        """LvqaError, which names the selector, if the features or the query are lacking."""
        vectors, run_of = grid.runs(selector)
        if grid.query is None:
            raise LvqaError(f"method {selector!r} needs the question's vector (query), and there is none")
        lengths = (vectors**2).sum(axis=1)

        def kernel(vector: np.ndarray, rows: np.ndarray | slice) -> np.ndarray:
            squared = np.maximum(lengths[rows] - 2 * vectors[rows] @ vector + vector @ vector, 0)
            summed: np.ndarray = np.sum([np.exp(-squared / (2 * 2.0**width)) for width in widths], axis=0)
            return summed

        def likeness(frame: int, frames: np.ndarray) -> np.ndarray:
            # Each run once, whatever its frames, so that equal frames get equal bits.
            first, last = run_of[frames[0]], run_of[frames[-1]]
            alike: np.ndarray = kernel(vectors[run_of[frame]], slice(first, last + 1))[run_of[frames] - first]
            return alike

        fit = 2 / trade_off * np.log(np.maximum(kernel(grid.query.astype(np.float64), slice(None)), _JITTER))
        return cls(likeness=likeness, fit=fit[run_of], alone=len(widths) + _JITTER)

    def greedy(self, frames: np.ndarray, num_frames: int, given: int | None = None) -> tuple[list[int], np.ndarray]:
        """The frames taken from `frames` (c,), ascending, in the order of taking, and what each adds to J.

        A `given` frame that is none of them counts as taken, and is not among the result. Of equal gains the earlier.
        """
        # Row t of `factor` is the incremental Cholesky factor of L for the t-th taken frame; `left` is what of each
        # frame's L_ii is not explained by those taken, d^2, whose logarithm is the gain in log det.
        factor = np.zeros((num_frames + 1, len(frames)))
        left, free, row = np.full(len(frames), self.alone), np.ones(len(frames), dtype=bool), 0
        if given is not None:
            factor[0] = self.likeness(given, frames) / np.sqrt(self.alone)
            left, row = left - factor[0] ** 2, 1
        chosen, gains = [], []
        for _ in range(min(num_frames, len(frames))):
            gain = np.where(free, np.log(np.maximum(left, 1e-12)) + self.fit[frames], -np.inf)
            best = int(np.argmax(gain))
            chosen.append(int(frames[best]))
            gains.append(gain[best])
            free[best] = False
            alike = self.likeness(chosen[-1], frames) - factor[:row].T @ factor[:row, best]
            factor[row] = alike / np.sqrt(max(left[best], 1e-12))
            left, row = left - factor[row] ** 2, row + 1
        return chosen, np.array(gains)


def mdp3_frames(
    worth: SetWorth, segments: Sequence[np.ndarray], num_frames: int, *, released: bool = False
) -> list[int]:
    """MDP3's dynamic programming: `num_frames` frames, ascending, of segments that follow each other in time."""
    # Number of frames taken so far -> the best value, and the frames of it.
    best: dict[int, tuple[float, list[int]]] = {0: (0.0, [])}
    for segment in segments:
        after = dict(best)
        for taken, (value, frames) in best.items():
            given = frames[-1] if frames else None
            picked, gains = worth.greedy(segment, num_frames - taken, given)
            if released and given is not None and len(gains):
                gains[0] += worth.fit[given] + np.log(worth.alone)
            for more, total in enumerate((value + np.cumsum(gains)).tolist(), 1):
                if taken + more not in after or total > after[taken + more][0]:
                    after[taken + more] = (total, frames + sorted(picked[:more]))
        best = after
    return best[num_frames][1]

"""Determinantal point processes: frames that fit the question and differ from each other. DPP and MDP3.

Both are of MDP3 (arXiv 2501.02885). A set S of frames is worth J(S) = (2 / lambda) sum log r_i + log det L_S, where
L_ij = k(f_i, f_j) is how alike two frames are and r_i = k(f_i, q) how well one fits the question, by a kernel
k(x, y) = sum over u of exp(-|x - y|^2 / (2 * 2^u)).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from lvqa.records import FrameSelection, LvqaError
from lvqa.selection.protocol import FeatureBased, SelectorInput, evenly_spaced
from lvqa.validation import require_positive, require_whole

PAPER_WIDTHS = (-3, -2, 0, 1, 2)
"""The exponents u in the paper."""
RELEASED_WIDTHS = (-3, -2, -1, 0, 1)
"""The exponents u in the released code."""

_JITTER = 1e-6
"""It is added to the diagonal of L, so that frames with one vector still have a determinant; also the least r."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DppSelector(FeatureBased):
    """The frames that a greedy search for the largest J chooses, one after the other, among all frames."""

    trade_off: float = 0.2
    """lambda: the smaller, the more the question counts."""

    def __post_init__(self) -> None:
        require_positive(self.trade_off, "trade_off")

    def select(self, inputs: SelectorInput) -> FrameSelection:
        objective = SetObjective.from_inputs(inputs, "dpp", trade_off=self.trade_off)
        return inputs.selection(objective.greedy(np.arange(len(inputs)), inputs.budget)[0])


@dataclass(frozen=True, slots=True, kw_only=True)
class Mdp3Selector(FeatureBased):
    """MDP3 (arXiv 2501.02885): the budget shared out over segments by dynamic programming, each filled greedily.

    `candidates` evenly spaced frames (as many as the budget, if that is more) form segments of `segment` of them, or
    one segment if the budget is more than that. The value of a segment's frames is J of them and the last frame chosen
    before, less J of that frame alone.
    """

    trade_off: float = 0.2
    """lambda: the smaller, the more the question counts."""
    candidates: int = 128
    """The number of evenly spaced frames to choose from."""
    segment: int = 32
    """The number of candidates in a segment."""

    def __post_init__(self) -> None:
        require_positive(self.trade_off, "trade_off")
        require_whole(self.candidates, "candidates")
        require_whole(self.segment, "segment")

    def select(self, inputs: SelectorInput) -> FrameSelection:
        return self._select(SetObjective.from_inputs(inputs, "mdp3", trade_off=self.trade_off), inputs)

    def _select(self, objective: SetObjective, inputs: SelectorInput, *, released: bool = False) -> FrameSelection:
        candidates = evenly_spaced(len(inputs), max(self.candidates, inputs.budget))
        length = self.segment if inputs.budget <= self.segment else len(candidates)
        segments = [candidates[start : start + length] for start in range(0, len(candidates), length)]
        return inputs.selection(mdp3_frames(objective, segments, inputs.budget, released=released))


@dataclass(frozen=True, slots=True, kw_only=True)
class Mdp3ReleasedSelector(Mdp3Selector):
    """MDP3 as its released code has it, with two differences to the paper.

    The kernel's exponents are (-3, -2, -1, 0, 1); and the value of a segment's frames is J of them and the last frame
    chosen before, without subtracting J of that frame, which rewards frames from many segments. The code fails where
    the last segment is shorter; here it may be.
    """

    def select(self, inputs: SelectorInput) -> FrameSelection:
        name, widths = "mdp3_released", RELEASED_WIDTHS
        objective = SetObjective.from_inputs(inputs, name, trade_off=self.trade_off, widths=widths)
        return self._select(objective, inputs, released=True)


@dataclass(frozen=True, slots=True, eq=False)
class SetObjective:
    """The value J of sets of frames. Frames with one vector share a row, so that long videos stay small."""

    similarity: Callable[[int, np.ndarray], np.ndarray]
    """Maps frame i and frames (c,) to k (c,) of each with i, without what is added to the diagonal."""
    relevance: np.ndarray
    """(n,) (2 / lambda) log r."""
    diagonal: float
    """L_ii, the same for all frames."""

    @classmethod
    def from_inputs(
        cls, inputs: SelectorInput, selector: str, *, trade_off: float, widths: Sequence[int] = PAPER_WIDTHS
    ) -> SetObjective:
        """Return the objective over the frames of an input.

        Args:
            inputs: The frames, with features and query.
            selector: The name of the method, for the message.
            trade_off: lambda.
            widths: The exponents u of the kernel.

        Raises:
            LvqaError: The features or the query are missing.
        """
        vectors, run_of = inputs.feature_runs(selector)
        if inputs.query is None:
            raise LvqaError(f"method {selector!r} needs the question's vector (query), and there is none")
        lengths = (vectors**2).sum(axis=1)

        def kernel(vector: np.ndarray, rows: np.ndarray | slice) -> np.ndarray:
            squared = np.maximum(lengths[rows] - 2 * vectors[rows] @ vector + vector @ vector, 0)
            summed: np.ndarray = np.sum([np.exp(-squared / (2 * 2.0**width)) for width in widths], axis=0)
            return summed

        def similarity(frame: int, frames: np.ndarray) -> np.ndarray:
            # Each run once, whatever its frames, so that equal frames get equal bits.
            first, last = run_of[frames[0]], run_of[frames[-1]]
            run_similarity = kernel(vectors[run_of[frame]], slice(first, last + 1))
            frame_similarity: np.ndarray = run_similarity[run_of[frames] - first]
            return frame_similarity

        relevance = 2 / trade_off * np.log(np.maximum(kernel(inputs.query.astype(np.float64), slice(None)), _JITTER))
        return cls(similarity=similarity, relevance=relevance[run_of], diagonal=len(widths) + _JITTER)

    def greedy(self, frames: np.ndarray, num_frames: int, previous: int | None = None) -> tuple[list[int], np.ndarray]:
        """Choose `num_frames` of `frames`, or all of them, each time the one that adds most to J.

        Args:
            frames: (c,) ascending indices of frames.
            num_frames: How many to choose.
            previous: A frame that is none of them and counts as chosen. It is not part of the result.

        Returns:
            The frames in the order in which they are chosen (of equal gains the earlier), and what each adds to J.
        """
        # Row t of `factor` is the incremental Cholesky factor of L for the t-th chosen frame; `residual` is what of
        # each frame's L_ii is not explained by the chosen ones, d^2, whose logarithm is the gain in log det.
        factor = np.zeros((num_frames + 1, len(frames)))
        residual, free, row = np.full(len(frames), self.diagonal), np.ones(len(frames), dtype=bool), 0
        if previous is not None:
            factor[0] = self.similarity(previous, frames) / np.sqrt(self.diagonal)
            residual, row = residual - factor[0] ** 2, 1
        chosen, gains = [], []
        for _ in range(min(num_frames, len(frames))):
            gain = np.where(free, np.log(np.maximum(residual, 1e-12)) + self.relevance[frames], -np.inf)
            best = int(np.argmax(gain))
            chosen.append(int(frames[best]))
            gains.append(gain[best])
            free[best] = False
            unexplained = self.similarity(chosen[-1], frames) - factor[:row].T @ factor[:row, best]
            factor[row] = unexplained / np.sqrt(max(residual[best], 1e-12))
            residual, row = residual - factor[row] ** 2, row + 1
        return chosen, np.array(gains)


def mdp3_frames(
    objective: SetObjective, segments: Sequence[np.ndarray], num_frames: int, *, released: bool = False
) -> list[int]:
    """Share `num_frames` out over the segments by MDP3's dynamic programming.

    Args:
        objective: J over the frames.
        segments: Ascending frames of each segment; the segments follow each other in time.
        num_frames: How many to choose.
        released: Whether to add J of the last frame chosen before, as in the released code.

    Returns:
        The chosen frames, ascending.
    """
    # Number of frames chosen so far -> the best value, and the frames that have it.
    best: dict[int, tuple[float, list[int]]] = {0: (0.0, [])}
    for segment in segments:
        after = dict(best)
        for num_chosen, (value, frames) in best.items():
            previous = frames[-1] if frames else None
            added, gains = objective.greedy(segment, num_frames - num_chosen, previous)
            if released and previous is not None and len(gains):
                gains[0] += objective.relevance[previous] + np.log(objective.diagonal)
            for num_added, total in enumerate((value + np.cumsum(gains)).tolist(), 1):
                count = num_chosen + num_added
                if count not in after or total > after[count][0]:
                    after[count] = (total, frames + sorted(added[:num_added]))
        best = after
    return best[num_frames][1]

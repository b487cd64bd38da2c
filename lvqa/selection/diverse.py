"""Selectors that look at how alike frames are: MMR, k-means, and segments at the largest changes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from lvqa.records import FrameSelection
from lvqa.selection.protocol import ByFeatures, SelectorInput, descending, lottery
from lvqa.validation import require_number, require_whole


@dataclass(frozen=True, slots=True, kw_only=True)
class MmrSelector(ByFeatures):
    """Maximal marginal relevance (Carbonell and Goldstein, SIGIR 1998).

    First the best frame, then each time the one with the largest balance r - (1 - balance) s: r is its score,
    all stretched to [0, 1], s its largest cosine to a frame that is taken. 1 is `topk`, 0 takes what is farthest
    from all that is taken.
    """

    balance: float = 0.5
    """lambda: the weight of the scores."""

    def __post_init__(self) -> None:
        require_number(self.balance, "balance", 0, 1)

    def select(self, grid: SelectorInput) -> FrameSelection:
        vectors, run_of = grid.runs("mmr")
        return grid.selection(mmr_frames(grid.unit_scores(), vectors, run_of, grid.budget, balance=self.balance))


def mmr_frames(
    scores: np.ndarray, vectors: np.ndarray, run_of: np.ndarray, num_frames: int, *, balance: float
) -> list[int]:
    """Frames in the order in which they are taken. Scores (n,); the vector of frame i is row run_of[i] of (u, d)."""
    chosen = [int(np.argmax(scores))]
    nearest = np.full(len(vectors), -np.inf)  # (u,) the largest cosine to a frame that is taken
    while len(chosen) < num_frames:
        nearest = np.maximum(nearest, vectors @ vectors[run_of[chosen[-1]]])
        gain = balance * scores - (1 - balance) * nearest[run_of]  # (n,)
        gain[chosen] = -np.inf
        chosen.append(int(np.argmax(gain)))
    return chosen


@dataclass(frozen=True, slots=True, kw_only=True)
class KMeansSelector:
    """One frame for each kind of picture: M clusters of the vectors, and of each the frame nearest to its centre.

    The clustering of VideoTree (CVPR 2025, arXiv 2405.19209) at a fixed budget: a control for diversity that sees no
    question. It starts from centres drawn as in k-means++, the same for all questions on a video. Where there are fewer
    than M different vectors, the frames farthest in time from those taken fill the budget.
    """

    seed: int = 0
    max_rounds: int = 50
    needs_scores: ClassVar[bool] = False
    needs_features: ClassVar[bool] = True

    def __post_init__(self) -> None:
        require_whole(self.max_rounds, "max_rounds")

    def select(self, grid: SelectorInput) -> FrameSelection:
        vectors, run_of = grid.runs("kmeans")
        lots = lottery(self.seed, grid.video_id)
        runs = _nearest_to_centres(vectors, np.bincount(run_of), grid.budget, lots=lots, max_rounds=self.max_rounds)
        begins = np.searchsorted(run_of, np.array(runs))
        return grid.selection(_filled_in_time(grid.times_seconds, begins, grid.budget))


def _nearest_to_centres(
    vectors: np.ndarray, weights: np.ndarray, k: int, *, lots: np.random.Generator, max_rounds: int
) -> list[int]:
    """Lloyd's algorithm over rows (u, d) that count `weights` (u,) times: for each of k clusters or fewer one row."""
    lengths = (vectors**2).sum(axis=1)  # (u,)

    def distances(centres: np.ndarray) -> np.ndarray:
        """(u, c) squared."""
        squared: np.ndarray = np.maximum(lengths[:, None] - 2 * vectors @ centres.T + (centres**2).sum(axis=1), 0)
        return squared

    first = lots.choice(len(vectors), p=weights / weights.sum())
    centres = vectors[[first]]
    nearest = distances(centres)[:, 0]
    while len(centres) < k and (chances := weights * np.where(nearest > 1e-12, nearest, 0)).any():
        centres = np.r_[centres, vectors[[lots.choice(len(vectors), p=chances / chances.sum())]]]
        nearest = np.minimum(nearest, distances(centres[-1:])[:, 0])
    cluster_of = distances(centres).argmin(axis=1)
    for _ in range(max_rounds):
        shares = (cluster_of == np.arange(len(centres))[:, None]) * weights  # (c, u)
        totals = shares.sum(axis=1, keepdims=True)
        # A centre that has lost all its frames stays where it is.
        centres = np.where(totals > 0, shares @ vectors / np.maximum(totals, 1), centres)
        before, cluster_of = cluster_of, distances(centres).argmin(axis=1)
        if (before == cluster_of).all():
            break
    far = np.where(cluster_of == np.arange(len(centres))[:, None], distances(centres).T, np.inf)  # (c, u)
    return [int(row.argmin()) for row in far if np.isfinite(row).any()]


def _filled_in_time(times_seconds: np.ndarray, frames: np.ndarray, num_frames: int) -> list[int]:
    """The frames, and as many more, each the farthest in time from all that are taken."""
    chosen: list[int] = frames.tolist()
    apart = np.abs(times_seconds[:, None] - times_seconds[frames]).min(axis=1)  # (n,)
    while len(chosen) < num_frames:
        chosen.append(int(apart.argmax()))
        apart = np.minimum(apart, np.abs(times_seconds - times_seconds[chosen[-1]]))
    return chosen


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentsSelector(ByFeatures):
    """The best frame of each of the best segments, as framesieve's adaptive segments.

    The video is cut where neighbouring frames are least alike (cosine), into `per_frame` segments for each frame of the
    budget, but never between frames with the same vector. A segment is as good as its best frame. Where there are fewer
    segments than frames, they are gone through again, best first.
    """

    per_frame: int = 8

    def __post_init__(self) -> None:
        require_whole(self.per_frame, "per_frame")

    def select(self, grid: SelectorInput) -> FrameSelection:
        vectors, run_of = grid.runs("segments")
        change = 1 - (vectors[1:] * vectors[:-1]).sum(axis=1)  # (u - 1,) between a run and the next
        cuts = descending(change)[: self.per_frame * grid.budget - 1]
        segment_of = np.searchsorted(np.sort(cuts), run_of)  # (n,)
        best_first = grid.best_first()
        turn = np.empty(len(grid), dtype=np.int64)  # (n,) how many frames of its segment are better
        turns: dict[int, int] = {}
        for frame in best_first.tolist():
            segment = int(segment_of[frame])
            turn[frame] = turns.get(segment, 0)
            turns[segment] = turn[frame] + 1
        # Every segment's best frame before any second one; among these the best first.
        return grid.selection(best_first[np.argsort(turn[best_first], kind="stable")][: grid.budget])

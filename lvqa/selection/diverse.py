"""Selectors that compare frames with each other: MMR, k-means, and segments cut at the largest changes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from lvqa.records import FrameSelection
from lvqa.selection.protocol import FeatureBased, SelectorInput, TimesOnly, argsort_descending, seeded_rng
from lvqa.validation import require_number, require_whole


@dataclass(frozen=True, slots=True, kw_only=True)
class MmrSelector(FeatureBased):
    """Maximal marginal relevance (Carbonell and Goldstein, SIGIR 1998).

    The best frame comes first, then each time the one with the largest balance r - (1 - balance) s: r is its score,
    scaled to [0, 1], s its largest cosine to a frame that is already chosen. A balance of 1 is `topk`; 0 chooses what
    differs most from all that is chosen.
    """

    balance: float = 0.5
    """lambda: the weight of the scores."""

    def __post_init__(self) -> None:
        require_number(self.balance, "balance", 0, 1)

    def select(self, inputs: SelectorInput) -> FrameSelection:
        vectors, run_of = inputs.feature_runs("mmr")
        frames = mmr_frames(inputs.normalized_scores(), vectors, run_of, inputs.budget, balance=self.balance)
        return inputs.selection(frames)


def mmr_frames(
    scores: np.ndarray, vectors: np.ndarray, run_of: np.ndarray, num_frames: int, *, balance: float
) -> list[int]:
    """Return MMR's frames in the order in which they are chosen.

    Args:
        scores: (n,) in [0, 1].
        vectors: (u, d) unit vectors.
        run_of: (n,) the row of `vectors` that each frame has.
        num_frames: How many to choose.
        balance: The weight of the scores.
    """
    chosen = [int(np.argmax(scores))]
    similarity = np.full(len(vectors), -np.inf)  # (u,) the largest cosine to a chosen frame
    while len(chosen) < num_frames:
        similarity = np.maximum(similarity, vectors @ vectors[run_of[chosen[-1]]])
        gain = balance * scores - (1 - balance) * similarity[run_of]  # (n,)
        gain[chosen] = -np.inf
        chosen.append(int(np.argmax(gain)))
    return chosen


@dataclass(frozen=True, slots=True, kw_only=True)
class KMeansSelector(TimesOnly):
    """One frame for each kind of image: M clusters of the vectors, and of each the frame nearest to its centre.

    This is the clustering of VideoTree (CVPR 2025, arXiv 2405.19209) at a fixed budget: a control for diversity that
    ignores the question. It starts from centres sampled as in k-means++, the same for all questions about a video. If
    there are fewer than M different vectors, the frames farthest in time from the chosen ones fill the budget.
    """

    seed: int = 0
    max_rounds: int = 50
    needs_features: ClassVar[bool] = True

    def __post_init__(self) -> None:
        require_whole(self.max_rounds, "max_rounds")

    def select(self, inputs: SelectorInput) -> FrameSelection:
        vectors, run_of = inputs.feature_runs("kmeans")
        rng = seeded_rng(self.seed, inputs.video_id)
        runs = _nearest_to_centres(vectors, np.bincount(run_of), inputs.budget, rng=rng, max_rounds=self.max_rounds)
        starts = np.searchsorted(run_of, np.array(runs))
        return inputs.selection(_add_farthest_in_time(inputs.times_seconds, starts, inputs.budget))


def _nearest_to_centres(
    vectors: np.ndarray, weights: np.ndarray, k: int, *, rng: np.random.Generator, max_rounds: int
) -> list[int]:
    """Cluster the rows of `vectors` (u, d), each `weights` (u,) times, by Lloyd's algorithm.

    Returns:
        The index of the row nearest to the centre of each cluster: k rows or fewer.
    """
    lengths = (vectors**2).sum(axis=1)  # (u,)

    def distances(centres: np.ndarray) -> np.ndarray:
        """Return the squared distances (u, c)."""
        squared: np.ndarray = np.maximum(lengths[:, None] - 2 * vectors @ centres.T + (centres**2).sum(axis=1), 0)
        return squared

    first = rng.choice(len(vectors), p=weights / weights.sum())
    centres = vectors[[first]]
    nearest = distances(centres)[:, 0]
    while len(centres) < k and (odds := weights * np.where(nearest > 1e-12, nearest, 0)).any():
        centres = np.r_[centres, vectors[[rng.choice(len(vectors), p=odds / odds.sum())]]]
        nearest = np.minimum(nearest, distances(centres[-1:])[:, 0])
    cluster_of = distances(centres).argmin(axis=1)
    for _ in range(max_rounds):
        members = (cluster_of == np.arange(len(centres))[:, None]) * weights  # (c, u)
        totals = members.sum(axis=1, keepdims=True)
        # A centre without frames stays where it is.
        centres = np.where(totals > 0, members @ vectors / np.maximum(totals, 1), centres)
        previous, cluster_of = cluster_of, distances(centres).argmin(axis=1)
        if (previous == cluster_of).all():
            break
    to_centre = np.where(cluster_of == np.arange(len(centres))[:, None], distances(centres).T, np.inf)  # (c, u)
    return [int(row.argmin()) for row in to_centre if np.isfinite(row).any()]


def _add_farthest_in_time(times_seconds: np.ndarray, frames: np.ndarray, num_frames: int) -> list[int]:
    """Return the frames and others up to `num_frames`, each the farthest in time from all that are chosen."""
    chosen: list[int] = frames.tolist()
    distance = np.abs(times_seconds[:, None] - times_seconds[frames]).min(axis=1)  # (n,)
    while len(chosen) < num_frames:
        chosen.append(int(distance.argmax()))
        distance = np.minimum(distance, np.abs(times_seconds - times_seconds[chosen[-1]]))
    return chosen


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentsSelector(FeatureBased):
    """The best frame of each of the best segments, as framesieve's adaptive segments.

    The video is cut where neighbouring frames are least alike (cosine), into `per_frame` segments for each frame of the
    budget, but never between frames with the same vector. A segment is as good as its best frame. Where there are fewer
    segments than frames, each gives its second best frame, and so on, best segments first.
    """

    per_frame: int = 8
    """The number of segments for each frame of the budget."""

    def __post_init__(self) -> None:
        require_whole(self.per_frame, "per_frame")

    def select(self, inputs: SelectorInput) -> FrameSelection:
        vectors, run_of = inputs.feature_runs("segments")
        change = 1 - (vectors[1:] * vectors[:-1]).sum(axis=1)  # (u - 1,) between a run and the next
        cuts = argsort_descending(change)[: self.per_frame * inputs.budget - 1]
        segment_of = np.searchsorted(np.sort(cuts), run_of)  # (n,)
        best_first = inputs.best_first()
        rank = np.empty(len(inputs), dtype=np.int64)  # (n,) how many frames of its segment are better
        num_ranked: dict[int, int] = {}
        for frame in best_first.tolist():
            segment = int(segment_of[frame])
            rank[frame] = num_ranked.get(segment, 0)
            num_ranked[segment] = rank[frame] + 1
        # Every segment's best frame before any second one; among these the best first.
        return inputs.selection(best_first[np.argsort(rank[best_first], kind="stable")][: inputs.budget])

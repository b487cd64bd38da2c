"""From ranked clips to a grid: which score, clip and vector each frame has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lvqa.records import Candidate, Clip
from lvqa.selection.protocol import lowest_for_nan


@dataclass(frozen=True, slots=True, eq=False)
class FrameScores:
    """What the candidates say of each frame of a grid."""

    scores: np.ndarray
    """(n,) float64: the score of the frame's clip; -inf for a frame in none."""
    clip_ids: np.ndarray
    """(n,) int64: the place of the frame's clip among the candidates; -1 for a frame in none."""


def frame_scores(times_seconds: np.ndarray, candidates: Sequence[Candidate]) -> FrameScores:
    """Each frame with the score of its clip, where every reranked clip stands above all that were not looked at.

    Rerank scores stay as they are. Embedding scores are moved down together, as far as that needs, and no further.
    """
    embedded = lowest_for_nan(np.array([candidate.embed_score for candidate in candidates], dtype=np.float64))
    reranked = np.array(
        [np.nan if candidate.rerank_score is None else candidate.rerank_score for candidate in candidates],
        dtype=np.float64,
    )
    looked_at = ~np.isnan(reranked)
    scores = np.where(looked_at, reranked, _moved_below(embedded, ~looked_at, reranked[looked_at]))
    clip_ids = _clip_of_frames(times_seconds, [candidate.clip for candidate in candidates])
    return FrameScores(scores=np.r_[scores, -np.inf][clip_ids], clip_ids=clip_ids)


def frame_features(times_seconds: np.ndarray, clips: Sequence[Clip], vectors: np.ndarray) -> np.ndarray:
    """(n, d) the vector of each frame's clip, of (clips, d); zeros for a frame in none."""
    features: np.ndarray = np.r_[vectors, np.zeros_like(vectors[:1])][_clip_of_frames(times_seconds, clips)]
    return features


def _clip_of_frames(times_seconds: np.ndarray, clips: Sequence[Clip]) -> np.ndarray:
    """(n,) the place of each frame's clip among the clips, in any order; -1 for a frame in none."""
    times = np.asarray(times_seconds, dtype=np.float64)
    places = np.full(len(times), -1)
    for place, clip in enumerate(clips):
        # A clip is [start, end); both sides come from the same grid, so equal times are equal floats.
        places[slice(*np.searchsorted(times, [clip.start_seconds, clip.end_seconds]))] = place
    return places


def _moved_below(scores: np.ndarray, chosen: np.ndarray, above: np.ndarray) -> np.ndarray:
    """`scores` moved down by one number, if need be, so that the chosen ones lie under all of `above`."""
    best, lowest = (values[np.isfinite(values)] for values in (scores[chosen], above))
    if not len(best) or not len(lowest) or best.max() < lowest.min():
        return scores
    lowered: np.ndarray = scores - (best.max() - lowest.min()) - 1e-3
    return lowered

"""From ranked clips to frames: the score, the clip and the vector of each frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lvqa.records import Candidate, Clip
from lvqa.selection.protocol import nan_to_lowest


@dataclass(frozen=True, slots=True, eq=False)
class FrameScores:
    """What the candidates say about each of n frames."""

    scores: np.ndarray
    """(n,) float64: the score of the frame's clip; -inf for a frame in none."""
    clip_ids: np.ndarray
    """(n,) int64: the index of the frame's clip among the candidates; -1 for a frame in none."""


def frame_scores(
    times_seconds: np.ndarray, candidates: Sequence[Candidate], *, smooth_seconds: float | None = None
) -> FrameScores:
    """Give each frame the score of its clip, so that every reranked clip is above all others.

    Rerank scores stay as they are. Embedding scores are shifted down together, as far as that needs, and no further.
    Where what is said was searched, too, the merged scores count alone.

    Args:
        times_seconds: (n,) sorted.
        candidates: Clips with their scores, in any order.
        smooth_seconds: If it is given, the scores are smoothed, see `smoothed`.
    """
    clips = [candidate.clip for candidate in candidates]
    embed_scores = nan_to_lowest(np.array([candidate.embed_score for candidate in candidates], dtype=np.float64))
    rerank_scores = np.array(
        [np.nan if candidate.rerank_score is None else candidate.rerank_score for candidate in candidates],
        dtype=np.float64,
    )
    is_reranked = ~np.isnan(rerank_scores)
    shifted = _shift_below(embed_scores, ~is_reranked, rerank_scores[is_reranked])
    scores = np.where(is_reranked, rerank_scores, shifted)
    if candidates and all(candidate.merged_score is not None for candidate in candidates):
        scores = np.array([candidate.merged_score for candidate in candidates], dtype=np.float64)
    if smooth_seconds is not None:
        scores = smoothed(scores, clips, smooth_seconds)
    clip_ids = _clip_of_frames(times_seconds, clips)
    return FrameScores(scores=np.r_[scores, -np.inf][clip_ids], clip_ids=clip_ids)


def smoothed(scores: np.ndarray, clips: Sequence[Clip], seconds: float) -> np.ndarray:
    """Return for each clip the mean score of it and its neighbours, weighted by a Gaussian of the time between them.

    Args:
        scores: (clips,) A score that is not finite stays as it is, and counts for no other clip.
        clips: In any order.
        seconds: The standard deviation of the Gaussian, which is cut off at four of them. The time between two clips is
            that between their middles.
    """
    middles = np.array([(clip.start_seconds + clip.end_seconds) / 2 for clip in clips])
    finite = np.flatnonzero(np.isfinite(scores))
    in_time = finite[np.argsort(middles[finite], kind="stable")]
    times, values, result = middles[in_time], scores[in_time], scores.copy()
    for clip in in_time:
        first = np.searchsorted(times, middles[clip] - 4 * seconds)
        end = np.searchsorted(times, middles[clip] + 4 * seconds, side="right")
        distances = (times[first:end] - middles[clip]) / seconds
        result[clip] = np.average(values[first:end], weights=np.exp(-(distances**2) / 2))
    return result


def frame_features(times_seconds: np.ndarray, clips: Sequence[Clip], vectors: np.ndarray) -> np.ndarray:
    """Return for each frame the vector (n, d) of its clip, of `vectors` (clips, d); zeros for a frame in none."""
    features: np.ndarray = np.r_[vectors, np.zeros_like(vectors[:1])][_clip_of_frames(times_seconds, clips)]
    return features


def _clip_of_frames(times_seconds: np.ndarray, clips: Sequence[Clip]) -> np.ndarray:
    """Return for each frame the index (n,) of its clip, in any order; -1 for a frame in none."""
    times = np.asarray(times_seconds, dtype=np.float64)
    clip_ids = np.full(len(times), -1)
    for index, clip in enumerate(clips):
        # A clip is [start, end); both sides come from the same frame grid, so equal times are equal floats.
        clip_ids[slice(*np.searchsorted(times, [clip.start_seconds, clip.end_seconds]))] = index
    return clip_ids


def _shift_below(scores: np.ndarray, mask: np.ndarray, upper: np.ndarray) -> np.ndarray:
    """Return `scores` less one number, if need be, so that those under the mask are below all of `upper`."""
    masked, bounds = (values[np.isfinite(values)] for values in (scores[mask], upper))
    if not len(masked) or not len(bounds) or masked.max() < bounds.min():
        return scores
    shifted: np.ndarray = scores - (masked.max() - bounds.min()) - 1e-3
    return shifted

"""Scores and a budget -> the seconds to show. Arithmetic alone: no model, no pixels.

A selector sees the grid: when each frame is (`times_seconds`), how good it is (`scores`) and which clip it lies in
(`clip_ids`). `grid_scores` makes the last two from candidates; scores of single frames fit the same place.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol

import numpy as np

from lvqa.records import Candidate, FrameSelection, LvqaError


@dataclass(frozen=True, slots=True, eq=False)
class GridScores:
    """What the candidates say of each frame of a grid."""

    scores: np.ndarray
    """(n,) float64: the score of the frame's clip; -inf for a frame in none."""
    clip_ids: np.ndarray
    """(n,) int64: the place of the frame's clip among the candidates; -1 for a frame in none."""


class Selector(Protocol):
    """Chooses frames of a grid. A new one is a class with this method and a line in SELECTORS."""

    needs_scores: ClassVar[bool]
    """False: it chooses without having looked, so no index is needed."""

    def select(
        self,
        times_seconds: np.ndarray,
        *,
        num_frames: int,
        scores: np.ndarray | None = None,
        clip_ids: np.ndarray | None = None,
        video_id: str = "",
        question_id: str = "",
    ) -> FrameSelection:
        """Exactly min(num_frames, n) of the grid's n times, sorted and distinct.

        `times_seconds` (n,) are sorted. `scores` (n,): None is all equal, NaN is the lowest, equal ones go by time.
        `clip_ids` (n,) is the same number for all frames of a clip; None is one clip. The ids of video and question
        set the lots apart that a selector draws; the same input always gives the same frames.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class UniformSelector:
    """Evenly spaced frames.

    midpoint: the middles of M equal parts, frame floor((i + 1/2) n / M). linspace: from the first frame to the last,
    floor(i (n - 1) / (M - 1)), for M = 1 the middle one. interior: the inner ends of M + 1 equal parts,
    floor((i + 1) n / (M + 1)). Of n = 16 and M = 4: [2, 6, 10, 14], [0, 5, 10, 15], [3, 6, 9, 12].
    """

    uniform: Literal["midpoint", "linspace", "interior"] = "midpoint"
    needs_scores: ClassVar[bool] = False

    def __post_init__(self) -> None:
        allowed = ("midpoint", "linspace", "interior")
        if self.uniform not in allowed:
            raise LvqaError(f"uniform must be one of {', '.join(allowed)}, got {self.uniform!r}")

    def select(
        self,
        times_seconds: np.ndarray,
        *,
        num_frames: int,
        scores: np.ndarray | None = None,
        clip_ids: np.ndarray | None = None,
        video_id: str = "",
        question_id: str = "",
    ) -> FrameSelection:
        grid = _Grid.of(times_seconds, num_frames, scores, clip_ids)
        # In whole numbers, so that no rounding makes two frames one.
        n, m, i = len(grid.times), grid.budget, np.arange(grid.budget)
        if self.uniform == "midpoint" or (self.uniform == "linspace" and m == 1):
            frames = (2 * i + 1) * n // (2 * m)
        elif self.uniform == "linspace":
            frames = i * (n - 1) // (m - 1)
        else:
            frames = (i + 1) * n // (m + 1)
        return grid.selection(frames, video_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class FreeRetSelector:
    """Frames of the best clips, best clip first, until the budget is full.

    Of a clip `frames_per_clip` frames, as whole grid pairs (2p, 2p + 1) at the middles of equal parts of it: the model
    encodes two frames at the price of one. None takes a quarter of the budget, 4 at least: 4, 8, 16 of 16, 32, 64, so
    that a larger budget shows the best four clips more closely instead of adding worse ones. Where the clips run out
    before the budget, they are gone through again, best first, for the pairs that are left. An odd budget ends with the
    first frame of a pair.
    """

    frames_per_clip: int | None = None
    needs_scores: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.frames_per_clip is None:
            return
        if not _whole(self.frames_per_clip) or self.frames_per_clip < 2 or self.frames_per_clip % 2:
            raise LvqaError(f"frames_per_clip must be an even number, 2 or more, got {self.frames_per_clip!r}")

    def select(
        self,
        times_seconds: np.ndarray,
        *,
        num_frames: int,
        scores: np.ndarray | None = None,
        clip_ids: np.ndarray | None = None,
        video_id: str = "",
        question_id: str = "",
    ) -> FrameSelection:
        grid = _Grid.of(times_seconds, num_frames, scores, clip_ids)
        clips = [_pairs_of(frames) for frames in grid.clips_best_first()]
        frames_per_clip = self.frames_per_clip or max(4, 2 * (num_frames // 8))
        chosen: list[int] = []
        while len(chosen) < grid.budget:
            for pairs in clips:
                wanted = min(frames_per_clip, grid.budget - len(chosen))
                taken = [pairs[place] for place in _spread(len(pairs), (wanted + 1) // 2)]
                chosen += [frame for pair in taken for frame in pair][:wanted]
                pairs[:] = [pair for pair in pairs if pair not in taken]
        return grid.selection(np.array(chosen), video_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class TopKSelector:
    """The frames with the best scores. With one score a clip that is the best clip from its start, then the next."""

    needs_scores: ClassVar[bool] = True

    def select(
        self,
        times_seconds: np.ndarray,
        *,
        num_frames: int,
        scores: np.ndarray | None = None,
        clip_ids: np.ndarray | None = None,
        video_id: str = "",
        question_id: str = "",
    ) -> FrameSelection:
        grid = _Grid.of(times_seconds, num_frames, scores, clip_ids)
        return grid.selection(np.argsort(-grid.scores, kind="stable")[: grid.budget], video_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class RandomSelector:
    """Frames drawn by lot: the same for the same seed, video and question, in every process."""

    seed: int = 0
    needs_scores: ClassVar[bool] = False

    def select(
        self,
        times_seconds: np.ndarray,
        *,
        num_frames: int,
        scores: np.ndarray | None = None,
        clip_ids: np.ndarray | None = None,
        video_id: str = "",
        question_id: str = "",
    ) -> FrameSelection:
        grid = _Grid.of(times_seconds, num_frames, scores, clip_ids)
        lots = lottery(self.seed, video_id, question_id).random(len(grid.times))
        return grid.selection(np.argsort(lots, kind="stable")[: grid.budget], video_id)


SELECTORS: dict[str, Callable[..., Selector]] = {
    "freeret": FreeRetSelector,
    "random": RandomSelector,
    "topk": TopKSelector,
    "uniform": UniformSelector,
}


def make_selector(name: str, **options: Any) -> Selector:
    """The selector of this name, given those of the options that it takes; the others are for its neighbours."""
    if name not in SELECTORS:
        raise LvqaError(f"method must be one of {', '.join(SELECTORS)}, got {name!r}")
    selector: Any = SELECTORS[name]
    taken = {option.name for option in dataclasses.fields(selector)}
    made: Selector = selector(**{key: value for key, value in options.items() if key in taken})
    return made


def grid_scores(times_seconds: np.ndarray, candidates: Sequence[Candidate]) -> GridScores:
    """Each frame with the score of its clip, where every reranked clip stands above all that were not looked at.

    Rerank scores stay as they are. Embedding scores are moved down together, as far as that needs, and no further.
    """
    times = np.asarray(times_seconds, dtype=np.float64)
    embedded = _lowest_for_nan(np.array([candidate.embed_score for candidate in candidates], dtype=np.float64))
    reranked = np.array(
        [np.nan if candidate.rerank_score is None else candidate.rerank_score for candidate in candidates],
        dtype=np.float64,
    )
    looked_at = ~np.isnan(reranked)
    scores = np.where(looked_at, reranked, _moved_below(embedded, ~looked_at, reranked[looked_at]))
    frame_scores, clip_ids = np.full(len(times), -np.inf), np.full(len(times), -1)
    for clip_id, candidate in enumerate(candidates):
        # A clip is [start, end); both sides come from the same grid, so equal times are equal floats.
        frames = slice(*np.searchsorted(times, [candidate.clip.start_seconds, candidate.clip.end_seconds]))
        frame_scores[frames], clip_ids[frames] = scores[clip_id], clip_id
    return GridScores(scores=frame_scores, clip_ids=clip_ids)


def lottery(*keys: int | str) -> np.random.Generator:
    """Lots that depend on the keys alone: Python's own hash differs from process to process."""
    digest = hashlib.sha256(repr(keys).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest, "little"))


@dataclass(frozen=True, slots=True, eq=False)
class _Grid:
    """A selector's input, checked."""

    times: np.ndarray
    scores: np.ndarray
    clip_ids: np.ndarray
    budget: int

    @classmethod
    def of(
        cls, times_seconds: np.ndarray, num_frames: int, scores: np.ndarray | None, clip_ids: np.ndarray | None
    ) -> _Grid:
        if not _whole(num_frames) or num_frames < 1:
            raise LvqaError(f"the number of frames must be a whole number, 1 or more, got {num_frames!r}")
        times = np.asarray(times_seconds, dtype=np.float64)
        n = len(times)
        if n == 0 or times.shape != (n,) or not np.isfinite(times).all() or (np.diff(times) <= 0).any():
            raise ValueError("the grid's times must be at least one, finite, sorted and distinct")
        scores = np.zeros(n) if scores is None else _lowest_for_nan(np.asarray(scores, dtype=np.float64))
        clip_ids = np.zeros(n, dtype=np.int64) if clip_ids is None else np.asarray(clip_ids)
        if scores.shape != (n,) or clip_ids.shape != (n,):
            raise ValueError(f"{n} times, scores of shape {scores.shape}, clip_ids of shape {clip_ids.shape}")
        return cls(times=times, scores=scores, clip_ids=clip_ids, budget=min(int(num_frames), n))

    def selection(self, frames: np.ndarray, video_id: str) -> FrameSelection:
        assert len(np.unique(frames)) == self.budget, "a selector must give as many distinct frames as it was asked for"
        return FrameSelection(video_id, tuple(self.times[np.sort(frames)].tolist()))

    def clips_best_first(self) -> list[list[int]]:
        """The frames of each clip. A clip is as good as its best frame; of equal ones the earlier is first."""
        order = np.lexsort((np.arange(len(self.times)), -self.scores))
        clips: dict[int, list[int]] = {int(clip_id): [] for clip_id in self.clip_ids[order]}
        for frame, clip_id in enumerate(self.clip_ids.tolist()):
            clips[clip_id].append(frame)
        return list(clips.values())


def _whole(value: object) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _lowest_for_nan(scores: np.ndarray) -> np.ndarray:
    kept: np.ndarray = np.where(np.isnan(scores), -np.inf, scores)
    return kept


def _moved_below(scores: np.ndarray, chosen: np.ndarray, above: np.ndarray) -> np.ndarray:
    """`scores` moved down by one number, if need be, so that the chosen ones lie under all of `above`."""
    best, lowest = (values[np.isfinite(values)] for values in (scores[chosen], above))
    if not len(best) or not len(lowest) or best.max() < lowest.min():
        return scores
    lowered: np.ndarray = scores - (best.max() - lowest.min()) - 1e-3
    return lowered


def _pairs_of(frames: list[int]) -> list[list[int]]:
    """A clip's frames as grid pairs: [4, 5, 6] -> [[4, 5], [6]]."""
    pairs: dict[int, list[int]] = {}
    for frame in frames:
        pairs.setdefault(frame // 2, []).append(frame)
    return list(pairs.values())


def _spread(n: int, m: int) -> list[int]:
    """m of n places (all, if m is more) at the middles of equal parts, ascending: 8 and 2 -> [2, 6]."""
    m = min(n, m)
    return [(2 * i + 1) * n // (2 * m) for i in range(m)]

"""What a selector sees and gives back: a grid of frames with all that is known about each, and some of its seconds."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np

from lvqa.records import FrameSelection, LvqaError
from lvqa.validation import is_whole


@dataclass(frozen=True, slots=True, eq=False, init=False, repr=False)
class SelectorInput:
    """A grid of n frames, what is known about each, and how many are wanted. Checked once; the arrays are read-only."""

    times_seconds: np.ndarray
    """(n,) float64, sorted and distinct: when each frame is."""
    num_frames: int
    """How many are asked for; `budget` is what can be given."""
    scores: np.ndarray
    """(n,) float64, how good each frame is; NaN counts as -inf, equal ones go by time. All 0 if unknown."""
    clip_ids: np.ndarray
    """(n,) the same whole number for all frames of a clip, -1 for a frame in none. All 0 if unknown."""
    features: np.ndarray | None
    """(n, d) a unit vector per frame (or the zero vector), if known. An index holds one a clip, so they repeat."""
    query: np.ndarray | None
    """(d,) the question's unit vector, if known."""
    video_id: str
    video_name: str
    """As a benchmark calls it, or its file without the suffix."""
    question_id: str
    """With the video's: what sets the lots apart that a selector draws."""
    question_text: str

    def __init__(
        self,
        times_seconds: np.ndarray,
        num_frames: int,
        *,
        scores: np.ndarray | None = None,
        clip_ids: np.ndarray | None = None,
        features: np.ndarray | None = None,
        query: np.ndarray | None = None,
        video_id: str = "",
        video_name: str = "",
        question_id: str = "",
        question_text: str = "",
    ) -> None:
        """Raises LvqaError for a number of frames that is none, and ValueError for what only a bug can make."""
        if not is_whole(num_frames) or num_frames < 1:
            raise LvqaError(f"the number of frames must be a whole number, 1 or more, got {num_frames!r}")
        times = np.asarray(times_seconds, dtype=np.float64)
        n = len(times)
        if n == 0 or times.shape != (n,) or not np.isfinite(times).all() or (np.diff(times) <= 0).any():
            raise ValueError("the grid's times must be at least one, finite, sorted and distinct")
        scores = np.zeros(n) if scores is None else lowest_for_nan(np.asarray(scores, dtype=np.float64))
        clip_ids = np.zeros(n, dtype=np.int64) if clip_ids is None else np.asarray(clip_ids)
        if scores.shape != (n,) or clip_ids.shape != (n,):
            raise ValueError(f"{n} times, scores of shape {scores.shape}, clip_ids of shape {clip_ids.shape}")
        if features is not None:
            features = np.asarray(features)
            if features.ndim != 2 or len(features) != n or not np.isfinite(features).all():
                raise ValueError(f"{n} times, features of shape {features.shape}; they must be finite numbers")
        if query is not None:
            query = np.asarray(query)
            if features is None or query.shape != features.shape[1:] or not np.isfinite(query).all():
                raise ValueError(f"{n} times, a query of shape {query.shape}; it must fit the features and be finite")
        values = {
            "times_seconds": _read_only(times),
            "num_frames": int(num_frames),
            "scores": _read_only(scores),
            "clip_ids": _read_only(clip_ids),
            "features": None if features is None else _read_only(features),
            "query": None if query is None else _read_only(query),
            "video_id": video_id,
            "video_name": video_name,
            "question_id": question_id,
            "question_text": question_text,
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def __len__(self) -> int:
        return len(self.times_seconds)

    @property
    def budget(self) -> int:
        """How many frames a selection has: min(num_frames, n)."""
        return min(self.num_frames, len(self))

    def selection(self, frames: Iterable[int] | np.ndarray) -> FrameSelection:
        """The frames, `budget` distinct ones in any order, as a selector returns them."""
        chosen = np.unique(np.asarray(frames if isinstance(frames, np.ndarray) else list(frames), dtype=np.int64))
        assert len(chosen) == self.budget, "a selector must give as many distinct frames as it was asked for"
        return FrameSelection(self.video_id, tuple(self.times_seconds[chosen].tolist()))

    def fault(self, selection: object) -> str | None:
        """What is wrong with a selector's answer, in words that follow "it gives"; None if it is as it must be."""
        if not isinstance(selection, FrameSelection):
            return f"a {type(selection).__name__} and no FrameSelection"
        chosen = selection.times_seconds
        if len(chosen) != self.budget:
            return f"{len(chosen)} of {len(self)} frames and not {self.budget} when asked for {self.num_frames}"
        if others := sorted({*chosen} - {*self.times_seconds.tolist()}):
            return f"{others[0]} s, which is no time of the grid"
        return None if selection.video_id == self.video_id else f"frames of video {selection.video_id!r}"

    @property
    def is_flat(self) -> bool:
        """Whether no frame is better than another, so that there is nothing to choose by."""
        return bool((self.scores == self.scores[0]).all())

    def unit_scores(self) -> np.ndarray:
        """(n,) the scores moved and stretched to [0, 1]. An infinite one counts as the finite one nearest to it."""
        finite = self.scores[np.isfinite(self.scores)]
        low, high = (finite.min(), finite.max()) if len(finite) else (0.0, 0.0)
        # Halved before they are subtracted: the difference of the largest numbers there are is not finite.
        if (reach := high / 2 - low / 2) == 0:
            return np.where(self.scores >= high, 1.0, 0.0)
        stretched: np.ndarray = (np.clip(self.scores, low, high) / 2 - low / 2) / reach
        return stretched

    def even(self) -> FrameSelection:
        """Evenly spaced frames: what there is to choose where the scores say nothing."""
        return self.selection(evenly_spaced(len(self), self.budget))

    def best_first(self) -> np.ndarray:
        """(n,) all frames, the best first; of equal ones the earlier."""
        return descending(self.scores)

    def filled(self, frames: Iterable[int]) -> FrameSelection:
        """These frames, each once, and the highest scores of the others up to the budget."""
        order = dict.fromkeys([*map(int, frames), *self.best_first().tolist()])
        return self.selection(list(order)[: self.budget])

    def runs(self, selector: str) -> tuple[np.ndarray, np.ndarray]:
        """The features without repetition: (u, d) float64, a row for each run of frames with one vector, and (n,) the
        run of each frame. LvqaError, which names the selector, if there are no features.
        """
        if self.features is None:
            raise LvqaError(f"method {selector!r} needs a vector for each frame (features), and there are none")
        begins = np.r_[True, (self.features[1:] != self.features[:-1]).any(axis=1)]
        return self.features[begins].astype(np.float64), np.cumsum(begins) - 1


class Selector(Protocol):
    """Chooses frames of a grid. A new one is such a class with a line in SELECTORS, or in a file of your own."""

    @property
    def needs_scores(self) -> bool:
        """False: it looks neither at scores nor at the query, so nothing is searched for."""
        ...

    @property
    def needs_features(self) -> bool:
        """True: it looks at the vectors of the index."""
        ...

    def select(self, grid: SelectorInput) -> FrameSelection:
        """Exactly min(num_frames, n) of the grid's n times, sorted and distinct.

        The same input always gives the same frames, in every process. LvqaError if it needs features or the query and
        there are none.
        """
        ...


class ByScores:
    """What a selector that looks at scores says of itself."""

    needs_scores: ClassVar[bool] = True
    needs_features: ClassVar[bool] = False


class ByFeatures:
    """What a selector that looks at scores or the query, and at the vectors, says of itself."""

    needs_scores: ClassVar[bool] = True
    needs_features: ClassVar[bool] = True


# --- what several selectors share ----------------------------------------------------------------------------------


def evenly_spaced(n: int, m: int) -> np.ndarray:
    """min(n, m) of n places at the middles of equal parts, ascending: of 8 and 2, [2, 6]."""
    m = min(n, m)
    # In whole numbers, so that no rounding makes two places one.
    return (2 * np.arange(m) + 1) * n // (2 * m)


def descending(values: np.ndarray) -> np.ndarray:
    """(n,) the places of the values, the largest first; of equal ones the first."""
    return np.argsort(-values, kind="stable")


def lottery(*keys: int | str) -> np.random.Generator:
    """Lots that depend on the keys alone: Python's own hash differs from process to process."""
    digest = hashlib.sha256(repr(keys).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest, "little"))


def lowest_for_nan(scores: np.ndarray) -> np.ndarray:
    """The same with -inf for NaN."""
    kept: np.ndarray = np.where(np.isnan(scores), -np.inf, scores)
    return kept


def _read_only(array: np.ndarray) -> np.ndarray:
    view = array.view()
    view.flags.writeable = False
    return view

"""What a selector receives and returns: the frames of a video with what is known about each, and a selection."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np

from lvqa.records import QUESTION_KINDS, FrameSelection, LvqaError
from lvqa.temporal import TemporalReading
from lvqa.validation import is_whole


@dataclass(frozen=True, slots=True, eq=False, init=False, repr=False)
class SelectorInput:
    """The n frames of a video, what is known about each, and how many are wanted.

    The values are checked once, when the object is made; the arrays are read-only. `dataclasses.replace` works.
    """

    times_seconds: np.ndarray
    """(n,) float64, sorted and distinct: the time of each frame."""
    num_frames: int
    """The number of frames requested. It may be larger than n; `budget` never is."""
    scores: np.ndarray
    """(n,) float64: how well each frame fits the question. NaN counts as -inf. All are 0 if unknown."""
    clip_ids: np.ndarray
    """(n,) integers: the same for all frames of a clip, -1 for a frame in none. All are 0 if unknown."""
    pair_ids: np.ndarray
    """(n,) integers, ascending: the same for two frames that the model encodes together. By default each frame at an
    even index and the next one are a pair."""
    features: np.ndarray | None
    """(n, d) a unit vector per frame (or the zero vector), if known. An index has one per clip, so they repeat."""
    query: np.ndarray | None
    """(d,) the unit vector of the question, if known."""
    video_id: str
    video_name: str
    """The name of the video in its dataset, or of its file without the suffix."""
    question_id: str
    """Seeds the random numbers of a selector, together with `video_id`."""
    question_text: str
    reading: TemporalReading | None
    """What the question says about time; None for a selector that does not use it, and where it is not to be read."""
    question_kind: np.ndarray | None
    """(3,) float64: how likely the question is about each of records.QUESTION_KINDS, as the model takes it; None for a
    selector that does not use it, and where the model was not asked."""
    evidence_seconds: tuple[float, float] | None
    """[start, end) of what answers the question, if it is annotated. It is for the control `oracle` alone."""

    def __init__(
        self,
        times_seconds: np.ndarray,
        num_frames: int,
        *,
        scores: np.ndarray | None = None,
        clip_ids: np.ndarray | None = None,
        pair_ids: np.ndarray | None = None,
        features: np.ndarray | None = None,
        query: np.ndarray | None = None,
        video_id: str = "",
        video_name: str = "",
        question_id: str = "",
        question_text: str = "",
        reading: TemporalReading | None = None,
        question_kind: Sequence[float] | np.ndarray | None = None,
        evidence_seconds: tuple[float, float] | None = None,
    ) -> None:
        """Check the values and store them; each field says what it holds.

        Raises:
            LvqaError: `num_frames` is not a whole number of at least 1.
            ValueError: Shapes do not fit, or values are not finite or not sorted: a bug of the caller.
        """
        if not is_whole(num_frames) or num_frames < 1:
            raise LvqaError(f"the number of frames must be a whole number, 1 or more, got {num_frames!r}")
        times = _checked_times(times_seconds)
        n = len(times)
        scores = np.zeros(n) if scores is None else nan_to_lowest(np.asarray(scores, dtype=np.float64))
        clip_ids = np.zeros(n, dtype=np.int64) if clip_ids is None else np.asarray(clip_ids)
        pair_ids = np.arange(n) // 2 if pair_ids is None else np.asarray(pair_ids)
        shapes = scores.shape, clip_ids.shape, pair_ids.shape
        if shapes != ((n,),) * 3:
            raise ValueError(f"{n} times, scores, clip_ids and pair_ids of shapes {shapes}")
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
            "pair_ids": _read_only(pair_ids),
            "features": None if features is None else _read_only(features),
            "query": None if query is None else _read_only(query),
            "video_id": video_id,
            "video_name": video_name,
            "question_id": question_id,
            "question_text": question_text,
            "reading": reading,
            "question_kind": _probabilities(question_kind),
            "evidence_seconds": evidence_seconds,
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def __len__(self) -> int:
        """Return n, the number of frames to choose from."""
        return len(self.times_seconds)

    @property
    def budget(self) -> int:
        """The number of frames that a selection has: min(num_frames, n)."""
        return min(self.num_frames, len(self))

    @property
    def time_read(self) -> str | None:
        """What the question says about time, in words, "" if nothing; None without a reading."""
        return None if self.reading is None else self.reading.text

    @property
    def is_flat(self) -> bool:
        """Whether all scores are equal, so that they say nothing."""
        return bool((self.scores == self.scores[0]).all())

    def normalized_scores(self) -> np.ndarray:
        """Return the scores (n,) scaled to [0, 1] (min-max). An infinite one counts as the nearest finite one."""
        finite = self.scores[np.isfinite(self.scores)]
        low, high = (finite.min(), finite.max()) if len(finite) else (0.0, 0.0)
        # Halved before they are subtracted: the difference of the largest numbers there are is not finite.
        if (half_range := high / 2 - low / 2) == 0:
            return np.where(self.scores >= high, 1.0, 0.0)
        scaled: np.ndarray = (np.clip(self.scores, low, high) / 2 - low / 2) / half_range
        return scaled

    def best_first(self) -> np.ndarray:
        """Return the indices (n,) of all frames, the best score first; of equal scores the earlier frame first."""
        return argsort_descending(self.scores)

    def feature_runs(self, selector: str) -> tuple[np.ndarray, np.ndarray]:
        """Return the features without repetition: one row for each run of frames that share a vector.

        Args:
            selector: The name of the method, for the message.

        Returns:
            The rows (u, d) as float64, and for each frame the index of its row (n,).

        Raises:
            LvqaError: There are no features.
        """
        if self.features is None:
            raise LvqaError(f"method {selector!r} needs a vector for each frame (features), and there are none")
        starts = np.r_[True, (self.features[1:] != self.features[:-1]).any(axis=1)]
        return self.features[starts].astype(np.float64), np.cumsum(starts) - 1

    def selection(self, frames: Iterable[int] | np.ndarray) -> FrameSelection:
        """Return a selection of these frames: indices in any order, `budget` distinct ones."""
        chosen = np.unique(np.asarray(frames if isinstance(frames, np.ndarray) else list(frames), dtype=np.int64))
        assert len(chosen) == self.budget, "a selector must give as many distinct frames as it was asked for"
        return FrameSelection(self.video_id, tuple(self.times_seconds[chosen].tolist()))

    def evenly_spaced(self) -> FrameSelection:
        """Return a selection of frames at even distances in time: the fallback where the scores say nothing."""
        parts = 2 * np.arange(self.budget) + 1
        return self.on_screen(parts * self.screen_times()[-1] / (2 * self.budget))

    def screen_times(self) -> np.ndarray:
        """Return when each frame appears, (n,), and when the last one ends: together (n + 1,), from 0.

        The unit is the usual step, so an even grid has the whole numbers from 0 to n. A frame that stays longer than
        one part of `budget` equal ones counts as long as a part, so that what it takes is left to others.
        """
        steps = np.diff(self.times_seconds)
        usual = np.median(steps) if len(steps) else 1.0
        lengths = np.r_[(steps / usual).round(6), 1.0]
        ascending, longer = np.sort(lengths), np.arange(self.budget)
        parts = np.cumsum(ascending)[::-1][longer] / (self.budget - longer)  # if so many frames are longer than a part
        part = parts[np.argmax(ascending[::-1][longer] <= parts)]
        times: np.ndarray = np.cumsum(np.r_[0.0, np.minimum(lengths, part)])
        return times

    def on_screen(self, times: np.ndarray) -> FrameSelection:
        """Return a selection of the frames that are on screen at some times (budget,), ascending, by `screen_times`.

        Where one is on screen at several of them, frames after it take its place, so that all are distinct.
        """
        frames, order = np.searchsorted(self.screen_times()[:-1], times, side="right") - 1, np.arange(len(times))
        distinct = np.maximum.accumulate(frames - order) + order
        return self.selection(np.minimum(distinct, len(self) - len(times) + order))

    def fill_budget(self, frames: Iterable[int]) -> FrameSelection:
        """Return a selection of these frames, each once, and of the best others until the budget is full."""
        order = dict.fromkeys([*map(int, frames), *self.best_first().tolist()])
        return self.selection(list(order)[: self.budget])

    def after(self, first: FrameSelection) -> SelectorInput | None:
        """Return the input for the rest of the budget, once some frames were chosen; None if no frame is left.

        Its frames are those of clips of which nothing was chosen, or if they are too few all that were not chosen.
        """
        is_chosen = np.isin(self.times_seconds, first.times_seconds)
        num_left = self.budget - int(is_chosen.sum())
        if num_left < 1:
            return None
        left = ~np.isin(self.clip_ids, self.clip_ids[is_chosen])
        if left.sum() < num_left:
            left = ~is_chosen
        return dataclasses.replace(
            self,
            times_seconds=self.times_seconds[left],
            num_frames=num_left,
            scores=self.scores[left],
            clip_ids=self.clip_ids[left],
            pair_ids=self.pair_ids[left],
            features=None if self.features is None else self.features[left],
        )

    def widened(self, first: FrameSelection, wider: FrameSelection) -> FrameSelection:
        """Return a selection of all frames of the first one, and of the others of the wider one as many as are left.

        Args:
            first: At most `budget` frames.
            wider: `budget` frames. Those that fill it are at even distances among its others, in whole pairs.
        """
        is_chosen = np.isin(self.times_seconds, first.times_seconds)
        others = np.flatnonzero(np.isin(self.times_seconds, wider.times_seconds) & ~is_chosen)
        num_left = self.budget - int(is_chosen.sum())
        pairs = np.split(others, np.flatnonzero(np.diff(self.pair_ids[others])) + 1)
        even = evenly_spaced(len(pairs), -(-num_left * len(pairs) // max(1, len(others))))
        in_turn = [frame for pair in even for frame in pairs[pair].tolist()]
        added = list(dict.fromkeys([*in_turn, *others.tolist()]))[:num_left]
        return self.selection([*np.flatnonzero(is_chosen).tolist(), *added])

    def find_problem(self, selection: object, *, shows_frames: bool = True) -> str | None:
        """Return what is wrong with what a selector returned for this input.

        Args:
            selection: What it returned.
            shows_frames: False for a selector that must choose no frame at all.

        Returns:
            Words that follow "it gives", or None if nothing is wrong.
        """
        if not isinstance(selection, FrameSelection):
            return f"a {type(selection).__name__} and no FrameSelection"
        chosen, expected = selection.times_seconds, self.budget if shows_frames else 0
        if len(chosen) != expected:
            return f"{len(chosen)} of {len(self)} frames and not {expected} when asked for {self.num_frames}"
        if unknown := sorted({*chosen} - {*self.times_seconds.tolist()}):
            return f"{unknown[0]} s, which is no time of the grid"
        return None if selection.video_id == self.video_id else f"frames of video {selection.video_id!r}"


class Selector(Protocol):
    """Chooses frames of a video. A new one is a class with this interface, in SELECTORS or a plug-in (lvqa.plugins).

    The class attribute `shows_frames` is False where a selector chooses no frame at all; without it, it is True.
    """

    @property
    def needs_scores(self) -> bool:
        """Whether `scores` or `query` are used. If not, no candidates are searched for."""
        ...

    @property
    def needs_features(self) -> bool:
        """Whether `features`, the vectors of the index, are used."""
        ...

    @property
    def uses_reading(self) -> bool:
        """Whether `reading` is used. If not, nothing is read of the question's time."""
        ...

    @property
    def uses_kind(self) -> bool:
        """Whether `question_kind` is used. If not, the model is not asked for it."""
        ...

    def select(self, inputs: SelectorInput, /) -> FrameSelection:
        """Choose exactly min(num_frames, n) of the n times, sorted and distinct.

        The same input must give the same frames, in every process.

        Raises:
            LvqaError: The features or the query are needed and missing.
        """
        ...


class TimesOnly:
    """The declarations of a selector that uses neither scores nor vectors; others say where they differ."""

    needs_scores: ClassVar[bool] = False
    needs_features: ClassVar[bool] = False
    uses_reading: ClassVar[bool] = False
    uses_kind: ClassVar[bool] = False


class ScoreBased(TimesOnly):
    """The declarations of a selector that uses scores."""

    needs_scores: ClassVar[bool] = True


class FeatureBased(ScoreBased):
    """The declarations of a selector that uses scores or the query, and the vectors."""

    needs_features: ClassVar[bool] = True


# --- shared by several selectors -----------------------------------------------------------------------------------


def evenly_spaced(n: int, m: int) -> np.ndarray:
    """Return min(n, m) of n indices, at the middles of equal parts, ascending: [2, 6] for 8 and 2."""
    m = min(n, m)
    # In whole numbers, so that no rounding makes two indices one.
    return (2 * np.arange(m) + 1) * n // (2 * m)


def argsort_descending(values: np.ndarray) -> np.ndarray:
    """Return the indices (n,) of the values, the largest first; of equal values the first one first."""
    return np.argsort(-values, kind="stable")


def seeded_rng(*keys: int | str) -> np.random.Generator:
    """Return a random generator that depends on the keys alone; Python's own hash differs between processes."""
    digest = hashlib.sha256(repr(keys).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest, "little"))


def nan_to_lowest(scores: np.ndarray) -> np.ndarray:
    """Return the scores with -inf in place of NaN."""
    replaced: np.ndarray = np.where(np.isnan(scores), -np.inf, scores)
    return replaced


def _checked_times(times_seconds: np.ndarray) -> np.ndarray:
    times = np.asarray(times_seconds, dtype=np.float64)
    n = len(times)
    if n == 0 or times.shape != (n,) or not np.isfinite(times).all() or (np.diff(times) <= 0).any():
        raise ValueError("the grid's times must be at least one, finite, sorted and distinct")
    return times


def _probabilities(question_kind: Sequence[float] | np.ndarray | None) -> np.ndarray | None:
    """Return the probabilities of a question's kinds as an array, checked; None if they are not known."""
    if question_kind is None:
        return None
    values = np.asarray(question_kind, dtype=np.float64)
    if values.shape != (len(QUESTION_KINDS),) or not np.isclose(values.sum(), 1) or (values < 0).any():
        names = ", ".join(QUESTION_KINDS)
        raise ValueError(f"question_kind must have a probability for each of {names}, got {values}")
    return _read_only(values)


def _read_only(array: np.ndarray) -> np.ndarray:
    view = array.view()
    view.flags.writeable = False
    return view

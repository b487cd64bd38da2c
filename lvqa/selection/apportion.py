"""Divide the budget: times that are named, clips by their confidence, what comes after them, and the whole video.

The method is lvqa's own, and needs no training. FreeRet's frames are those of four clips at any budget, so a larger one
shows more of the same. Here the seats of the budget, pairs of frames, are apportioned as seats of a parliament are:
each clip has a share, and D'Hondt's rule gives the next seat to the clip with the most share for each seat that it has.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import ClassVar

import numpy as np

from lvqa.records import FrameSelection
from lvqa.selection.protocol import SelectorInput, evenly_spaced
from lvqa.selection.router import is_about_whole
from lvqa.temporal import TemporalReading
from lvqa.validation import require_bool

NAMED_SHARE = 7 / 8
"""The share of a named time. The rest goes to the ranked clips, so that a wrong time does not lose everything."""
POSITION_SHARE = 1 / 2
"""The share of a part of the video ("at the beginning"), which says less than a time."""
ORDER_SHARE = 3 / 4
"""The share of what comes after the best clips, or before them, where the question asks for it."""
PARTS = {"beginning": (0.0, 0.05), "middle": (0.475, 0.525), "end": (0.95, 1.0)}
"""What a part of the video means, in shares of its duration."""
EXPONENT = 3
"""A clip's share is its score to this power: the scores of clips that do not match lie well above 0."""
PEAKED, SPREAD = 6, 36
"""As many clips, by the perplexity of the shares, are the evidence of one moment, or are no evidence of any."""
ANCHORS = 4
"""What comes after so many of the best clips is shown."""
RUN = 0.5
"""A clip next to an anchor shows the same still if its score is at least so much of the anchor's."""
FADING_SECONDS = 24.0
"""How fast what comes after an anchor loses its share: as 1 / e in so many seconds."""
NEXT, PREVIOUS = 1.0, 0.6
"""What follows a clip tells more of it than what precedes it."""
ALIKE = 0.5
"""Clips with so much of the best one's share are equally good, where the first or the last is asked for."""
SAME_PICTURE = 0.995
"""Clips whose vectors have at least this cosine show one picture."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApportionSelector:
    """Frames in shares: for named times, confident clips, what comes after them, and the whole video.

    A question about the whole video, by its words, gets even frames. Each switch turns one principle off.
    """

    needs_scores: ClassVar[bool] = True
    uses_reading: ClassVar[bool] = True
    uses_kind: ClassVar[bool] = True

    named_times: bool = True
    """Times that the question names come first: the frames nearest to a moment, even ones of a span; so does the
    beginning, the middle or the end."""
    proportional: bool = True
    """Clips get frames in proportion to their confidence; off: the best four alike, as in FreeRet."""
    order: bool = True
    """A question about what comes after something, or before it, gets frames from there."""
    occurrence: bool = True
    """Of equally good clips the first or the last gets more, if the question asks for it."""
    whole: bool = True
    """The less the ranking knows, the more frames are even ones of the whole video; all, if the question's words ask
    for the whole."""
    neighbours: bool = False
    """A third of a clip's share goes to the clips beside it, to the next one more than to the one before."""
    distinct: bool = False
    """Of clips that show one picture only the best has a share."""
    representative: bool = False
    """The whole video is shown by the clips that stand best for all (facility location), not by even frames."""

    def __post_init__(self) -> None:
        for switch in fields(self):
            require_bool(getattr(self, switch.name), switch.name)

    @property
    def needs_features(self) -> bool:
        return self.distinct or self.representative

    def select(self, inputs: SelectorInput) -> FrameSelection:
        video = _Video(inputs)
        reading = inputs.reading or TemporalReading()
        if inputs.is_flat or (self.whole and is_about_whole(inputs.question_text) and not reading.spans):
            return inputs.evenly_spaced()
        shares = self._shares(video, reading)
        seats = _Seats(video, (inputs.budget + 1) // 2)
        if self.named_times:
            _seat_named(seats, reading)
        num_even = round(seats.num_free * self._whole_share(shares, inputs))
        if self.order and (relation := self._relation(reading, inputs)):
            _seat_order(seats, shares, relation, round(ORDER_SHARE * (seats.num_free - num_even)))
        seats.apportion(shares, seats.num_free - num_even)
        self._seat_whole(seats, num_even)
        seats.apportion(shares, seats.num_free)
        return inputs.fill_budget(seats.frames()[: inputs.budget])

    # --- shares -----------------------------------------------------------------------------------------------------

    def _shares(self, video: _Video, reading: TemporalReading) -> np.ndarray:
        """Return the share of each clip (clips,), together 1."""
        shares = (video.confidences / video.confidences.max()) ** EXPONENT
        if self.distinct:
            shares = np.where(_repeats_better(video.vectors, shares), 0.0, shares)
        if self.occurrence and reading.occurrence:
            alike = np.flatnonzero(shares >= ALIKE * shares.max())
            shares[alike[0 if reading.occurrence == "first" else -1]] *= 2 * len(alike)
        if not self.proportional:
            best = np.argsort(-shares, kind="stable")[:ANCHORS]
            shares = np.where(np.isin(np.arange(len(shares)), best), 1.0, 1e-9 * shares)
        if self.neighbours:
            beside = np.r_[0.0, NEXT * shares[:-1]] + np.r_[PREVIOUS * shares[1:], 0.0]
            shares = shares + beside / (2 * (NEXT + PREVIOUS))
        return np.asarray(shares / shares.sum())

    def _whole_share(self, shares: np.ndarray, inputs: SelectorInput) -> float:
        """Return the share of the whole video: by the ranking's perplexity, and by the model if it was asked."""
        if not self.whole:
            return 0.0
        positive = shares[shares > 0]
        perplexity = float(np.exp(-(positive * np.log(positive)).sum()))
        by_ranking = float(np.clip((perplexity - PEAKED) / (SPREAD - PEAKED), 0, 1))
        return by_ranking if inputs.question_kind is None else max(by_ranking, float(inputs.question_kind[2]))

    def _relation(self, reading: TemporalReading, inputs: SelectorInput) -> str | None:
        """Return where the evidence lies, seen from the best clips; None: in them."""
        if reading.relation or inputs.question_kind is None:
            return reading.relation
        return "after" if inputs.question_kind.argmax() == 1 else None

    def _seat_whole(self, seats: _Seats, number: int) -> None:
        """Take even pairs of the whole video, or such of the clips that stand best for all."""
        if not self.representative:
            seats.take_even(number)
            return
        for clip in _facility_location(seats.video.vectors, number):
            seats.take_spread(clip, 1)


class _Video:
    """The pairs of a grid, and the clips that they are in, in the order of time."""

    def __init__(self, inputs: SelectorInput) -> None:
        self.inputs = inputs
        self.starts = _run_starts(inputs.pair_ids)
        """(pairs,) the index of each pair's first frame."""
        self.ends = np.r_[self.starts[1:], len(inputs)]
        times = inputs.times_seconds
        self.seconds = (times[self.starts] + times[self.ends - 1]) / 2
        """(pairs,) the middle of each pair."""
        firsts = _run_starts(inputs.clip_ids[self.starts])
        self.clips = [np.arange(*bounds) for bounds in zip(firsts, np.r_[firsts[1:], len(self.starts)], strict=True)]
        """The pairs of each clip."""
        self.first_frames = self.starts[firsts]

    @cached_property
    def confidences(self) -> np.ndarray:
        """(clips,) the best frame's: 0 to 1, one of them above 0. Probabilities as they are, other scores scaled."""
        scores = self.inputs.scores
        best = scores[np.isfinite(scores)].max(initial=-np.inf)
        values = np.clip(np.nan_to_num(scores, neginf=0.0, posinf=1.0), 0, 1)
        values = values if 0 < best <= 1 else self.inputs.normalized_scores()
        return np.asarray(np.maximum.reduceat(values, self.first_frames))

    @cached_property
    def vectors(self) -> np.ndarray:
        """(clips, d) the vector of each clip."""
        self.inputs.feature_runs("apportion")  # says what is lacking
        assert self.inputs.features is not None
        return np.asarray(self.inputs.features[self.first_frames], dtype=np.float64)


@dataclass(slots=True)
class _Seats:
    """The pairs that are chosen, in the order of their choice."""

    video: _Video
    number: int
    pairs: dict[int, None] = field(default_factory=dict)

    @property
    def num_free(self) -> int:
        return self.number - len(self.pairs)

    def take(self, pairs: Iterable[int], number: int) -> None:
        """Take the first so many of these pairs that are not taken, while there are seats."""
        for pair in pairs:
            if number < 1 or not self.num_free:
                return
            number -= int(pair) not in self.pairs
            self.pairs[int(pair)] = None

    def take_spread(self, clip: int, number: int) -> None:
        """Take so many pairs of a clip, at even distances among those that are free."""
        free = self._free_of(clip)
        self.take(free[evenly_spaced(len(free), number)], number)

    def take_even(self, number: int) -> None:
        """Take so many pairs at even distances in the video; where one is taken, the next that is free."""
        num_pairs = len(self.video.starts)
        for pair in evenly_spaced(num_pairs, number):
            self.take(np.r_[pair:num_pairs, 0:pair], 1)

    def apportion(self, shares: np.ndarray, number: int) -> None:
        """Give so many seats to clips by their shares (D'Hondt), and to each the pairs at even distances in it."""
        room = np.array([len(self._free_of(clip)) for clip in range(len(shares))])
        won = np.zeros(len(shares), dtype=np.int64)
        for _ in range(min(number, int(room.sum()))):
            quotients = np.where(won < room, shares / (won + 1), -1.0)
            won[quotients.argmax()] += 1
        for clip in np.argsort(-shares, kind="stable"):
            self.take_spread(int(clip), int(won[clip]))

    def frames(self) -> list[int]:
        """Return the frames of all pairs, in the order of their choice."""
        return [
            frame for pair in self.pairs for frame in range(int(self.video.starts[pair]), int(self.video.ends[pair]))
        ]

    def _free_of(self, clip: int) -> np.ndarray:
        return np.array([pair for pair in self.video.clips[clip].tolist() if pair not in self.pairs], dtype=np.int64)


def _seat_named(seats: _Seats, reading: TemporalReading) -> None:
    """Take the pairs nearest to each moment, and even pairs of each span, all alike."""
    seconds, spans, share = seats.video.seconds, list(reading.spans), NAMED_SHARE
    if not spans and reading.position:
        duration = seats.video.inputs.times_seconds[-1]
        spans, share = [(PARTS[reading.position][0] * duration, PARTS[reading.position][1] * duration)], POSITION_SHARE
    number = max(1, round(share * seats.number))
    for i, (start, end) in enumerate(spans):
        part = (number * (i + 1)) // len(spans) - (number * i) // len(spans)
        pairs = np.flatnonzero((seconds >= start - 1) & (seconds <= end + 1))
        if len(pairs) > part and end > start:
            pairs = pairs[evenly_spaced(len(pairs), part)]
        else:  # the nearest
            outside = np.maximum(0, np.maximum(start - seconds, seconds - end))
            pairs = np.lexsort((np.abs(seconds - (start + end) / 2), outside))
        seats.take(pairs, part)


def _seat_order(seats: _Seats, shares: np.ndarray, relation: str, number: int) -> None:
    """Take pairs that come right after the best clips, or right before them, the nearest of the best first.

    An anchor is a clip with those beside it that show the same still.
    """
    video, seconds = seats.video, seats.video.seconds
    confidences = video.confidences
    values = np.zeros(len(seconds))
    step = 1 if relation == "after" else -1
    for anchor in np.argsort(-shares, kind="stable")[:ANCHORS].tolist():
        last = anchor
        while 0 <= last + step < len(shares) and confidences[last + step] >= RUN * confidences[anchor]:
            last += step
        edge = video.clips[last][-1 if step > 0 else 0]
        seconds_away = step * (seconds - seconds[edge])
        values += np.where(seconds_away > 0, shares[anchor] * np.exp(-seconds_away / FADING_SECONDS), 0)
    best = np.argsort(-values, kind="stable")
    seats.take(best[values[best] > 0], number)


def _repeats_better(vectors: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Return for each clip whether a better one shows the same picture (clips,)."""
    repeats = np.zeros(len(shares), dtype=bool)
    kept: list[int] = []
    for clip in np.argsort(-shares, kind="stable").tolist():
        repeats[clip] = bool(kept) and (vectors[kept] @ vectors[clip]).max() >= SAME_PICTURE
        if not repeats[clip]:
            kept.append(clip)
    return repeats


def _facility_location(vectors: np.ndarray, number: int) -> list[int]:
    """Return so many clips, each the one that brings all clips nearest to a chosen one (greedy)."""
    similarity = vectors @ vectors.T
    covered, chosen = np.full(len(vectors), -1.0), list[int]()
    for _ in range(min(number, len(vectors))):
        gains = np.maximum(similarity, covered).sum(axis=1)
        gains[chosen] = -np.inf
        chosen.append(int(gains.argmax()))
        covered = np.maximum(covered, similarity[chosen[-1]])
    return chosen


def _run_starts(values: np.ndarray) -> np.ndarray:
    """Return the indices at which runs of equal values start."""
    return np.flatnonzero(np.r_[True, values[1:] != values[:-1]])

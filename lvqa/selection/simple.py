"""Selectors of one rule: evenly spaced, at random, the best, the best that are apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from lvqa.records import FrameSelection
from lvqa.selection.protocol import ScoreBased, SelectorInput, TimesOnly, argsort_descending, seeded_rng
from lvqa.validation import require


@dataclass(frozen=True, slots=True, kw_only=True)
class UniformSelector(TimesOnly):
    """Frames at even distances in time.

    midpoint: the middles of M equal parts, of an even grid frame floor((i + 1/2) n / M). linspace: from the first frame
    to the last, floor(i (n - 1) / (M - 1)), for M = 1 the middle one. interior: the inner ends of M + 1 equal parts,
    floor((i + 1) n / (M + 1)). Of n = 16 and M = 4: [2, 6, 10, 14], [0, 5, 10, 15], [3, 6, 9, 12].
    """

    uniform: Literal["midpoint", "linspace", "interior"] = "midpoint"

    def __post_init__(self) -> None:
        allowed = ("midpoint", "linspace", "interior")
        require(self.uniform in allowed, "uniform", self.uniform, f"one of {', '.join(allowed)}")

    def select(self, inputs: SelectorInput) -> FrameSelection:
        m, i, times = inputs.budget, np.arange(inputs.budget), inputs.screen_times()
        if self.uniform == "midpoint" or (self.uniform == "linspace" and m == 1):
            return inputs.evenly_spaced()
        if self.uniform == "linspace":
            return inputs.on_screen(i * times[-2] / (m - 1))
        return inputs.on_screen((i + 1) * times[-1] / (m + 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class RandomSelector(TimesOnly):
    """Frames at random: the same for the same seed, video and question, in every process."""

    seed: int = 0

    def select(self, inputs: SelectorInput) -> FrameSelection:
        keys = seeded_rng(self.seed, inputs.video_id, inputs.question_id).random(len(inputs))
        return inputs.selection(np.argsort(keys, kind="stable")[: inputs.budget])


@dataclass(frozen=True, slots=True, kw_only=True)
class TopKSelector(ScoreBased):
    """The frames with the best scores: with one score per clip, the best clip from its start, then the next.

    Evenly spaced frames if all scores are equal.
    """

    def select(self, inputs: SelectorInput) -> FrameSelection:
        if inputs.is_flat:
            return inputs.evenly_spaced()
        return inputs.selection(inputs.best_first()[: inputs.budget])


@dataclass(frozen=True, slots=True, kw_only=True)
class NmsSelector(ScoreBased):
    """The best frames that are apart (non-maximum suppression in time).

    Frames are visited from the best on, and one is chosen if it is more than w = floor(n / 2M) frames from all that
    are. While too few are chosen, w is halved and the rest visited again. Evenly spaced frames if all scores are equal.
    """

    def select(self, inputs: SelectorInput) -> FrameSelection:
        if inputs.is_flat:
            return inputs.evenly_spaced()
        return inputs.selection(non_max_suppression(inputs.scores, inputs.budget))


def non_max_suppression(scores: np.ndarray, num_frames: int) -> list[int]:
    """Return `num_frames` indices of scores (n,), best first, at first more than n / (2 num_frames) indices apart."""
    gap, chosen = len(scores) // (2 * num_frames), list[int]()
    while len(chosen) < num_frames:
        free = np.ones(len(scores), dtype=bool)
        for frame in chosen:
            free[max(0, frame - gap) : frame + gap + 1] = False
        for frame in argsort_descending(scores).tolist():
            if free[frame] and len(chosen) < num_frames:
                chosen.append(frame)
                free[max(0, frame - gap) : frame + gap + 1] = False
        gap //= 2
    return chosen

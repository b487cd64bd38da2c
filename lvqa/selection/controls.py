"""The controls of an evaluation: frames from the annotated time of the evidence, and no frames at all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from lvqa.records import FrameSelection, LvqaError
from lvqa.selection.protocol import SelectorInput, TimesOnly, evenly_spaced

CONTROLS = ("oracle", "blind")
"""The names of the selectors that only an evaluation can use."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OracleSelector(TimesOnly):
    """Evenly spaced frames inside the annotated evidence, at least one: an upper bound of what a selector can find.

    Whole pairs, as FreeRet chooses them, since a single frame shows no motion; single frames of a span so long that
    pairs would leave most of it out. Evidence that is shorter than the budget gives fewer frames.
    """

    def select(self, inputs: SelectorInput) -> FrameSelection:
        if inputs.evidence_seconds is None:
            raise LvqaError(
                f"method 'oracle' needs the time of the evidence, and question {inputs.question_id!r} has none"
            )
        frames = _evidence_frames(inputs, *inputs.evidence_seconds)
        return FrameSelection(inputs.video_id, tuple(inputs.times_seconds[frames].tolist()))


@dataclass(frozen=True, slots=True, kw_only=True)
class BlindSelector(TimesOnly):
    """No frames: what the question alone gives away, a lower bound."""

    shows_frames: ClassVar[bool] = False

    def select(self, inputs: SelectorInput) -> FrameSelection:
        return FrameSelection(inputs.video_id, ())


def _evidence_frames(inputs: SelectorInput, start: float, end: float) -> np.ndarray:
    """Return the frames that the oracle chooses: as many as wanted or fewer, of those inside [start, end)."""
    times, num_frames = inputs.times_seconds, inputs.num_frames
    inside = np.flatnonzero((times >= start) & (times < end))
    if not len(inside):
        return np.array([max(0, int(np.searchsorted(times, start, side="right")) - 1)])
    pair_ids = inputs.pair_ids[inside]
    firsts = inside[:-1][pair_ids[:-1] == pair_ids[1:]]  # of the pairs that lie inside
    if num_frames % 2 == 0 and num_frames // 2 <= len(firsts) <= 2 * num_frames:
        firsts = firsts[evenly_spaced(len(firsts), num_frames // 2)]
        inside = np.stack([firsts, firsts + 1], 1).ravel()
    return np.asarray(inside[evenly_spaced(len(inside), num_frames)])

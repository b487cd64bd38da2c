"""Answer from the frames that a selector chooses, at once or in two looks.

In two looks the model answers from half of the frames first. Only where it is unsure, the other half goes to frames
that it has not seen, and it answers again from all of them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from lvqa.answering import Answerer, OnAnswer
from lvqa.caveats import NO_CONFIDENCE
from lvqa.costs import CostMeter
from lvqa.models import Model
from lvqa.records import FrameSelection, ModelOutput, Question
from lvqa.selection import Selector, SelectorInput
from lvqa.session import VideoSession


@dataclass(frozen=True, slots=True)
class Look:
    """What the model saw for one question, and what it answered."""

    selection: FrameSelection
    output: ModelOutput
    looked_again: bool | None = None
    """Whether it took a second look; None where it saw all frames at once."""
    notes: tuple[str, ...] = ()
    """What a reader must know of it."""


@dataclass(frozen=True, slots=True)
class Looker:
    """Answers questions on one open video."""

    model: Model
    answerer: Answerer
    threshold: float | None
    """The confidence below which the model looks again; None: it sees all frames at once."""
    on_answer: OnAnswer

    def look(
        self,
        session: VideoSession,
        questions: Sequence[Question],
        selector: Selector,
        inputs: Sequence[SelectorInput],
        meter: CostMeter,
    ) -> list[Look]:
        """Select frames for each question, and answer from them.

        Args:
            session: The open video.
            questions: They are answered together, those that are answered again too.
            selector: It chooses the frames of both looks.
            inputs: What it sees for each question.
            meter: Gets the stages "select" and "answer".
        """
        looks = self._first_looks(session, questions, selector, inputs, meter)
        unsure = [i for i, look in enumerate(looks) if self._is_unsure(look)]
        with meter.stage("select"):
            selections = {i: _selected_after(selector, inputs[i], looks[i].selection) for i in unsure}
        new = [i for i in unsure if selections[i] != looks[i].selection]
        outputs = self._answer(session, [questions[i] for i in new], [selections[i] for i in new], meter)
        for i, output in zip(new, outputs, strict=True):
            cost = looks[i].output.cost + output.cost
            looks[i] = Look(selections[i], dataclasses.replace(output, cost=cost), looked_again=True)
        return looks

    def _first_looks(
        self,
        session: VideoSession,
        questions: Sequence[Question],
        selector: Selector,
        inputs: Sequence[SelectorInput],
        meter: CostMeter,
    ) -> list[Look]:
        """Return a look at half of the frames where the answer has a confidence, and at all of them elsewhere."""
        is_half = [self.threshold is not None and self.answerer.gives_confidence(question) for question in questions]
        notes = () if self.threshold is None else (NO_CONFIDENCE,)
        with meter.stage("select"):
            selections = [
                selector.select(_half_of(of_question) if half else of_question)
                for of_question, half in zip(inputs, is_half, strict=True)
            ]
        outputs = self._answer(session, questions, selections, meter)
        return [
            Look(selection, output, looked_again=False if half else None, notes=() if half else notes)
            for selection, output, half in zip(selections, outputs, is_half, strict=True)
        ]

    def _answer(
        self,
        session: VideoSession,
        questions: Sequence[Question],
        selections: Sequence[FrameSelection],
        meter: CostMeter,
    ) -> list[ModelOutput]:
        times = [selection.times_seconds for selection in selections]
        with meter.stage("answer"):
            return self.answerer.answer(self.model, session, questions, times, on_answer=self.on_answer)

    def _is_unsure(self, look: Look) -> bool:
        """Return whether a first look was one, and left the model unsure."""
        return look.looked_again is False and max(look.output.option_scores) < (self.threshold or 0)


def _half_of(inputs: SelectorInput) -> SelectorInput:
    """Return the input with half of its budget; of an odd one the larger half."""
    return dataclasses.replace(inputs, num_frames=(inputs.num_frames + 1) // 2)


def _selected_after(selector: Selector, inputs: SelectorInput, first: FrameSelection) -> FrameSelection:
    """Return the frames of a first look with those that fill the budget; alone if there are no others."""
    rest = inputs.after(first)
    more = () if rest is None else selector.select(rest).times_seconds
    return FrameSelection(inputs.video_id, tuple(sorted((*first.times_seconds, *more))))

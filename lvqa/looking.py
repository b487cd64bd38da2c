"""Answer from the frames that a selector chooses, at once or in several looks.

In looks the model answers from some of the frames first, by default from half of them. Only where it is unsure, it gets
as many that it has not seen, and answers again from all of these, until it is sure or the budget is spent.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lvqa.answering import Answerer, OnAnswer
from lvqa.caveats import NO_CONFIDENCE
from lvqa.costs import CostMeter
from lvqa.models import Model
from lvqa.records import FrameSelection, ModelOutput, Question
from lvqa.selection import Selector, SelectorInput
from lvqa.session import VideoSession

OnSelected = Callable[[Sequence[FrameSelection]], None]
"""Called with the frames of each question."""


@dataclass(frozen=True, slots=True)
class Look:
    """What the model saw for one question, and what it answered."""

    selection: FrameSelection
    output: ModelOutput
    looked_again: bool | None = None
    """Whether it took more than one look; None where it saw all frames at once."""
    notes: tuple[str, ...] = ()
    """What a reader must know of it."""


@dataclass(frozen=True, slots=True)
class Looker:
    """Answers questions on one open video."""

    model: Model
    answerer: Answerer
    threshold: float | None
    """The confidence below which the model looks again; None: it sees all frames at once."""
    first_look: int | None
    """How many frames the first look has; None: half of the budget."""
    on_answer: OnAnswer

    def look(
        self,
        session: VideoSession,
        questions: Sequence[Question],
        selector: Selector,
        inputs: Sequence[SelectorInput],
        meter: CostMeter,
        on_selected: OnSelected,
    ) -> list[Look]:
        """Select frames for each question, and answer from them.

        Args:
            session: The open video.
            questions: They are answered together, those that are answered again too.
            selector: It chooses the frames of all looks.
            inputs: What it sees for each question.
            meter: Gets the stages "select" and "answer".
            on_selected: Called with the frames of each question before each look.
        """
        is_part = [self.threshold is not None and self.answerer.gives_confidence(question) for question in questions]
        notes = () if self.threshold is None else (NO_CONFIDENCE,)
        with meter.stage("select"):
            new = {
                i: selector.select(self._first_part(inputs[i]) if part else inputs[i]) for i, part in enumerate(is_part)
            }
        looks: dict[int, Look] = {}
        while new:
            on_selected([new[i] if i in new else looks[i].selection for i in range(len(questions))])
            with meter.stage("answer"):
                times = [selection.times_seconds for selection in new.values()]
                to_answer = [questions[i] for i in new]
                outputs = self.answerer.answer(self.model, session, to_answer, times, on_answer=self.on_answer)
            for (i, selection), output in zip(new.items(), outputs, strict=True):
                looks[i] = (
                    _next_look(looks.get(i), selection, output) if is_part[i] else Look(selection, output, notes=notes)
                )
            unsure = [i for i, look in looks.items() if self._is_unsure(look, inputs[i])]
            with meter.stage("select"):
                new = {i: _selected_after(selector, inputs[i], looks[i].selection) for i in unsure}
        return [looks[i] for i in range(len(questions))]

    def _first_part(self, inputs: SelectorInput) -> SelectorInput:
        """Return the input with the budget of the first look; by default half, of an odd one the larger half."""
        number = self.first_look or (inputs.num_frames + 1) // 2
        return dataclasses.replace(inputs, num_frames=min(number, inputs.num_frames))

    def _is_unsure(self, look: Look, inputs: SelectorInput) -> bool:
        """Return whether a look left the model unsure, and there are frames for another one."""
        is_unsure = look.looked_again is not None and max(look.output.option_scores) < (self.threshold or 0)
        return is_unsure and len(look.selection.times_seconds) < inputs.budget


def _next_look(last: Look | None, selection: FrameSelection, output: ModelOutput) -> Look:
    """Return a look at some of the frames, with the cost of those before it."""
    if last is None:
        return Look(selection, output, looked_again=False)
    return Look(selection, dataclasses.replace(output, cost=last.output.cost + output.cost), looked_again=True)


def _selected_after(selector: Selector, inputs: SelectorInput, first: FrameSelection) -> FrameSelection:
    """Return the frames of a look with as many others, or those that fill the budget."""
    number = min(2 * len(first.times_seconds), inputs.budget)
    rest = dataclasses.replace(inputs, num_frames=number).after(first)
    more = () if rest is None else selector.select(rest).times_seconds
    return FrameSelection(inputs.video_id, tuple(sorted((*first.times_seconds, *more))))

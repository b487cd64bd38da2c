"""Answer from the frames that a selector chooses, at once or in several looks.

In looks the model answers from some of the frames first, by default from half of them. Only where it is unsure, it gets
as many that it has not seen, and answers again from all of these, until it is sure or the budget is spent. Its answer
is that of the last look, or of the mean of the probabilities in all looks.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lvqa.answering import Answerer, OnAnswer
from lvqa.caveats import NO_CONFIDENCE
from lvqa.config import AnswerConfig
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
    num_looks: int = 0
    """How many looks it took; 0 where it saw all frames at once."""
    notes: tuple[str, ...] = ()
    """What a reader must know of it."""

    @property
    def looked_again(self) -> bool | None:
        """Whether it took more than one look; None where it saw all frames at once."""
        return self.num_looks > 1 if self.num_looks else None


@dataclass(frozen=True, slots=True)
class Looker:
    """Answers questions on one open video."""

    model: Model
    answerer: Answerer
    settings: AnswerConfig
    """Of which those of looks are used: without `look_again`, the model sees all frames at once."""
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
        in_looks = self.settings.look_again is not None
        is_part = [in_looks and self.answerer.gives_confidence(question) for question in questions]
        notes = (NO_CONFIDENCE,) if in_looks else ()
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
                    self._next_look(questions[i], looks.get(i), selection, output)
                    if is_part[i]
                    else Look(selection, output, notes=notes)
                )
            unsure = [i for i, look in looks.items() if self._is_unsure(look, inputs[i])]
            with meter.stage("select"):
                new = {i: self._select_more(selector, inputs[i], looks[i].selection) for i in unsure}
        return [looks[i] for i in range(len(questions))]

    def _first_part(self, inputs: SelectorInput) -> SelectorInput:
        """Return the input with the budget of the first look; by default half, of an odd one the larger half."""
        number = self.settings.first_look or (inputs.num_frames + 1) // 2
        return dataclasses.replace(inputs, num_frames=min(number, inputs.num_frames))

    def _is_unsure(self, look: Look, inputs: SelectorInput) -> bool:
        """Return whether a look left the model unsure, and there are frames for another one."""
        is_unsure = look.num_looks > 0 and max(look.output.option_scores) < (self.settings.look_again or 0)
        return is_unsure and len(look.selection.times_seconds) < inputs.budget

    def _select_more(self, selector: Selector, inputs: SelectorInput, first: FrameSelection) -> FrameSelection:
        """Return the frames of a look with as many others, or those that fill the budget."""
        wider = dataclasses.replace(inputs, num_frames=min(2 * len(first.times_seconds), inputs.budget))
        if self.settings.next_look == "larger_budget":
            return wider.widened(first, selector.select(wider))
        rest = wider.after(first)
        more = () if rest is None else selector.select(rest).times_seconds
        return FrameSelection(inputs.video_id, tuple(sorted((*first.times_seconds, *more))))

    def _next_look(self, question: Question, last: Look | None, selection: FrameSelection, output: ModelOutput) -> Look:
        """Return a look at some of the frames, with the cost of those before it."""
        if last is None:
            return Look(selection, output, num_looks=1)
        if self.settings.pool_looks:
            output = _pooled(question, last, output)
        cost = last.output.cost + output.cost
        return Look(selection, dataclasses.replace(output, cost=cost), num_looks=last.num_looks + 1)


def _pooled(question: Question, last: Look, output: ModelOutput) -> ModelOutput:
    """Return the output of a look with the mean probabilities of it and of all before it, and the likeliest option."""
    scores = zip(last.output.option_scores, output.option_scores, strict=True)
    pooled = [(last.num_looks * mean + score) / (last.num_looks + 1) for mean, score in scores]
    best = max(range(len(pooled)), key=pooled.__getitem__)
    return dataclasses.replace(
        output,
        text=question.options[best],
        option=question.letters[best],
        option_scores=tuple(pooled),
    )

"""Answer questions from frames: the answer's text, its letter and the options' scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from lvqa import prompts
from lvqa.costs import CostMeter
from lvqa.letters import named_letter
from lvqa.models import Model
from lvqa.pairs import PACKINGS, Pair, is_split, runs_of_pairs
from lvqa.records import ModelOutput, Question
from lvqa.session import MediaKey, VideoSession
from lvqa.visual_tokens import VisualTokens

if TYPE_CHECKING:
    from torch import Tensor

    from lvqa.models.prompt import Part, Prompt


@dataclass(frozen=True, slots=True)
class AnswerRequest:
    """A question, and what the model is to see before it answers."""

    question: Question
    pairs: Sequence[Pair]
    """The frames as pairs of grid frames."""
    media: Prompt = ()
    """What shows the question's picture or lets its voice be heard, if it has one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answerer:
    """How frames are shown to the model and its answer is read.

    `time_encoding`: "text" shows each run of neighbouring frames as one video with its time in words before it;
    "mrope" shows one video whose temporal positions are the true seconds; "index" one video at a constant step.

    `packing`: a name in PACKINGS. Where the frames of a pair lie apart, "text" tells the time of both.

    `mode`, for multiple choice: "logits" shows the options and takes the letter with the largest logit; "text" shows
    them, generates, and takes the letter that the text names; "likelihood" asks the bare question and takes the option
    that is likeliest, word for word, as the reply.
    """

    time_encoding: str = "text"
    packing: str = "sampled"
    mode: str = "logits"
    max_new_tokens: int = 64

    def answer(
        self, model: Model, session: VideoSession, questions: Sequence[Question], times: Sequence[Sequence[float]]
    ) -> list[ModelOutput]:
        """Answer questions on an open video. What was answered before from the same frames is not answered again.

        Args:
            model: The model that answers.
            session: The open video; it remembers the outputs.
            questions: They are answered together, those with the same letters in one prefill.
            times: For each question the times of its frames, in seconds.
        """
        keys = [
            (self, question.text, question.options, MediaKey.of(question), tuple(seconds))
            for question, seconds in zip(questions, times, strict=True)
        ]
        new = {
            key: AnswerRequest(
                question,
                PACKINGS[self.packing](map(session.grid.frame_at, seconds), session.grid),
                session.query_media(question),
            )
            for key, question, seconds in zip(keys, questions, times, strict=True)
            if key not in session.outputs
        }
        if new:
            meter = CostMeter(model.counts)
            with meter.stage("answer"):
                outputs = self.answer_requests(model, list(new.values()), session.tokens)
            outputs[0] = replace(outputs[0], cost=meter.cost)
            session.outputs.update(zip(new, outputs, strict=True))
        return [session.outputs[key] for key in keys]

    def answer_requests(
        self, model: Model, requests: Sequence[AnswerRequest], tokens: VisualTokens
    ) -> list[ModelOutput]:
        """Answer each request, without remembering it.

        Multiple choice as `mode` says; generated text may name no letter, and then `option` is None. A free question
        gets greedy text.
        """
        batch = [(*self.frame_parts(r.pairs, tokens), *r.media, self._text(r.question)) for r in requests]
        outputs: dict[int, ModelOutput] = {}
        by_letters: dict[str, list[int]] = {}
        for i, (request, prompt) in enumerate(zip(requests, batch, strict=True)):
            question = request.question
            if not question.options or self.mode == "text":
                text = model.generate(prompt, max_new_tokens=self.max_new_tokens)
                outputs[i] = ModelOutput(text, named_letter(text, question.options), ())
            elif self.mode == "likelihood":
                outputs[i] = _likeliest(question, model.reply_log_probs(prompt, question.options))
            else:
                by_letters.setdefault(question.letters, []).append(i)
        for letters, indices in by_letters.items():
            rows = model.next_token_logits([batch[i] for i in indices], list(letters))
            outputs |= {i: _likeliest(requests[i].question, row) for i, row in zip(indices, rows, strict=True)}
        lengths = map(model.prompt_length, batch)
        return [replace(outputs[i], tokens=n, visual_tokens=visual) for i, (n, visual) in enumerate(lengths)]

    def _text(self, question: Question) -> str:
        """Return the text behind the frames."""
        is_compared = question.options and self.mode == "likelihood"
        return prompts.short_answer(question) if is_compared else prompts.answer(question)

    def frame_parts(self, pairs: Sequence[Pair], tokens: VisualTokens) -> list[Part]:
        """Return the part of the prompt that shows the frames: nothing if there are none."""
        if not pairs:
            return []
        if self.time_encoding != "text":
            start_seconds = 0.0 if self.time_encoding == "mrope" else None
            return [tokens.clip_tokens(pairs, next(tokens.stream([pairs])), start_seconds=start_seconds)]
        runs = runs_of_pairs(pairs, tokens.grid)
        parts: list[Part] = []
        for run, clip in zip(runs, tokens.clips(runs), strict=True):
            frames = run[0] if is_split(run[0], tokens.grid) else run[0][:1]
            parts += [" ".join(prompts.timestamp(tokens.grid.seconds_of(frame)) for frame in frames), clip]
        return parts


def _likeliest(question: Question, logits: Tensor) -> ModelOutput:
    scores = logits.softmax(dim=0).tolist()
    best = max(range(len(scores)), key=scores.__getitem__)
    return ModelOutput(question.options[best], question.letters[best], tuple(scores))

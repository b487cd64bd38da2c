"""Answer questions from frames: the answer's text, its letter and the options' scores."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from lvqa import prompts
from lvqa.costs import CostMeter
from lvqa.letters import named_letter
from lvqa.models import Model
from lvqa.pairs import PACKINGS, Pair, is_split, runs_of_pairs
from lvqa.protocols import AnswerFormat
from lvqa.protocols.answer_format import shown_with_frames
from lvqa.records import ModelOutput, Question, Subtitle
from lvqa.session import MediaKey, VideoSession
from lvqa.visual_tokens import VisualTokens

if TYPE_CHECKING:
    from torch import Tensor

    from lvqa.models.prompt import ClipTokens, Part, Prompt


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

    `format`: how another source asks, whose generated reply it reads; None: as lvqa asks, and as `mode` says.

    `mode`, for multiple choice: "logits" shows the options and takes the letter with the largest logit; "text" shows
    them, generates, and takes the letter that the text names; "likelihood" asks the bare question and takes the option
    that is likeliest, word for word, as the reply.
    """

    time_encoding: str = "text"
    packing: str = "sampled"
    mode: str = "logits"
    max_new_tokens: int = 64
    format: AnswerFormat | None = None

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
            (self, q.text, q.options, q.answer, q.subtitles, MediaKey.of(q), tuple(seconds))
            for q, seconds in zip(questions, times, strict=True)
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
        batch = [self.prompt(request, tokens) for request in requests]
        outputs: dict[int, ModelOutput] = {}
        by_letters: dict[str, list[int]] = {}
        for i, (request, prompt) in enumerate(zip(requests, batch, strict=True)):
            question = request.question
            if self.format is not None:
                text = model.generate(prompt, max_new_tokens=self.format.max_new_tokens)
                outputs[i] = ModelOutput(text, self.format.read(text, question), ())
            elif not question.options or self.mode == "text":
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

    def prompt(self, request: AnswerRequest, tokens: VisualTokens) -> Prompt:
        """Return the whole prompt of a request: frames, picture and voice, subtitles, the question."""
        from lvqa.models.prompt import ReplyStart, SystemText

        question, frames = request.question, sorted({frame for pair in request.pairs for frame in pair})
        times = [tokens.grid.seconds_of(frame) for frame in frames]
        subtitles = None if question.subtitles is None else _ended(question.subtitles, tokens.video.duration_seconds)
        if self.format is None:
            is_compared = question.options and self.mode == "likelihood"
            text = prompts.short_answer(question) if is_compared else prompts.answer(question)
            lines = shown_with_frames(subtitles or (), times)
            return (*self.frame_parts(request.pairs, tokens), *request.media, prompts.subtitles(lines) + text)
        parts: list[Part] = [SystemText(self.format.system)] if self.format.system else []
        subtitle_text = None
        if subtitles is not None and self.format.interleave is not None:
            images = _images(frames, tokens)
            parts += [images[x] if isinstance(x, int) else x for x in self.format.interleave(subtitles, times)]
        else:
            parts += self.frame_parts(request.pairs, tokens)
            if subtitles is not None and self.format.subtitles is not None:
                subtitle_text = self.format.subtitles(subtitles, times)
        parts += [*request.media, self.format.text(question, subtitle_text)]
        return (*parts, *([ReplyStart(self.format.reply_start)] if self.format.reply_start else []))

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


def _ended(subtitles: Sequence[Subtitle], duration_seconds: float) -> list[Subtitle]:
    """Return subtitles whose lines all have an end: where a file does not say it, that of the video."""
    return [replace(s, end_seconds=duration_seconds) if math.isinf(s.end_seconds) else s for s in subtitles]


def _images(frames: Sequence[int], tokens: VisualTokens) -> list[ClipTokens]:
    """Return each frame as an image of its own."""
    singles = [[(frame, frame)] for frame in frames]
    clips = (tokens.clip_tokens(s, t, start_seconds=None) for s, t in zip(singles, tokens.stream(singles), strict=True))
    return [replace(clip, is_image=True) for clip in clips]


def _likeliest(question: Question, logits: Tensor) -> ModelOutput:
    scores = logits.softmax(dim=0).tolist()
    best = max(range(len(scores)), key=scores.__getitem__)
    return ModelOutput(question.options[best], question.letters[best], tuple(scores))

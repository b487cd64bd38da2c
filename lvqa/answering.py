"""Answer questions from frames: the answer's text, its letter and the options' scores."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from lvqa import prompts
from lvqa.config import AnswerConfig
from lvqa.costs import CostMeter, split_cost
from lvqa.letters import named_letter
from lvqa.models import Model
from lvqa.models.decoding import GREEDY, Decoding
from lvqa.models.prefix import PrefixCache, SplitPrompt, prefill_shared
from lvqa.pairs import PACKINGS, Pair, is_split, runs_of_pairs
from lvqa.protocols import AnswerFormat
from lvqa.protocols.answer_format import shown_with_frames
from lvqa.records import Cost, Counts, ModelOutput, Question, Subtitle
from lvqa.schema import AnswerSchema
from lvqa.session import MediaKey, VideoSession
from lvqa.speech import lines_near, spoken_lines
from lvqa.subtitles import OFF, SpokenSource
from lvqa.visual_tokens import VisualTokens

if TYPE_CHECKING:
    from torch import Tensor

    from lvqa.models.prompt import ClipTokens, Part, Prompt


OnAnswer = Callable[[int, int], None]
"""Called as answers are given: how many are there, of how many."""


@dataclass(frozen=True, slots=True)
class AnswerRequest:
    """A question, and what the model is to see before it answers."""

    question: Question
    pairs: Sequence[Pair]
    """The frames as pairs of grid frames."""
    media: Prompt = ()
    """What shows the question's picture or lets its voice be heard, if it has one."""
    lines: tuple[str, ...] = ()
    """What is said near the frames, in lines with their times."""


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

    `max_new_tokens` bounds a generated answer, `max_object_tokens` one that must fit a schema; `decoding` chooses its
    tokens.

    `spoken`: where the lines come from that are shown with the frames, of a question without subtitles of its own.
    """

    time_encoding: str = "text"
    packing: str = "sampled"
    mode: str = "logits"
    max_new_tokens: int = 64
    max_object_tokens: int = 512
    decoding: Decoding = GREEDY
    format: AnswerFormat | None = None
    spoken: SpokenSource = OFF

    @classmethod
    def of(
        cls,
        model: Model,
        settings: AnswerConfig,
        format: AnswerFormat | None = None,
        spoken: SpokenSource = OFF,
        *,
        seed: int = 0,
    ) -> Answerer:
        """Return how a model answers under these settings; what they leave open is as the model's own config says."""
        # Others show the frames as one video, without their times in words.
        time_encoding = model.time_encoding if format is None else "mrope"
        return cls(
            format=format,
            spoken=spoken,
            time_encoding=settings.time_encoding or time_encoding,
            packing=settings.packing or model.answer_packing,
            mode=settings.mode or model.answer_mode,
            max_new_tokens=settings.max_new_tokens,
            max_object_tokens=settings.max_object_tokens,
            decoding=model.decoding(settings.generation if format is None else "greedy", seed=seed),
        )

    def answer(
        self,
        model: Model,
        session: VideoSession,
        questions: Sequence[Question],
        times: Sequence[Sequence[float]],
        *,
        on_answer: OnAnswer = lambda *_: None,
    ) -> list[ModelOutput]:
        """Answer questions on an open video. What was answered before from the same frames is not answered again.

        Args:
            model: The model that answers.
            session: The open video; it remembers the outputs.
            questions: They are answered together; what those with the same frames share is read once.
            times: For each question the times of its frames, in seconds.
            on_answer: Called as answers are given.
        """
        lines = [self._lines(session, q, seconds) for q, seconds in zip(questions, times, strict=True)]
        keys = [
            (
                self,
                q.text,
                q.history,
                q.options,
                q.answer,
                q.schema,
                q.subtitles,
                MediaKey.of(q),
                tuple(seconds),
                of_one,
            )
            for q, seconds, of_one in zip(questions, times, lines, strict=True)
        ]
        known: dict[object, ModelOutput] = {key: session.outputs[key] for key in keys if key in session.outputs}
        new = {
            key: AnswerRequest(
                question,
                PACKINGS[self.packing](map(session.grid.frame_at, seconds), session.grid),
                session.query_media(question),
                of_one,
            )
            for key, question, seconds, of_one in zip(keys, questions, times, lines, strict=True)
            if key not in known
        }
        if new:
            meter = CostMeter(model.counts)
            with meter.stage("answer"):
                outputs = self.answer_requests(
                    model, list(new.values()), session.tokens, prefix_cache=session.answer_prefixes, on_answer=on_answer
                )
            shares = split_cost(meter.cost, len(outputs))
            known.update(zip(new, map(_with_share, outputs, shares), strict=True))
            session.outputs.update(known)
        return [known[key] for key in keys]

    def _lines(self, session: VideoSession, question: Question, times: Sequence[float]) -> tuple[str, ...]:
        """Return what is said near a question's frames; nothing where a benchmark's protocol or subtitles govern it."""
        if self.spoken.is_off or self.format is not None or question.subtitles is not None:
            return ()
        return lines_near(spoken_lines(session, self.spoken, session.store), times)

    def gives_confidence(self, question: Question) -> bool:
        """Return whether the answer to a question has the probabilities of its options: no generated one has."""
        return bool(question.options) and self.format is None and self.mode != "text"

    def answer_requests(
        self,
        model: Model,
        requests: Sequence[AnswerRequest],
        tokens: VisualTokens,
        *,
        prefix_cache: PrefixCache | None = None,
        on_answer: OnAnswer = lambda *_: None,
    ) -> list[ModelOutput]:
        """Answer each request, without remembering it.

        Multiple choice as `mode` says; generated text may name no letter, and then `option` is None. A free question
        gets greedy text.

        Args:
            model: The model that answers.
            requests: Those with the same frames share what the model reads of them.
            tokens: The visual tokens of the video.
            prefix_cache: What was read of frames before.
            on_answer: Called as answers are given.

        Returns:
            An output for each. Its cost has the tokens of the request's own prompt alone, shared or not.
        """
        frame_parts = functools.cache(lambda pairs: tuple(self.frame_parts(pairs, tokens)))
        whole = [self._prompt(request, tokens, frame_parts) for request in requests]
        by_form: dict[tuple[str, bool], list[int]] = {}
        for i, request in enumerate(requests):
            by_form.setdefault((request.question.letters, request.question.schema is not None), []).append(i)
        outputs: dict[int, ModelOutput] = {}
        for indices in by_form.values():
            for batch in prefill_shared(model, [whole[i] for i in indices], prefix_cache):
                questions = [requests[indices[split.index]].question for split in batch]
                outputs_of_batch = self._outputs(model, questions, batch, tokens.video.duration_seconds)
                for split, output in zip(batch, outputs_of_batch, strict=True):
                    i = indices[split.index]
                    outputs[i] = _with_lengths(output, *model.prompt_length(whole[i]))
                    on_answer(len(outputs), len(requests))
        return [outputs[i] for i in range(len(requests))]

    def prompt(self, request: AnswerRequest, tokens: VisualTokens) -> Prompt:
        """Return the whole prompt of a request: frames, picture and voice, subtitles, the question."""
        return self._prompt(request, tokens, lambda pairs: tuple(self.frame_parts(pairs, tokens)))

    def _prompt(
        self, request: AnswerRequest, tokens: VisualTokens, frame_parts: Callable[[tuple[Pair, ...]], Prompt]
    ) -> Prompt:
        from lvqa.models.prompt import ReplyStart, SystemText

        question, frames = request.question, sorted({frame for pair in request.pairs for frame in pair})
        times = [tokens.grid.seconds_of(frame) for frame in frames]
        subtitles = None if question.subtitles is None else _ended(question.subtitles, tokens.video.duration_seconds)
        if self.format is None:
            is_compared = question.options and self.mode == "likelihood"
            text = prompts.short_answer(question) if is_compared else prompts.answer(question)
            lines = request.lines or shown_with_frames(subtitles or (), times)
            return (*frame_parts(tuple(request.pairs)), *request.media, prompts.subtitles(lines) + text)
        parts: list[Part] = [SystemText(self.format.system)] if self.format.system else []
        subtitle_text = None
        if subtitles is not None and self.format.interleave is not None:
            images = _images(frames, tokens)
            parts += [images[x] if isinstance(x, int) else x for x in self.format.interleave(subtitles, times)]
        else:
            parts += frame_parts(tuple(request.pairs))
            if subtitles is not None and self.format.subtitles is not None:
                subtitle_text = self.format.subtitles(subtitles, times)
        parts += [*request.media, self.format.text(question, subtitle_text)]
        return (*parts, *([ReplyStart(self.format.reply_start)] if self.format.reply_start else []))

    def _outputs(
        self, model: Model, questions: Sequence[Question], batch: Sequence[SplitPrompt], duration_seconds: float
    ) -> Iterator[ModelOutput]:
        """Yield what the model replies to questions, all with the same letters, and all with a schema or none."""
        letters = list(questions[0].letters)
        if letters and self.mode == "logits" and self.format is None:
            rows = _next_token_logits(model, batch, letters)
            yield from (_likeliest(question, logits) for question, logits in zip(questions, rows, strict=True))
            return
        if letters and self.mode == "likelihood" and self.format is None:
            for question, split in zip(questions, batch, strict=True):
                before = model.counts.tokens_prefilled
                log_probs = model.reply_log_probs(split.suffix, question.options, prefix=split.prefix)
                num_read = 0 if split.prefix is None else len(split.prefix)
                counts = Counts(tokens_prefilled=num_read + model.counts.tokens_prefilled - before)
                yield replace(_likeliest(question, log_probs), cost=Cost(counts))
            return
        for question, text in zip(questions, self._generated(model, questions, batch, duration_seconds), strict=True):
            option = self.format.read(text, question) if self.format else named_letter(text, question.options)
            yield ModelOutput(text, option, ())

    def _generated(
        self, model: Model, questions: Sequence[Question], batch: Sequence[SplitPrompt], duration_seconds: float
    ) -> list[str]:
        """Return the generated replies; LvqaError for one that is cut before it fits its schema."""
        schemas = [None if q.schema is None else AnswerSchema(q.schema, duration_seconds) for q in questions]
        limit = self.format.max_new_tokens if self.format else self.max_new_tokens
        texts = model.generate(
            [split.suffix for split in batch],
            prefixes=[split.prefix for split in batch],
            max_new_tokens=self.max_object_tokens if any(schemas) else limit,
            decoding=self.decoding,
            schemas=schemas,
        )
        for schema, text in zip(schemas, texts, strict=True):
            if schema is not None:
                schema.parse(text)
        return texts

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


def _next_token_logits(model: Model, batch: Sequence[SplitPrompt], words: Sequence[str]) -> Tensor:
    """Return the words' logits as the first token of each reply, (prompts, words)."""
    suffixes = [split.suffix for split in batch]
    prefixes = [split.prefix for split in batch if split.prefix is not None]
    if not prefixes:
        return model.next_token_logits(suffixes, words)
    return model.score_with_prefix(prefixes, suffixes, words)


def _with_lengths(output: ModelOutput, num_tokens: int, num_visual: int) -> ModelOutput:
    """Return the output with the length of its prompt, which is its cost in tokens unless more was counted."""
    cost = output.cost if output.cost.counts.tokens_prefilled else Cost(Counts(tokens_prefilled=num_tokens))
    return replace(output, tokens=num_tokens, visual_tokens=num_visual, cost=cost)


def _with_share(output: ModelOutput, share: Cost) -> ModelOutput:
    """Return the output with its share of what all cost together, but for the tokens, which are its own."""
    return replace(
        output, cost=Cost(replace(share.counts, tokens_prefilled=output.cost.counts.tokens_prefilled), share.seconds)
    )


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

"""Answer questions from frames: the answer's text, its letter and the options' scores."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from lvqa import prompts
from lvqa.costs import CostMeter, split_cost
from lvqa.letters import named_letter
from lvqa.models import Model
from lvqa.models.prefix import PrefixCache, SplitPrompt, prefill_shared
from lvqa.records import Cost, Counts, ModelOutput, Question
from lvqa.session import MediaKey, VideoSession
from lvqa.visual_tokens import Pair, VisualTokens, pairs_of_frames, runs_of_pairs

if TYPE_CHECKING:
    from torch import Tensor

    from lvqa.models.prompt import Part, Prompt


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Answerer:
    """How frames are shown to the model and its answer is read.

    `time_encoding`: "text" shows each run of neighbouring frames as one video with its time in words before it;
    "mrope" shows one video whose temporal positions are the true seconds; "index" one video at a constant step.

    `mode`, for multiple choice: "logits" shows the options and takes the letter with the largest logit; "text" shows
    them, generates, and takes the letter that the text names; "likelihood" asks the bare question and takes the option
    that is likeliest, word for word, as the reply.
    """

    time_encoding: str = "text"
    mode: str = "logits"
    max_new_tokens: int = 64

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
        keys = [
            (self, question.text, question.options, MediaKey.of(question), tuple(seconds))
            for question, seconds in zip(questions, times, strict=True)
        ]
        new = {
            key: AnswerRequest(
                question,
                pairs_of_frames(map(session.grid.frame_at, seconds), session.grid),
                session.query_media(question),
            )
            for key, question, seconds in zip(keys, questions, times, strict=True)
            if key not in session.outputs
        }
        if new:
            meter = CostMeter(model.counts)
            with meter.stage("answer"):
                outputs = self.answer_requests(
                    model, list(new.values()), session.tokens, prefix_cache=session.answer_prefixes, on_answer=on_answer
                )
            shares = split_cost(meter.cost, len(outputs))
            session.outputs.update(zip(new, map(_with_share, outputs, shares), strict=True))
        return [session.outputs[key] for key in keys]

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
        frames = {tuple(pairs): self.frame_parts(pairs, tokens) for pairs in (request.pairs for request in requests)}
        whole = [(*frames[tuple(request.pairs)], *request.media, self._ask(request.question)) for request in requests]
        by_letters: dict[str, list[int]] = {}
        for i, request in enumerate(requests):
            by_letters.setdefault(request.question.letters, []).append(i)
        outputs: dict[int, ModelOutput] = {}
        for indices in by_letters.values():
            for batch in prefill_shared(model, [whole[i] for i in indices], prefix_cache):
                questions = [requests[indices[split.index]].question for split in batch]
                for split, output in zip(batch, self._outputs(model, questions, batch), strict=True):
                    outputs[indices[split.index]] = output
                    on_answer(len(outputs), len(requests))
        return [outputs[i] for i in range(len(requests))]

    def _ask(self, question: Question) -> str:
        is_bare = self.mode == "likelihood" and question.options
        return prompts.short_answer(question) if is_bare else prompts.answer(question)

    def _outputs(
        self, model: Model, questions: Sequence[Question], batch: Sequence[SplitPrompt]
    ) -> Iterator[ModelOutput]:
        """Yield what the model replies to questions, all with the same letters."""
        letters = list(questions[0].letters)
        if letters and self.mode == "logits":
            rows = _next_token_logits(model, batch, letters)
            for question, split, logits in zip(questions, batch, rows, strict=True):
                yield _with_tokens(_likeliest(question, logits), model.num_tokens(split.suffix, prefix=split.prefix))
            return
        for question, split in zip(questions, batch, strict=True):
            before = model.counts.tokens_prefilled
            if letters and self.mode == "likelihood":
                output = _likeliest(
                    question, model.reply_log_probs(split.suffix, question.options, prefix=split.prefix)
                )
            else:
                text = model.generate(split.suffix, max_new_tokens=self.max_new_tokens, prefix=split.prefix)
                output = ModelOutput(text, named_letter(text, question.options), ())
            num_read = 0 if split.prefix is None else len(split.prefix)
            yield _with_tokens(output, num_read + model.counts.tokens_prefilled - before)

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
            parts += [prompts.timestamp(tokens.grid.seconds_of(run[0][0])), clip]
        return parts


def _next_token_logits(model: Model, batch: Sequence[SplitPrompt], words: Sequence[str]) -> Tensor:
    """Return the words' logits as the first token of each reply, (prompts, words)."""
    suffixes = [split.suffix for split in batch]
    prefixes = [split.prefix for split in batch if split.prefix is not None]
    if not prefixes:
        return model.next_token_logits(suffixes, words)
    return model.score_with_prefix(prefixes, suffixes, words)


def _with_tokens(output: ModelOutput, num_tokens: int) -> ModelOutput:
    """Return the output with the tokens that its prompt has."""
    return replace(output, cost=Cost(Counts(tokens_prefilled=num_tokens)))


def _with_share(output: ModelOutput, share: Cost) -> ModelOutput:
    """Return the output with its share of what all cost together, but for the tokens, which are its own."""
    return replace(
        output, cost=Cost(replace(share.counts, tokens_prefilled=output.cost.counts.tokens_prefilled), share.seconds)
    )


def _likeliest(question: Question, logits: Tensor) -> ModelOutput:
    scores = logits.softmax(dim=0).tolist()
    best = max(range(len(scores)), key=scores.__getitem__)
    return ModelOutput(question.options[best], question.letters[best], tuple(scores))

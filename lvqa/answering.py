"""Frames and a question -> the answer's text, letter and scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from lvqa import prompts
from lvqa.backbones import Backbone
from lvqa.backbones.prompt import Part
from lvqa.records import Question
from lvqa.visual import Pair, VisualTokens, runs_of_pairs


@dataclass(frozen=True, slots=True)
class Reply:
    """What the model said."""

    text: str
    option: str | None
    option_scores: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answerer:
    """How frames are shown and the answer is read.

    `time_encoding`: "text" shows each run of neighbouring frames as one piece of film with its time in words before it;
    "mrope" shows one piece whose temporal positions are the true seconds; "index" one piece at a constant step.

    `read`, for multiple choice: "logits" shows the options and takes the letter with the largest logit; "likelihood"
    asks the bare question and takes the option that is likeliest, word for word, as the reply.
    """

    time_encoding: str = "text"
    read: str = "logits"
    max_new_tokens: int = 64

    def answer(self, backbone: Backbone, question: Question, pairs: Sequence[Pair], tokens: VisualTokens) -> Reply:
        """With options, one of them and softmax scores over all, by `read`. A free question: greedy text."""
        film = self._film(pairs, tokens)
        if not question.options:
            return Reply(
                backbone.generate((*film, prompts.answer(question)), max_new_tokens=self.max_new_tokens), None, ()
            )
        if self.read == "likelihood":
            bare = (*film, prompts.answer(replace(question, options=())))
            logits = backbone.reply_log_probs(bare, question.options)
        else:
            logits = backbone.next_token_logits([(*film, prompts.answer(question))], list(question.letters))[0]
        scores = logits.softmax(dim=0).tolist()
        best = max(range(len(scores)), key=scores.__getitem__)
        return Reply(question.options[best], question.letters[best], tuple(scores))

    def _film(self, pairs: Sequence[Pair], tokens: VisualTokens) -> list[Part]:
        """What stands before the question: nothing if no frame was chosen."""
        if not pairs:
            return []
        if self.time_encoding != "text":
            start_seconds = 0.0 if self.time_encoding == "mrope" else None
            return [tokens.block(pairs, next(tokens.stream([pairs])), start_seconds=start_seconds)]
        runs = runs_of_pairs(pairs)
        parts: list[Part] = []
        for run, block in zip(runs, tokens.blocks(runs), strict=True):
            parts += [prompts.timestamp(tokens.grid.seconds_of(run[0][0])), block]
        return parts

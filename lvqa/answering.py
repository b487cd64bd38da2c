"""Frames and a question -> the answer's text, letter and scores."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lvqa import prompts
from lvqa.models import Model
from lvqa.models.prompt import Part, Prompt
from lvqa.records import LETTERS, Question
from lvqa.visual_tokens import Pair, VisualTokens, runs_of_pairs

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Reply:
    """What the model said."""

    text: str
    """The option's text, or what was generated, as it was."""
    option: str | None
    option_scores: tuple[float, ...]
    """Empty where text was generated."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A question with what is shown for it."""

    question: Question
    pairs: Sequence[Pair]
    image: Prompt = ()
    """What shows the question's picture, if it has one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answerer:
    """How frames are shown and the answer is read.

    `time_encoding`: "text" shows each run of neighbouring frames as one piece of film with its time in words before it;
    "mrope" shows one piece whose temporal positions are the true seconds; "index" one piece at a constant step.

    `read`, for multiple choice: "logits" shows the options and takes the letter with the largest logit; "text" shows
    them, generates, and takes the letter that the text names; "likelihood" asks the bare question and takes the option
    that is likeliest, word for word, as the reply.
    """

    time_encoding: str = "text"
    read: str = "logits"
    max_new_tokens: int = 64

    def answer(self, model: Model, asked: Sequence[Asked], tokens: VisualTokens) -> list[Reply]:
        """A reply to each question on a video; those that are read by the same letters are read in one prefill.

        Multiple choice as `read` says; generated text may name no letter, and then `option` is None. A free question:
        greedy text.
        """
        shown = [(*self.frame_parts(one.pairs, tokens), *one.image) for one in asked]
        replies: dict[int, Reply] = {}
        by_letters: dict[str, list[int]] = {}
        for number, (one, film) in enumerate(zip(asked, shown, strict=True)):
            question = one.question
            if not question.options or self.read == "text":
                text = model.generate((*film, prompts.answer(question)), max_new_tokens=self.max_new_tokens)
                replies[number] = Reply(text, named_letter(text, question.options), ())
            elif self.read == "likelihood":
                logits = model.reply_log_probs((*film, prompts.short_answer(question)), question.options)
                replies[number] = _likeliest(question, logits)
            else:
                by_letters.setdefault(question.letters, []).append(number)
        for letters, numbers in by_letters.items():
            together = [(*shown[number], prompts.answer(asked[number].question)) for number in numbers]
            rows = model.next_token_logits(together, list(letters))
            replies |= {
                number: _likeliest(asked[number].question, row) for number, row in zip(numbers, rows, strict=True)
            }
        return [replies[number] for number in range(len(asked))]

    def frame_parts(self, pairs: Sequence[Pair], tokens: VisualTokens) -> list[Part]:
        """What stands before the question: nothing if no frame was chosen."""
        if not pairs:
            return []
        if self.time_encoding != "text":
            start_seconds = 0.0 if self.time_encoding == "mrope" else None
            return [tokens.clip_tokens(pairs, next(tokens.stream([pairs])), start_seconds=start_seconds)]
        runs = runs_of_pairs(pairs)
        parts: list[Part] = []
        for run, block in zip(runs, tokens.clips(runs), strict=True):
            parts += [prompts.timestamp(tokens.grid.seconds_of(run[0][0])), block]
        return parts


def _likeliest(question: Question, logits: Tensor) -> Reply:
    scores = logits.softmax(dim=0).tolist()
    best = max(range(len(scores)), key=scores.__getitem__)
    return Reply(question.options[best], question.letters[best], tuple(scores))


def named_letter(text: str, options: Sequence[str]) -> str | None:
    """The one letter that a generated answer names, or None if it names none or several: no guess is made for it.

    Looked for in turn: what it calls its answer ("The answer is B", "Answer: (B)"); a letter that stands alone, opens
    a line as a label or is in brackets ("B", "B. red", "Option B", "I see (B)"); the text of one option. The A of
    "A red car" names nothing.
    """
    letters = LETTERS[: len(options)]
    if not letters:
        return None
    said = re.sub(_DECORATION, "", text).strip()
    for form in (_CALLED, _LABEL):
        named = {"".join(groups) for groups in re.findall(form.replace("LETTERS", letters), said, re.MULTILINE)}
        if named:
            return named.pop() if len(named) == 1 else None
    meant = [letter for letter, option in zip(letters, options, strict=False) if _same(option, said)]
    return meant[0] if len(meant) == 1 else None


_DECORATION = r"[*_`\"]|</?\w+>|\\boxed"
_OPEN, _CLOSE = r"[(\[{]", r"[)\]}]"
_CALLED = rf"(?i:\b(?:answer|option|choice)(?:\s+is\s*:?|\s*:))\s*{_OPEN}?([LETTERS])(?![\w'])"
_AT_LINE_START = rf"^\s*(?:[Oo]ption )?{_OPEN}?([LETTERS])(?:{_CLOSE}|[.:](?!\w)|\s+[-\u2013]\s|\s*$)"
_LABEL = rf"{_AT_LINE_START}|{_OPEN}([LETTERS]){_CLOSE}"


def _same(option: str, said: str) -> bool:
    return option.strip().rstrip(".").casefold() == said.rstrip(".").casefold()

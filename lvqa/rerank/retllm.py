"""RetLLM's reranker (arXiv 2602.22278): by the paper, by the released program, and with what we would keep of both."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from lvqa import prompts
from lvqa.models import ENHANCEMENTS, Model
from lvqa.records import Candidate
from lvqa.rerank.protocol import ClipTokensOf, best_first, in_time
from lvqa.rerank.scoring import Reading, next_token_logits
from lvqa.validation import is_whole, require, require_number, require_one_of

if TYPE_CHECKING:
    from lvqa.models.prefix import PrefixCache
    from lvqa.models.prompt import Prompt

SCORES = ("p_true", "generated")
TIES = ("guarded", "literal", "none")
MAX_NEW_TOKENS = 77
"""Of a generated score, as in the released program, which samples where this is greedy."""
MOST_OF_A_TIE = 1e-6
"""The most that a tie adds to a score: less than scores are shown with."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the model would say first when asked for True or False."""

    true: float
    """P(True) over the whole vocabulary."""
    entropy: float
    """Of the next token over the whole vocabulary, as a part of the largest possible."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetLLM:
    """RetLLM with what is sound of paper and program: P(True), the program's enhancement, a guarded rule for ties.

    The best `top` of the pool, by embedding, are looked at; the others stand behind them. A clip stands before the
    question, as images do there. While the model scores, it is shown the visual tokens again
    (`lvqa.models.enhancement`). Candidates that share the highest score are put in the order of their entropy, the
    surest first. LvqaError for an option that is not allowed.
    """

    top: int | None = 5
    """k of the paper and the program; null: the whole pool."""
    score: str = "p_true"
    """"p_true": P(True) by one forward pass. "generated": the number that the model writes, 0 where it writes none."""
    ratio: float = 0.12
    """How much of a feed-forward layer is replaced; 0: no enhancement, and clips are read once for all questions."""
    formula: str = "released"
    """Of the enhancement, or "paper"."""
    decimals: int | None = None
    """To which scores are cut, so that they tie; null: as they are."""
    ties: str = "guarded"
    """"literal": by entropy alone, which of clips that all fail puts first the one that fails most surely. "guarded":
    only among those with P(True) above one half. "none": the order of the embedding."""

    def __post_init__(self) -> None:
        require(self.top is None or (is_whole(self.top) and self.top >= 1), "top", self.top, "1 or more, or null")
        require_one_of(self.score, "score", SCORES)
        require_number(self.ratio, "ratio", 0, 1)
        require_one_of(self.formula, "formula", ENHANCEMENTS)
        fine = self.decimals is None or (is_whole(self.decimals) and 0 <= self.decimals <= 9)
        require(fine, "decimals", self.decimals, "a whole number from 0 to 9, or null")
        require_one_of(self.ties, "ties", TIES)

    def rerank(
        self,
        model: Model,
        query: str,
        candidates: Sequence[Candidate],
        clip_tokens: ClipTokensOf,
        beginnings: PrefixCache | None = None,
        *,
        image: Prompt = (),
    ) -> list[Candidate]:
        ordered = in_time(candidates[: self.top])
        with model.visual_enhancement(ratio=self.ratio, formula=self.formula):
            if self.score == "p_true":
                kept = None if self.ratio else beginnings
                asked = (*image, prompts.retllm_true(query))
                verdicts = _verdicts(model, ((), asked), ordered, clip_tokens, kept)
                scores = [self._cut(verdict.true) for verdict in verdicts]
                tied = {place: verdicts[place] for place in self._tied(scores)}
            else:
                scores = [
                    self._cut(score)
                    for score in _generated(model, (*image, prompts.retllm_score(query)), ordered, clip_tokens)
                ]
                places = self._tied(scores)
                before, after = prompts.retllm_tie(query)
                again = _verdicts(model, ((*image, before), (after,)), [ordered[n] for n in places], clip_tokens)
                tied = dict(zip(places, again, strict=True))
        for place, verdict in tied.items():
            if self.ties == "literal" or verdict.true > 0.5:
                scores[place] += MOST_OF_A_TIE * (1 - verdict.entropy)
        scored = [replace(one, rerank_score=score) for one, score in zip(ordered, scores, strict=True)]
        return [*best_first(scored), *candidates[len(ordered) :]]

    def _tied(self, scores: Sequence[float]) -> list[int]:
        """The places of the highest score, if there are several and entropy is to tell them apart."""
        highest = max(scores, default=0.0)
        places = [place for place, score in enumerate(scores) if score == highest]
        return places if len(places) > 1 and self.ties != "none" else []

    def _cut(self, score: float) -> float:
        return score if self.decimals is None else math.floor(score * 10**self.decimals) / 10**self.decimals


@dataclass(frozen=True, slots=True, kw_only=True)
class PaperRetLLM(RetLLM):
    """RetLLM as the paper has it, read through a summary of it.

    The score is generated. Of the candidates with the highest one each is asked about again, True or False, and the
    lowest entropy wins. The enhancement is the plain formula with alpha = 0.3.
    """

    score: str = "generated"
    ratio: float = 0.3
    formula: str = "paper"
    ties: str = "literal"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleasedRetLLM(RetLLM):
    """RetLLM as the released program has it, but for its faults in the enhancement.

    P(True) is cut to two decimals, and the entropy of the same forward pass decides among equal ones. (Its other arm:
    score generated, ties none.)
    """

    decimals: int | None = 2
    ties: str = "literal"


def _verdicts(
    model: Model,
    text: tuple[Prompt, Prompt],
    candidates: Sequence[Candidate],
    clip_tokens: ClipTokensOf,
    beginnings: PrefixCache | None = None,
) -> list[Verdict]:
    """One for each candidate, which are in the order of time; `text` stands before and after the clip."""
    before, after = text
    true, _ = model.first_tokens([prompts.TRUE, prompts.FALSE])
    reading = Reading([candidate.clip for candidate in candidates], before, [after])
    verdicts: list[Verdict] = []
    for _, (logits,) in next_token_logits(model, [reading], clip_tokens, words=None, beginnings=beginnings):
        # In double precision: sure answers must not tie.
        log_probs = logits.double().log_softmax(dim=1)
        entropies = -(log_probs.exp() * log_probs).sum(dim=1) / math.log(log_probs.shape[1])
        pairs = zip(log_probs[:, true].exp().tolist(), entropies.tolist(), strict=True)
        verdicts += [Verdict(p, entropy) for p, entropy in pairs]
    return verdicts


def _generated(model: Model, asked: Prompt, candidates: Sequence[Candidate], clip_tokens: ClipTokensOf) -> list[float]:
    """The score that the model writes for each candidate, asked for behind it."""
    blocks = clip_tokens([candidate.clip for candidate in candidates])
    return [written_score(model.generate((block, *asked), max_new_tokens=MAX_NEW_TOKENS)) for block in blocks]


def written_score(text: str) -> float:
    """The first number behind "Answer:", or 0 where there is none: what can't be read counts as no match."""
    found = re.search(r"Answer:\s*(\d{1,12}(?:\.\d+)?)", text)
    return float(found[1]) if found else 0.0

"""RetLLM's reranker (arXiv 2602.22278): by the paper, by the released program, and with what is sound of both."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from lvqa import prompts
from lvqa.models import ENHANCEMENTS, Model
from lvqa.records import Candidate, Clip
from lvqa.rerank.protocol import ClipReader, RerankRequest, as_prompt, best_first, in_time_order
from lvqa.rerank.scoring import ScoringRequest, clip_logits, join_content
from lvqa.validation import is_whole, require, require_number, require_one_of

if TYPE_CHECKING:
    from lvqa.models.prefix import PrefixCache
    from lvqa.models.prompt import Prompt

SCORES = ("p_true", "generated")
TIES = ("guarded", "literal", "none")
MAX_NEW_TOKENS = 77
"""The longest generated score, as in the released program, which samples where this is greedy."""
MAX_TIE_BONUS = 1e-6
"""The most that the rule for ties adds to a score: less than scores are printed with."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the model would say first when it is asked for True or False."""

    true: float
    """P(True) over the whole vocabulary."""
    entropy: float
    """The entropy of the next token over the whole vocabulary, as a part of the largest possible."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetLLM:
    """RetLLM with what is sound of paper and program: P(True), the program's enhancement, a guarded rule for ties.

    The best `top` of the pool, by embedding, are reranked; the others come after them. A clip stands before the
    question, as images do there. While the model scores, it is shown the visual tokens again
    (`lvqa.models.enhancement`). Candidates that share the highest score are put in the order of their entropy, the
    most confident first. LvqaError for an option that is not allowed.
    """

    top: int | None = 5
    """How many candidates are reranked: k of the paper and the program; null: the whole pool."""
    score: str = "p_true"
    """"p_true": P(True) by one forward pass. "generated": the number that the model writes, 0 where it writes none."""
    ratio: float = 0.12
    """How much of a feed-forward layer is replaced; 0: no enhancement, and clips are read once for all questions."""
    formula: str = "released"
    """The formula of the enhancement: "released" or "paper"."""
    decimals: int | None = None
    """To how many decimals scores are cut, so that they tie; null: they are not cut."""
    ties: str = "guarded"
    """"literal": by entropy alone, which puts first the clip that fails most confidently if all fail. "guarded": only
    among those with P(True) above one half. "none": the order of the embedding."""

    def __post_init__(self) -> None:
        require(self.top is None or (is_whole(self.top) and self.top >= 1), "top", self.top, "1 or more, or null")
        require_one_of(self.score, "score", SCORES)
        require_number(self.ratio, "ratio", 0, 1)
        require_one_of(self.formula, "formula", ENHANCEMENTS)
        is_allowed = self.decimals is None or (is_whole(self.decimals) and 0 <= self.decimals <= 9)
        require(is_allowed, "decimals", self.decimals, "a whole number from 0 to 9, or null")
        require_one_of(self.ties, "ties", TIES)

    def rerank(self, model: Model, requests: Sequence[RerankRequest]) -> list[list[Candidate]]:
        """Rerank the requests one after the other."""
        return [self._rerank(model, request) for request in requests]

    def _rerank(self, model: Model, request: RerankRequest) -> list[Candidate]:
        ordered = in_time_order(request.candidates[: self.top])
        with model.visual_enhancement(ratio=self.ratio, formula=self.formula):
            score = self._score_by_p_true if self.score == "p_true" else self._score_by_generation
            scores, tied = score(model, request, ordered)
        for i, verdict in tied.items():
            if self.ties == "literal" or verdict.true > 0.5:
                scores[i] += MAX_TIE_BONUS * (1 - verdict.entropy)
        scored = [replace(one, rerank_score=score) for one, score in zip(ordered, scores, strict=True)]
        return [*best_first(scored), *request.candidates[len(ordered) :]]

    def _score_by_p_true(
        self, model: Model, request: RerankRequest, ordered: Sequence[Candidate]
    ) -> tuple[list[float], dict[int, Verdict]]:
        """Return the candidates' scores, and the verdicts on those that tie, by their index."""
        prefix_cache = None if self.ratio else request.clips.prefix_cache
        question = (*request.media, prompts.retllm_true(request.query, task=request.task))
        clips, lead = [candidate.clip for candidate in ordered], prompts.retllm_lead(request.task)
        verdicts = _verdicts(model, ScoringRequest(clips, (), [question], lead), request.clips, prefix_cache)
        scores = [self._cut(verdict.true) for verdict in verdicts]
        return scores, {i: verdicts[i] for i in self._tied(scores)}

    def _score_by_generation(
        self, model: Model, request: RerankRequest, ordered: Sequence[Candidate]
    ) -> tuple[list[float], dict[int, Verdict]]:
        """Return the same, by scores that the model writes; those that tie are asked about once more."""
        question = (*request.media, prompts.retllm_score(request.query, task=request.task))
        scores = [self._cut(score) for score in _generated(model, question, ordered, request.clips)]
        tied = self._tied(scores)
        before, after = prompts.retllm_tie(request.query)
        clips = [ordered[i].clip for i in tied]
        about_ties = ScoringRequest(clips, (*request.media, before), [(after,)], separator="")
        verdicts = _verdicts(model, about_ties, request.clips, None)
        return scores, dict(zip(tied, verdicts, strict=True))

    def _tied(self, scores: Sequence[float]) -> list[int]:
        """Return the indices of the highest score, if there are several and entropy is to tell them apart."""
        highest = max(scores, default=0.0)
        tied = [i for i, score in enumerate(scores) if score == highest]
        return tied if len(tied) > 1 and self.ties != "none" else []

    def _cut(self, score: float) -> float:
        return score if self.decimals is None else math.floor(score * 10**self.decimals) / 10**self.decimals


@dataclass(frozen=True, slots=True, kw_only=True)
class PaperRetLLM(RetLLM):
    """RetLLM as the paper has it, read through a summary of it.

    The score is generated. The model is asked once more, True or False, about each of the candidates with the highest
    one, and the lowest entropy wins. The enhancement is the plain formula with alpha = 0.3.
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
    model: Model, request: ScoringRequest, reader: ClipReader, prefix_cache: PrefixCache | None
) -> list[Verdict]:
    """Return a verdict on each clip of the request, which has one text after a clip."""
    if not request.clips:
        return []
    true, _ = model.first_tokens([prompts.TRUE, prompts.FALSE])
    verdicts: dict[Clip, Verdict] = {}
    for batch in clip_logits(model, [request], reader, words=None, prefix_cache=prefix_cache):
        (logits,) = batch.logits
        # In double precision: very confident answers must not tie.
        log_probs = logits.double().log_softmax(dim=1)
        entropies = -(log_probs.exp() * log_probs).sum(dim=1) / math.log(log_probs.shape[1])
        pairs = zip(log_probs[:, true].exp().tolist(), entropies.tolist(), strict=True)
        verdicts |= {clip: Verdict(*pair) for (_, clip), pair in zip(batch.rows, pairs, strict=True)}
    return [verdicts[clip] for clip in request.clips]


def _generated(model: Model, question: Prompt, candidates: Sequence[Candidate], reader: ClipReader) -> list[float]:
    """Return the score that the model writes for each candidate; the question follows the clip."""
    contents = map(as_prompt, reader.read([candidate.clip for candidate in candidates]))
    whole = (join_content((), content, question) for content in contents)
    # One by one: each prompt has an enhancement of its own.
    return [written_score(model.generate([prompt], max_new_tokens=MAX_NEW_TOKENS)[0]) for prompt in whole]


def written_score(text: str) -> float:
    """Return the first number after "Answer:", or 0 where there is none: what can't be read counts as no match."""
    match = re.search(r"Answer:\s*(\d{1,12}(?:\.\d+)?)", text)
    return float(match[1]) if match else 0.0

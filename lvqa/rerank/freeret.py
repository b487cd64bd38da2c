"""FreeRet's reranker: is this the clip? asked as a choice between two labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from lvqa import prompts
from lvqa.models import Model
from lvqa.records import Candidate, Clip
from lvqa.rerank.protocol import ClipTokensOf, RerankRequest, best_first
from lvqa.rerank.scoring import Reading, next_token_logits
from lvqa.validation import require_bool, require_one_of

if TYPE_CHECKING:
    from torch import Tensor

    from lvqa.models.prefix import PrefixCache
    from lvqa.models.prompt import Prompt

LAYOUTS = ("question_first", "clip_first")
PROBABILITIES = ("options", "vocabulary")


@dataclass(frozen=True, slots=True, kw_only=True)
class MultipleChoice:
    """FreeRet's reranking (section 3.3): the probability of the label that says that the clip matches the query.

    The paper writes SoftMax(p('A')), which can be read as either `probability`. LvqaError for an option that is not
    allowed, and when the model's tokenizer begins both labels with the same token.
    """

    layout: str = "question_first"
    """As in the paper; "clip_first" lets the model read the clip before it knows what is asked, so that a clip is read
    once for all questions, as far as `beginnings` hold it."""
    labels: str = "letters"
    """The framing, a name in prompts.LABELS: letters of neutral options, or words that the paper found to be biased."""
    both_orders: bool = False
    """The mean over both orders of the options, so that a liking for the first one or for A cancels."""
    probability: str = "options"
    """Softmax over the logits of the two labels, or over the whole "vocabulary"."""

    def __post_init__(self) -> None:
        require_one_of(self.layout, "layout", LAYOUTS)
        require_one_of(self.labels, "labels", prompts.LABELS)
        require_bool(self.both_orders, "both_orders")
        require_one_of(self.probability, "probability", PROBABILITIES)

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
        (found,) = self.rerank_together(model, [RerankRequest(query, candidates, image)], clip_tokens, beginnings)
        return found

    def rerank_together(
        self,
        model: Model,
        sought: Sequence[RerankRequest],
        clip_tokens: ClipTokensOf,
        beginnings: PrefixCache | None = None,
    ) -> list[list[Candidate]]:
        """What `rerank` gives for each of them; a clip of several pools is shown once."""
        matching = [prompts.rerank_labels(self.labels, swapped=swapped)[0] for swapped in self._orders]
        labels = list(prompts.LABELS[self.labels])
        whole = self.probability == "vocabulary"
        column = dict(zip(labels, model.first_tokens(labels) if whole else range(2), strict=True))
        scores: list[dict[Clip, float]] = [{} for _ in sought]
        for read, logits in next_token_logits(
            model,
            [self._reading(one) for one in sought],
            clip_tokens,
            words=None if whole else labels,
            beginnings=beginnings if self.layout == "clip_first" else None,
        ):
            probabilities = [_softmax(one)[:, column[label]] for one, label in zip(logits, matching, strict=True)]
            mean = sum(probabilities[1:], probabilities[0]) / len(self._orders)
            for (number, clip), score in zip(read, mean.tolist(), strict=True):
                scores[number][clip] = score
        return [
            best_first(replace(one, rerank_score=of_clips[one.clip]) for one in wanted.candidates)
            for wanted, of_clips in zip(sought, scores, strict=True)
        ]

    @property
    def _orders(self) -> tuple[bool, ...]:
        """Whether the labels are swapped, each time the model is asked."""
        return (False, True) if self.both_orders else (False,)

    def _reading(self, sought: RerankRequest) -> Reading:
        """What the model is shown for a query."""
        clip_first = self.layout == "clip_first"
        texts = [
            prompts.rerank(sought.query, labels=self.labels, swapped=swapped, clip_first=clip_first)
            for swapped in self._orders
        ]
        before = texts[0][0]
        return Reading(
            [candidate.clip for candidate in sought.candidates],
            (before,) if clip_first else (*sought.image, before),
            [(*sought.image, after) if clip_first else (after,) for _, after in texts],
        )


def _softmax(logits: Tensor) -> Tensor:
    """In double precision: sure answers must not tie."""
    return logits.double().softmax(dim=1)

"""FreeRet's reranker: is this the clip? asked as a choice between two labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from lvqa import prompts
from lvqa.backbones import Backbone
from lvqa.plugins import require_bool, require_one_of
from lvqa.records import Candidate
from lvqa.rerank.protocol import BlocksOf, best_first, in_time
from lvqa.rerank.reading import next_token_logits

if TYPE_CHECKING:
    from torch import Tensor

    from lvqa.backbones.beginnings import Beginnings
    from lvqa.backbones.prompt import Prompt

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
        backbone: Backbone,
        query: str,
        candidates: Sequence[Candidate],
        blocks_of: BlocksOf,
        beginnings: Beginnings | None = None,
        *,
        image: Prompt = (),
    ) -> list[Candidate]:
        ordered, clip_first = in_time(candidates), self.layout == "clip_first"
        orders = (False, True) if self.both_orders else (False,)
        texts = [prompts.rerank(query, labels=self.labels, swapped=order, clip_first=clip_first) for order in orders]
        before = texts[0][0]
        matching = [prompts.rerank_labels(self.labels, swapped=order)[0] for order in orders]
        labels = list(prompts.LABELS[self.labels])
        whole = self.probability == "vocabulary"
        column = dict(zip(labels, backbone.first_tokens(labels) if whole else range(2), strict=True))
        scores: list[float] = []
        for logits in next_token_logits(
            backbone,
            [candidate.clip for candidate in ordered],
            blocks_of,
            before=(before,) if clip_first else (*image, before),
            afters=[(*image, after) if clip_first else (after,) for _, after in texts],
            words=None if whole else labels,
            beginnings=beginnings if clip_first else None,
        ):
            probabilities = [_softmax(one)[:, column[label]] for one, label in zip(logits, matching, strict=True)]
            scores += (sum(probabilities[1:], probabilities[0]) / len(orders)).tolist()
        return best_first(replace(one, rerank_score=score) for one, score in zip(ordered, scores, strict=True))


def _softmax(logits: Tensor) -> Tensor:
    """In double precision: sure answers must not tie."""
    return logits.double().softmax(dim=1)

"""FreeRet's reranker: whether a clip matches the query, as a choice between two labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from lvqa import prompts
from lvqa.models import Model
from lvqa.records import Candidate, Clip
from lvqa.rerank.protocol import RerankRequest, best_first
from lvqa.rerank.scoring import ScoringRequest, clip_logits
from lvqa.validation import require_bool, require_one_of

if TYPE_CHECKING:
    from torch import Tensor

LAYOUTS = ("question_first", "clip_first")
PROBABILITIES = ("options", "vocabulary")


@dataclass(frozen=True, slots=True, kw_only=True)
class MultipleChoice:
    """FreeRet's reranking (section 3.4): the probability of the label that says that the clip matches the query.

    The paper writes SoftMax(p('A')), which can be read as either `probability`. LvqaError for an option that is not
    allowed, and when the model's tokenizer begins both labels with the same token.
    """

    layout: str = "question_first"
    """What the model reads first: the question, as in the paper, or with "clip_first" the clip, which is then read once
    for all questions, as far as the prefix cache holds it."""
    labels: str = "letters"
    """The framing, a name in prompts.LABELS: letters of neutral options, or words that the paper found to be biased."""
    both_orders: bool = False
    """Whether the score is the mean over both orders of the options, so that a preference for the first one cancels."""
    probability: str = "options"
    """What the softmax is over: the logits of the two labels ("options"), or of the whole "vocabulary"."""
    wording: str = "lvqa"
    """The words of the prompt, one of prompts.WORDINGS."""

    def __post_init__(self) -> None:
        require_one_of(self.layout, "layout", LAYOUTS)
        require_one_of(self.labels, "labels", prompts.LABELS)
        require_bool(self.both_orders, "both_orders")
        require_one_of(self.probability, "probability", PROBABILITIES)
        require_one_of(self.wording, "wording", prompts.WORDINGS)

    def rerank(self, model: Model, requests: Sequence[RerankRequest]) -> list[list[Candidate]]:
        """Score all candidates of all requests; a clip of several requests is shown to the model once."""
        scores = self._scores(model, requests)
        return [
            best_first(replace(candidate, rerank_score=of_clip[candidate.clip]) for candidate in request.candidates)
            for request, of_clip in zip(requests, scores, strict=True)
        ]

    def _scores(self, model: Model, requests: Sequence[RerankRequest]) -> list[dict[Clip, float]]:
        """Return the score of each clip, for each request."""
        matching = [prompts.rerank_labels(self.labels, swapped=swapped)[0] for swapped in self._orders]
        labels = list(prompts.LABELS[self.labels])
        whole = self.probability == "vocabulary"
        column = dict(zip(labels, model.first_tokens(labels) if whole else range(2), strict=True))
        reader = requests[0].clips
        scores: list[dict[Clip, float]] = [{} for _ in requests]
        for batch in clip_logits(
            model,
            [self._scoring_request(request) for request in requests],
            reader,
            words=None if whole else labels,
            prefix_cache=reader.prefix_cache if self.layout == "clip_first" else None,
        ):
            each = [_softmax(logits)[:, column[label]] for logits, label in zip(batch.logits, matching, strict=True)]
            mean = sum(each[1:], each[0]) / len(self._orders)
            for (i, clip), score in zip(batch.rows, mean.tolist(), strict=True):
                scores[i][clip] = score
        return scores

    @property
    def _orders(self) -> tuple[bool, ...]:
        """Whether the labels are swapped, each time the model reads a clip."""
        return (False, True) if self.both_orders else (False,)

    def _scoring_request(self, request: RerankRequest) -> ScoringRequest:
        clip_first = self.layout == "clip_first"
        words: Any = {"task": request.task, "wording": self.wording, "clip_first": clip_first}
        texts = [
            prompts.rerank(request.query, labels=self.labels, swapped=swapped, **words) for swapped in self._orders
        ]
        before = texts[0][0]
        return ScoringRequest(
            [candidate.clip for candidate in request.candidates],
            (before,) if clip_first else (*request.media, before),
            [(*request.media, after) if clip_first else (after,) for _, after in texts],
            lead=prompts.rerank_lead(**words) if clip_first else "",
        )


def _softmax(logits: Tensor) -> Tensor:
    """Return the probabilities in double precision, so that very confident answers do not tie."""
    return logits.double().softmax(dim=1)

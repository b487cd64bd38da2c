"""What a reranker gets and gives back."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from lvqa.models import Model
from lvqa.prompts import VIDEO_RETRIEVAL, RetrievalTask
from lvqa.records import Candidate, Clip, shorten

if TYPE_CHECKING:
    from lvqa.models.prefix import PrefixCache
    from lvqa.models.prompt import ClipTokens, Prompt


class ClipReader(Protocol):
    """The clips of one open video, or the items of a pool that stand in for clips, as the model sees them."""

    @property
    def prefix_cache(self) -> PrefixCache | None:
        """What earlier requests on the video made the model read, by clip; None: nothing is kept."""
        ...

    def read(self, clips: Sequence[Clip]) -> Iterator[ClipTokens | str | Prompt]:
        """Yield what shows each clip: its visual tokens. The clips come in the order of time, so that the video is read
        once.

        An item that stands in for a clip is one part of a prompt as a clip is, a text or a picture's tokens; or, where
        it has several, all of them in a tuple: `as_prompt` makes one of either.
        """
        ...


@dataclass(frozen=True, slots=True)
class RerankRequest:
    """A query, and the clips among which it is searched for."""

    query: str
    candidates: Sequence[Candidate]
    """At least one, best first by embedding."""
    clips: ClipReader
    """The clips' visual tokens. All requests of one call are about one video, and share its reader."""
    media: Prompt = ()
    """What shows the query's picture or lets its voice be heard, if it has one."""
    task: RetrievalTask = VIDEO_RETRIEVAL
    """What prompts call the query and the candidates. All requests of one call have the same."""


def as_prompt(content: ClipTokens | str | Prompt) -> Prompt:
    """Return what a reader yields for a clip, or for an item in its place, as a part of a prompt."""
    return content if isinstance(content, tuple) else (content,)


class Reranker(Protocol):
    """Scores candidates once more. A new one is such a class with a line in RERANKERS, or in a file of your own.

    Several threads may call it at once, for different videos.
    """

    def rerank(self, model: Model, requests: Sequence[RerankRequest]) -> list[list[Candidate]]:
        """Rerank the candidates of each request.

        The scores do not depend on the other requests, on earlier calls, or on the batches that the model reads.

        Args:
            model: The model that judges.
            requests: At least one, all about one video.

        Returns:
            For each request the same clips, each once, as new candidates, best first by `rerank_score`. Clips that were
            not reranked have no rerank score and come last, in their order.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class NoReranker:
    """Keeps the embedding's order."""

    def rerank(self, model: Model, requests: Sequence[RerankRequest]) -> list[list[Candidate]]:
        """Return the candidates as they came."""
        return [list(request.candidates) for request in requests]


def in_time_order(candidates: Iterable[Candidate]) -> list[Candidate]:
    """Sort candidates by when they start: the order in which the video is read."""
    return sorted(candidates, key=lambda candidate: candidate.start_seconds)


def best_first(candidates: Iterable[Candidate]) -> list[Candidate]:
    """Sort candidates, which all have a rerank score, by it; of equal ones the better by embedding comes first."""
    return sorted(candidates, key=lambda candidate: (-(candidate.rerank_score or 0.0), -candidate.embed_score))


def find_fault(candidates: Sequence[Candidate], answer: object) -> str | None:
    """Check one request's answer.

    Args:
        candidates: What the reranker got.
        answer: What it gave back.

    Returns:
        What is wrong with it, in words that follow "it gives"; None if it is as it must be.
    """
    if not isinstance(answer, list) or not all(isinstance(candidate, Candidate) for candidate in answer):
        return f"{shorten(answer)} and no list of candidates"
    before, after = (Counter(candidate.clip for candidate in group) for group in (candidates, answer))
    if before != after:
        clip = next(iter((after - before) or (before - after)))
        return f"the clip at {clip.start_seconds:g} s {after[clip]} times; it was given {before[clip]} times"
    scores = [candidate.rerank_score for candidate in answer]
    reranked = [score for score in scores if score is not None]
    for score in reranked:
        if not isinstance(score, int | float) or not math.isfinite(score):
            return f"{shorten(score)} as a rerank score, which must be a finite number"
    if scores[: len(reranked)] != sorted(reranked, reverse=True):
        return "candidates that are not best first by rerank score, those without one last"
    return None

"""What a reranker is asked for and gives back."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from lvqa.models import Model
from lvqa.records import Candidate, Clip, shorten

if TYPE_CHECKING:
    from lvqa.models.prefix import PrefixCache
    from lvqa.models.prompt import ClipTokens, Prompt

ClipTokensOf = Callable[[Sequence[Clip]], "Iterator[ClipTokens]"]
"""Clips in time order -> what the model sees of each."""


class Reranker(Protocol):
    """Scores candidates anew. A new one is such a class with a line in RERANKERS, or in a file of your own."""

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
        """The same clips, each once, as new candidates, best first by `rerank_score`.

        `candidates`, at least one, come best first by embedding. Clips that were not looked at have no rerank score and
        stand last, in their order. The scores are the same whatever was asked before, and whatever the batches are.
        `beginnings` are what other questions on the video made the model read, by clip; `image` is what shows the
        query's picture, if it has one.
        """
        ...


@dataclass(frozen=True, slots=True)
class RerankRequest:
    """A query, and the clips among which it is looked for."""

    query: str
    candidates: Sequence[Candidate]
    image: Prompt = ()
    """What shows the query's picture, if it has one."""


@runtime_checkable
class BatchReranker(Reranker, Protocol):
    """A reranker that looks for several queries in one reading of their clips."""

    def rerank_together(
        self,
        model: Model,
        sought: Sequence[RerankRequest],
        clip_tokens: ClipTokensOf,
        beginnings: PrefixCache | None = None,
    ) -> list[list[Candidate]]:
        """What `rerank` gives for each of them; a clip of several pools is shown once."""
        ...


def rerank_each(
    reranker: Reranker,
    model: Model,
    sought: Sequence[RerankRequest],
    clip_tokens: ClipTokensOf,
    beginnings: PrefixCache | None = None,
) -> list[list[Candidate]]:
    """The candidates of each query, at least one, reranked: together where the reranker knows how to."""
    if isinstance(reranker, BatchReranker):
        return reranker.rerank_together(model, sought, clip_tokens, beginnings)
    return [
        reranker.rerank(model, one.query, one.candidates, clip_tokens, beginnings, image=one.image) for one in sought
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class NoReranker:
    """Keeps the embedding's order."""

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
        return list(candidates)


def in_time(candidates: Iterable[Candidate]) -> list[Candidate]:
    """In the order in which the video is read."""
    return sorted(candidates, key=lambda candidate: candidate.start_seconds)


def best_first(candidates: Iterable[Candidate]) -> list[Candidate]:
    """By rerank score, and of equal ones by embedding; all have a rerank score."""
    return sorted(candidates, key=lambda candidate: (-(candidate.rerank_score or 0.0), -candidate.embed_score))


def fault(candidates: Sequence[Candidate], found: object) -> str | None:
    """What is wrong with a reranker's answer, in words that follow "it gives"; None if it is as it must be."""
    if not isinstance(found, list) or not all(isinstance(candidate, Candidate) for candidate in found):
        return f"{shorten(found)} and no list of candidates"
    given, got = (Counter(candidate.clip for candidate in some) for some in (candidates, found))
    if given != got:
        clip = next(iter((got - given) or (given - got)))
        return f"the clip at {clip.start_seconds:g} s {got[clip]} times; it was given {given[clip]} times"
    scores = [candidate.rerank_score for candidate in found]
    looked_at = [score for score in scores if score is not None]
    for score in looked_at:
        if not isinstance(score, int | float) or not math.isfinite(score):
            return f"{shorten(score)} as a rerank score, which must be a finite number"
    if scores[: len(looked_at)] != sorted(looked_at, reverse=True):
        return "candidates that are not best first by rerank score, those without one last"
    return None

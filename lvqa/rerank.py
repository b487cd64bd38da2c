"""Look closer at the best candidates: the model judges each clip beside the query."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Protocol

from lvqa import prompts
from lvqa.backbones import Backbone
from lvqa.backbones.prompt import VisualBlock
from lvqa.records import Candidate, Clip

BlocksOf = Callable[[Sequence[Clip]], Iterator[VisualBlock]]
"""Clips in time order -> what the model sees of each."""


class Reranker(Protocol):
    """Scores candidates anew. A new one is a class with this method and a line in RERANKERS."""

    def rerank(
        self, backbone: Backbone, query: str, candidates: Sequence[Candidate], blocks_of: BlocksOf
    ) -> list[Candidate]:
        """The same clips, best first, as new candidates."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class NoReranker:
    """Keeps the embedding's order."""

    def rerank(
        self, backbone: Backbone, query: str, candidates: Sequence[Candidate], blocks_of: BlocksOf
    ) -> list[Candidate]:
        return list(candidates)


@dataclass(frozen=True, slots=True, kw_only=True)
class MultipleChoice:
    """FreeRet's reranking (section 3.3): two neutral options; the score is softmax over the logits of A and B.

    `layout`: "question_first" as in the paper; "clip_first" lets the model read the clip before it knows what is asked.
    """

    layout: str = "question_first"
    chunk: ClassVar[int] = 16
    """Clips in hand at a time."""

    def rerank(
        self, backbone: Backbone, query: str, candidates: Sequence[Candidate], blocks_of: BlocksOf
    ) -> list[Candidate]:
        before, after = prompts.rerank(query, clip_first=self.layout == "clip_first")
        in_time = sorted(candidates, key=lambda candidate: candidate.clip.start_seconds)
        blocks = blocks_of([candidate.clip for candidate in in_time])
        scored: list[Candidate] = []
        while chunk := in_time[len(scored) : len(scored) + self.chunk]:
            shown = [(before, next(blocks), after) for _ in chunk]
            logits = backbone.next_token_logits(shown, [prompts.YES_OPTION, prompts.NO_OPTION])
            scores = logits.double().softmax(dim=1)[:, 0].tolist()  # double: sure answers must not tie
            scored += [replace(candidate, rerank_score=score) for candidate, score in zip(chunk, scores, strict=True)]
        return sorted(scored, key=lambda candidate: (-(candidate.rerank_score or 0.0), -candidate.embed_score))


RERANKERS: dict[str, Callable[..., Reranker]] = {"none": NoReranker, "mcq": MultipleChoice}


def make_reranker(name: str, **options: str) -> Reranker:
    """The reranker of this name, given those of the options that it takes; the others are for its neighbours."""
    reranker: Any = RERANKERS[name]
    taken = {option.name for option in fields(reranker)}
    made: Reranker = reranker(**{key: value for key, value in options.items() if key in taken})
    return made

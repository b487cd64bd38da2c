"""Look closer at the best candidates: the model judges each clip beside the query."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Protocol

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


class NoReranker:
    """Keeps the embedding's order."""

    def rerank(
        self, backbone: Backbone, query: str, candidates: Sequence[Candidate], blocks_of: BlocksOf
    ) -> list[Candidate]:
        return list(candidates)


class MultipleChoice:
    """FreeRet's reranking (section 3.3): two neutral options; the score is softmax over the logits of A and B."""

    chunk = 16
    """Clips in hand at a time."""

    def rerank(
        self, backbone: Backbone, query: str, candidates: Sequence[Candidate], blocks_of: BlocksOf
    ) -> list[Candidate]:
        before, after = prompts.rerank(query)
        in_time = sorted(candidates, key=lambda candidate: candidate.clip.start_seconds)
        blocks = blocks_of([candidate.clip for candidate in in_time])
        scored: list[Candidate] = []
        while chunk := in_time[len(scored) : len(scored) + self.chunk]:
            shown = [(before, next(blocks), after) for _ in chunk]
            logits = backbone.next_token_logits(shown, [prompts.YES_OPTION, prompts.NO_OPTION])
            scores = logits.double().softmax(dim=1)[:, 0].tolist()  # double: sure answers must not tie
            scored += [replace(candidate, rerank_score=score) for candidate, score in zip(chunk, scores, strict=True)]
        return sorted(scored, key=lambda candidate: (-(candidate.rerank_score or 0.0), -candidate.embed_score))


RERANKERS: dict[str, type[Reranker]] = {"none": NoReranker, "mcq": MultipleChoice}

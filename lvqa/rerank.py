"""Look closer at the best candidates: the model judges each clip beside the query."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from lvqa import prompts
from lvqa.backbones import Backbone
from lvqa.backbones.prompt import Prompt, VisualBlock
from lvqa.records import Candidate, Clip

if TYPE_CHECKING:
    from torch import Tensor

    from lvqa.backbones.beginnings import Beginnings

BlocksOf = Callable[[Sequence[Clip]], Iterator[VisualBlock]]
"""Clips in time order -> what the model sees of each."""


class Reranker(Protocol):
    """Scores candidates anew. A new one is a class with this method and a line in RERANKERS."""

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
        """The same clips, best first, as new candidates. `beginnings` are what other questions made the model read.

        `image` is what shows the query's picture, if it has one.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class NoReranker:
    """Keeps the embedding's order."""

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
        return list(candidates)


@dataclass(frozen=True, slots=True, kw_only=True)
class MultipleChoice:
    """FreeRet's reranking (section 3.3): two neutral options; the score is softmax over the logits of A and B.

    `layout`: "question_first" as in the paper; "clip_first" lets the model read the clip before it knows what is asked,
    so that a clip is read once for all questions, as far as `beginnings` holds it.
    """

    layout: str = "question_first"
    chunk: ClassVar[int] = 16
    """Clips in hand at a time."""

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
        in_time = sorted(candidates, key=lambda candidate: candidate.clip.start_seconds)
        clips = [candidate.clip for candidate in in_time]
        if self.layout == "clip_first" and beginnings is not None:
            logits = self._after_clips(backbone, query, clips, blocks_of, beginnings, image)
        else:
            logits = self._whole(backbone, query, clips, blocks_of, image)
        # In double precision: sure answers must not tie.
        scores = itertools.chain.from_iterable(part.double().softmax(dim=1)[:, 0].tolist() for part in logits)
        scored = [replace(candidate, rerank_score=score) for candidate, score in zip(in_time, scores, strict=True)]
        return sorted(scored, key=lambda candidate: (-(candidate.rerank_score or 0.0), -candidate.embed_score))

    def _whole(
        self, backbone: Backbone, query: str, clips: Sequence[Clip], blocks_of: BlocksOf, image: Prompt
    ) -> Iterator[Tensor]:
        """(clips, 2) logits of A and B, some clips at a time."""
        clip_first = self.layout == "clip_first"
        before, after = prompts.rerank(query, clip_first=clip_first)
        first, then = ((), image) if clip_first else (image, ())
        blocks = blocks_of(clips)
        for chunk in self._chunks(clips):
            yield backbone.next_token_logits([(*first, before, next(blocks), *then, after) for _ in chunk], _WORDS)

    def _after_clips(
        self,
        backbone: Backbone,
        query: str,
        clips: Sequence[Clip],
        blocks_of: BlocksOf,
        beginnings: Beginnings,
        image: Prompt,
    ) -> Iterator[Tensor]:
        """The same; only clips that are not held are shown to the model."""
        before, after = prompts.rerank(query, clip_first=True)
        read = {clip: held for clip in clips if (held := beginnings.get(clip)) is not None}
        blocks = blocks_of([clip for clip in clips if clip not in read])
        for chunk in self._chunks(clips):
            unread = [clip for clip in chunk if clip not in read]
            if unread:
                new = backbone.read_beginnings([(before, next(blocks)) for _ in unread])
                read.update(zip(unread, new, strict=True))
            of_chunk = [read.pop(clip) for clip in chunk]
            for clip, beginning in zip(chunk, of_chunk, strict=True):
                beginnings.keep(clip, beginning)
            yield backbone.next_token_logits_after(of_chunk, [(*image, after)] * len(chunk), _WORDS)

    def _chunks(self, clips: Sequence[Clip]) -> Iterator[Sequence[Clip]]:
        return (clips[first : first + self.chunk] for first in range(0, len(clips), self.chunk))


_WORDS = [prompts.YES_OPTION, prompts.NO_OPTION]

RERANKERS: dict[str, Callable[..., Reranker]] = {"none": NoReranker, "mcq": MultipleChoice}


def make_reranker(name: str, **options: str) -> Reranker:
    """The reranker of this name, given those of the options that it takes; the others are for its neighbours."""
    reranker: Any = RERANKERS[name]
    taken = {option.name for option in fields(reranker)}
    made: Reranker = reranker(**{key: value for key, value in options.items() if key in taken})
    return made

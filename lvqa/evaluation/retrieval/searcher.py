"""What a worker of `lvqa retrieve` does: it embeds queries and candidates, and reranks, with one model."""

from __future__ import annotations

import dataclasses
import hashlib
import math
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lvqa.datasets.retrieval import Content, Nouns
from lvqa.evaluation.retrieval.rows import DECIMALS
from lvqa.evaluation.retrieval.settings import RetrieveConfig, resolve_arms
from lvqa.evaluation.retrieval.vectors import Embedded
from lvqa.image import on_one_canvas
from lvqa.items import Item
from lvqa.models import device_name
from lvqa.prompts import RetrievalTask
from lvqa.records import LvqaError
from lvqa.retriever import Retriever
from lvqa.video import inspect_video, write_frames
from lvqa.workers import is_of_the_place, report_progress


@dataclass(frozen=True, slots=True)
class EmbedItem:
    """Queries or candidates of a set that are embedded together."""

    id: str
    """What tells them, and how they are embedded, from all others."""
    arm: str
    """An arm whose settings they are embedded under."""
    nouns: Nouns
    side: str
    """"query" or "candidate"."""
    contents: tuple[Content, ...]
    first: int = 0
    """Which of the contents of the id the first one is, where they are embedded one by one."""

    def split(self) -> list[EmbedItem]:
        """Return each content as an item of its own."""
        return [
            dataclasses.replace(self, contents=(content,), first=self.first + i)
            for i, content in enumerate(self.contents)
        ]


@dataclass(frozen=True, slots=True)
class RerankQuery:
    """A query, and the candidates that are reranked."""

    key: tuple[str, str]
    """The set and the query's id."""
    content: Content
    candidates: tuple[Content, ...]
    """The best by embedding, best first."""


@dataclass(frozen=True, slots=True)
class RerankItem:
    """Queries of a set that are reranked together in an arm."""

    arm: str
    nouns: Nouns
    queries: tuple[RerankQuery, ...]

    def split(self) -> list[RerankItem]:
        """Return each query as an item of its own."""
        return [dataclasses.replace(self, queries=(query,)) for query in self.queries]


SearchItem = EmbedItem | RerankItem


@dataclass(frozen=True, slots=True)
class Reranked:
    """The reranker's scores for a query."""

    scores: tuple[float | None, ...]
    """For each candidate in its order; None where it was not judged."""
    seconds: float


@dataclass(frozen=True, slots=True)
class SearchResult:
    """What came out of an item, for each content or query; an error of one line in its place."""

    embedded: tuple[Embedded, ...]
    reranked: tuple[Reranked | str, ...]
    revision: str
    device: str
    is_for_synthetic: bool
    """Whether the model knows the synthetic world alone."""
    seconds: float


class Searcher:
    """Embeds and reranks in the arms of a run."""

    def __init__(self, config: RetrieveConfig) -> None:
        """Load the model, once. Raises LvqaError for what is unknown."""
        self._arms = {arm.name: arm for arm in resolve_arms(config)}
        first = next(iter(self._arms.values()))
        self._first = Retriever.load(config=first.config)
        self.identity = self._first.model.revision
        """What must be the same in all workers of a run."""
        self._current: tuple[tuple[str, Nouns], Retriever] | None = None
        self._frames = tempfile.TemporaryDirectory(prefix="lvqa-")

    def __call__(self, item: SearchItem) -> SearchResult:
        """Return what came out of an item.

        Raises:
            LvqaError: The machine is to blame.
            Exception: A bug, or a fault of the machine: another one may do better.
        """
        started, retriever = time.monotonic(), self._retriever(item.arm, item.nouns)
        embedded: list[Embedded] = []
        reranked: list[Reranked | str] = []
        if isinstance(item, EmbedItem):
            embedded = self._embed(retriever, item)
        else:
            for query in item.queries:
                report_progress()
                reranked.append(self._rerank(retriever, query))
        seconds = time.monotonic() - started
        model = self._first.model
        device, seconds = device_name(model.device), time.monotonic() - started
        return SearchResult(tuple(embedded), tuple(reranked), self.identity, device, model.is_for_synthetic, seconds)

    def _retriever(self, arm: str, nouns: Nouns) -> Retriever:
        """Return the retriever of an arm for a task. The last one stays: what it has read of pictures serves on."""
        if self._current is None or self._current[0] != (arm, nouns):
            task = RetrievalTask(
                **{key: value for key, value in dataclasses.asdict(nouns).items() if value is not None}
            )
            retriever = Retriever(self._first.model, self._arms[arm].config, task=task)
            self._current = (arm, nouns), retriever
        return self._current[1]

    def _embed(self, retriever: Retriever, item: EmbedItem) -> list[Embedded]:
        """Return a vector for each content, or why there is none; one by one where one of them fails."""
        report_progress()
        try:
            items = [self._item(content, retriever) for content in item.contents]
            return list(retriever.embed(items, side=item.side))  # type: ignore[arg-type]
        except LvqaError as error:
            if is_of_the_place(error):  # another worker may do better
                raise
            if len(item.contents) == 1:
                return [str(error)]
        return [one for single in item.split() for one in self._embed(retriever, single)]

    def _rerank(self, retriever: Retriever, query: RerankQuery) -> Reranked | str:
        started = time.monotonic()
        try:
            wanted = self._item(query.content, retriever)
            matches = retriever.rerank(wanted, [self._item(content, retriever) for content in query.candidates])
        except LvqaError as error:
            if is_of_the_place(error):
                raise
            return str(error)
        scores: list[float | None] = [None] * len(query.candidates)
        for match in matches:
            scores[match.index] = match.rerank_score
        return Reranked(tuple(scores), round(time.monotonic() - started, 4))

    def _item(self, content: Content, retriever: Retriever) -> Item:
        """Return a content as the retriever takes it. Frames that lie as pictures become a video without loss."""
        if not content.frames:
            return Item(
                content.text,
                image=content.image,
                video=content.video,
                start_seconds=content.start_seconds,
                end_seconds=content.end_seconds,
                sound=content.sound,
            )
        name = hashlib.sha256("\n".join(map(str, content.frames)).encode()).hexdigest()[:32]
        path = Path(self._frames.name) / f"{name}.mkv"
        if not path.exists():
            write_frames(
                path, on_one_canvas(content.frames), frames_per_second=retriever.config.video.frames_per_second
            )
        # The file is no video of the user's, so its record is not kept.
        return Item(content.text, video=inspect_video(path), num_frames=len(content.frames))


def rounded(scores: Sequence[float | None] | np.ndarray) -> list[float | None]:
    """Return scores as rows hold them: JSON knows no NaN."""
    return [None if score is None or not math.isfinite(score) else round(float(score), DECIMALS) for score in scores]

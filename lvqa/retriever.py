"""FreeRet as a retriever of anything by anything: embed, search, rerank. `LongVideoQA` ranks clips with the same parts.

What becomes a vector is decided in `lvqa.embedding`, what is judged in `lvqa.rerank`; here items become what they take.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np

from lvqa.components import load_components, reranker_of
from lvqa.config import Config
from lvqa.embedding import Embedder
from lvqa.index import centred_rows
from lvqa.items import Item, ItemContent, ItemLike, ItemReader, as_item, item_list
from lvqa.models import Model
from lvqa.models.prefix import PrefixCache
from lvqa.opening import VideoOpener
from lvqa.prompts import VIDEO_RETRIEVAL, RetrievalTask
from lvqa.records import Candidate, Clip, LvqaError
from lvqa.rerank import RerankRequest
from lvqa.session import IndexSpec
from lvqa.validation import require, require_one_of

if TYPE_CHECKING:
    from lvqa.models.prompt import ClipTokens, Prompt

SIDES = ("query", "candidate")


@dataclass(frozen=True, slots=True)
class Match:
    """An item that was ranked for a query."""

    index: int
    """Which of the items it is, from 0."""
    item: Item = field(repr=False)
    embed_score: float | None = None
    """The cosine of its vector and the query's; None where nothing was embedded."""
    rerank_score: float | None = None
    """The reranker's score, by default the probability that it matches; None if it was not reranked."""


class Retriever:
    """Embeds, searches and reranks items with one model under one set of settings, and for one task at a time.

    `embedding.*` and `rerank.*` govern it as they govern `LongVideoQA`. Threads may share it.

    >>> retriever = Retriever.load("tiny", task=RetrievalTask(query="sentence", candidate="image"))
    >>> retriever.search("a red circle", [Item(image="circle.png"), Item(image="square.png")])[0].index
    """

    def __init__(
        self,
        model: Model,
        config: Config,
        *,
        task: RetrievalTask = VIDEO_RETRIEVAL,
        videos: VideoOpener | None = None,
    ) -> None:
        """Make a retriever over a loaded model; `Retriever.load` loads it too.

        Args:
            model: The model that embeds and judges.
            config: `embedding`, `rerank`, `video` and `store` are used; LvqaError for a name that is not known.
            task: The nouns and sentences of the prompts; by default those of questions about a video's clips.
            videos: Opens videos; None makes an opener.
        """
        self.model, self.config, self.task = model, config, task
        self.reranker = reranker_of(config, layout=model.rerank_layout, prompts=model.prompts)
        self.videos = videos or VideoOpener(model, config)
        self.embedder: Embedder = IndexSpec.of(model, config)[0].embedder.for_task(task)
        self._reader = ItemReader(
            model,
            self.videos.open,
            max_pixels=config.model.max_pixels or model.max_pixels,
            packing=config.answer.packing or model.answer_packing,
            memory_bytes=self.videos.memory.tokens,
        )

    @classmethod
    def load(
        cls,
        model: str | None = None,
        *,
        config: Config | None = None,
        overrides: Sequence[str] = (),
        task: RetrievalTask = VIDEO_RETRIEVAL,
    ) -> Retriever:
        """Load a model, and make a retriever over it.

        Args:
            model: A hub id, a folder, or "tiny"; by default the configuration's.
            config: All settings; by default those of `load_config`.
            overrides: Settings as on the command line, "embedding.state=mlp".
            task: As for the retriever.

        Raises:
            LvqaError: A setting or a model is not known. Settings are checked before the model is looked for.
        """
        loaded, config = load_components(model, config, overrides)
        return cls(loaded, config, task=task)

    def for_task(self, task: RetrievalTask) -> Retriever:
        """Return a retriever for another task, over the same model, settings and open videos."""
        return Retriever(self.model, self.config, task=task, videos=self.videos)

    # --- what a user calls ------------------------------------------------------------------------------------------

    def embed(self, items: Iterable[ItemLike], *, side: Literal["query", "candidate"] = "candidate") -> np.ndarray:
        """Embed items, in batches; a vector does not depend on the other items.

        Args:
            items: Texts, or values of `Item`.
            side: Which noun of the task a prompt calls them by: "query" for what is searched with, "candidate" for what
                is searched.

        Returns:
            (items, dim) float32 vectors of unit length.

        Raises:
            LvqaError: A file can't be read, or the model can't take a kind of item.
        """
        require_one_of(side, "side", SIDES)
        listed = item_list(items)
        if not listed:
            return np.zeros((0, self.model.dim), np.float32)
        contents = (content.to_embed() for content in self._reader.read(listed))
        embed = self.embedder.queries if side == "query" else self.embedder.candidates
        return embed(self.model, contents)

    def rerank(self, query: ItemLike, items: Iterable[ItemLike]) -> list[Match]:
        """Judge how well each item matches the query, with the reranker of the settings.

        Args:
            query: A text or an `Item`.
            items: Texts, or values of `Item`, the likeliest first where that is known. Those beyond what the reranker
                judges (RetLLM's `top`) stay in this order, after the others.

        Returns:
            A match for each item, best first; one that was not judged has no rerank score.
        """
        listed = item_list(items)
        return self._rerank(as_item(query), listed, [(i, None) for i in range(len(listed))])

    def search(
        self,
        query: ItemLike,
        items: Iterable[ItemLike],
        *,
        pool: int | None = None,
        vectors: np.ndarray | None = None,
    ) -> list[Match]:
        """Rank items for a query: all by embedding, then the best by the reranker.

        Args:
            query: A text or an `Item`.
            items: Texts, or values of `Item`.
            pool: How many are reranked, 0 for none; None: as `rerank.pool` says, 50 by default.
            vectors: (items, dim), what `embed` returned for the items, if it was called before.

        Returns:
            A match for each item, best first: those that were reranked, and then the rest by embedding. Of equal ones
            the earlier is first.
        """
        require(pool is None or (type(pool) is int and pool >= 0), "pool", pool, "a whole number, 0 or more, or null")
        wanted, listed = as_item(query), item_list(items)
        query_vectors = self.embed([wanted], side="query")  # first: what can't be searched for is refused at once
        vectors = self.embed(listed) if vectors is None else np.asarray(vectors, np.float32)
        if vectors.shape != (len(listed), self.model.dim):
            expected = (len(listed), self.model.dim)
            raise LvqaError(f"vectors must be {expected}, one for each item, got {vectors.shape}")
        if not listed:
            return []
        scores = (centred_rows(vectors) if self.config.embedding.centre else vectors) @ query_vectors[0]
        ranked = [(int(i), float(scores[i])) for i in np.argsort(-scores, kind="stable")]
        num_judged = self.config.rerank.pool if pool is None else pool
        if num_judged == 0:
            return [Match(i, listed[i], score) for i, score in ranked]
        judged = self._rerank(wanted, listed, ranked[:num_judged])
        return [*judged, *(Match(i, listed[i], score) for i, score in ranked[len(judged) :])]

    # --- what rerankers see -----------------------------------------------------------------------------------------

    def _rerank(self, query: Item, items: Sequence[Item], ranked: Sequence[tuple[int, float | None]]) -> list[Match]:
        """Rerank items that are given by their indices and embedding's scores, best first."""
        if not ranked:
            return []
        (content,) = self._reader.read([query])
        text, media = content.as_query()
        scores = dict(ranked)
        candidates = [Candidate(_stand_in(i), score or 0.0) for i, score in ranked]
        cache = PrefixCache(self.videos.memory.clips)
        pool = _ItemPool(self._reader, items, cache)
        (judged,) = self.reranker.rerank(self.model, [RerankRequest(text, candidates, pool, media, self.task)])
        indices = [_index_of(candidate.clip) for candidate in judged]
        return [
            Match(i, items[i], scores[i], candidate.rerank_score) for i, candidate in zip(indices, judged, strict=True)
        ]


def _stand_in(index: int) -> Clip:
    """Return the clip by which rerankers know an item: of a list's i-th item, from second i to i + 1 of a video."""
    return Clip("items", index, index + 1)


def _index_of(clip: Clip) -> int:
    return int(clip.start_seconds)


@dataclass(frozen=True, slots=True)
class _ItemPool:
    """The items of a list in place of a video's clips: a `rerank.ClipReader`."""

    reader: ItemReader
    items: Sequence[Item]
    prefix_cache: PrefixCache | None

    def read(self, clips: Sequence[Clip]) -> Iterator[ClipTokens | str | Prompt]:
        """Yield what shows each item: one part, or several in a tuple."""
        contents: Iterator[ItemContent] = self.reader.read([self.items[_index_of(clip)] for clip in clips])
        for content in contents:
            prompt = content.as_candidate()
            yield prompt[0] if len(prompt) == 1 else prompt

"""Rank the clips of an open video by how well they match a question: search by vectors, then rerank the best."""

from __future__ import annotations

import bisect
import heapq
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lvqa import prompts
from lvqa.config import SelectionConfig
from lvqa.costs import CostMeter, split_cost
from lvqa.index import ClipIndex
from lvqa.records import Candidate, Question, QuestionKind, Ranking
from lvqa.rerank import RerankRequest
from lvqa.retriever import Retriever
from lvqa.selection import Selector, SelectorInput, frame_features, frame_scores
from lvqa.session import IndexSpec, MediaKey, OnPairs, VideoSession, query_media
from lvqa.temporal import read_temporal

if TYPE_CHECKING:
    import numpy as np

    from lvqa.models.prompt import Prompt


class ClipRanker:
    """Ranks the clips of open videos with a retriever, and remembers in the session what it has ranked."""

    def __init__(self, retriever: Retriever, specs: Sequence[IndexSpec]) -> None:
        """Make a ranker.

        Args:
            retriever: Its model embeds and judges, with its embedder and its reranker. Of its settings `rerank.pool`,
                `embedding.with_options` and `embedding.centre` are used; rankings are remembered under all settings
                that they depend on.
            specs: Which indexes of a session are ranked together, and how they were embedded: one for each length of
                clips. The vectors of frames are those of the first.
        """
        self._model, self._reranker, self._embedder = retriever.model, retriever.reranker, retriever.embedder
        self._specs, self._settings = specs, retriever.config.retrieval

    def rank(
        self,
        session: VideoSession,
        questions: Sequence[Question],
        *,
        meter: CostMeter | None = None,
        on_pairs: OnPairs | None = None,
    ) -> list[Ranking]:
        """Rank the video's clips for each question. Those that were not ranked before are ranked together.

        Args:
            session: The open video, whose index is there.
            questions: What is searched for; a question may have a picture or a voice.
            meter: Gets the stages "search" and "rerank".
            on_pairs: Called as clips are reranked.
        """
        texts = [self._text(question) for question in questions]
        keys = [(self._settings, text, MediaKey.of(q)) for text, q in zip(texts, questions, strict=True)]
        known: dict[object, Ranking] = {key: session.rankings[key] for key in keys if key in session.rankings}
        new = {
            key: (text, session.query_media(question))
            for key, text, question in zip(keys, texts, questions, strict=True)
            if key not in known
        }
        if new:
            known.update(zip(new, self._rank_together(session, list(new.values()), meter, on_pairs), strict=True))
            session.rankings.update(known)
        return [known[key] for key in keys]

    def query_vector(self, question: Question) -> np.ndarray:
        """Return the vector of a question, (dim,), as clips under the ranker's first spec are searched for it."""
        media = query_media(question, self._model, max_pixels=self._specs[0].frames.max_pixels)
        vector: np.ndarray = self._embedder.queries(self._model, [(self._text(question), media)])[0]
        return vector

    def rerank(self, session: VideoSession, question: Question, candidates: Sequence[Candidate]) -> list[Candidate]:
        """Return some candidates of an open video in the reranker's order; one that was not judged has no score."""
        reader = session.clip_reader(session.prefix_cache(self._settings.rerank))
        request = RerankRequest(self._text(question), candidates, reader, session.query_media(question))
        return self._reranker.rerank(self._model, [request])[0]

    def selector_input(
        self,
        session: VideoSession,
        question: Question,
        ranking: Ranking | None,
        kind: QuestionKind | None,
        selector: Selector,
        settings: SelectionConfig,
    ) -> SelectorInput:
        """Return what a selector sees: the frame grid, and what is known about each frame.

        Args:
            session: The open video.
            question: What is asked.
            ranking: The question's ranking, if the selector needs scores.
            kind: What the model takes the question to be about, if it was asked.
            selector: It says whether it needs the vectors of the index, and uses what the question says about time.
            settings: `frames` are to be selected, with `read_times` the question's time is read, and with
                `smooth_seconds` scores are smoothed.
        """
        times, features = session.grid.times_seconds, None
        if selector.needs_features:
            index = self._searched_index(session, self._specs[0])
            features = frame_features(times, index.clips, index.vectors)
        is_read = selector.uses_reading and settings.read_times
        candidates = ranking.candidates if ranking else ()
        of_frames = frame_scores(times, candidates, smooth_seconds=settings.smooth_seconds)
        return SelectorInput(
            times,
            settings.frames,
            scores=of_frames.scores,
            clip_ids=of_frames.clip_ids,
            pair_ids=session.grid.pair_ids,
            features=features,
            query=ranking.query if ranking and features is not None else None,
            video_id=session.video.id,
            video_name=question.video_id or session.video.path.stem,
            question_id=question.id or question.text,
            question_text=question.text,
            reading=read_temporal(question.text, session.video.duration_seconds) if is_read else None,
            question_kind=None if kind is None else kind.probabilities,
            evidence_seconds=question.evidence_seconds,
        )

    def _text(self, question: Question) -> str:
        """Return the text that is searched for."""
        return prompts.query(question, with_options=self._settings.embedding.with_options)

    def _searched_index(self, session: VideoSession, spec: IndexSpec) -> ClipIndex:
        """Return the session's index under a spec as it is searched."""
        return self._centred(session.indexes[spec])

    def _centred(self, index: ClipIndex) -> ClipIndex:
        """Return an index as it is searched: centred, if the settings say so."""
        return index.centred() if self._settings.embedding.centre else index

    def _rank_together(
        self,
        session: VideoSession,
        queries: Sequence[tuple[str, Prompt]],
        meter: CostMeter | None,
        on_pairs: OnPairs | None,
    ) -> list[Ranking]:
        own = CostMeter(self._model.counts)
        meter = meter or own
        with meter.stage("search"), own.stage("search"):
            vectors = self._embedder.queries(self._model, queries)
            indexes = [self._searched_index(session, spec) for spec in self._specs]
            hits = [[index.search(vector) for vector in vectors] for index in indexes]
        with meter.stage("rerank"), own.stage("rerank"):
            by_length = [self._rerank(session, queries, of_length, on_pairs) for of_length in hits]
        costs = split_cost(own.cost, len(queries))
        return [
            Ranking(ranked_together(rankings), vector, cost)
            for vector, cost, *rankings in zip(vectors, costs, *by_length, strict=True)
        ]

    def _rerank(
        self,
        session: VideoSession,
        queries: Sequence[tuple[str, Prompt]],
        hits: Sequence[list[Candidate]],
        on_pairs: OnPairs | None,
    ) -> list[list[Candidate]]:
        """Return for each query its pool, the best of its hits, in the reranker's order, and then the other hits."""
        settings = self._settings.rerank
        if settings.pool == 0:
            return list(hits)
        reader = session.clip_reader(session.prefix_cache(settings), on_pairs)
        requests = [
            RerankRequest(text, ranked[: settings.pool], reader, media)
            for (text, media), ranked in zip(queries, hits, strict=True)
        ]
        pools = self._reranker.rerank(self._model, requests)
        return [[*pool, *ranked[len(pool) :]] for pool, ranked in zip(pools, hits, strict=True)]


def ranked_together(rankings: Sequence[Sequence[Candidate]]) -> tuple[Candidate, ...]:
    """Return the clips of several rankings of one video, best first; of clips that overlap only the best stays.

    Args:
        rankings: Each has clips of one length, none of which overlap: those that were reranked, best first, and then
            the others. A single one stays as it is.
    """
    ranked: list[Candidate] = []
    starts, ends = list[float](), list[float]()  # of the clips that stay, in the order of time
    for candidate in heapq.merge(*rankings, key=_rank):
        i = bisect.bisect(ends, candidate.start_seconds)  # the first that ends after this one begins
        if i == len(starts) or starts[i] >= candidate.end_seconds:
            ranked.append(candidate)
            starts.insert(i, candidate.start_seconds)
            ends.insert(i, candidate.end_seconds)
    return tuple(ranked)


def _rank(candidate: Candidate) -> tuple[bool, float]:
    """Return what sorts candidates: every reranked one comes before all others."""
    score = candidate.rerank_score
    return score is None, -(candidate.embed_score if score is None else score)

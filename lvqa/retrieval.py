"""Rank the clips of an open video by how well they match a question: search by vectors, then rerank the best."""

from __future__ import annotations

from collections.abc import Sequence

from lvqa import prompts
from lvqa.config import Config
from lvqa.costs import CostMeter
from lvqa.index import ClipIndex, Store
from lvqa.models import Model
from lvqa.models.prompt import Prompt
from lvqa.records import Candidate, Cost, LvqaError, Question, Ranking
from lvqa.rerank import Reranker, RerankRequest
from lvqa.selection import Selector, SelectorInput, frame_features, frame_scores
from lvqa.session import IndexSpec, MediaKey, OnPairs, VideoSession, query_media


class Retriever:
    """Ranks clips with one model under one set of settings, and remembers in the session what it has ranked."""

    def __init__(self, model: Model, reranker: Reranker, config: Config, spec: IndexSpec) -> None:
        """Make a retriever.

        Args:
            model: The model that embeds and judges.
            reranker: How it judges.
            config: `rerank.pool`, `embedding.with_options` and `embedding.centre` are used; rankings are remembered
                under all settings that they depend on.
            spec: Which index of a session is searched, and how it was embedded.
        """
        self._model, self._reranker, self._spec = model, reranker, spec
        self._settings = config.retrieval

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
        texts = [prompts.query(question, with_options=self._settings.embedding.with_options) for question in questions]
        keys = [(self._settings, text, MediaKey.of(q)) for text, q in zip(texts, questions, strict=True)]
        new = {
            key: (text, session.query_media(question))
            for key, text, question in zip(keys, texts, questions, strict=True)
            if key not in session.rankings
        }
        if new:
            rankings = self._rank_together(session, list(new.values()), meter, on_pairs)
            session.rankings.update(zip(new, rankings, strict=True))
        return [session.rankings[key] for key in keys]

    def search_store(self, store: Store, question: Question, top: int) -> list[tuple[ClipIndex, Candidate]]:
        """Find the clips that match a question best in all indexes of a store under the retriever's spec.

        Args:
            store: Where the indexes lie.
            question: What is searched for, by embedding alone.
            top: How many clips to return, best first.

        Raises:
            LvqaError: The store has no such index.
        """
        media = query_media(question, self._model, max_pixels=self._spec.frames.max_pixels)
        vector = self._spec.embedder.queries(self._model, [(prompts.query(question), media)])[0]
        indexes = list(store.all())
        matching = [index for index in indexes if index.fingerprint == self._spec.fingerprint()]
        if not matching:
            raise LvqaError(
                f"no index in {store.folder} was made with {self._model.name} and these settings "
                f"({len(indexes)} with others); index some videos first: lvqa index PATH ..."
            )
        hits = [(index, candidate) for index in matching for candidate in index.search(vector, top)]
        return sorted(hits, key=lambda hit: -hit[1].embed_score)[:top]

    def selector_input(
        self, session: VideoSession, question: Question, ranking: Ranking | None, selector: Selector, budget: int
    ) -> SelectorInput:
        """Return what a selector sees: the frame grid, and what is known about each frame.

        Args:
            session: The open video.
            question: What is asked.
            ranking: The question's ranking, if the selector needs scores.
            selector: It says whether it needs the vectors of the index.
            budget: How many frames are to be selected.
        """
        times, features = session.grid.times_seconds, None
        if selector.needs_features:
            index = self._searched_index(session)
            features = frame_features(times, index.clips, index.vectors)
        of_frames = frame_scores(times, ranking.candidates if ranking else ())
        return SelectorInput(
            times,
            budget,
            scores=of_frames.scores,
            clip_ids=of_frames.clip_ids,
            pair_ids=session.grid.pair_ids,
            features=features,
            query=ranking.query if ranking and features is not None else None,
            video_id=session.video.id,
            video_name=question.video_id or session.video.path.stem,
            question_id=question.id or question.text,
            question_text=question.text,
            evidence_seconds=question.evidence_seconds,
        )

    def _searched_index(self, session: VideoSession) -> ClipIndex:
        """Return the session's index as it is searched: centred, if the settings say so."""
        index = session.indexes[self._spec]
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
            vectors = self._spec.embedder.queries(self._model, queries)
            index = self._searched_index(session)
            hits = [index.search(vector) for vector in vectors]
        with meter.stage("rerank"), own.stage("rerank"):
            pools = self._rerank(session, queries, hits, on_pairs)
        costs = [own.cost, *(Cost() for _ in queries[1:])]
        return [
            Ranking((*pool, *ranked[len(pool) :]), vector, cost)
            for vector, ranked, pool, cost in zip(vectors, hits, pools, costs, strict=True)
        ]

    def _rerank(
        self,
        session: VideoSession,
        queries: Sequence[tuple[str, Prompt]],
        hits: Sequence[list[Candidate]],
        on_pairs: OnPairs | None,
    ) -> list[list[Candidate]]:
        """Return for each query its pool, the best of its hits, in the reranker's order."""
        settings = self._settings.rerank
        if settings.pool == 0:
            return [[] for _ in hits]
        reader = session.clip_reader(session.prefix_cache(settings), on_pairs)
        requests = [
            RerankRequest(text, ranked[: settings.pool], reader, media)
            for (text, media), ranked in zip(queries, hits, strict=True)
        ]
        return self._reranker.rerank(self._model, requests)

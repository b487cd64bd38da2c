"""Carry out a run of `lvqa retrieve`: first all vectors, then the rankings, a set and an arm after the other."""

from __future__ import annotations

import dataclasses
import itertools
import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lvqa.config import to_dict
from lvqa.datasets.retrieval import Content, Query, RetrievalSet
from lvqa.embedding import EMBEDDING_FORMAT
from lvqa.evaluation.retrieval.identity import ContentIds, content_id
from lvqa.evaluation.retrieval.order import order_of
from lvqa.evaluation.retrieval.rows import KEPT, NO_CANDIDATE, RankingRow
from lvqa.evaluation.retrieval.searcher import (
    EmbedItem,
    Reranked,
    RerankItem,
    RerankQuery,
    SearchItem,
    SearchResult,
    rounded,
)
from lvqa.evaluation.retrieval.settings import RetrieveArm
from lvqa.evaluation.retrieval.vectors import AT_ONCE, Embedded, VectorFolder, Vectors
from lvqa.evaluation.row_folder import RowFolder
from lvqa.index import centred_rows
from lvqa.settings_tree import flat
from lvqa.workers import Outcome, Pool

_log = logging.getLogger(__name__)

QUERIES_AT_ONCE = 8
"""So many queries are reranked in one piece of work."""
ONLY_SYNTHETIC = (
    "the model knows only the world of lvqa make-videos, and these sets are not made by dataset.make: its rankings of "
    "anything else say nothing; take a larger model"
)
EMBEDDING_SETTINGS = ("model", "video", "embedding")
"""The settings that vectors depend on, but for those that begin as one of NOT_EMBEDDED."""
NOT_EMBEDDED = (
    *("embedding.centre", "embedding.with_options", "video.threads", "video.stall_seconds"),
    *("model.device", "model.max_batch_tokens", "model.memory_mib"),
)

Report = Callable[[str, int, int], None]
"""Called as work goes on: "embed" or "rank", how many are done by this call, of how many."""
SearchPool = Pool[SearchItem, SearchResult]


@dataclass(frozen=True, slots=True)
class Part:
    """Queries or candidates of a set that are embedded together, as an arm embeds them."""

    item: EmbedItem
    number: int


class Search:
    """What is lacking in a run, and how it is made."""

    def __init__(
        self,
        arms: Sequence[RetrieveArm],
        sets: Sequence[RetrievalSet],
        run: RowFolder[RankingRow],
        *,
        is_synthetic: bool,
        report: Report,
    ) -> None:
        """Plan the work.

        Args:
            arms: The arms of the run.
            sets: The sets, with the texts as the model reads them.
            run: The folder, open to be added to.
            is_synthetic: Whether the sets are of the embedded model's world.
            report: Called as the work goes on.
        """
        self._arms, self._sets, self._run, self._report = arms, sets, run, report
        self._may_warn = not is_synthetic
        self._vectors = VectorFolder(run.folder / "vectors")
        self._pieces: dict[str, dict[int, Embedded]] = {}
        self._known_parts: dict[tuple[str, str], list[Part]] = {}
        self.embed_seconds = 0.0
        """How long the workers embedded, all together."""
        self._lacking = {
            (one.name, arm.name): [q for q in one.queries if (one.name, q.id, arm.name) not in run.answered]
            for one in sets
            for arm in arms
        }
        self.num_left = sum(map(len, self._lacking.values()))
        """How many rankings are lacking."""
        self._total = self.num_left

    def carry_out(self, pool: SearchPool, *, retry_failed: bool) -> None:
        """Embed what is lacking, and rank."""
        self._embed(pool, retry_failed=retry_failed)
        self._report("rank", 0, self._total)
        for one, arm in itertools.product(self._sets, self._arms):
            if queries := self._lacking[one.name, arm.name]:
                self._rank(pool, one, arm, queries)
        if pool.node_facts:
            self._run.note_nodes(pool.node_facts)

    # --- vectors ----------------------------------------------------------------------------------------------------

    def _parts(self, one: RetrievalSet, arm: RetrieveArm, side: str) -> list[Part]:
        """Return the parts in which a side of a set is embedded in an arm; arms that embed alike share them."""
        contents = [query.content for query in one.queries] if side == "query" else list(one.candidates.values())
        settings = flat({key: to_dict(arm.config)[key] for key in EMBEDDING_SETTINGS})
        about: dict[str, Any] = {key: value for key, value in settings.items() if not key.startswith(NOT_EMBEDDED)}
        about |= {"side": side, "nouns": dataclasses.asdict(one.nouns), "format": EMBEDDING_FORMAT}
        about["packing"] = arm.config.answer.packing
        if (known := self._known_parts.get(key := (one.name, repr(about)))) is not None:
            return known
        parts = self._known_parts[key] = list[Part]()
        for first in range(0, len(contents), AT_ONCE):
            chunk = tuple(contents[first : first + AT_ONCE])
            item = EmbedItem(content_id(chunk, about), arm.name, one.nouns, side, chunk)
            parts.append(Part(item, len(chunk)))
        return parts

    def _embed(self, pool: SearchPool, *, retry_failed: bool) -> None:
        lacking = {
            part.item.id: part.item
            for (one, arm) in itertools.product(self._sets, self._arms)
            if self._lacking[one.name, arm.name]
            for side in ("query", "candidate")
            for part in self._parts(one, arm, side)
            if not self._vectors.has(part.item.id, part.number, retry_failed=retry_failed)
        }
        numbers = {id: len(item.contents) for id, item in lacking.items()}
        total, left = sum(numbers.values()), deque[SearchItem](lacking.values())
        while left:
            for outcome in pool.run(_drained(left)):
                self._take_embedded(outcome, left, numbers)
                self._report("embed", total - sum(numbers.values()), total)

    def _take_embedded(
        self, outcome: Outcome[SearchItem, SearchResult], left: deque[SearchItem], numbers: dict[str, int]
    ) -> None:
        """Keep what was embedded; where a process died, each content is embedded alone to find the one at fault."""
        item = outcome.item
        assert isinstance(item, EmbedItem)
        if outcome.value is None and not outcome.by_place and outcome.is_unforeseen and len(item.contents) > 1:
            left.extendleft(reversed(item.split()))
            return
        if outcome.value is None and outcome.by_place:
            _log.warning("%s: %s", outcome.node, outcome.error)
            numbers.pop(item.id, None)
            return
        embedded: Sequence[Embedded] = [outcome.error or "no vector"] * len(item.contents)
        if outcome.value is not None:
            self._note(outcome.value)
            self.embed_seconds += outcome.value.seconds
            embedded = outcome.value.embedded
        pieces = self._pieces.setdefault(item.id, {})
        pieces |= dict(enumerate(embedded, item.first))
        if len(pieces) == numbers.get(item.id):
            self._keep(item.id)
            del numbers[item.id]

    def _keep(self, id: str) -> None:
        pieces = [piece for _, piece in sorted(self._pieces.pop(id).items())]
        dim = next((len(piece) for piece in pieces if not isinstance(piece, str)), 0)
        vectors = Vectors.of(pieces, dim)
        for error in dict.fromkeys(filter(None, vectors.errors)):
            _log.warning("not embedded: %s", error)
        self._vectors.save(id, vectors)

    def _load(self, one: RetrievalSet, arm: RetrieveArm, side: str) -> Vectors | None:
        """Return the vectors of a side of a set; None if the machines failed to make some."""
        parts = [self._vectors.load(part.item.id, part.number) for part in self._parts(one, arm, side)]
        known = [part for part in parts if part is not None]
        return Vectors.joined(known) if len(known) == len(parts) else None

    # --- rankings ---------------------------------------------------------------------------------------------------

    def _rank(self, pool: SearchPool, one: RetrievalSet, arm: RetrieveArm, queries: Sequence[Query]) -> None:
        """Rank the candidates for the queries of a set in an arm, and append the rows."""
        ids = ContentIds(one)
        sides = [self._load(one, arm, side) for side in ("query", "candidate")]
        blanks = {query.id: _blank_row(one, query, arm.name, ids.of(query)) for query in queries}
        if any(side is None for side in sides):
            lost = "not all of the set could be embedded, by what the machines did"
            self._append([{**row, "error": lost, "by_place": True} for row in blanks.values()])
            return
        ranker = _Ranker(one, arm, *sides)  # type: ignore[arg-type]
        left = deque[SearchItem]()
        group: list[RerankQuery] = []
        rows: list[RankingRow] = []
        for query in queries:
            if error := ranker.error_of(query):
                rows.append({**blanks[query.id], "error": error})
            elif contents := ranker.pool_of(query):
                group.append(RerankQuery((one.name, query.id), query.content, contents))
            else:
                rows.append(ranker.row(query, blanks[query.id], None))
        self._append(rows)
        for first in range(0, len(group), QUERIES_AT_ONCE):
            left.append(RerankItem(arm.name, one.nouns, tuple(group[first : first + QUERIES_AT_ONCE])))
        by_id = {query.id: query for query in queries}
        while left:
            for outcome in pool.run(_drained(left)):
                self._append(self._reranked_rows(outcome, left, ranker, by_id, blanks))

    def _reranked_rows(
        self,
        outcome: Outcome[SearchItem, SearchResult],
        left: deque[SearchItem],
        ranker: _Ranker,
        queries: dict[str, Query],
        blanks: dict[str, RankingRow],
    ) -> list[RankingRow]:
        """Return the rows of reranked queries; where a process died, each query is tried alone."""
        item, result = outcome.item, outcome.value
        assert isinstance(item, RerankItem)
        if result is None and outcome.is_unforeseen and not outcome.by_place and len(item.queries) > 1:
            left.extendleft(reversed(item.split()))
            return []
        if result is not None:
            self._note(result)
        outputs = [outcome.error or "no ranking"] * len(item.queries) if result is None else result.reranked
        rows = list[RankingRow]()
        for query, output in zip(item.queries, outputs, strict=True):
            id = query.key[1]
            row: RankingRow = {**blanks[id], "node": outcome.node}
            if isinstance(output, str):
                _log.warning("query %s of %s: %s (on %s)", id, query.key[0], output, outcome.node)
                rows.append({**row, "error": output, "by_place": outcome.by_place})
            else:
                rows.append(ranker.row(queries[id], row, output))
        return rows

    def _append(self, rows: Sequence[RankingRow]) -> None:
        if rows:
            self._run.append(rows)
            self.num_left -= len(rows)
            self._report("rank", self._total - self.num_left, self._total)

    def _note(self, result: SearchResult) -> None:
        self._run.check_revision(result.revision)
        self._run.note_device(result.device)
        if result.is_for_synthetic and self._may_warn:
            self._may_warn = False
            self._run.describe(skipped=[ONLY_SYNTHETIC])
            _log.warning("%s", ONLY_SYNTHETIC)


class _Ranker:
    """Orders the candidates of a set's queries in one arm."""

    def __init__(self, one: RetrievalSet, arm: RetrieveArm, queries: Vectors, candidates: Vectors) -> None:
        self._set, self._rerank = one, arm.config.rerank
        self._queries, self._numbers = queries, {query.id: i for i, query in enumerate(one.queries)}
        values = candidates.values
        if arm.config.embedding.centre:
            values = centred_rows(values)
        self._candidates = values
        self._rows = {name: i for i, name in enumerate(one.candidates)}
        self._last: tuple[str, tuple[np.ndarray, np.ndarray]] | None = None

    def error_of(self, query: Query) -> str:
        """Return why a query can't be searched; "" if it can."""
        return self._queries.errors[self._numbers[query.id]]

    def pool_of(self, query: Query) -> tuple[Content, ...]:
        """Return the candidates that are reranked, best first; none where the arm does not rerank."""
        if not self._rerank.is_on:
            return ()
        names, order = self._set.names_of(query), self._by_embedding(query)[1]
        scores = self._by_embedding(query)[0]
        pool = [i for i in order[: self._rerank.pool] if not np.isnan(scores[i])]
        return tuple(self._set.candidates[names[i]] for i in pool)

    def row(self, query: Query, blank: RankingRow, reranked: Reranked | None) -> RankingRow:
        """Return the row of a query, given the reranker's scores of its pool."""
        scores, order = self._by_embedding(query)
        judged: list[float | None] = []
        if reranked is not None:
            size = len(reranked.scores)
            values = np.array([np.nan if score is None else score for score in reranked.scores], dtype=np.float64)
            names = self._set.names_of(query)
            pool = order[:size]
            best = order_of([values, scores[pool].astype(np.float64)], query.id, [names[i] for i in pool])
            order = np.concatenate([pool[best], order[size:]])
            judged = rounded(values[best])
        return {
            **blank,
            "ranking": [int(i) for i in order[:KEPT]],
            "embed_scores": rounded(scores[order[:10]]),
            "rerank_scores": judged[:KEPT],
            "seconds": 0.0 if reranked is None else reranked.seconds,
        }

    def _by_embedding(self, query: Query) -> tuple[np.ndarray, np.ndarray]:
        """Return the cosine of each of a query's candidates, and their order, best first."""
        if self._last is None or self._last[0] != query.id:
            names = self._set.names_of(query)
            rows = [self._rows[name] for name in names]
            scores = self._candidates[rows] @ self._queries.values[self._numbers[query.id]]
            self._last = query.id, (scores, order_of([scores.astype(np.float64)], query.id, names))
        return self._last[1]


def _blank_row(one: RetrievalSet, query: Query, arm: str, id: str) -> RankingRow:
    """Return what a row holds of its query, without a ranking."""
    numbers = {name: i for i, name in reversed([*enumerate(one.names_of(query))])}
    return {
        "set": one.name,
        "query_id": query.id,
        "arm": arm,
        "category": one.category,
        "targets": [numbers.get(name, NO_CANDIDATE) for name in query.targets],
        "num_candidates": len(one.names_of(query)),
        "content_id": id,
        "ranking": [],
        "embed_scores": [],
        "rerank_scores": [],
        "seconds": 0.0,
        "node": None,
        "session": 0,
        "by_place": False,
        "error": None,
    }


def _drained(items: deque[SearchItem]) -> Iterator[SearchItem]:
    """Yield the items that are left, those too that come back meanwhile."""
    while items:
        yield items.popleft()

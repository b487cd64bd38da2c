"""The rows of `rankings.jsonl`: a row is the ranking for one query in one arm, or why there is none."""

from __future__ import annotations

import json
from typing import TypedDict

from lvqa.evaluation.retrieval.metrics import RankedQuery
from lvqa.evaluation.row_file import RowFile
from lvqa.validation import FiniteFloat, NonNegativeInt, decode_json

RANKINGS_FORMAT = 1
"""The format of the rows that are written here."""
KEPT = 1000
"""So many of the best candidates stand in a row; the metrics look at ten."""
NO_CANDIDATE = -1
"""Stands for a right candidate that is none of the candidates."""
DECIMALS = 6
"""How many decimals the scores in rows have."""

Key = tuple[str, str, str]
"""What tells a row from all others: set, query and arm."""


class RankingRow(TypedDict):
    """The ranking for one query, in one arm."""

    set: str
    query_id: str
    arm: str
    category: str
    """The kind of the task, as FreeRet's Table 1 groups them."""
    targets: list[int]
    """Which of the query's candidates are right, by their numbers from 0 in the dataset's order; NO_CANDIDATE for one
    that is none of them."""
    num_candidates: NonNegativeInt
    content_id: str
    """What tells the query with its candidates from all others, as the dataset has them."""
    ranking: list[int]
    """The numbers of the candidates, best first; KEPT at most."""
    embed_scores: list[FiniteFloat | None]
    """The cosines of the best ten, in the order of the ranking."""
    rerank_scores: list[FiniteFloat | None]
    """The reranker's scores of those that it judged, in the order of the ranking."""
    seconds: FiniteFloat
    """How long the reranking took; embedding is shared, and stands in run.json."""
    node: str | None
    session: NonNegativeInt
    by_place: bool
    """Whether the machines are to blame for the error, so that it is tried again."""
    error: str | None


def key_of(row: RankingRow) -> Key:
    """Return what tells a row from all others."""
    return row["set"], row["query_id"], row["arm"]


def to_line(row: RankingRow) -> str:
    """Return the row as a line of its file."""
    return json.dumps(row, allow_nan=False) + "\n"


def _from_line(line: bytes, origin: str) -> RankingRow:
    return decode_json(line, RankingRow, origin=origin)


RANKINGS: RowFile[RankingRow] = RowFile("rankings.jsonl", key_of, to_line, _from_line, "the same set, query and arm")
"""The file of the rows in a run folder."""


def ranked_query(row: RankingRow) -> RankedQuery:
    """Return the row's ranking as the metrics take it, with numbers in place of names; a failed one has none."""
    targets = [f"missing {i}" if n == NO_CANDIDATE else str(n) for i, n in enumerate(row["targets"])]
    return RankedQuery([str(number) for number in row["ranking"]], targets)

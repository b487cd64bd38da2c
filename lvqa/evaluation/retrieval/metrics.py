"""The metrics of a ranking, as VLM2Vec's evaluation counts them (MMEB and MMEB-V2), to the last digit.

hit, precision, recall, f1, map, mrr and ndcg with linear and exponential gains, each among the best 1, 5 and 10.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

TOPS = (1, 5, 10)
"""So many of the best candidates are looked at."""
MAIN_METRIC = "hit@1"
"""MMEB's own figure, which FreeRet and RetLLM call Precision@1 and R@1."""


@dataclass(frozen=True, slots=True)
class RankedQuery:
    """The candidates of a query, best first, and those that are right."""

    ranking: Sequence[str]
    targets: Sequence[str]
    grades: Mapping[str, float] | None = None
    """Target -> how right it is, for ndcg; None: all alike."""


def query_metrics(query: RankedQuery) -> dict[str, float]:
    """Return "hit@1", ..., "mrr@10" of one query.

    A query without a right candidate has a recall of 1 and 0 in all else. A candidate that stands twice among the best
    is one hit for precision and recall, and gains twice for map and ndcg.
    """
    targets = dict.fromkeys(query.targets)
    values: dict[str, float] = {}
    for top in TOPS:
        best = query.ranking[:top]
        hits = len({*best} & targets.keys())
        precision = hits / top
        recall = hits / len(targets) if targets else 1.0
        both = precision + recall
        values |= {
            f"hit@{top}": float(hits > 0),
            f"precision@{top}": precision,
            f"recall@{top}": recall,
            f"f1@{top}": 2 * (precision * recall) / both if hits else 0.0,
            f"ndcg_linear@{top}": _ndcg(best, targets, query.grades, top, exponential=False),
            f"ndcg_exponential@{top}": _ndcg(best, targets, query.grades, top, exponential=True),
            f"map@{top}": _average_precision(best, targets, top),
            f"mrr@{top}": next((1.0 / rank for rank, name in enumerate(best, 1) if name in targets), 0.0),
        }
    return values


def mean_metrics(queries: Sequence[RankedQuery]) -> dict[str, float]:
    """Return the mean of each metric over queries, in VLM2Vec's order of names; there is at least one query."""
    values = [query_metrics(query) for query in queries]
    names = ["hit", "ndcg_linear", "ndcg_exponential", "precision", "recall", "f1", "map", "mrr"]
    keys = [f"{name}@{top}" for name in names for top in TOPS]
    return {key: float(np.mean([value[key] for value in values])) for key in keys}


def _average_precision(best: Sequence[str], targets: Mapping[str, None], top: int) -> float:
    score, hits = 0.0, 0
    for rank, name in enumerate(best, start=1):
        if name in targets:
            hits += 1
            score += hits / rank
    return score / min(len(targets), top) if hits else 0.0


def _ndcg(
    best: Sequence[str],
    targets: Mapping[str, None],
    grades: Mapping[str, float] | None,
    top: int,
    *,
    exponential: bool,
) -> float:
    if grades is None:
        gains: list[float] = [1 if name in targets else 0 for name in best]
        ideal: list[float] = [1] * min(len(targets), top)
    else:
        gains = [grades.get(name, 0) for name in best]
        ideal = sorted(grades.values(), reverse=True)[:top]
    best_possible = _dcg(ideal, exponential=exponential)
    return _dcg(gains, exponential=exponential) / best_possible if best_possible > 0 else 0.0


def _dcg(gains: Sequence[float], *, exponential: bool) -> float:
    values = [2**gain - 1 for gain in gains] if exponential else gains
    return float(sum(value / np.log2(rank + 2) for rank, value in enumerate(values)))

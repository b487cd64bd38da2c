"""The statistics of rankings: the mean of a metric over sets, with intervals by a bootstrap over queries.

A set counts as much as any other, however many queries it has, as in MMEB. Queries are drawn anew inside each set, the
same ones for all arms, so that differences are paired. A ranking that failed counts as one without any hit.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from lvqa.evaluation.intervals import CONFIDENCE, holm
from lvqa.evaluation.retrieval.metrics import MAIN_METRIC, query_metrics
from lvqa.evaluation.retrieval.rows import RankingRow, ranked_query

RESAMPLES = 2000
MIN_QUERIES = 5
"""A set with fewer queries gives no interval."""


@dataclass(frozen=True, slots=True)
class Mean:
    """A mean over sets."""

    value: float
    low: float
    high: float
    """The interval goes from `low` to `high`, 95%; NaN where there is none."""
    num_queries: int
    num_sets: int


@dataclass(frozen=True, slots=True)
class Difference:
    """The mean of an arm less that of another one, over the queries that both have."""

    mean: Mean
    p_value: float
    """Two-sided, by the t test of the mean over sets with queries as samples; NaN where it can't be made."""
    holm_p: float = math.nan
    """`p_value` by Holm's method, among all differences of a table; see `corrected`."""


class Metric:
    """The values of one metric by set, query and arm."""

    def __init__(self, rows: Iterable[RankingRow], name: str = MAIN_METRIC, *, seed: int = 0) -> None:
        """Compute the metric of each row; `seed` is that of the bootstrap."""
        self._seed = seed
        self._values: dict[str, dict[str, dict[str, float]]] = defaultdict(lambda: defaultdict(dict))
        self.categories: dict[str, str] = {}
        """Set -> its kind of task, in the order of the rows."""
        for row in rows:
            value = 0.0 if row["error"] is not None else query_metrics(ranked_query(row))[name]
            self._values[row["set"]][row["query_id"]][row["arm"]] = value
            self.categories.setdefault(row["set"], row["category"])

    @cached_property
    def arms(self) -> tuple[str, ...]:
        """The arms, in the order of the rows."""
        seen = (arm for queries in self._values.values() for of_query in queries.values() for arm in of_query)
        return tuple(dict.fromkeys(seen))

    def mean(self, arm: str, sets: Sequence[str]) -> Mean:
        """Return the mean of an arm over sets; those that have none of its rows are left out."""
        return self._mean([self._of(name, arm) for name in sets])[0]

    def difference(self, arm: str, baseline: str, sets: Sequence[str]) -> Difference:
        """Return the paired difference of two arms over sets."""
        values = [self._of(name, arm) - self._of(name, baseline) for name in sets]
        mean, kept = self._mean(values)
        return Difference(mean, _p_value(kept))

    def _of(self, name: str, arm: str) -> np.ndarray:
        """Return the values of a set's queries in an arm, in their order; NaN for one without a row."""
        return np.array([of_query.get(arm, math.nan) for of_query in self._values.get(name, {}).values()], dtype=float)

    def _mean(self, values: Sequence[np.ndarray]) -> tuple[Mean, list[np.ndarray]]:
        """Return the mean of the means of sets, and the values that count."""
        kept = [of_set[~np.isnan(of_set)] for of_set in values]
        kept = [of_set for of_set in kept if len(of_set)]
        if not kept:
            return Mean(math.nan, math.nan, math.nan, 0, 0), kept
        number, value = sum(map(len, kept)), float(np.mean([of_set.mean() for of_set in kept]))
        if min(map(len, kept)) < MIN_QUERIES:
            return Mean(value, math.nan, math.nan, number, len(kept)), kept
        rng = np.random.default_rng(self._seed)
        means = np.zeros(RESAMPLES)
        for of_set in kept:
            size = len(of_set)
            weights = rng.multinomial(size, np.full(size, 1 / size), size=RESAMPLES)
            means += weights @ of_set / size / len(kept)
        low, high = np.quantile(means, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
        return Mean(value, float(low), float(high), number, len(kept)), kept


def corrected(differences: Mapping[str, Difference]) -> dict[str, Difference]:
    """Return the differences of one table with their `holm_p`."""
    p_values = holm([difference.p_value for difference in differences.values()])
    return {
        arm: replace(difference, holm_p=p) for (arm, difference), p in zip(differences.items(), p_values, strict=True)
    }


def _p_value(values: Sequence[np.ndarray]) -> float:
    """Return the two-sided p of a mean over sets: is it 0?"""
    from scipy.stats import t

    if not values or min(map(len, values)) < MIN_QUERIES:
        return math.nan
    mean = np.mean([of_set.mean() for of_set in values])
    variance = sum(of_set.var(ddof=1) / len(of_set) for of_set in values) / len(values) ** 2
    if variance <= 0:
        return 1.0 if mean == 0 else math.nan
    return float(2 * t.sf(abs(mean) / math.sqrt(variance), sum(len(of_set) - 1 for of_set in values)))

"""Intervals and tests of a mean over questions that come in clusters: questions on one video are alike.

The standard error is the cluster-robust one with the CR2 correction (Bell and McCaffrey 2002); the degrees of freedom
of its t are Satterthwaite's under a random effect of the cluster (Imbens and Kolesár 2016), so that few videos, and
videos with unequal numbers of questions, widen the interval. `scripts/interval_coverage.py` measures how often it holds
the true value; docs/evaluation.md has the table.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

MIN_CLUSTERS = 5
"""With fewer clusters there is no interval: what differs between them can't be estimated."""
CONFIDENCE, POWER = 0.95, 0.80
"""The level of the intervals, and how often a detectable difference is found."""
NO_VARIANCE = 1e-24
"""A variance that is no larger is rounding: the values are the same in every cluster."""


@dataclass(frozen=True, slots=True)
class ClusteredMean:
    """The mean of values in clusters, with its uncertainty. Each field is an array of any shape, or a number."""

    n: Any
    """How many values there are."""
    value: Any
    variance: Any
    """The square of the standard error."""
    degrees: Any
    """The degrees of freedom of the variance, at most the number of clusters less one."""

    @classmethod
    def of(cls, values: Iterable[tuple[str, float]]) -> ClusteredMean | None:
        """Return the mean of pairs (cluster, value); None for fewer than MIN_CLUSTERS clusters."""
        clusters: dict[str, list[float]] = defaultdict(list)
        for cluster, value in values:
            clusters[cluster].append(value)
        if len(clusters) < MIN_CLUSTERS:
            return None
        # Sorted, so that the figures do not depend on the order of the rows, not even in their last digit.
        moments = [(sum(v), sum(x * x for x in v), len(v)) for _, v in sorted(clusters.items())]
        return cls.from_sums(*np.array(moments, dtype=float).T)

    @classmethod
    def from_sums(cls, sums: np.ndarray, squares: np.ndarray, sizes: np.ndarray) -> ClusteredMean:
        """Return the mean from what is known of each cluster; the clusters lie along the last axis.

        Args:
            sums: (..., clusters) the sum of each cluster's values.
            squares: (..., clusters) the sum of their squares.
            sizes: (..., clusters) how many values each cluster has, 1 or more.
        """
        n = sizes.sum(-1, keepdims=True)
        weights = sizes / n
        mean = sums.sum(-1, keepdims=True) / n
        # CR2: a cluster pulls the mean towards itself, so its residual is too small by this factor.
        scale = 1 / np.sqrt(1 - weights)
        residuals = scale * (sums - mean * sizes) / n
        degrees = _degrees(weights, scale, _model_variances(sums, squares, sizes) / n**2)
        return cls(n=n[..., 0], value=mean[..., 0], variance=(residuals**2).sum(-1), degrees=degrees)

    def interval(self, low: float, high: float) -> tuple[Any, Any]:
        """Return the interval of a mean whose values lie in [low, high].

        It is Wilson's, for as many independent values as would have this variance, with the quantile of t: near the
        bounds it is not symmetric, and never passes them. Where the variance is 0, the values count as independent.
        """
        from scipy.stats import t

        share = (self.value - low) / (high - low)
        variance = self.variance / (high - low) ** 2
        with np.errstate(divide="ignore", invalid="ignore"):
            effective = np.where(variance > NO_VARIANCE, share * (1 - share) / variance, self.n)
        q = t.ppf((1 + CONFIDENCE) / 2, self.degrees)
        middle = (share + q**2 / (2 * effective)) / (1 + q**2 / effective)
        half = q / (1 + q**2 / effective) * np.sqrt(share * (1 - share) / effective + (q / effective) ** 2 / 4)
        return low + (high - low) * (middle - half), low + (high - low) * (middle + half)

    @property
    def p_value(self) -> Any:
        """The two-sided p of the t test: is the mean 0? 1 where it is.

        NaN where the mean is the same in every cluster, and not 0: what differs between them can't be estimated.
        """
        from scipy.stats import t

        with np.errstate(divide="ignore", invalid="ignore"):
            statistic = np.where(self.value == 0, 0.0, np.abs(self.value) / np.sqrt(self.variance))
        is_known = (self.variance > NO_VARIANCE) | (self.value == 0)
        return np.where(is_known, 2 * t.sf(statistic, self.degrees), np.nan)

    @property
    def detectable(self) -> Any:
        """The mean that the t test finds in POWER of all runs, if the variance is as here."""
        from scipy.stats import t

        quantiles = t.ppf((1 + CONFIDENCE) / 2, self.degrees) + t.ppf(POWER, self.degrees)
        return quantiles * np.sqrt(self.variance)


def _model_variances(sums: np.ndarray, squares: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Return the variance of each cluster's sum, if clusters differ by a normal effect (analysis of variance)."""
    n, num_clusters = sizes.sum(-1, keepdims=True), sizes.shape[-1]
    mean = sums.sum(-1, keepdims=True) / n
    within = (squares - sums**2 / sizes).sum(-1, keepdims=True) / np.maximum(n - num_clusters, 1)
    between = (sizes * (sums / sizes - mean) ** 2).sum(-1, keepdims=True) / (num_clusters - 1)
    typical_size = (n - (sizes**2).sum(-1, keepdims=True) / n) / (num_clusters - 1)
    variances: np.ndarray = sizes * within + sizes**2 * np.maximum(0, (between - within) / typical_size)
    return variances


def _degrees(weights: np.ndarray, scale: np.ndarray, variances: np.ndarray) -> np.ndarray:
    """Return Satterthwaite's degrees of freedom of the sum of the squared residuals: trace² / trace of the square.

    The residuals are scale_g (x_g - weight_g * sum of x), where the x_g are independent with these variances.
    """
    diagonal = np.arange(weights.shape[-1])
    total = variances.sum(-1)[..., None, None]
    column, line = (..., slice(None), None), (..., None, slice(None))
    covariance = weights[column] * weights[line] * total
    covariance -= weights[column] * variances[line] + variances[column] * weights[line]
    covariance[..., diagonal, diagonal] += variances
    covariance *= scale[column] * scale[line]
    trace = covariance[..., diagonal, diagonal].sum(-1)
    with np.errstate(invalid="ignore"):
        degrees: np.ndarray = np.where(trace > 0, trace**2 / (covariance**2).sum((-2, -1)), weights.shape[-1] - 1)
    return degrees


def holm(p_values: Sequence[float]) -> list[float]:
    """Return the p-values by Holm's method: a test that is below 0.05 then is so among all tests of the family.

    Args:
        p_values: Those of all tests of a table; NaN for a test that could not be made, which is no test of the family.
    """
    order = sorted((p, i) for i, p in enumerate(p_values) if not math.isnan(p))
    corrected, largest = list(p_values), 0.0
    for rank, (p, i) in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * p))
        corrected[i] = largest
    return corrected

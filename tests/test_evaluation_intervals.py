"""The intervals of means over clusters, against scipy, matrices written out, and simulated runs."""

import math

import numpy as np
import pytest
from scipy import stats

import interval_coverage
from lvqa.evaluation.intervals import ClusteredMean, holm


def values_of(groups):
    return [(str(cluster), value) for cluster, group in enumerate(groups) for value in group]


def test_with_equal_clusters_it_is_the_t_test_of_their_means():
    groups = np.random.default_rng(3).integers(-1, 2, size=(9, 12))
    mean, reference = ClusteredMean.of(values_of(groups)), stats.ttest_1samp(groups.mean(1), 0)
    assert mean.value == pytest.approx(groups.mean())
    assert mean.degrees == pytest.approx(8)
    assert mean.p_value == pytest.approx(reference.pvalue)
    # Far from the bounds Wilson's interval is the symmetric one.
    low, high = mean.interval(-1000, 1000)
    assert (low, high) == pytest.approx(reference.confidence_interval(), abs=1e-3)


def test_with_unequal_clusters_it_is_cr2_with_satterthwaites_degrees_written_out():
    """Each value is an observation of a regression on a constant; the matrices are those of the papers."""
    rng = np.random.default_rng(5)
    sizes = [2, 3, 5, 8, 20, 1, 4]
    groups = [rng.binomial(1, p, n) for p, n in zip(rng.uniform(0.1, 0.9, len(sizes)), sizes, strict=True)]
    y, cluster = np.concatenate(groups).astype(float), np.repeat(np.arange(len(sizes)), sizes)
    n = len(y)
    ones, hat = np.ones((n, 1)), np.full((n, n), 1 / n)
    residuals = y - y.mean()

    def adjusted(block):  # (I - H)^(-1/2) of a cluster, and the constant: what its residuals are summed with
        values, vectors = np.linalg.eigh(np.eye(len(block)) - hat[np.ix_(block, block)])
        return vectors @ np.diag(values**-0.5) @ vectors.T @ ones[block, 0] / n

    blocks = [np.flatnonzero(cluster == g) for g in range(len(sizes))]
    scores = [adjusted(block) for block in blocks]
    variance = sum((score @ residuals[block]) ** 2 for score, block in zip(scores, blocks, strict=True))

    within = sum(((group - group.mean()) ** 2).sum() for group in groups) / (n - len(groups))
    between = sum(len(group) * (group.mean() - y.mean()) ** 2 for group in groups) / (len(groups) - 1)
    effect = max(0.0, (between - within) / ((n - sum(s * s for s in sizes) / n) / (len(groups) - 1)))
    omega = within * np.eye(n) + effect * (cluster[:, None] == cluster[None])
    columns = np.stack([(np.eye(n) - hat)[:, block] @ score for score, block in zip(scores, blocks, strict=True)], 1)
    gram = columns.T @ omega @ columns

    mean = ClusteredMean.of(values_of(groups))
    assert mean.variance == pytest.approx(variance)
    assert mean.degrees == pytest.approx(np.trace(gram) ** 2 / (gram**2).sum())
    assert mean.degrees < len(sizes) - 1


def test_the_interval_never_passes_the_bounds_and_is_never_a_point():
    all_correct = ClusteredMean.of(values_of([[1.0] * 4] * 6))
    low, high = all_correct.interval(0, 1)
    assert 0.7 < low < 0.9 and high == pytest.approx(1)
    all_alike = ClusteredMean.of(values_of([[1.0, 0.0]] * 6))  # every video has one half
    low, high = all_alike.interval(0, 1)
    assert 0 < low < 0.35 and 0.65 < high < 1


def test_the_order_of_the_values_changes_no_digit():
    values = [(str(i % 7), float(i % 3 == 0)) for i in range(60)]
    assert ClusteredMean.of(values) == ClusteredMean.of(sorted(values, reverse=True))


def test_many_sets_of_clusters_at_once_are_those_one_by_one():
    rng = np.random.default_rng(8)
    sizes = rng.integers(1, 9, (3, 6))
    sums = rng.binomial(sizes, 0.4)
    together = ClusteredMean.from_sums(sums, sums, sizes)
    for i in range(3):
        alone = ClusteredMean.from_sums(sums[i], sums[i], sizes[i])
        assert together.degrees[i] == pytest.approx(alone.degrees)
        assert together.interval(0, 1)[0][i] == pytest.approx(alone.interval(0, 1)[0])


def test_a_detectable_difference_is_found_in_four_of_five_runs():
    """Simulated with the true difference at what the mean run says that it would find."""
    rng = np.random.default_rng(1)

    def runs(effect, num=4000, videos=12, questions=20):
        gained = rng.binomial(questions, (0.3 + effect) / 2, (num, videos))
        lost = rng.binomial(questions - gained, (0.3 - effect) / (2 - 0.3 - effect))
        return ClusteredMean.from_sums(gained - lost, gained + lost, np.full((num, videos), questions))

    effect = math.sqrt(np.mean(runs(0.0).detectable ** 2))
    assert np.mean(runs(effect).p_value < 0.05) == pytest.approx(0.80, abs=0.03)


def test_holm_ignores_what_was_not_tested():
    assert holm([]) == [] and holm([0.2]) == [0.2]
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert math.isnan(holm([math.nan])[0])


@pytest.mark.slow
@pytest.mark.parametrize("measure", ["difference", "accuracy"])
@pytest.mark.parametrize(("num_videos", "low", "high"), [(5, 0.935, 0.975), (12, 0.935, 0.97), (40, 0.935, 0.965)])
def test_intervals_hold_the_true_value_as_often_as_they_say(measure, num_videos, low, high):
    assert low < interval_coverage.coverage(measure, "unequal", 0.2, 0.1, num_videos, 2000) < high


def test_a_difference_that_is_the_same_in_every_video_has_no_p_beside_its_wide_interval():
    values = [(f"v{video}", -1.0 if question == 0 else 0.0) for video in range(5) for question in range(35)]
    mean = ClusteredMean.of(values)
    low, high = mean.interval(-1, 1)
    assert low < -0.1 and high > 0.1 and math.isnan(mean.p_value)
    assert ClusteredMean.of([(name, 0.0) for name, _ in values]).p_value == 1
    spread = ClusteredMean.of([*values, ("v0", 1.0)])
    assert 0 < spread.p_value < 1

"""The metrics of rankings, against the figures that VLM2Vec's own code gave for 300 made rankings."""

import json
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from lvqa.evaluation.retrieval.metrics import RankedQuery, mean_metrics, query_metrics

GOLDEN = json.loads((Path(__file__).parent / "golden" / "vlm2vec_metrics.json").read_text())
NAMES = [f"c{i}" for i in range(12)]


def ranked(case: dict) -> RankedQuery:
    grades = None if case["rel_scores"] is None else dict(zip(case["label"], case["rel_scores"], strict=True))
    return RankedQuery(case["prediction"], case["label"], grades)


def test_each_ranking_has_vlm2vecs_figures_to_the_last_digit():
    assert len(GOLDEN["cases"]) == 300
    for case in GOLDEN["cases"]:
        values = query_metrics(ranked(case))
        assert [values[name] for name in GOLDEN["metrics"]] == case["values"], case


def test_the_means_are_vlm2vecs_and_stand_in_its_order():
    means = mean_metrics([ranked(case) for case in GOLDEN["cases"]])
    assert list(means) == GOLDEN["metrics"]
    assert list(means.values()) == GOLDEN["mean"]


@given(st.permutations(NAMES), st.sets(st.sampled_from(NAMES), min_size=1, max_size=5))
def test_a_perfect_ranking_has_every_gain_and_no_metric_leaves_its_bounds(names, targets):
    perfect = query_metrics(RankedQuery([*sorted(targets), *(n for n in names if n not in targets)], sorted(targets)))
    assert all(perfect[f"{name}@10"] == 1 for name in ("hit", "recall", "map", "mrr", "ndcg_linear"))
    values = query_metrics(RankedQuery(names, sorted(targets)))
    assert all(0 <= value <= perfect[name] for name, value in values.items())

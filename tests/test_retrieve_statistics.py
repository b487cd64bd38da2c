"""The statistics and the order of rankings, the synthetic sets, and the tables."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lvqa.datasets.retrieval import CATEGORIES, load_sets
from lvqa.datasets.retrieval.published import PUBLISHED_RANKINGS
from lvqa.evaluation.retrieval.order import order_of
from lvqa.evaluation.retrieval.rows import RANKINGS
from lvqa.evaluation.retrieval.run import RetrieveRun
from lvqa.evaluation.retrieval.settings import load_retrieve_config
from lvqa.evaluation.retrieval.statistics import Metric, corrected
from lvqa.records import LvqaError
from lvqa.report.rankings import overview_table, published_table, rankings_page
from lvqa.synthetic.retrieval import SETS, make_sets

pytestmark = pytest.mark.slow


def row(
    set_name: str, query: int, arm: str, hit: bool, *, error: str | None = None, category: str = "retrieval"
) -> dict:
    ranking = [] if error else ([0, 1] if hit else [1, 0])
    return {
        **{"set": set_name, "query_id": str(query), "arm": arm, "category": category, "targets": [0]},
        **{"num_candidates": 2, "content_id": "x", "ranking": ranking, "embed_scores": [], "rerank_scores": []},
        **{"seconds": 0.0, "node": None, "session": 0, "by_place": False, "error": error},
    }


def rows_of(hits: dict[str, dict[str, list[bool]]]) -> list[dict]:
    """Return rows of set -> arm -> hits."""
    return [
        row(name, i, arm, hit)
        for name, arms in hits.items()
        for arm, values in arms.items()
        for i, hit in enumerate(values)
    ]


def test_a_set_counts_as_much_as_any_other():
    hits = {"large": {"a": [True] * 90 + [False] * 10}, "small": {"a": [False] * 10}}
    mean = Metric(rows_of(hits)).mean("a", ["large", "small"])
    assert mean.value == pytest.approx(0.45) and (mean.num_queries, mean.num_sets) == (110, 2)
    assert mean.low < 0.45 < mean.high


def test_the_bootstrap_agrees_with_the_standard_error():
    """Of 400 independent queries with a share of 0.3 the interval is about 1.96 standard errors to each side."""
    hits = [i % 10 < 3 for i in range(400)]
    mean = Metric(rows_of({"s": {"a": hits}})).mean("a", ["s"])
    half = 1.96 * math.sqrt(0.3 * 0.7 / 400)
    assert (mean.low, mean.high) == pytest.approx((0.3 - half, 0.3 + half), abs=0.006)


def test_a_failed_ranking_is_wrong_and_few_queries_have_no_interval():
    rows = [row("s", 0, "a", True), row("s", 1, "a", True, error="the picture cannot be read")]
    mean = Metric(rows).mean("a", ["s"])
    assert mean.value == 0.5 and math.isnan(mean.low)


def test_differences_are_paired_and_corrected_together():
    rng = np.random.default_rng(1)
    base = (rng.random(200) < 0.5).tolist()
    better = [hit or lucky for hit, lucky in zip(base, rng.random(200) < 0.2, strict=True)]
    metric = Metric(rows_of({"s": {"base": base, "better": better, "same": base}}))
    differences = corrected({arm: metric.difference(arm, "base", ["s"]) for arm in ("better", "same")})
    better_by = differences["better"]
    assert better_by.mean.value == pytest.approx(np.mean(better) - np.mean(base))
    assert 0 < better_by.mean.low < better_by.mean.high and better_by.p_value < 0.001
    assert better_by.holm_p == pytest.approx(2 * better_by.p_value)
    assert differences["same"].mean.value == 0 and differences["same"].p_value == 1


def test_the_p_value_is_scipys_in_one_set():
    from scipy.stats import ttest_rel

    rng = np.random.default_rng(2)
    first, second = (rng.random(60) < share for share in (0.6, 0.4))
    metric = Metric(rows_of({"s": {"a": first.tolist(), "b": second.tolist()}}))
    expected = ttest_rel(first.astype(float), second.astype(float)).pvalue
    assert metric.difference("a", "b", ["s"]).p_value == pytest.approx(expected)


SCORES = st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0, math.nan]), min_size=1, max_size=12)


@given(SCORES, st.randoms())
def test_the_order_does_not_depend_on_the_places_in_a_file(scores, rng):
    names = [f"n{i}" for i in range(len(scores))]
    order = [names[i] for i in order_of([np.array(scores)], "q", names)]
    shuffled = rng.sample(range(len(scores)), len(scores))
    moved = order_of([np.array([scores[i] for i in shuffled])], "q", [names[i] for i in shuffled])
    assert [names[shuffled[i]] for i in moved] == order
    ranked = [scores[names.index(name)] for name in order]
    known = [score for score in ranked if not math.isnan(score)]
    assert known == sorted(known, reverse=True) and all(map(math.isnan, ranked[len(known) :]))


def test_among_equals_the_first_in_the_file_is_best_no_more_often_than_any_other():
    names = [f"n{i}" for i in range(4)]
    best = [int(order_of([np.zeros(4)], f"q{i}", names)[0]) for i in range(800)]
    assert min(np.bincount(best, minlength=4)) > 150


def test_among_equals_the_next_score_decides():
    scores = [np.array([1.0, 1.0, 0.0]), np.array([0.2, 0.3, 0.9])]
    assert order_of(scores, "q", ["a", "b", "c"]).tolist() == [1, 0, 2]


# --- the synthetic sets ----------------------------------------------------------------------------------------------


def test_the_synthetic_sets_are_the_four_tasks_with_every_medium_on_both_sides(tmp_path):
    make_sets(tmp_path / "sets", queries=9, seed=702)
    sets = load_sets("own", tmp_path / "sets")[0]
    assert {one.name for one in sets} == set(SETS) and {one.category for one in sets} == set(CATEGORIES)
    media = {"query": set(), "candidate": set()}
    for one in sets:
        assert len(one.queries) == 9
        for side, contents in (("query", [q.content for q in one.queries]), ("candidate", one.candidates.values())):
            media[side] |= {bool(c.image) * "image" or bool(c.video) * "clip" or "text" for c in contents}
            assert all(path.is_file() for content in contents for path in content.files)
        assert all(len(one.names_of(query)) >= 5 for query in one.queries)
    assert media == {"query": {"text", "image", "clip"}, "candidate": {"text", "image", "clip"}}


def test_the_same_seed_gives_the_same_sets_and_another_folder_is_left_alone(tmp_path):
    for name in ("a", "b"):
        make_sets(tmp_path / name, queries=8, seed=703)
    for path in (tmp_path / "a").rglob("*.jsonl"):
        assert path.read_text() == (tmp_path / "b" / path.relative_to(tmp_path / "a")).read_text()
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "a").rglob("*")}
    make_sets(tmp_path / "a", queries=8, seed=703)
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "a").rglob("*")}
    with pytest.raises(LvqaError, match="holds something else than the synthetic sets of this seed and size"):
        make_sets(tmp_path / "a", queries=8, seed=705)


# --- tables ----------------------------------------------------------------------------------------------------------


def a_run(tmp_path, rows, *overrides: str) -> RetrieveRun:
    config = load_retrieve_config(None, ["dataset.name=mmeb", *overrides])
    return RetrieveRun(tmp_path, config, None, tuple(rows))


def test_the_tables_have_each_arm_each_kind_and_what_papers_print(tmp_path):
    rows = [
        row(name, i, arm, (i + len(arm)) % 3 > 0, category=kind)
        for name, kind in (("GQA", "question answering"), ("RefCOCO", "grounding"))
        for arm in ("embedding alone", "FreeRet")
        for i in range(12)
    ]
    run = a_run(tmp_path, rows)
    table = overview_table(run, Metric(run.rows))
    assert table.head == ("arm", "question answering", "grounding", "average", "difference, points", "to")
    assert [line[0].main for line in table.lines] == ["embedding alone", "FreeRet"]
    assert "Holm p" in table.lines[1][4].detail and table.lines[0][4].main == ""
    page = rankings_page(run)
    assert "24 queries of 2 sets" in page and "Published, and not run here." in page
    assert "| E5-V, training-free | Qwen2.5-VL-7B" in page and "70.72" in page
    assert published_table(a_run(tmp_path, rows, "dataset.make={}", "dataset.name=own")) is None


def test_published_averages_are_those_of_their_kinds_weighted_by_sets():
    """FreeRet's Table 1 averages 36 sets: 10 classifications, 10 question answering, 12 retrieval, 4 grounding."""
    weights = {"classification": 10, "question answering": 10, "retrieval": 12, "grounding": 4}
    rows = [row for row in PUBLISHED_RANKINGS if row.source.startswith("FreeRet, Table 1")]
    assert len(rows) == 13
    for one in rows:
        mean = sum(one.figures[kind] * weight for kind, weight in weights.items()) / 36
        assert one.figures["average"] == pytest.approx(mean, abs=0.35), one


def test_a_row_is_read_back_as_it_was_written(tmp_path):
    rows = [row("s", i, "a", True) for i in range(3)]
    RANKINGS.write(tmp_path, rows)
    assert list(RANKINGS.read(tmp_path / RANKINGS.name)) == rows
    (tmp_path / RANKINGS.name).write_text("".join(json.dumps(rows[0]) + "\n" for _ in range(2)))
    with pytest.raises(LvqaError, match="line 2: the same set, query and arm as in line 1"):
        list(RANKINGS.read(tmp_path / RANKINGS.name))

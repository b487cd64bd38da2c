"""The figures that papers print: those of the benchmarks' own scripts, on 200 made answers.

The golden figures were computed with the functions named below, of the benchmarks' repositories and of lmms-eval, on
the answers that `made_rows` returns.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import pytest

from lvqa.datasets import DATASETS
from lvqa.datasets.headline import AnswerRow, Figure, by_tag, mean_of, overall

NUM_ROWS = 200


def made_rows(tags_of: Callable[[int], list[str]], seed: int = 7, options: str = "ABCD") -> list[AnswerRow]:
    """Return rows of which about half are right, four questions a video, and some without an answer or unanswerable."""
    rng = random.Random(seed)
    rows = []
    for i in range(NUM_ROWS):
        target = rng.choice(options)
        prediction = target if rng.random() < 0.4 else rng.choice(options)
        failed = rng.random() < 0.05
        rows.append(
            AnswerRow(
                video_id=f"{i // 4:03}",
                question_id=f"{i // 4:03}-{i % 4 + 1}",
                tags=tags_of(i),
                target="" if rng.random() < 0.03 else target,
                prediction=None if failed else prediction,
                text="" if failed else prediction,
                option_scores=[] if failed else [0.0] * len(options),
                error="out of memory" if failed else None,
            )
        )
    return rows


MLVU_TASKS = ("anomaly_reco", "count", "ego", "needle", "order", "plotQA", "topic_reasoning")
MLVU_TEST_TASKS = (
    *("anomaly_reco", "count", "ego", "needleQA", "order", "plotQA", "sportsQA", "topic_reasoning", "tutorialQA"),
)
DURATIONS = ("short", "medium", "long")
DOMAINS = (
    "Knowledge",
    "Film & Television",
    "Sports Competition",
    "Artistic Performance",
    "Life Record",
    "Multilingual",
)
LENGTHS = ("8-15 s", "15-60 s", "180-600 s", "900-3600 s")
ABILITIES = (
    *("key information retrieval", "event understanding", "summarization", "entity recognition", "reasoning"),
    "temporal grounding",
)
TYPES = ("CW", "CH", "TN", "TC", "DC", "DL", "DO")
STRUCTURES = ("[1, 2, 3, 4]", "[1, [2, 3], 4]", "[[1, 2], 3, 4]")


def group_tags(i: int) -> list[str]:
    """Return the tags of a question of Video-MME-v2: a third of the groups is one of relevance."""
    group = i // 4
    kind = "relevance" if group % 3 == 0 else "logic"
    structure = "none" if kind == "relevance" else STRUCTURES[group // 3 % 3]
    return [f"group: {kind}", f"structure: {structure}", f"level: {group // 2 % 3 + 1 if i % 4 == 3 else 1}"]


def pick(items: tuple[str, ...], i: int) -> str:
    """Return one of the items, each for a different number of rows."""
    return items[(i * i + i // 3) % len(items)]


TAGS: dict[str, Callable[[int], list[str]]] = {
    "mlvu": lambda i: [pick(MLVU_TASKS, i)],
    "mlvu_test": lambda i: [pick(MLVU_TEST_TASKS, i)],
    "videomme": lambda i: [
        "task: OCR Problems",
        f"duration: {DURATIONS[i // 4 % 3]}",
        f"domain: {DOMAINS[i // 8 % 6]}",
    ],
    "longvideobench": lambda i: ["category: S2O", f"duration: {pick(LENGTHS, i)}"],
    "lvbench": lambda i: list(dict.fromkeys([ABILITIES[i % 6], pick(ABILITIES, i)])),
    "nextqa": lambda i: [f"group: {pick(TYPES, i)[0]}", f"type: {pick(TYPES, i)}"],
    "videomme_v2": group_tags,
    "cgbench_mini": lambda i: ["category: Entity Perception", "domain: GUI"],
    "egoschema": lambda i: [],
    "lsdbench": lambda i: [],
    "timescope": lambda i: [f"length: {pick(LENGTHS, i)}", "task: QA"],
}
GOLDEN: dict[str, dict[str, float]] = {
    # JUNJIE99/MLVU, choice_bench.py: check_ans, and the mean of acc_dict; lmms-eval gives the same
    "mlvu": {
        "M-Avg": 53.294802,
        "needle": 55.102041,
    },
    # lmms-eval, mlvu_aggregate_results_test
    "mlvu_test": {
        "M-Avg": 53.88251,
    },
    # thanku-all/parse_answer, eval_your_results, which prints one decimal
    "videomme": {
        "overall": 56.8,
        "long": 51.6,
        "Knowledge": 52.6,
        "Film & Television": 48.4,
        "Sports Competition": 62.1,
        "Artistic Performance": 70.0,
        "Life Record": 50.0,
        "Multilingual": 60.0,
    },
    # lmms-eval, evaluate_longvideobench
    "longvideobench": {
        "overall": 54.0,
        "8-15 s": 54.545455,
        "15-60 s": 50.0,
        "180-600 s": 56.716418,
        "900-3600 s": 51.515152,
    },
    # THUDM/LVBench, compute_accuracy
    "lvbench": {
        "KIR": 56.25,
        "EU": 59.52381,
        "Sum": 60.9375,
        "Rea": 54.794521,
        "ER": 61.538462,
        "TG": 52.830189,
        "overall": 56.842105,
    },
    # doc-doc/NExT-QA, accuracy_metric, which prints two decimals
    "nextqa": {
        "Why": 57.89,
        "How": 57.14,
        "Bef&Aft": 42.11,
        "When": 55.1,
        "Cnt": 52.63,
        "Loc": 52.63,
        "Other": 55.56,
        "Acc@C": 57.58,
        "Acc@T": 51.47,
        "Acc@D": 53.03,
        "Acc@All": 54.0,
    },
    # MME-Benchmarks/Video-MME-v2, get_final_rating; lmms-eval gives the same
    "videomme_v2": {
        "overall": 26.95,
        "level 1": 37.106481,
        "level 2": 24.0625,
        "level 3": 18.411458,
        "relevance": 42.647059,
        "logic": 18.863636,
        "Avg Acc": 54.0,
    },
    # lmms-eval, cgbench_aggregate_results
    "cgbench_mini": {
        "long-acc.": 54.0,
    },
    # lmms-eval, egoschema_aggregate_score
    "egoschema": {
        "subset": 54.0,
    },
    # lmms-eval, timescope_aggregate_results
    "timescope": {
        "overall": 54.0,
    },
    # lmms-eval, lsdbench_aggregate_accuracy_results
    "lsdbench": {
        "accuracy": 54.0,
    },
}
DECIMALS = {"videomme": 1, "nextqa": 2}


@pytest.mark.parametrize("name", GOLDEN)
def test_the_figures_are_those_of_the_benchmarks_own_script(name):
    figures = DATASETS[name].headline(made_rows(TAGS[name]))
    assert {key: round(100 * figures[key].value, DECIMALS.get(name, 6)) for key in GOLDEN[name]} == GOLDEN[name]


def test_every_benchmark_says_how_it_counts():
    for reader in DATASETS.values():
        assert reader.title and reader.counting.endswith(".")
        assert all(figure.n for figure in reader.headline(made_rows(group_tags)).values())


def test_a_group_that_was_not_asked_whole_counts_for_the_accuracy_alone():
    rows = made_rows(group_tags)
    whole, cut = DATASETS["videomme_v2"].headline(rows[:8]), DATASETS["videomme_v2"].headline(rows[:11])
    assert cut["overall"] == whole["overall"] and whole["overall"].n == 2
    assert (whole["Avg Acc"].n, cut["Avg Acc"].n) == (8, 11)
    assert set(DATASETS["videomme_v2"].headline(rows[:3])) == {"Avg Acc"}


def test_of_nothing_there_is_no_share():
    assert math.isnan(overall([]).value) and overall([]).n == 0
    assert math.isnan(mean_of([]).value)
    assert mean_of([Figure(0.5, 3), Figure(1.0, 9)]) == Figure(0.75, 2)
    assert by_tag(made_rows(lambda i: ["kind: a", "b"]), "kind").keys() == {"a"}

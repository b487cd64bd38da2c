"""Submission files: in the forms of the benchmarks' own scripts.

The forms were read in THUDM/LVBench (test_acc.py), BradyFU/Video-MME (output_test_template.json), lmms-eval
(longvideobench_process_results, to which LongVideoBench's authors point) and JUNJIE99/MLVU (choice_bench.py,
test_bench.py); Video-MME's script is eval_your_results.py of thanku-all/parse_answer.
On 200 made answers these scripts gave, from the files that are written here, the figures of
`test_datasets_headline.py`.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from click.testing import CliRunner
from test_datasets_headline import TAGS, made_rows

from lvqa.cli.main import lvqa_command
from lvqa.config import to_yaml
from lvqa.datasets import DATASETS
from lvqa.datasets.submissions import SUBMISSIONS, SubmissionRow
from lvqa.evaluation import load_run_config
from lvqa.evaluation.rows import NEW_KEYS, to_line


def row(question_id: str, tags: list[str], target: str, prediction: str | None, **changes: Any) -> SubmissionRow:
    """A row of a question with the options "a pan" and "a cup", whose letter was found by logits."""
    failed = prediction is None
    fields: dict[str, Any] = {
        "video_id": "v1",
        "question_id": question_id,
        "question": "What is red?",
        "options": ["a pan", "a cup"],
        "tags": tags,
        "target": target,
        "prediction": prediction,
        "text": "" if failed else {"A": "a pan", "B": "a cup"}[prediction],
        "option_scores": [] if failed else [0.4, 0.6],
        "error": "out of memory" if failed else None,
    }
    return SubmissionRow(**{**fields, **changes})


def test_lvbench():
    rows = [
        row("0", ["reasoning"], "A", "A"),
        row("1", ["reasoning", "summarization"], "A", "B"),
        row("2", ["summarization"], "B", None, text="(B) a cup", error=None),  # generated
        row("3", ["summarization"], "B", None),
    ]
    assert SUBMISSIONS["lvbench"](rows) == {
        "answers.json": {"0": "A", "1": "B", "2": "B"},
        "result.json": {"Sum": 0.5, "Rea": 0.5, "Overall": 2 / 3},
    }


def test_videomme():
    tags = ["task: OCR Problems", "duration: long", "domain: Knowledge", "sub_category: Law"]
    rows = [
        row("601-2", tags, "B", "B"),
        row("601-1", tags, "A", "B", text="I think (B).", option_scores=[]),
        row("002-1", tags, "A", None),
    ]
    question = {"question": "What is red?", "options": ["A. a pan", "B. a cup"]}
    video = {"duration": "long", "domain": "Knowledge", "sub_category": "Law"}
    task = {"task_type": "OCR Problems"}
    assert SUBMISSIONS["videomme"](rows) == {
        "results.json": [
            {
                "video_id": "002",
                **video,
                "questions": [{"question_id": "002-1", **task, **question, "answer": "A", "response": ""}],
            },
            {
                "video_id": "601",
                **video,
                "questions": [
                    {"question_id": "601-1", **task, **question, "answer": "A", "response": "I think (B)."},
                    {"question_id": "601-2", **task, **question, "answer": "B", "response": "B"},
                ],
            },
        ]
    }
    assert SUBMISSIONS["videomme_long"] is SUBMISSIONS["videomme"]


def test_longvideobench():
    rows = [row("Cm_0", [], "A", "A"), row("Cm_1", [], "A", "B", text="B. a cup", option_scores=[])]
    assert SUBMISSIONS["longvideobench"](rows) == {"predictions.json": {"Cm_0": "A", "Cm_1": "B. a cup"}}


def test_mlvu():
    rows = [
        row("1_plotQA/1", ["plotQA"], "A", "A", video_id="1_plotQA/film"),
        row("4_count/1", ["count"], "A", "B", text="(B) a cup", option_scores=[], video_id="4_count/count_1"),
        row("4_count/2", ["count"], "", "A", video_id="4_count/count_1"),
        row("4_count/3", ["count"], "B", "B", video_id="4_count/count_1"),
    ]
    question = {"question": "Question: What is red?\nOptions:\n(A) a pan\n(B) a cup"}
    count = {**question, "question_type": "count", "video": "count_1"}
    assert SUBMISSIONS["mlvu"](rows) == {
        "test_all_choice.json": {
            "acc_dict": {"count": [1, 3], "plotQA": [1, 1]},
            "res_list": [
                {"pred": "(B) a cup", "gt": "(A) a pan", **count},
                {"pred": "A", "gt": "(@) ", **count},
                {"pred": "B", "gt": "(B) a cup", **count},
                {"pred": "A", "gt": "(A) a pan", **question, "question_type": "plotQA", "video": "film"},
            ],
        },
        "bench_all.json": {"count": 100 / 3, "plotQA": 100.0, "Avg": (100 / 3 + 100) / 2},
    }


def test_mlvu_test():
    rows = [row("AR_0", ["anomaly_reco"], "A", "B"), row("SQA_1", ["sportsQA"], "A", None)]
    assert SUBMISSIONS["mlvu_test"](rows) == {
        "test_res.json": [
            {"question_id": "AR_0", "question_type": "anomaly_reco", "option": "B"},
            {"question_id": "SQA_1", "question_type": "sportsQA", "option": ""},
        ]
    }


def test_the_figures_of_a_submission_are_those_of_the_report():
    rows = [SubmissionRow(**row, question="", options=["a", "b", "c", "d"]) for row in made_rows(TAGS["lvbench"])]
    figures = DATASETS["lvbench"].headline(rows)
    result = SUBMISSIONS["lvbench"](rows)["result.json"]
    assert {name.lower(): round(value, 9) for name, value in result.items()} == {
        name.lower(): round(figure.value, 9) for name, figure in figures.items()
    }


# --- the command -----------------------------------------------------------------------------------------------------


@pytest.fixture
def report(tmp_path):
    """Report a run of these rows, with submissions; `code` is the exit code that is expected."""

    def run(benchmark: str, rows: list[dict[str, Any]], *, code: int = 0) -> str:
        folder = tmp_path / "run"
        folder.mkdir()
        arms = json.dumps([{"method": "uniform"}, {"name": "our/own, method", "method": "topk"}])
        config = load_run_config(None, [f"arms={arms}", "frames=[16]", f"benchmark.name={benchmark}"])
        (folder / "config.yaml").write_text(to_yaml(config))
        about = {"started": "2030-01-02T03:04:05+00:00", "versions": {}, "resumed": [], "questions": 2}
        (folder / "run.json").write_text(json.dumps(about))
        (folder / "answers.jsonl").write_text("".join(map(to_line, rows)))
        words = ["report", str(folder), "--submissions", str(tmp_path / "submissions")]
        result = CliRunner().invoke(lvqa_command, words)
        assert result.exit_code == code, result.output
        return result.stderr

    return run


def full_row(arm: str, *changes: Any) -> dict[str, Any]:
    counts = {"frames_decoded": 0, "pairs_encoded": 0, "tokens_prefilled": 0}
    empty = {
        "evidence_seconds": None,
        "times_seconds": [],
        "embedded": [],
        "reranked": [],
        "num_clips": 0,
        "index": None,
    }
    return {**NEW_KEYS, **empty, "arm": arm, "budget": 16, "counts": counts, "seconds": {}, **row(*changes)}


@pytest.mark.slow
def test_each_arm_has_a_folder_and_what_is_not_answered_is_told(report, tmp_path):
    rows = [full_row("uniform", "Cm_0", [], "A", "A"), full_row("our/own, method", "Cm_0", [], "A", "B")]
    message = report("longvideobench", rows)
    folder = tmp_path / "submissions"
    files = {str(path.relative_to(folder)): json.loads(path.read_text()) for path in folder.rglob("*.json")}
    assert files == {
        "uniform-16/predictions.json": {"Cm_0": "A"},
        "our-own-method-16/predictions.json": {"Cm_0": "B"},
    }
    assert "uniform, 16 frames: 1 of 2 questions have no answer in the submission" in message


def test_a_benchmark_without_a_form_is_named(report, tmp_path):
    message = report("nextqa", [full_row("uniform", "1", [], "A", "A")], code=1)
    assert "no form of submissions is known for nextqa; there are: lvbench, videomme" in message
    assert not (tmp_path / "submissions").exists()

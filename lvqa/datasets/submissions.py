"""The files that benchmarks take submissions in, from the rows of one method at one budget.

Each is in the form that the benchmark's own evaluation script writes or reads. A question that failed has an empty
answer, or is left out where the script leaves out what is not there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lvqa.datasets.headline import AnswerRow, grouped
from lvqa.datasets.lvbench import ABILITIES, official_letter
from lvqa.records import LETTERS

Files = dict[str, Any]
"""The name of a file -> its content, as JSON holds it."""
NO_OPTION = "@"
"""The letter of an answer that is no option, in MLVU's script."""


class SubmissionRow(AnswerRow):
    """What is needed of a row of an evaluation; see `lvqa.evaluation.rows`."""

    question: str
    options: list[str]


def reply(row: AnswerRow) -> str:
    """Return what the model replied: the generated text, or the letter where letters were compared."""
    return row["prediction"] or "" if row["option_scores"] else row["text"]


# --- LVBench ---------------------------------------------------------------------------------------------------------


def lvbench_files(rows: Sequence[SubmissionRow]) -> Files:
    """Return `answers.json`, uid -> letter, which scripts/test_acc.py reads, and the `result.json` that it writes."""
    answered = [row for row in rows if row["error"] is None]
    abilities = grouped(answered)
    result = {name: _share(abilities[ability]) for ability, name in ABILITIES.items() if ability in abilities}
    if answered:
        result["Overall"] = _share(answered)
    return {"answers.json": {row["question_id"]: official_letter(row) for row in answered}, "result.json": result}


def _share(rows: Sequence[AnswerRow]) -> float:
    return sum(official_letter(row) == row["target"] for row in rows) / len(rows)


# --- Video-MME -------------------------------------------------------------------------------------------------------


def videomme_files(rows: Sequence[SubmissionRow]) -> Files:
    """Return `results.json` as evaluation/output_test_template.json has it, which eval_your_results.py reads."""
    videos: dict[str, dict[str, Any]] = {}
    for row in sorted(rows, key=lambda row: row["question_id"]):
        number, tags = row["question_id"].rpartition("-")[0], _tags(row)
        video = videos.setdefault(
            number,
            {
                "video_id": number,
                **{name: tags.get(name, "") for name in ("duration", "domain", "sub_category")},
                "questions": [],
            },
        )
        video["questions"].append(
            {
                "question_id": row["question_id"],
                "task_type": tags.get("task", ""),
                "question": row["question"],
                "options": [f"{a}. {option}" for a, option in zip(LETTERS, row["options"], strict=False)],
                "answer": row["target"],
                "response": reply(row),
            }
        )
    return {"results.json": list(videos.values())}


def _tags(row: AnswerRow) -> Mapping[str, str]:
    parts = (tag.partition(": ") for tag in row["tags"])
    return {kind: value for kind, _, value in parts}


# --- LongVideoBench --------------------------------------------------------------------------------------------------


def longvideobench_files(rows: Sequence[SubmissionRow]) -> Files:
    """Return `predictions.json`, question id -> reply, as lmms-eval's tasks write it, to which the authors point."""
    return {"predictions.json": {row["question_id"]: reply(row) for row in rows}}


# --- MLVU ------------------------------------------------------------------------------------------------------------

MLVU_TASKS = ("count", "ego", "needle", "order", "plotQA", "anomaly_reco", "topic_reasoning")
"""The tasks of the dev set in the order of choice_bench.py."""


def mlvu_files(rows: Sequence[SubmissionRow]) -> Files:
    """Return the files that choice_bench.py writes of the dev set: `test_all_choice.json` and `bench_all.json`."""
    by_task: dict[str, list[SubmissionRow]] = {task: [] for task in MLVU_TASKS}
    for row in rows:
        by_task.setdefault(_mlvu_task(row), []).append(row)
    in_order = [row for of_task in by_task.values() for row in of_task]
    accuracy = {task: [sum(map(_is_right, of_task)), len(of_task)] for task, of_task in by_task.items() if of_task}
    percent = {task: 100 * num_right / total for task, (num_right, total) in accuracy.items()}
    mean = {"Avg": sum(percent.values()) / len(percent)} if percent else {}
    return {
        "test_all_choice.json": {"acc_dict": accuracy, "res_list": [_mlvu_result(row) for row in in_order]},
        "bench_all.json": {**percent, **mean},
    }


def mlvu_test_files(rows: Sequence[SubmissionRow]) -> Files:
    """Return `test_res.json`, which the online evaluation of the test set takes."""
    return {
        "test_res.json": [
            {"question_id": row["question_id"], "question_type": row["tags"][0], "option": row["prediction"] or ""}
            for row in rows
        ]
    }


def _mlvu_task(row: AnswerRow) -> str:
    return row["question_id"].partition("/")[0].partition("_")[2]


def _mlvu_result(row: SubmissionRow) -> dict[str, str]:
    options = "\n".join(f"({a}) {option}" for a, option in zip(LETTERS, row["options"], strict=False))
    by_letter = dict(zip(LETTERS, row["options"], strict=False))
    letter = row["target"] or NO_OPTION
    return {
        "pred": reply(row),
        "gt": f"({letter}) {by_letter.get(letter, '')}",
        "question": f"Question: {row['question']}\nOptions:\n{options}",
        "question_type": _mlvu_task(row),
        "video": row["video_id"].rpartition("/")[2],
    }


def _is_right(row: AnswerRow) -> bool:
    """Return whether the reply names the target as choice_bench.py reads it: what stands before the first bracket."""
    before, bracket, _ = reply(row).partition(")")
    return (before[-1:] if bracket else before) == (row["target"] or NO_OPTION)


SUBMISSIONS: dict[str, Callable[[Sequence[SubmissionRow]], Files]] = {
    "lvbench": lvbench_files,
    "videomme": videomme_files,
    "videomme_long": videomme_files,
    "longvideobench": longvideobench_files,
    "mlvu": mlvu_files,
    "mlvu_test": mlvu_test_files,
}
"""A benchmark -> the files of a submission, from its rows."""

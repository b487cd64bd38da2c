"""Read MLVU, its dev set and its test set."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypedDict

from lvqa.datasets.annotations import (
    AnyText,
    AnyTextOrNumber,
    Entry,
    Text,
    json_list,
    letter_of,
    make_entry,
    texts,
    video_key,
)
from lvqa.datasets.headline import AnswerRow, Figure, by_tag, mean_of

TASKS = ("1_plotQA", "2_needle", "3_ego", "4_count", "5_order", "6_anomaly_reco", "7_topic_reasoning")
"""The files with options. 8 and 9 want free text, which nothing here can score; they are not read."""


class Row(TypedDict):
    """A question of MLVU."""

    video: Text
    question: AnyText
    candidates: list[AnyTextOrNumber]
    answer: AnyTextOrNumber
    question_type: Text


class TestRow(Row):
    """A question of MLVU's test set."""

    question_id: Text


class MLVU:
    """MLVU (arXiv 2406.04264), the multiple choice of its dev set: `json/1_plotQA.json` and six files more.

    Videos of different tasks share file names, so a key has the task before it: `videos/1_plotQA/NAME.mp4`.
    Questions have no id; theirs is the task and the row. The answer is the option's text; if that option is there
    twice, the last one counts, as in the authors' own evaluation (github.com/JUNJIE99/MLVU, choice_bench.py).
    """

    title = "MLVU"
    counting = (
        "M-Avg is the mean of the tasks' accuracies, each with equal weight, as the authors' script and lmms-eval "
        "count it. A question without an answer, or whose answer is no option, is wrong."
    )

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "json"

    def entries(self) -> Iterator[Entry]:
        """Yield the questions, task by task."""
        for task in TASKS:
            for row_number, (origin, row) in enumerate(json_list(self.folder / f"{task}.json", Row), start=1):
                yield _entry(row, origin, f"{task}/{row_number}", f"{task}/{video_key(row['video'], 'video', origin)}")

    @staticmethod
    def headline(rows: Sequence[AnswerRow]) -> dict[str, Figure]:
        """Return the mean of the tasks, and each task."""
        tasks = by_tag(rows)
        return {"M-Avg": mean_of(tasks.values()), **tasks}


class MLVUTest(MLVU):
    """MLVU's test set (huggingface.co/datasets/MLVU/MLVU_Test): `test-ground-truth/test_mcq_gt.json`, 502 questions.

    Nine tasks, six options. Videos lie in `videos/`, as NAME.mp4.
    """

    title = "MLVU, test set"

    def __init__(self, folder: Path) -> None:
        self.path = folder / "test-ground-truth" / "test_mcq_gt.json"

    def entries(self) -> Iterator[Entry]:
        """Yield the questions."""
        for origin, row in json_list(self.path, TestRow):
            yield _entry(row, origin, row["question_id"], video_key(row["video"], "video", origin))


def _entry(row: Row, origin: str, question_id: str, video_id: str) -> Entry:
    options, answer = row["candidates"], row["answer"]
    return make_entry(
        row["question"],
        texts(options),
        letter_of(str(answer), texts(options)),
        origin,
        id=question_id,
        video_id=video_id,
        tags=(row["question_type"],),
    )

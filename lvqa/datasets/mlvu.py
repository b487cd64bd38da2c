"""Read MLVU."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TypedDict

from lvqa.datasets.annotations import Entry, Text, TextOrNumber, json_list, make_question, texts, video_key
from lvqa.records import LETTERS, Question
from lvqa.validation import require

TASKS = ("1_plotQA", "2_needle", "3_ego", "4_count", "5_order", "6_anomaly_reco", "7_topic_reasoning")
"""The files with options. 8 and 9 want free text, which nothing here can score; they are not read."""


class Row(TypedDict):
    """A question of MLVU."""

    video: Text
    question: Text
    candidates: list[TextOrNumber]
    answer: Text
    question_type: Text


class MLVU:
    """MLVU (arXiv 2406.04264), the multiple choice of its dev set: `json/1_plotQA.json` and six files more.

    Videos of different tasks share file names, so a key has the task before it: `videos/1_plotQA/NAME.mp4`.
    Questions have no id; theirs is the task and the row. The answer is the option's text; if that option is there
    twice, the last one counts, as in the authors' own evaluation.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "json"

    def entries(self) -> Iterator[Entry]:
        """Yield the questions, task by task."""
        for task in TASKS:
            for row_number, (origin, row) in enumerate(json_list(self.folder / f"{task}.json", Row), start=1):
                yield Entry(_question(row, task, row_number, origin), origin)


def _question(row: Row, task: str, row_number: int, origin: str) -> Question:
    options, answer = texts(row["candidates"]), row["answer"]
    letters = [letter for letter, option in zip(LETTERS, options, strict=False) if option == answer]
    require(bool(letters), "answer", answer, "one of the candidates", origin=origin)
    return make_question(
        row["question"],
        options,
        letters[-1],
        origin,
        id=f"{task}/{row_number}",
        video_id=f"{task}/{video_key(row['video'], 'video', origin)}",
        tags=(row["question_type"],),
    )

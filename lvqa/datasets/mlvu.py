"""MLVU."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from lvqa.datasets.annotations import Entry, Row, json_list
from lvqa.records import LETTERS, Question, shorten

TASKS = ("1_plotQA", "2_needle", "3_ego", "4_count", "5_order", "6_anomaly_reco", "7_topic_reasoning")
"""Its files with options. 8 and 9 ask for free text, which nobody here can mark; they are not read."""


class MLVU:
    """MLVU (arXiv 2406.04264), the multiple choice of its dev set: `json/1_plotQA.json` and six files more.

    Videos of different tasks share file names, so a key has the task before it: `videos/1_plotQA/NAME.mp4`.
    Questions have no id; theirs is the task and the row. The answer is the option's text; if that option is there
    twice, the last one counts, as in the authors' own evaluation.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "json"

    def entries(self) -> Iterator[Entry]:
        for task in TASKS:
            for number, row in enumerate(json_list(self.folder / f"{task}.json"), start=1):
                yield Entry(_question(row, task, number), row.place)


def _question(row: Row, task: str, number: int) -> Question:
    options, answer = row.texts("candidates"), row.text("answer")
    letters = [letter for letter, option in zip(LETTERS, options, strict=False) if option == answer]
    if not letters:
        raise row.fault(f"answer must be one of the candidates, got {shorten(answer)}")
    return row.question(
        row.text("question"),
        options,
        letters[-1],
        id=f"{task}/{number}",
        video_id=f"{task}/{row.key('video')}",
        tags=(row.text("question_type"),),
    )

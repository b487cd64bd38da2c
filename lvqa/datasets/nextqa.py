"""Read NExT-QA."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, TypedDict

from lvqa.datasets.annotations import AnyText, Entry, Text, csv_rows, letter_at, make_entry, video_key
from lvqa.datasets.headline import AnswerRow, Figure, by_tag, overall, tag

GROUPS = {"C": "Acc@C", "T": "Acc@T", "D": "Acc@D"}
"""Causal, temporal and descriptive questions: the first letter of a type -> the figure's name in the paper."""
TYPES = {"CW": "Why", "CH": "How", "TN": "Bef&Aft", "TC": "When", "DC": "Cnt", "DL": "Loc", "DO": "Other"}
"""A type -> its name in the authors' eval_mc.py, which counts TP as TN."""


class Row(TypedDict):
    """A question of NExT-QA."""

    video: Text
    question: AnyText
    answer: Literal["0", "1", "2", "3", "4"]
    qid: Text
    type: Literal["CW", "CH", "TN", "TP", "TC", "DC", "DL", "DO"]
    a0: AnyText
    a1: AnyText
    a2: AnyText
    a3: AnyText
    a4: AnyText


class NExTQA:
    """NExT-QA (arXiv 2105.08276), multiple choice, its test set: `test.csv`, 8,564 questions about 1,000 videos.

    The file is that of github.com/doc-doc/NExT-QA, `dataset/nextqa`. `answer` counts from 0. Videos lie in `videos/`
    by their number alone, without the folder of VidOR.
    """

    title = "NExT-QA"
    counting = (
        "Accuracy over all questions, over causal (C), temporal (T) and descriptive (D) ones, and by type, as in the "
        "authors' eval_mc.py. A question without an answer is wrong."
    )
    file = "test.csv"

    def __init__(self, folder: Path) -> None:
        self.path = folder / self.file

    def entries(self) -> Iterator[Entry]:
        """Yield the questions."""
        for origin, row in csv_rows(self.path, Row):
            kind = "TN" if row["type"] == "TP" else row["type"]
            yield make_entry(
                row["question"],
                (row["a0"], row["a1"], row["a2"], row["a3"], row["a4"]),
                letter_at(int(row["answer"])),
                origin,
                id=f"{row['video']}_{row['qid']}",
                video_id=video_key(row["video"], "video", origin),
                tags=(tag("group", kind[0]), tag("type", kind)),
            )

    @staticmethod
    def headline(rows: Sequence[AnswerRow]) -> dict[str, Figure]:
        """Return the accuracy by group, overall and by type."""
        return {**by_tag(rows, "group", GROUPS), "Acc@All": overall(rows), **by_tag(rows, "type", TYPES)}


class NExTQAVal(NExTQA):
    """NExT-QA's validation set: `val.csv`, 4,996 questions about 570 videos."""

    title = "NExT-QA, validation set"
    file = "val.csv"

"""Read LSDBench."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypedDict

from lvqa.datasets.annotations import AnyText, Entry, Text, json_list, make_entry, video_key
from lvqa.datasets.headline import AnswerRow, Figure, overall
from lvqa.records import shorten


class Options(TypedDict):
    """The options of a question."""

    A: AnyText
    B: AnyText
    C: AnyText
    D: AnyText


class TimeRange(TypedDict):
    """Where the evidence lies, as HH:MM:SS."""

    start: AnyText
    end: AnyText


class Row(TypedDict):
    """A question of LSDBench."""

    question: AnyText
    options: Options
    correct_answer: AnyText
    time_range: TimeRange
    video_id: Text


class LSDBench:
    """LSDBench (arXiv 2503.12496): `mc_qa_annotations_1300.json`, 1,304 questions about 400 videos of Ego4D.

    The file is that of github.com/dvlab-research/LSDBench, a list with a row a question. Questions have no id; theirs
    is their number, counted from 0 as in the authors' dataset.py.
    """

    title = "LSDBench"
    counting = "Accuracy over all questions. A question without an answer is wrong."

    def __init__(self, folder: Path) -> None:
        self.path = folder / "mc_qa_annotations_1300.json"

    def entries(self) -> Iterator[Entry]:
        """Yield the questions."""
        for i, (origin, row) in enumerate(json_list(self.path, Row)):
            options, reference = row["options"], row["time_range"]
            span = _span(row["time_range"])
            yield make_entry(
                row["question"],
                (options["A"], options["B"], options["C"], options["D"]),
                row["correct_answer"],
                origin,
                id=str(i),
                video_id=video_key(row["video_id"], "video_id", origin),
                evidence_seconds=span,
                skipped="" if span else f"question {i}: time range {shorten(reference)} is not two times HH:MM:SS",
            )

    @staticmethod
    def headline(rows: Sequence[AnswerRow]) -> dict[str, Figure]:
        """Return the accuracy."""
        return {"accuracy": overall(rows)}


def _span(reference: TimeRange) -> tuple[float, float] | None:
    """Return a time range in seconds, None if it can't be used. Minutes run on past 59: "00:71:00"."""
    start, end = (re.fullmatch(r"(\d+):(\d+):(\d+)", text) for text in (reference["start"], reference["end"]))
    if start is None or end is None:
        return None
    first, last = (3600.0 * int(clock[1]) + 60 * int(clock[2]) + int(clock[3]) for clock in (start, end))
    return (first, last) if first <= last else None

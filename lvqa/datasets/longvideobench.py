"""LongVideoBench."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from lvqa.datasets.annotations import Entry, json_list
from lvqa.records import LETTERS


class LongVideoBench:
    """LongVideoBench (arXiv 2407.15754), its validation set: `lvb_val.json`, a list with a row a question.

    Three to five options; `correct_choice` counts from 0, and the test set has none. The field `position` looks like
    evidence, but nowhere is it said what it counts, so it is not used; nor are the subtitles.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "lvb_val.json"

    def entries(self) -> Iterator[Entry]:
        for row in json_list(self.path):
            options, choice = row.texts("candidates"), row.number("correct_choice")
            if not 0 <= choice < min(len(options), len(LETTERS)):
                raise row.fault(f"correct_choice must be 0 to {len(options) - 1}, got {choice}")
            question = row.question(
                row.text("question"),
                options,
                LETTERS[choice],
                id=row.text("id"),
                video_id=row.key("video_path"),
                tags=(row.text("question_category"),),
            )
            yield Entry(question, row.place)

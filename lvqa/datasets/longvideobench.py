"""Read LongVideoBench."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TypedDict

from lvqa.datasets.annotations import Entry, Text, TextOrNumber, json_list, make_question, texts, video_key
from lvqa.records import LETTERS
from lvqa.validation import require


class Row(TypedDict):
    """A question of LongVideoBench."""

    id: Text
    video_path: Text
    question: Text
    candidates: list[TextOrNumber]
    correct_choice: int
    question_category: Text


class LongVideoBench:
    """LongVideoBench (arXiv 2407.15754), its validation set: `lvb_val.json`, a list with a row a question.

    Three to five options; `correct_choice` counts from 0, and the test set has none. The field `position` looks like
    evidence, but nowhere is it documented what it counts, so it is not used; nor are the subtitles.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "lvb_val.json"

    def entries(self) -> Iterator[Entry]:
        """Yield the questions."""
        for origin, row in json_list(self.path, Row):
            options, choice = texts(row["candidates"]), row["correct_choice"]
            is_option = 0 <= choice < min(len(options), len(LETTERS))
            require(is_option, "correct_choice", choice, f"0 to {len(options) - 1}", origin=origin)
            question = make_question(
                row["question"],
                options,
                LETTERS[choice],
                origin,
                id=row["id"],
                video_id=video_key(row["video_path"], "video_path", origin),
                tags=(row["question_category"],),
            )
            yield Entry(question, origin)

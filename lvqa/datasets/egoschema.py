"""Read EgoSchema."""

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
    json_value,
    letter_at,
    make_entry,
    texts,
    video_key,
)
from lvqa.datasets.headline import AnswerRow, Figure, overall

Row = TypedDict(
    "Row",
    {
        "q_uid": Text,
        "question": AnyText,
        "option 0": AnyTextOrNumber,
        "option 1": AnyTextOrNumber,
        "option 2": AnyTextOrNumber,
        "option 3": AnyTextOrNumber,
        "option 4": AnyTextOrNumber,
    },
)
"""A question of EgoSchema."""


class EgoSchema:
    """EgoSchema (arXiv 2308.09126), the 500 questions with public answers: `questions.json`, `subset_answers.json`.

    Both lie in github.com/egoschema/EgoSchema: a list with a row a question, and question -> choice, counted from 0.
    Each question has a video of its own, `videos/Q_UID.mp4`. The other 4,531 questions of `questions.json` have no
    public answer, and are passed over.
    """

    title = "EgoSchema"
    counting = "Accuracy over the questions whose answers are public. A question without an answer is wrong."

    def __init__(self, folder: Path) -> None:
        self.questions, self.answers = folder / "questions.json", folder / "subset_answers.json"

    def entries(self) -> Iterator[Entry]:
        """Yield the questions that have an answer."""
        answers = json_value(self.answers, dict[str, int])
        for origin, row in json_list(self.questions, Row):
            if (key := row["q_uid"]) in answers:
                options = texts([row["option 0"], row["option 1"], row["option 2"], row["option 3"], row["option 4"]])
                letter, video_id = letter_at(answers[key]), video_key(key, "q_uid", origin)
                yield make_entry(row["question"], options, letter, origin, id=key, video_id=video_id)

    @staticmethod
    def headline(rows: Sequence[AnswerRow]) -> dict[str, Figure]:
        """Return the accuracy on the subset."""
        return {"subset": overall(rows)}

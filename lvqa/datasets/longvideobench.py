"""Read LongVideoBench."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, NotRequired, TypedDict

from lvqa.datasets.annotations import (
    AnyText,
    AnyTextOrNumber,
    Entry,
    Text,
    json_list,
    letter_at,
    make_entry,
    texts,
    video_key,
)
from lvqa.datasets.headline import AnswerRow, Figure, by_tag, overall, tag
from lvqa.datasets.subtitles import SubtitleFile
from lvqa.validation import FiniteFloat

DURATIONS = {15: "8-15 s", 60: "15-60 s", 600: "180-600 s", 3600: "900-3600 s"}
"""The groups of videos by their length; a group's number in the file -> its name in the paper."""


class Row(TypedDict):
    """A question of LongVideoBench."""

    id: Text
    video_path: Text
    question: AnyText
    candidates: list[AnyTextOrNumber]
    correct_choice: int
    question_category: Text
    duration_group: Literal[15, 60, 600, 3600]
    subtitle_path: NotRequired[Text | None]
    starting_timestamp_for_subtitles: NotRequired[FiniteFloat]


class LongVideoBench:
    """LongVideoBench (arXiv 2407.15754), its validation set: `lvb_val.json`, a list with a row a question.

    Two to five options; `correct_choice` counts from 0, and the test set has none. The field `position` looks like
    evidence, but nowhere is it documented what it counts, so it is not used. Subtitles lie in `subtitles/`.
    """

    title = "LongVideoBench"
    counting = (
        "Accuracy over all questions, and over those on videos of a length. A question without an answer is wrong."
    )

    def __init__(self, folder: Path) -> None:
        self.path = folder / "lvb_val.json"

    def entries(self) -> Iterator[Entry]:
        """Yield the questions."""
        for origin, row in json_list(self.path, Row):
            yield make_entry(
                row["question"],
                texts(row["candidates"]),
                letter_at(row["correct_choice"]),
                origin,
                id=row["id"],
                video_id=video_key(row["video_path"], "video_path", origin),
                subtitles=self._subtitles(row, origin),
                tags=(tag("category", row["question_category"]), tag("duration", DURATIONS[row["duration_group"]])),
            )

    def _subtitles(self, row: Row, origin: str) -> SubtitleFile | None:
        if not (name := row.get("subtitle_path")):
            return None
        file = self.path.parent / "subtitles" / f"{video_key(name, 'subtitle_path', origin)}"
        return SubtitleFile(file, "longvideobench", row.get("starting_timestamp_for_subtitles", 0.0))

    @staticmethod
    def headline(rows: Sequence[AnswerRow]) -> dict[str, Figure]:
        """Return the accuracy overall and by the length of the video."""
        return {"overall": overall(rows), **by_tag(rows, "duration", {name: name for name in DURATIONS.values()})}

"""Read Video-MME."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, TypedDict

from lvqa.datasets.annotations import (
    Entry,
    Text,
    TextOrNumber,
    json_list,
    make_question,
    parquet_rows,
    texts,
    video_key,
)
from lvqa.records import LETTERS, Question


class Row(TypedDict):
    """A question of Video-MME."""

    videoID: Text
    duration: Literal["short", "medium", "long"]
    question_id: Text
    task_type: Text
    question: Text
    options: list[TextOrNumber]
    answer: Text


class VideoMME:
    """Video-MME (arXiv 2405.21075), its long videos: `videomme/test-00000-of-00001.parquet`, a row a question.

    `videomme.json`, a list of the same rows, is read where it lies. Videos go by `videoID`, the YouTube id, and not
    by the running number `video_id`. The letter before each option ("A. ") is taken off. Subtitles are not used.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "videomme" / "test-00000-of-00001.parquet"
        self.as_json = folder / "videomme.json"

    def entries(self) -> Iterator[Entry]:
        """Yield the questions about long videos."""
        for origin, row in json_list(self.as_json, Row) if self.as_json.exists() else parquet_rows(self.path, Row):
            if row["duration"] == "long":
                yield Entry(_question(row, origin), origin)


def _question(row: Row, origin: str) -> Question:
    options = texts(row["options"])
    bare = tuple(re.sub(rf"^{a}[.)]\s*", "", option) for a, option in zip(LETTERS, options, strict=False))
    has_letters = len(bare) == len(options) and all(len(a) < len(b) for a, b in zip(bare, options, strict=True))
    return make_question(
        row["question"],
        bare if has_letters else options,
        row["answer"],
        origin,
        id=row["question_id"],
        video_id=video_key(row["videoID"], "videoID", origin),
        tags=(row["task_type"],),
    )

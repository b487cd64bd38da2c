"""Video-MME."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from lvqa.datasets.annotations import Entry, Row, json_list, parquet_rows
from lvqa.records import LETTERS, Question, shorten


class VideoMME:
    """Video-MME (arXiv 2405.21075), its long videos: `videomme/test-00000-of-00001.parquet`, a row a question.

    `videomme.json`, a list of the same rows, is read where it lies. Videos go by `videoID`, the YouTube id, and not
    by the running number `video_id`. The letter before each option ("A. ") is taken off. Subtitles are not used.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "videomme" / "test-00000-of-00001.parquet"
        self.as_json = folder / "videomme.json"

    def entries(self) -> Iterator[Entry]:
        for row in json_list(self.as_json) if self.as_json.exists() else parquet_rows(self.path):
            length = row.text("duration")
            if length not in ("short", "medium", "long"):
                raise row.fault(f"duration must be short, medium or long, got {shorten(length)}")
            if length == "long":
                yield Entry(_question(row), row.place)


def _question(row: Row) -> Question:
    options = row.texts("options")
    bare = tuple(re.sub(rf"^{a}[.)]\s*", "", option) for a, option in zip(LETTERS, options, strict=False))
    lettered = len(bare) == len(options) and all(len(a) < len(b) for a, b in zip(bare, options, strict=True))
    return row.question(
        row.text("question"),
        bare if lettered else options,
        row.text("answer"),
        id=row.text("question_id"),
        video_id=row.key("videoID"),
        tags=(row.text("task_type"),),
    )

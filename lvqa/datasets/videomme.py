"""Read Video-MME."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, TypedDict

from lvqa.datasets.annotations import (
    AnyText,
    AnyTextOrNumber,
    Entry,
    Text,
    json_list_or_parquet,
    make_entry,
    texts,
    video_key,
    without_letters,
)
from lvqa.datasets.headline import AnswerRow, Figure, answered, by_tag, tag
from lvqa.datasets.subtitles import SubtitleFile

DURATIONS = ("short", "medium", "long")


class Row(TypedDict):
    """A question of Video-MME."""

    videoID: Text
    duration: Literal["short", "medium", "long"]
    domain: Text
    sub_category: Text
    question_id: Text
    task_type: Text
    question: AnyText
    options: list[AnyTextOrNumber]
    answer: Text


class VideoMME:
    """Video-MME (arXiv 2405.21075): `videomme/test-00000-of-00001.parquet`, a row a question.

    `videomme.json`, a list of the same rows, is read where it lies. Videos go by `videoID`, the YouTube id, and not
    by the running number `video_id`. The letter before each option ("A. ") is taken off. 744 of the videos have
    subtitles, `subtitle/VIDEOID.srt`.
    """

    title = "Video-MME"
    counting = (
        "Accuracy overall, by the length of the video, and by its domain, as the authors' "
        "eval_your_results.py counts: questions without an answer are left out, so an arm that fails often looks "
        "better than it is."
    )
    durations: Sequence[str] = DURATIONS
    """Only videos of these lengths are read."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "videomme" / "test-00000-of-00001.parquet"
        self.as_json = folder / "videomme.json"
        self.subtitles = folder / "subtitle"

    def entries(self) -> Iterator[Entry]:
        """Yield the questions."""
        for origin, row in json_list_or_parquet(self.as_json, self.path, Row):
            if row["duration"] in self.durations:
                yield _entry(row, origin, self.subtitles)

    @staticmethod
    def headline(rows: Sequence[AnswerRow]) -> dict[str, Figure]:
        """Return the accuracy overall, by the length of the video, and by its domain."""
        by_duration = by_tag(rows, "duration", {name: name for name in DURATIONS}, answered)
        return {"overall": answered(rows), **by_duration, **by_tag(rows, "domain", measure=answered)}


class VideoMMELong(VideoMME):
    """The long videos of Video-MME alone: 300 videos of half an hour to an hour, 900 questions."""

    title = "Video-MME, long videos"
    durations = ("long",)


def _entry(row: Row, origin: str, subtitles: Path) -> Entry:
    key = video_key(row["videoID"], "videoID", origin)
    return make_entry(
        row["question"],
        without_letters(texts(row["options"])),
        row["answer"],
        origin,
        id=row["question_id"],
        video_id=key,
        subtitles=SubtitleFile(subtitles / f"{key}.srt", "srt"),
        tags=(
            *(tag("task", row["task_type"]), tag("duration", row["duration"]), tag("domain", row["domain"])),
            tag("sub_category", row["sub_category"]),
        ),
    )

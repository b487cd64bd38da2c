"""Read CG-Bench."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, TypedDict

from msgspec import Meta

from lvqa.datasets.annotations import AnyText, AnyTextOrNumber, Entry, Text, json_list, make_entry, texts, video_key
from lvqa.datasets.headline import AnswerRow, Figure, by_tag, overall, tag
from lvqa.datasets.subtitles import SubtitleFile
from lvqa.validation import NonNegativeFloat

Interval = tuple[NonNegativeFloat, NonNegativeFloat]


class Row(TypedDict):
    """A question of CG-Bench."""

    qid: int
    video_uid: Text
    question: AnyText
    choices: list[AnyTextOrNumber]
    right_answer: AnyText
    clue_intervals: Annotated[list[Interval], Meta(description="a list of intervals [start, end] in seconds")]
    domain: Text
    sub_category: Text


class CGBench:
    """CG-Bench (arXiv 2412.12075): `cgbench.json`, 12,129 questions about 1,219 videos, a list with a row a question.

    The file is that of github.com/CG-Bench/CG-Bench. The evidence is `clue_intervals`. A question with several has none
    here, since a question has one span; of the mini set that is 421 of 3,000. Videos with subtitles have them in
    `cg_subtitles/VIDEO_UID.srt`.
    """

    title = "CG-Bench"
    counting = "Accuracy on the whole video, over all questions and by category. A question without an answer is wrong."
    file = "cgbench.json"

    def __init__(self, folder: Path) -> None:
        self.path = folder / self.file

    def entries(self) -> Iterator[Entry]:
        """Yield the questions."""
        for origin, row in json_list(self.path, Row):
            intervals, key = row["clue_intervals"], video_key(row["video_uid"], "video_uid", origin)
            yield make_entry(
                row["question"],
                texts(row["choices"]),
                row["right_answer"],
                origin,
                id=str(row["qid"]),
                video_id=key,
                subtitles=SubtitleFile(self.path.parent / "cg_subtitles" / f"{key}.srt", "srt"),
                tags=(tag("category", row["sub_category"]), tag("domain", row["domain"])),
                evidence_seconds=intervals[0] if len(intervals) == 1 and intervals[0][0] <= intervals[0][1] else None,
            )

    @staticmethod
    def headline(rows: Sequence[AnswerRow]) -> dict[str, Figure]:
        """Return the accuracy on the whole video, and by category."""
        return {"long-acc.": overall(rows), **by_tag(rows, "category")}


class CGBenchMini(CGBench):
    """The mini set of CG-Bench, which most papers use: `cgbench_mini.json`, 3,000 questions about 1,118 videos."""

    title = "CG-Bench, mini set"
    file = "cgbench_mini.json"

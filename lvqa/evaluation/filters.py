"""Which rows of a run a reader wants to see."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from lvqa.datasets import padded
from lvqa.evaluation.rows import Row, is_correct
from lvqa.evaluation.statistics import any_clip_overlaps, any_frame_inside

Evidence = Literal["shown", "found", "missed"]
"""A frame of the annotated time was shown; a clip of it is in the pool and no frame of it was shown; neither."""
Order = Literal["asked", "confidence", "-confidence"]


def evidence_of(row: Row) -> Evidence | None:
    """Return what became of the annotated evidence; None where no time is annotated or there is no answer."""
    if row["evidence_seconds"] is None or row["error"] is not None:
        return None
    span = padded(row["evidence_seconds"])
    if any_frame_inside(row["times_seconds"], span):
        return "shown"
    return "found" if any_clip_overlaps(row["embedded"], span) else "missed"


def confidence_of(row: Row) -> float | None:
    """Return the score of the likeliest option; None where options have none."""
    scores = [score for score in row["option_scores"] if score is not None]
    return max(scores, default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class RowFilter:
    """What a row must have to be listed; None: it does not matter."""

    arm: str | None = None
    budget: int | None = None
    video: str | None = None
    tag: str | None = None
    text: str | None = None
    """What question, options or answer contain, in whatever case."""
    correct: bool | None = None
    evidence: Evidence | None = None
    warnings: bool | None = None
    sort: Order = "asked"

    def matches(self, row: Row) -> bool:
        """Return whether a row is listed."""
        wanted = (
            (self.arm, lambda: row["arm"]),
            (self.budget, lambda: row["budget"]),
            (self.video, lambda: row["video_id"]),
            (self.correct, lambda: is_correct(row)),
            (self.evidence, lambda: evidence_of(row)),
            (self.warnings, lambda: bool(row["warnings"])),
        )
        is_same = all(value is None or value == value_of() for value, value_of in wanted)
        is_tagged = self.tag is None or self.tag in row["tags"]
        return is_same and is_tagged and (self.text is None or self._has_text(row, self.text))

    def _has_text(self, row: Row, text: str) -> bool:
        texts = (row["question"], row["text"], *row["options"])
        return any(text.casefold() in known.casefold() for known in texts)

    def apply(self, rows: Iterable[Row]) -> list[Row]:
        """Return the rows that are listed, in their order; rows without a confidence come last."""
        listed = [row for row in rows if self.matches(row)]
        if self.sort == "asked":
            return listed
        sign = -1 if self.sort == "-confidence" else 1
        scores = [confidence_of(row) for row in listed]
        order = sorted(range(len(listed)), key=lambda i: (scores[i] is None, sign * (scores[i] or 0)))
        return [listed[i] for i in order]

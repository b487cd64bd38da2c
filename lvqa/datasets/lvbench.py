"""Read LVBench."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, NotRequired, TypedDict

from msgspec import Meta

from lvqa.datasets.annotations import Entry, Text, TextOrNumber, json_lines, make_entry, texts, video_key
from lvqa.datasets.headline import AnswerRow, Figure, grouped
from lvqa.records import LETTERS, LvqaError, shorten

ABILITIES = {
    "key information retrieval": "KIR",
    "event understanding": "EU",
    "summarization": "Sum",
    "entity recognition": "ER",
    "reasoning": "Rea",
    "temporal grounding": "TG",
}
"""An ability -> its name in tables, in the order in which LVBench's script prints them."""


class Row(TypedDict):
    """A question of LVBench."""

    uid: Text
    question: Text
    answer: Text
    question_type: list[TextOrNumber]
    time_reference: NotRequired[Any]


class Video(TypedDict):
    """A video of LVBench with its questions."""

    key: Text
    qa: Annotated[list[Row], Meta(min_length=1)]


class LVBench:
    """LVBench (arXiv 2406.08035): `video_info.meta.jsonl`, a line a video, keys are YouTube ids.

    The options stand in the question's text, a line each; some questions offer the same option twice. A question has
    one ability or more, and mostly the time of its evidence: see `parse_span`.
    """

    title = "LVBench"
    counting = (
        "As LVBench's own scripts count: questions that failed are left out, so an arm that fails often looks better "
        "than it is; an empty reply is wrong. A question with several abilities counts once in each."
    )

    def __init__(self, folder: Path) -> None:
        self.path = folder / "video_info.meta.jsonl"

    def entries(self) -> Iterator[Entry]:
        """Yield the questions, video by video."""
        origins: dict[str, str] = {}
        for origin, video in json_lines(self.path, Video):
            key = video_key(video["key"], "key", origin)
            if key in origins:
                raise LvqaError(f"video key {shorten(key)} stands at {origins[key]} already ({origin})")
            origins[key] = origin
            yield from (_entry(row, key, f"{origin}, qa[{i}]") for i, row in enumerate(video["qa"]))

    @staticmethod
    def headline(rows: Sequence[AnswerRow]) -> dict[str, Figure]:
        """Return the accuracy by ability and overall, as LVBench's scripts compute and print it."""
        abilities = grouped(rows)
        by_ability = {
            name: _answered(abilities[ability]) for ability, name in ABILITIES.items() if ability in abilities
        }
        return {**by_ability, "overall": _answered(rows)}


def _entry(row: Row, key: str, origin: str) -> Entry:
    text = row["question"]
    if (parts := split_options(text)) is None:
        reason = f"options must stand on lines of their own that begin (A), (B), ...; got {shorten(text)}"
        raise LvqaError(f"{reason} ({origin})")
    stem, options = parts
    reference = row.get("time_reference")
    span = parse_span(reference)
    skipped = f"question {shorten(row['uid'])}: time reference {shorten(reference)} is not of the form MM:SS-MM:SS"
    return make_entry(
        stem,
        options,
        row["answer"],
        origin,
        id=row["uid"],
        video_id=key,
        tags=texts(row["question_type"]),
        evidence_seconds=span,
        skipped="" if span else skipped,
    )


def _answered(rows: Sequence[AnswerRow]) -> Figure:
    letters = [(letter, row["target"]) for row in rows if (letter := official_letter(row)) is not None]
    num_correct = sum(letter == target for letter, target in letters)
    return Figure(num_correct / len(letters) if letters else math.nan, len(letters))


def official_letter(row: AnswerRow) -> str | None:
    """Return what LVBench's scripts compare with the target; None for a question that failed, which they leave out.

    A prediction by logits is returned as it is.
    """
    if row["error"] is not None:
        return None
    return row["prediction"] or "" if row["option_scores"] else first_character(row["text"])


def first_character(reply: str) -> str:
    """Return the first character of a reply, without brackets, as LVBench's scripts do.

    "(B) red" and "B. red" give B; "The answer is B" gives T, and an empty reply "", which are wrong.
    """
    before = reply.strip().split(")")[0].strip()
    inside = before.split("(")[1].strip() if "(" in before else before
    return inside.split(" ")[0][:1]


def parse_span(reference: object) -> tuple[float, float] | None:
    """Return a time reference in seconds, (497.0, 725.0) for "08:17-12:05", or None if it can't be used.

    Minutes run on past 59 ("114:16"); hours ("1:54:16") are read too. Of 1,519 published references 13 run
    backwards: they are swapped. 241 have length zero: they are kept, and `padded` where recall is computed. Unusable
    are "08:17-None" and "None-None", as is whatever is empty or not of this form.
    """
    match = _SPAN.fullmatch(reference.strip()) if isinstance(reference, str) else None
    if match is None:
        return None
    numbers = [float(group or 0) for group in match.groups()]
    start, end = sorted(3600 * hours + 60 * minutes + rest for hours, minutes, rest in (numbers[:3], numbers[3:]))
    return start, end


# Hours only before two digits of minutes.
_CLOCK = r"(?:([0-9]{1,2}):(?=[0-5][0-9]:))?([0-9]{1,3}):([0-5][0-9])"
_SPAN = re.compile(rf"{_CLOCK}\s*-\s*{_CLOCK}")


def split_options(text: str) -> tuple[str, tuple[str, ...]] | None:
    """Split a question whose options stand below it, "Who?\\n(A) he\\n(B) she", into its stem and options.

    Return None unless the lines that begin with a letter in brackets are (A), (B), ... in this order.
    """
    stem, *rest = _OPTION.split(text)
    letters, options = "".join(rest[::2]), tuple(option.strip() for option in rest[1::2])
    return (stem.strip(), options) if letters and LETTERS.startswith(letters) else None


_OPTION = re.compile(r"^[ \t]*\(([A-Z])\)", re.MULTILINE)

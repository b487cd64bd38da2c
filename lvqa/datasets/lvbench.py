"""LVBench."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from lvqa.datasets.annotations import Entry, Row, json_lines
from lvqa.records import LETTERS, shorten


class LVBench:
    """LVBench (arXiv 2406.08035): `video_info.meta.jsonl`, a line a video, keys are YouTube ids.

    The options stand in the question's text, a line each; some questions offer the same option twice. A question has
    one ability or more. Of all benchmarks here it alone says where the evidence lies: see `parse_span`.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "video_info.meta.jsonl"

    def entries(self) -> Iterator[Entry]:
        places: dict[str, str] = {}
        for line in json_lines(self.path):
            key = line.key("key")
            if key in places:
                raise line.fault(f"video key {shorten(key)} stands at {places[key]} already")
            places[key] = line.place
            yield from (self._entry(row, key) for row in line.rows("qa"))

    def _entry(self, row: Row, key: str) -> Entry:
        asked = row.text("question")
        if (parts := split_options(asked)) is None:
            raise row.fault(f"options must stand on lines of their own that begin (A), (B), ...; got {shorten(asked)}")
        stem, options = parts
        reference = row.fields.get("time_reference")
        question = row.question(
            stem,
            options,
            row.text("answer"),
            id=row.text("uid"),
            video_id=key,
            tags=row.texts("question_type"),
            evidence_seconds=parse_span(reference),
        )
        unusable = (
            f"question {shorten(question.id)}: time reference {shorten(reference)} is not of the form MM:SS-MM:SS"
        )
        return Entry(question, row.place, "" if question.evidence_seconds else unusable)


def parse_span(reference: object) -> tuple[float, float] | None:
    """A time reference in seconds: "08:17-12:05" is (497.0, 725.0). None if it can't be used.

    Minutes run on past 59 ("114:16"); hours ("1:54:16") are read too. Of 1,519 published references 13 run
    backwards: they are swapped. 241 have length zero: they are kept, and `padded` where recall is computed. Unusable
    are "08:17-None" and "None-None", as is whatever is empty or not of this form.
    """
    found = _SPAN.fullmatch(reference.strip()) if isinstance(reference, str) else None
    if found is None:
        return None
    numbers = [float(part or 0) for part in found.groups()]
    first, last = sorted(3600 * hours + 60 * minutes + rest for hours, minutes, rest in (numbers[:3], numbers[3:]))
    return first, last


# Hours only before two digits of minutes.
_CLOCK = r"(?:([0-9]{1,2}):(?=[0-5][0-9]:))?([0-9]{1,3}):([0-5][0-9])"
_SPAN = re.compile(rf"{_CLOCK}\s*-\s*{_CLOCK}")


def split_options(text: str) -> tuple[str, tuple[str, ...]] | None:
    """Stem and options of a question whose options stand below it: "Who?\\n(A) he\\n(B) she".

    None unless the lines that begin with a letter in brackets are (A), (B), ... in this order.
    """
    stem, *rest = _OPTION.split(text)
    letters, options = "".join(rest[::2]), tuple(option.strip() for option in rest[1::2])
    return (stem.strip(), options) if letters and LETTERS.startswith(letters) else None


_OPTION = re.compile(r"^[ \t]*\(([A-Z])\)", re.MULTILINE)

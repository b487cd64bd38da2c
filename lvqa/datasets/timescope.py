"""Read TimeScope and LongTimeScope."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypedDict

from lvqa.datasets.annotations import AnyText, Entry, Text, TextOrNumber, json_list_or_parquet, make_entry, video_key
from lvqa.datasets.headline import AnswerRow, Figure, by_tag, overall, tag
from lvqa.records import LETTERS, Question

_OPTION = re.compile(r"^[ \t]*\(?([A-Z])[:.)][ \t]*", re.MULTILINE)
_BEFORE_QUESTION = re.compile(r"\A.*?^[ \t]*Question:\s*", re.DOTALL | re.MULTILINE)


class Row(TypedDict):
    """A question of TimeScope."""

    id: TextOrNumber
    video: Text
    length: TextOrNumber
    type: Text
    input: AnyText
    answer: AnyText


class TimeScope:
    """TimeScope (Apollo-LMMs/TimeScope): `data/test-00000-of-00001.parquet`, a row a question.

    `timescope.json`, a list of the same rows, is read where it lies. A row has its prompt as one text: an instruction,
    which is left out, "Question: ", and options on lines that begin with "A: ". A video that the row names with a
    folder, as `long/12.mp4`, lies in `videos/long`.
    """

    title = "TimeScope"
    counting = (
        "Accuracy over all questions, by the length of the video in seconds, and by the kind of task, as lmms-eval "
        "counts. A question without an answer is wrong."
    )
    json_name = "timescope.json"

    def __init__(self, folder: Path) -> None:
        self.path = folder / "data" / "test-00000-of-00001.parquet"
        self.as_json = folder / self.json_name

    def entries(self) -> Iterator[Entry]:
        """Yield the questions."""
        for origin, row in json_list_or_parquet(self.as_json, self.path, Row):
            yield _entry(row, origin)

    @staticmethod
    def headline(rows: Sequence[AnswerRow]) -> dict[str, Figure]:
        """Return the accuracy overall, by the length of the video, and by the kind of task."""
        return {"overall": overall(rows), **by_tag(rows, "length"), **by_tag(rows, "task")}


class LongTimeScope(TimeScope):
    """LongTimeScope (Apollo-LMMs/LongTimeScope2): the same form, videos of up to ten hours."""

    title = "LongTimeScope"
    json_name = "longtimescope.json"


def _entry(row: Row, origin: str) -> Entry:
    key = "/".join(video_key(part, "video", origin) for part in row["video"].split("/"))
    tags = (tag("length", row["length"]), tag("task", row["type"]))
    stem, options = parse_prompt(row["input"])
    if len(options) < 2:
        reason = f"it has {len(options)} options where 2 or more are expected"
        question = Question(row["input"].strip(), id=str(row["id"]), video_id=key, tags=tags)
        return Entry(question, origin, left_out=reason)
    return make_entry(stem, options, row["answer"], origin, id=str(row["id"]), video_id=key, tags=tags)


def parse_prompt(prompt: str) -> tuple[str, tuple[str, ...]]:
    """Return the question and the options of a prompt: the last run of lines that begin with A, B, C and so on."""
    begins = list(_OPTION.finditer(prompt))
    firsts = [i for i, match in enumerate(begins) if match[1] == "A"]
    if not firsts:
        return _BEFORE_QUESTION.sub("", prompt).strip(), ()
    run = begins[firsts[-1] :]
    run = [match for match, letter in zip(run, LETTERS, strict=False) if match[1] == letter]
    ends = [match.start() for match in run[1:]] + [len(prompt)]
    options = [prompt[match.end() : end] for match, end in zip(run, ends, strict=True)]
    # What follows the last option on lines of its own is an instruction how to answer.
    options[-1] = options[-1].strip().partition("\n")[0]
    return _BEFORE_QUESTION.sub("", prompt[: run[0].start()]).strip(), tuple(option.strip() for option in options)

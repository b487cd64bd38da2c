"""The rows of `answers.jsonl`: what stands in one, and how they are read back.

A row is one answer, or why there is none; statistics need nothing else. `counts` and `seconds` are what the answer
would have cost alone on an indexed video: where arms or budgets share a ranking, or the reply to the same frames, each
row counts it. Frames and pairs that were in memory already cost nothing, so they depend on what was asked before.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from lvqa.records import LvqaError, shorten

Row = dict[str, Any]
Key = tuple[str, str, str, int]
"""Video, question, arm, budget: there is one row of each."""
Check = Callable[[Any], bool]


def is_text(value: object) -> bool:
    return isinstance(value, str)


def is_number(value: object) -> bool:
    """A finite one; JSON's true and false are none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def or_null(check: Check) -> Check:
    return lambda value: value is None or check(value)


def many(check: Check, length: int | None = None) -> Check:
    """A list of such values, of this length if there is one."""
    return lambda value: isinstance(value, list) and len(value) == (length or len(value)) and all(map(check, value))


def mapping(check: Check, *names: str) -> Check:
    """An object of such values that has these names, at least."""
    return lambda value: isinstance(value, dict) and value.keys() >= {*names} and all(map(check, value.values()))


COUNTED = ("frames_decoded", "pairs_encoded", "tokens_prefilled")
COUNTS = mapping(is_count, *COUNTED)
CLIPS = many(many(or_null(is_number), 3))


def is_index(value: object) -> bool:
    """What making the video's index cost, or that it was there: null in an arm that needs none.

    The indexes of all arms are made together, and each row tells what that cost in all.
    """
    return (
        isinstance(value, dict)
        and isinstance(value.get("reused"), bool)
        and COUNTS(value.get("counts"))
        and is_number(value.get("seconds"))
    )


FIELDS: dict[str, Check] = {
    "video_id": is_text,
    "question_id": is_text,
    "question": is_text,  # its text
    "options": many(is_text),
    "arm": is_text,
    "budget": is_count,  # frames; 0 in an arm without frames
    "tags": many(is_text),
    "target": or_null(is_text),
    "evidence_seconds": or_null(many(is_number, 2)),
    "prediction": or_null(is_text),  # read strictly, see answering.named_letter; null if there is none
    "text": is_text,  # the option's text, or what was generated
    "option_scores": many(or_null(is_number)),  # empty if text was generated
    "times_seconds": many(is_number),  # the frames shown
    "embedded": CLIPS,  # the pool, [start_seconds, end_seconds, embed_score], in the embedding's order
    "reranked": CLIPS,  # the same clips with rerank_score, in the reranker's order; empty without reranking
    "num_clips": is_count,  # of the whole video
    "counts": COUNTS,
    "index": or_null(is_index),  # {"reused", "counts", "seconds"}
    "seconds": mapping(is_number),  # by stage
    "error": or_null(is_text),
}
"""What stands in a row."""


def key_of(row: Mapping[str, Any]) -> Key:
    """What tells a row from all others."""
    return row["video_id"], row["question_id"], row["arm"], row["budget"]


def to_line(row: Row) -> str:
    """The row as a line of its file."""
    return json.dumps({name: row[name] for name in FIELDS}, allow_nan=False) + "\n"


def read_rows(path: Path) -> Iterator[Row]:
    """The rows of a file. Raises LvqaError at a line that is not a row, or that answers a question again.

    A last line without its end was being written when the process was killed, or still is: it is left out.
    """
    places: dict[Key, int] = {}
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if not line.endswith(b"\n"):
                    return
                row = _row(line, f"{path}, line {number}")
                first = places.setdefault(key_of(row), number)
                if first != number:
                    raise LvqaError(f"{path}, line {number}: the same question, arm and budget as in line {first}")
                yield row
    except OSError as error:
        raise LvqaError(f"cannot read {path}: {error.strerror or error}") from error


def whole_bytes(path: Path) -> int:
    """How many bytes of a file are whole lines."""
    whole = 0
    with path.open("rb") as file:
        for line in file:
            whole += len(line) if line.endswith(b"\n") else 0
    return whole


def _row(line: bytes, place: str) -> Row:
    try:
        row = json.loads(line.decode())
    except (ValueError, RecursionError):
        raise LvqaError(f"{place} is not JSON: {shorten(line)}; take the line out, and run again") from None
    if not isinstance(row, dict):
        raise LvqaError(f"{place} is not a row: {shorten(line)}; take the line out, and run again")
    for name, check in FIELDS.items():
        if name not in row or not check(row[name]):
            told = shorten(row[name]) if name in row else "nothing"
            raise LvqaError(f"{place} is not a row: {name} is {told}; take the line out, and run again")
    return row

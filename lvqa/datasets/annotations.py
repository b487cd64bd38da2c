"""Annotation files: rows of JSON or Parquet that are checked as they are read, and the questions in them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Protocol, TypeVar

from msgspec import Meta

from lvqa.records import LETTERS, VIDEO_SUFFIXES, LvqaError, Question, shorten
from lvqa.validation import FiniteFloat, convert, decode_json, parse_json, require

T = TypeVar("T")

MAX_LINE_BYTES = 4 << 20
MAX_FILE_BYTES = 64 << 20
"""Bounds on an annotation file; the published ones have a few MB at most."""
MAX_KEY_BYTES = 200

Text = Annotated[
    str,
    Meta(
        pattern="(?s)^\\s*[^\\s\ud800-\udfff][^\ud800-\udfff]*\\Z",
        description="Unicode text that is not empty, without lone surrogates",
    ),
]
TextOrNumber = Annotated[Text | int | FiniteFloat, Meta(description="text that is not empty, or a number")]


@dataclass(frozen=True, slots=True)
class Entry:
    """A question as a file gives it."""

    question: Question
    origin: str
    """Where the question stands, for messages."""
    skipped: str = ""
    """One line on its time reference, if there is one that can't be used."""


class DatasetReader(Protocol):
    """A dataset by its published files."""

    def __init__(self, folder: Path) -> None: ...

    def entries(self) -> Iterator[Entry]:
        """Yield the questions in the order of the files. A question's video_id is the name of a file in `videos/`."""


def json_lines(path: Path, kind: type[T]) -> Iterator[tuple[str, T]]:
    """Yield where it stands and the value of each line of a JSON Lines file; empty lines are passed over."""
    _check_size(path)
    line_number = 0
    with path.open("rb") as file:
        while line := file.readline(MAX_LINE_BYTES + 1):
            line_number += 1
            origin = f"{path}, line {line_number}"
            if len(line) > MAX_LINE_BYTES:
                raise LvqaError(f"the line is too long; allowed: {MAX_LINE_BYTES >> 20} MiB ({origin})")
            if line.strip():
                yield origin, decode_json(line.strip(), kind, origin=origin)


def json_list(path: Path, kind: type[T]) -> Iterator[tuple[str, T]]:
    """Yield where it stands and the value of each row of a file that is one JSON list."""
    _check_size(path)
    rows: list[Any] = convert(parse_json(path.read_bytes(), origin=str(path)), list[Any], origin=str(path))
    yield from _converted(rows, kind, path)


def parquet_rows(path: Path, kind: type[T]) -> Iterator[tuple[str, T]]:
    """Yield where it stands and the value of each row of a Parquet file."""
    import pyarrow as pa
    from pyarrow import parquet

    _check_size(path)
    try:
        rows = parquet.read_table(path).to_pylist()
    except pa.ArrowException as error:
        raise LvqaError(f"not a Parquet file: {shorten(str(error))} ({path})") from error
    yield from _converted(rows, kind, path)


def video_key(value: str, name: str, origin: str) -> str:
    """Return the key of a video: the name of its file in `videos/`, without the suffix of a video."""
    key = next((value.removesuffix(suffix) for suffix in VIDEO_SUFFIXES if value.endswith(suffix)), value)
    is_file_name = bool(key.strip(". ")) and not re.search(r"[/\\:]", key) and key.isprintable()
    require(is_file_name, name, value, "the name of a file, without a folder", origin=origin)
    require(len(key.encode()) <= MAX_KEY_BYTES, name, value, f"{MAX_KEY_BYTES} bytes or less", origin=origin)
    return key


def texts(items: list[str | int | float]) -> tuple[str, ...]:
    """Return items that are texts or numbers as texts."""
    return tuple(map(str, items))


def make_question(text: str, options: tuple[str, ...], answer: str, origin: str, **known: Any) -> Question:
    """Return the question, or raise LvqaError where its options and its answer, a letter, do not fit together."""
    if not text.strip():
        raise LvqaError(f"the question has no text before its options ({origin})")
    if not 2 <= len(options) <= len(LETTERS):
        raise LvqaError(f"a question has 2 to {len(LETTERS)} options, got {len(options)} ({origin})")
    if not all(option.strip() for option in options):
        raise LvqaError(f"an option is empty: {shorten(list(options))} ({origin})")
    question = Question(text=text.strip(), options=options, answer=answer, **known)
    is_letter = len(answer) == 1 and answer in question.letters
    require(is_letter, "answer", answer, f"one of {', '.join(question.letters)}", origin=origin)
    return question


def _check_size(path: Path) -> None:
    if not path.is_file():
        raise LvqaError(f"{path}: no such file; the benchmark's annotations are read from there")
    if (size := path.stat().st_size) > MAX_FILE_BYTES:
        raise LvqaError(f"{path}: the file has {size >> 20} MiB; allowed: {MAX_FILE_BYTES >> 20} MiB")


def _converted(rows: list[Any], kind: type[T], path: Path) -> Iterator[tuple[str, T]]:
    for row_number, row in enumerate(rows, start=1):
        origin = f"{path}, row {row_number}"
        yield origin, convert(row, kind, origin=origin)

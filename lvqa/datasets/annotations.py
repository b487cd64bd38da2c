"""Annotation files: rows of JSON whose fields are checked as they are read, and the questions they hold."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from lvqa.records import LETTERS, VIDEO_SUFFIXES, LvqaError, Question, shorten

MAX_LINE_BYTES = 4 << 20
MAX_FILE_BYTES = 64 << 20
"""Bounds on an annotation file; the published ones have a few MB at most."""
MAX_KEY_BYTES = 200


@dataclass(frozen=True, slots=True)
class Entry:
    """A question as a file gives it."""

    question: Question
    place: str
    """Where it stands, for messages."""
    unusable: str = ""
    """One line on its time reference, if there is one that can't be used."""


class Benchmark(Protocol):
    """A benchmark by its published files."""

    def __init__(self, folder: Path) -> None: ...

    def entries(self) -> Iterator[Entry]:
        """Its questions, in the order of its files. A question's video_id is the name of a file in `videos/`."""


@dataclass(frozen=True, slots=True)
class Row:
    """A JSON object of an annotation file. What it lacks or has wrong is an LvqaError that names the place."""

    place: str
    """The file, and the line, or the row in a file that is one JSON list."""
    fields: dict[str, Any]

    def fault(self, reason: str) -> LvqaError:
        """The error that says what is wrong here."""
        return LvqaError(f"{self.place}: {reason}")

    def text(self, name: str) -> str:
        """A field that must be text, and not empty."""
        return self._text(name, self._value(name))

    def texts(self, name: str) -> tuple[str, ...]:
        """A field that must be a list of texts; a number among them is taken as text."""
        value = self._value(name)
        if not isinstance(value, list):
            raise self.fault(f"{name} must be a list of texts, got {shorten(value)}")
        items = (str(item) if type(item) in (int, float) else item for item in value)
        return tuple(self._text(f"{name}[{number}]", item) for number, item in enumerate(items))

    def number(self, name: str) -> int:
        """A field that must be a whole number."""
        value = self._value(name)
        if type(value) is not int:
            raise self.fault(f"{name} must be a whole number, got {shorten(value)}")
        return value

    def rows(self, name: str) -> list[Row]:
        """A field that must be a list of objects, and not empty."""
        value = self._value(name)
        if not isinstance(value, list) or not value:
            raise self.fault(f"{name} must be a list of objects, got {shorten(value)}")
        return [_row(f"{self.place}, {name}[{number}]", item) for number, item in enumerate(value)]

    def key(self, name: str) -> str:
        """A field that names a video: a file in `videos/`, whose suffix is taken off if it is that of a video."""
        value = self.text(name)
        key = next((value.removesuffix(suffix) for suffix in VIDEO_SUFFIXES if value.endswith(suffix)), value)
        if not key.strip(". ") or re.search(r"[/\\:]", key) or not key.isprintable():
            raise self.fault(f"{name} must be the name of a file, without a folder; got {shorten(value)}")
        if len(key.encode()) > MAX_KEY_BYTES:
            raise self.fault(f"{name} has {len(key.encode())} bytes; allowed: {MAX_KEY_BYTES}")
        return key

    def question(self, text: str, options: tuple[str, ...], answer: str, **known: Any) -> Question:
        """The question, once it is found that its options and its answer (a letter) fit together."""
        if not text.strip():
            raise self.fault("the question has no text before its options")
        if not 2 <= len(options) <= len(LETTERS):
            raise self.fault(f"a question has 2 to {len(LETTERS)} options, got {len(options)}")
        if not all(option.strip() for option in options):
            raise self.fault(f"an option is empty: {shorten(list(options))}")
        question = Question(text=text.strip(), options=options, answer=answer, **known)
        if len(answer) != 1 or answer not in question.letters:
            raise self.fault(f"answer must be one of {', '.join(question.letters)}, got {shorten(answer)}")
        return question

    def _value(self, name: str) -> Any:
        if name not in self.fields:
            raise self.fault(f"there is no {name}; the keys are {shorten(list(self.fields))}")
        return self.fields[name]

    def _text(self, name: str, value: object) -> str:
        if not isinstance(value, str) or not value.strip():
            raise self.fault(f"{name} must be text, got {shorten(value)}")
        if re.search("[\ud800-\udfff]", value):
            raise self.fault(f"{name} must be Unicode text, without lone surrogates; got {shorten(value)}")
        return value


def json_lines(path: Path) -> Iterator[Row]:
    """The rows of a JSON Lines file; empty lines are passed over."""
    _check_size(path)
    number = 0
    with path.open("rb") as file:
        while line := file.readline(MAX_LINE_BYTES + 1):
            number += 1
            place = f"{path}, line {number}"
            if len(line) > MAX_LINE_BYTES:
                raise LvqaError(f"{place}: the line is too long; allowed: {MAX_LINE_BYTES >> 20} MiB")
            if line.strip():
                yield _row(place, _parse(line.strip(), place))


def json_list(path: Path) -> Iterator[Row]:
    """The rows of a file that is one JSON list of objects."""
    _check_size(path)
    value = _parse(path.read_bytes(), str(path))
    if not isinstance(value, list):
        raise LvqaError(f"{path}: must be a JSON list of objects, got {shorten(value)}")
    yield from (_row(f"{path}, row {number}", item) for number, item in enumerate(value, start=1))


def parquet_rows(path: Path) -> Iterator[Row]:
    """The rows of a Parquet file."""
    import pyarrow as pa
    from pyarrow import parquet

    _check_size(path)
    try:
        rows = parquet.read_table(path).to_pylist()
    except pa.ArrowException as error:
        raise LvqaError(f"{path}: must be a Parquet file: {shorten(str(error))}") from error
    yield from (Row(f"{path}, row {number}", item) for number, item in enumerate(rows, start=1))


def _check_size(path: Path) -> None:
    if not path.is_file():
        raise LvqaError(f"{path}: no such file; the benchmark's annotations are read from there")
    if (size := path.stat().st_size) > MAX_FILE_BYTES:
        raise LvqaError(f"{path}: the file has {size >> 20} MiB; allowed: {MAX_FILE_BYTES >> 20} MiB")


def _parse(content: bytes, place: str) -> Any:
    try:
        return json.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise LvqaError(f"{place}: must be UTF-8 text; byte {error.start} is not") from None
    except json.JSONDecodeError as error:
        line = f", line {error.lineno}" if b"\n" in content else ""
        raise LvqaError(f"{place}{line}: must be JSON: {error.msg}, at column {error.colno}") from None
    except (RecursionError, ValueError) as error:  # nested too deep; a number of thousands of digits
        raise LvqaError(f"{place}: must be JSON of a sane size: {shorten(str(error))}") from None


def _row(place: str, value: object) -> Row:
    if not isinstance(value, dict):
        raise LvqaError(f"{place}: must be a JSON object, got {shorten(value)}")
    return Row(place, value)

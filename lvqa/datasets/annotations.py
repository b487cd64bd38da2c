"""Annotation files: rows of JSON or Parquet that are checked as they are read, and the questions in them."""

from __future__ import annotations

import contextlib
import csv
import io
import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Protocol, TypeVar

from msgspec import Meta

from lvqa.datasets.headline import AnswerRow, Figure
from lvqa.datasets.subtitles import SubtitleFile
from lvqa.records import LETTERS, VIDEO_SUFFIXES, LvqaError, Question, shorten
from lvqa.validation import FiniteFloat, convert, decode_json, parse_json, require

T = TypeVar("T")

MAX_LINE_BYTES = 4 << 20
MAX_FILE_BYTES = 64 << 20
"""Bounds on an annotation file; the published ones have a few MB at most."""
MAX_KEY_BYTES = 200
ROWS_AT_ONCE = 64
"""So many rows of a Parquet file are in memory at a time."""

Text = Annotated[
    str,
    Meta(
        pattern="(?s)^\\s*[^\\s\ud800-\udfff][^\ud800-\udfff]*\\Z",
        description="Unicode text that is not empty, without lone surrogates",
    ),
]
AnyText = Annotated[str, Meta(pattern="\\A[^\ud800-\udfff]*\\Z", description="Unicode text, without lone surrogates")]
AnyTextOrNumber = Annotated[AnyText | int | FiniteFloat, Meta(description="text or a number")]
"""What an option or a question may be; a few published ones are empty."""
TextOrNumber = Annotated[Text | int | FiniteFloat, Meta(description="text that is not empty, or a number")]


@dataclass(frozen=True, slots=True)
class Entry:
    """A question as a file gives it."""

    question: Question
    origin: str
    """Where the question stands, for messages."""
    skipped: str = ""
    """One line on its time reference, if there is one that can't be used."""
    odd: str = ""
    """What is odd about it as it is published, if something is. It stays in, as in the benchmark's own script."""
    left_out: str = ""
    """Why it can't be asked here, if it can't."""
    unread: tuple[str, ...] = ()
    """The keys beside it that nothing here reads."""
    subtitles: SubtitleFile | None = None
    """Where the subtitles of its video are, as published; the file may be missing."""
    path: Path | None = None
    """The video's file, where it does not lie under its key in `videos/`."""


class DatasetReader(Protocol):
    """A dataset by its published files."""

    title: str
    """The benchmark's name, as its paper has it."""
    counting: str
    """How the figures of `headline` are counted, in whole sentences."""

    def __init__(self, folder: Path) -> None: ...

    @staticmethod
    def headline(rows: Sequence[AnswerRow]) -> dict[str, Figure]:
        """Return the figures that papers on the benchmark print of one method, by their names there."""

    def entries(self) -> Iterator[Entry]:
        """Yield the questions in the order of the files.

        A question's video_id is the name of a file in `videos/`, unless the entry has a path.
        """


_files_read: ContextVar[list[Path] | None] = ContextVar("files_read", default=None)


@contextlib.contextmanager
def files_read() -> Iterator[list[Path]]:
    """Return a list that gets every annotation file which is read inside the `with` block."""
    files: list[Path] = []
    token = _files_read.set(files)
    try:
        yield files
    finally:
        _files_read.reset(token)


def json_lines(path: Path, kind: type[T]) -> Iterator[tuple[str, T]]:
    """Yield where it stands and the value of each line of a JSON Lines file; empty lines are passed over."""
    yield from _without_errors(try_json_lines(path, kind))


def try_json_lines(path: Path, kind: type[T]) -> Iterator[tuple[str, T | LvqaError]]:
    """Do what `json_lines` does, and yield the error in place of a value that can't be read."""
    check_file(path)
    line_number = 0
    with path.open("rb") as file:
        while line := file.readline(MAX_LINE_BYTES + 1):
            line_number += 1
            origin = f"{path}, line {line_number}"
            if len(line) > MAX_LINE_BYTES:
                raise LvqaError(f"the line is too long; allowed: {MAX_LINE_BYTES >> 20} MiB ({origin})")
            if line.strip():
                try:
                    yield origin, decode_json(line.strip(), kind, origin=origin)
                except LvqaError as error:
                    yield origin, error


def _without_errors(items: Iterator[tuple[str, T | LvqaError]]) -> Iterator[tuple[str, T]]:
    for origin, item in items:
        if isinstance(item, LvqaError):
            raise item
        yield origin, item


def json_list(path: Path, kind: type[T]) -> Iterator[tuple[str, T]]:
    """Yield where it stands and the value of each row of a file that is one JSON list."""
    check_file(path)
    rows: list[Any] = convert(parse_json(path.read_bytes(), origin=str(path)), list[Any], origin=str(path))
    yield from _converted(rows, kind, path)


def json_value(path: Path, kind: type[T], *, max_bytes: int = MAX_FILE_BYTES) -> T:
    """Return a file that is one JSON value."""
    check_file(path, max_bytes)
    return decode_json(path.read_bytes().removeprefix(b"\xef\xbb\xbf"), kind, origin=str(path))


def csv_rows(path: Path, kind: type[T]) -> Iterator[tuple[str, T]]:
    """Yield where it stands and the value of each row of a CSV file with a head; empty fields are texts too.

    Fields may be separated by semicolons or tabs as well, as some spreadsheets write them.
    """
    yield from _without_errors(try_csv_rows(path, kind))


def try_csv_rows(path: Path, kind: type[T]) -> Iterator[tuple[str, T | LvqaError]]:
    """Do what `csv_rows` does, and yield the error in place of a row that can't be read."""
    check_file(path)
    try:
        lines = io.StringIO(path.read_bytes().decode("utf-8-sig"), newline="")
    except UnicodeDecodeError as error:
        raise LvqaError(f"not a CSV file: byte {error.start} is not UTF-8 text ({path})") from None
    head = lines.readline()
    lines.seek(0)
    reader = csv.DictReader(lines, delimiter=max(",;\t", key=head.count), strict=True, restkey="more fields")
    try:
        for row in reader:
            origin = f"{path}, line {reader.line_num}"
            try:
                yield origin, _csv_row(row, kind, origin)
            except LvqaError as error:
                yield origin, error
    except csv.Error as error:
        raise LvqaError(f"not a CSV file: {error} ({path}, line {reader.line_num})") from None


def _csv_row(row: dict[str, Any], kind: type[T], origin: str) -> T:
    if "more fields" in row:
        raise LvqaError(f"the line has more fields than the head, which has {len(row) - 1} ({origin})")
    return convert({key: value or "" for key, value in row.items()}, kind, origin=origin)


def parquet_rows(
    path: Path, kind: type[T], *, limit: int | None = None, max_bytes: int = MAX_FILE_BYTES
) -> Iterator[tuple[str, T]]:
    """Yield where it stands and the value of each row of a Parquet file, or of its first `limit` rows."""
    import pyarrow as pa
    from pyarrow import parquet

    check_file(path, max_bytes)
    try:
        with parquet.ParquetFile(path) as file:
            batches = (batch.to_pylist() for batch in file.iter_batches(batch_size=ROWS_AT_ONCE))
            rows = itertools.islice(itertools.chain.from_iterable(batches), limit)
            yield from _converted(rows, kind, path)
    except pa.ArrowException as error:
        raise LvqaError(f"not a Parquet file: {shorten(str(error))} ({path})") from error


def json_list_or_parquet(json_path: Path, parquet_path: Path, kind: type[T]) -> Iterator[tuple[str, T]]:
    """Do what `json_list` does where that file lies, else what `parquet_rows` does."""
    return json_list(json_path, kind) if json_path.exists() else parquet_rows(parquet_path, kind)


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


def make_entry(text: str, options: tuple[str, ...], answer: str, origin: str, **known: Any) -> Entry:
    """Return a published question as it is; what is odd about it is named.

    Args:
        text: The question without its options; it may be empty.
        options: The texts of the options; some may be empty.
        answer: The letter of the correct option. Where there is no such option the question can never be right, and
            its answer is "".
        origin: Where it stands, for messages.
        known: More fields of the Question, and of the Entry: `skipped`, `left_out`, `subtitles`.

    Raises:
        LvqaError: There are too few options, or too many, to ask the question.
    """
    if not 2 <= len(options) <= len(LETTERS):
        raise LvqaError(f"a question has 2 to {len(LETTERS)} options, got {len(options)} ({origin})")
    own = {name: known.pop(name) for name in ("skipped", "left_out", "subtitles") if name in known}
    is_option = len(answer) == 1 and answer in LETTERS[: len(options)]
    question = Question(text=text.strip(), options=options, answer=answer if is_option else "", **known)
    oddities = {
        "its text is empty": not text.strip(),
        "an option is empty": not all(option.strip() for option in options),
        "its answer is no option, so it is never right": not is_option,
    }
    odd = " and ".join(oddity for oddity, is_so in oddities.items() if is_so)
    return Entry(question, origin, odd=odd, **own)


def without_letters(options: tuple[str, ...]) -> tuple[str, ...]:
    """Return the options without the letter that stands before each ("A. ", "B) "); unchanged if one has none."""
    bare = tuple(re.sub(rf"^\(?{a}[.):]\s*", "", option) for a, option in zip(LETTERS, options, strict=False))
    has_letters = len(bare) == len(options) and all(len(a) < len(b) for a, b in zip(bare, options, strict=True))
    return bare if has_letters else options


def letter_of(answer: str | int | float, options: Sequence[str | int | float]) -> str:
    """Return the letter of the option that is the answer, the last one of several; "" if none is."""
    letters = [letter for letter, option in zip(LETTERS, options, strict=False) if option == answer]
    return letters[-1] if letters else ""


def letter_at(choice: int) -> str:
    """Return the letter of a choice that is counted from 0; "" if there is none."""
    return LETTERS[choice] if 0 <= choice < len(LETTERS) else ""


def check_file(path: Path, max_bytes: int = MAX_FILE_BYTES) -> None:
    """Raise LvqaError for an annotation file that is missing or too large; note for `files_read` that it is read."""
    if not path.is_file():
        raise LvqaError(f"{path}: no such file; the benchmark's annotations are read from there")
    if (size := path.stat().st_size) > max_bytes:
        raise LvqaError(f"{path}: the file has {size >> 20} MiB; allowed: {max_bytes >> 20} MiB")
    if (files := _files_read.get()) is not None:
        files.append(path)


def _converted(rows: Iterable[Any], kind: type[T], path: Path) -> Iterator[tuple[str, T]]:
    for row_number, row in enumerate(rows, start=1):
        origin = f"{path}, row {row_number}"
        yield origin, convert(row, kind, origin=origin)

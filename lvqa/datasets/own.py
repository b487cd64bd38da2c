"""Read questions of your own, from JSON Lines or from a table."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from lvqa.datasets.annotations import Entry, Text, TextOrNumber, texts, try_csv_rows, try_json_lines
from lvqa.datasets.headline import AnswerRow, Figure
from lvqa.datasets.lvbench import parse_span
from lvqa.places import beside
from lvqa.records import LETTERS, VIDEO_SUFFIXES, LvqaError, Question, shorten
from lvqa.validation import check_question, convert, in_yaml, require

FILES = ("questions.jsonl", "questions.csv")
SUFFIXES = (".jsonl", ".csv", ".tsv")
SEPARATOR = "|"
"""What separates options, and tags, in a field of a table."""


class Row(TypedDict):
    """A question of your own."""

    video: Text
    question: Text
    options: NotRequired[list[TextOrNumber] | None]
    answer: NotRequired[TextOrNumber | None]
    id: NotRequired[TextOrNumber | None]
    tags: NotRequired[list[TextOrNumber] | None]
    evidence: NotRequired[Any]


class Own:
    """Questions of your own: `questions.jsonl` with an object a line, or `questions.csv` with a head.

    `video` and `question` must be there. The video is the path of a file, from the folder or from its `videos/`; there,
    its suffix may be left out. `answer` is a letter, or the option itself. A question without options is a free one.
    """

    title = "Your own questions"
    counting = "Accuracy over all questions."

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def entries(self) -> Iterator[Entry]:
        """Yield the questions in the order of the file."""
        for origin, fields in _rows(self._file()):
            if isinstance(fields, LvqaError):
                raise fields
            question = _question(fields, origin)
            yield Entry(question, origin, unread=_unread(fields), path=self._path(question.video_id))

    @staticmethod
    def headline(rows: Sequence[AnswerRow]) -> dict[str, Figure]:
        """Return nothing: no paper prints figures of your questions."""
        return {}

    def _file(self) -> Path:
        paths = [self.folder / name for name in FILES if (self.folder / name).is_file()]
        if len(paths) != 1:
            problem = f"{' and '.join(FILES)} are both there; keep one" if paths else f"no {' and no '.join(FILES)}"
            raise LvqaError(f"{self.folder}: {problem}; your questions are read from there")
        return paths[0]

    def _path(self, video: str) -> Path | None:
        """Return the video's file; None where it is looked for in `videos/` by its name without a suffix."""
        paths = [beside(self.folder, video), beside(self.folder / "videos", video)]
        has_suffix = Path(video).suffix.lower() in VIDEO_SUFFIXES
        return next((path for path in paths if path.is_file()), paths[0] if has_suffix else None)


@dataclass(frozen=True, slots=True)
class QuestionList:
    """The questions of a file that are about one video."""

    questions: tuple[Question | LvqaError, ...]
    """In the order of the file; the error in place of a question that can't be asked."""
    other_videos: tuple[str, ...]
    """The videos that other questions of the file are about."""
    unread: tuple[str, ...]
    """The keys that nothing here reads."""


def questions_about(path: Path, video: Path) -> QuestionList:
    """Read the questions about one video from a file as `Own` reads it, which may have any name.

    A question is about the video if it names none, or this one: by its path (from here, or as `Own` takes it), or by
    the name of its file, with the suffix or without.

    Raises:
        LvqaError: The file can't be read, or holds no question about the video.
    """
    if not path.is_file():
        raise LvqaError(f"{path}: no such file; the questions are read from there")
    questions: list[Question | LvqaError] = []
    others, unread = dict[str, None](), dict[str, None]()
    try:
        for origin, fields in _rows(path):
            if isinstance(fields, LvqaError):
                questions.append(fields)
                continue
            name = fields.setdefault("video", str(video))
            if isinstance(name, str) and not _is_name_of(name, video, path.parent):
                others[name] = None
                continue
            unread |= dict.fromkeys(_unread(fields))
            try:
                questions.append(_question(fields, origin))
            except LvqaError as error:
                questions.append(error)
    except OSError as error:
        raise LvqaError(f"cannot read {path}: {error.strerror or error}") from error
    if not questions:
        about = f" about {video}; its questions are about {', '.join(map(shorten, others))}" if others else ""
        raise LvqaError(f"{path} holds no question{about}")
    return QuestionList(tuple(questions), tuple(others), tuple(unread))


def _is_name_of(name: str, video: Path, folder: Path) -> bool:
    if os.path.normpath(name) in (video.name, video.stem):
        return True
    paths = [beside(base, name) for base in (folder, folder / "videos", Path())]
    return any(path.is_file() and path.samefile(video) for path in paths)


def _rows(path: Path) -> Iterator[tuple[str, dict[str, Any] | LvqaError]]:
    """Yield where it stands and the content of each row of a file with questions, or why it can't be read."""
    suffix = path.suffix.lower()
    require(suffix in SUFFIXES, "a file with questions", str(path), f"a file with suffix {' or '.join(SUFFIXES)}")
    if suffix == ".jsonl":
        yield from try_json_lines(path, dict[str, Any])
        return
    for origin, row in try_csv_rows(path, dict[str, str]):
        yield origin, row if isinstance(row, LvqaError) else _as_json(row)


def _unread(fields: dict[str, Any]) -> tuple[str, ...]:
    return tuple(shorten(key) for key in fields if key not in Row.__annotations__)


def _as_json(row: dict[str, str]) -> dict[str, Any]:
    """Return a row of a table as an object of JSON Lines: an empty field is not there, and lists are split."""
    fields: dict[str, Any] = {key: value for key, value in row.items() if value.strip()}
    for key in ("options", "tags"):
        if key in fields:
            fields[key] = [item.strip() for item in fields[key].split(SEPARATOR)]
    return fields


def _question(fields: dict[str, Any], origin: str) -> Question:
    row = convert({key: fields[key] for key in Row.__annotations__ if key in fields}, Row, origin=origin)
    text, options = row["question"].strip(), tuple(option.strip() for option in texts(row.get("options") or []))
    try:
        check_question(Question(text, options), distinct_options=True)
    except LvqaError as error:
        raise LvqaError(f"{error} ({origin})") from None
    video, name = os.path.normpath(row["video"]), row.get("id")
    return Question(
        text,
        options,
        video_id=video,
        answer=_answer(row.get("answer"), options, origin),
        tags=texts(row.get("tags") or []),
        evidence_seconds=_evidence(row.get("evidence"), origin),
        # What changes with no other row: a run that goes on must not take one question for another.
        id=hashlib.sha256(f"{video}\n{text}".encode()).hexdigest()[:8] if name is None else str(name),
    )


def _answer(answer: str | int | float | None, options: tuple[str, ...], origin: str) -> str | None:
    """Return the letter of the option that is the answer, by its letter or its text; of a free question the text."""
    text = None if answer is None else str(answer).strip()
    if text is None or not options:
        return text
    by_letter = text if len(text) == 1 and text in LETTERS[: len(options)] else None
    by_text = LETTERS[options.index(text)] if text in options else None
    if by_letter and by_text and by_letter != by_text:
        raise LvqaError(f"answer {text!r} is the letter of one option and the text of another ({origin})")
    allowed = f"one of {', '.join(LETTERS[: len(options)])}, or one of the options"
    require(by_letter is not None or by_text is not None, "answer", text, allowed, origin=origin)
    return by_letter or by_text


def _evidence(evidence: object, origin: str) -> tuple[float, float] | None:
    """Return where the evidence lies, in seconds: of [83, 97.5], "83-97.5" or "1:23-1:37"."""
    if evidence is None:
        return None
    span = None
    if isinstance(evidence, str):
        numbers = re.fullmatch(r"\s*([0-9]{1,6}(?:\.[0-9]+)?)\s*-\s*([0-9]{1,6}(?:\.[0-9]+)?)\s*", evidence)
        span = (float(numbers[1]), float(numbers[2])) if numbers else parse_span(evidence)
    elif isinstance(evidence, list) and len(evidence) == 2:
        start, end = evidence
        if all(isinstance(x, int | float) and not isinstance(x, bool) and 0 <= x < 1e6 for x in (start, end)):
            span = (float(start), float(end))
    if span is None or span[0] > span[1]:
        allowed = "start and end in seconds, [83, 97.5] or 83-97.5, or as MM:SS-MM:SS"
        raise LvqaError(f"evidence must be {allowed}, got {in_yaml(evidence)} ({origin})")
    return span

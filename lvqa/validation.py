"""What is refused before any work, in one line: the name, what is allowed, the value."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Integral

from lvqa.audio import read_audio
from lvqa.image import read_image
from lvqa.records import LETTERS, LvqaError, Question, shorten

MAX_QUESTION_CHARACTERS = 8_000


def require(condition: bool, name: str, value: object, allowed: str) -> None:
    """Raise LvqaError, which names the value and what is allowed, unless the condition holds."""
    if not condition:
        raise LvqaError(f"{name} must be {allowed}, got {in_yaml(value)}")


def in_yaml(value: object) -> str:
    """Return a value as it is written in YAML, for a message."""
    return "null" if value is None else shorten(value)


def is_whole(value: object) -> bool:
    """Return whether the value is an int, numpy's too, and no bool."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def require_one_of(value: object, name: str, allowed: Mapping[str, object] | tuple[str, ...]) -> None:
    """Raise LvqaError for a value that is none of these words."""
    require(isinstance(value, str) and value in allowed, name, value, f"one of {', '.join(allowed)}")


def require_bool(value: object, name: str) -> None:
    """Raise LvqaError for a value that is neither true nor false."""
    require(isinstance(value, bool), name, value, "true or false")


def require_whole(value: object, name: str) -> None:
    """Raise LvqaError for a value that is not a whole number of at least 1."""
    require(is_whole(value) and value >= 1, name, value, "a whole number, 1 or more")  # type: ignore[operator]


def require_number(value: object, name: str, least: float, most: float) -> None:
    """Raise LvqaError for a value that is not a number from `least` to `most`."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and least <= value <= most
    require(is_number, name, value, f"a number from {least:g} to {most:g}")


def require_positive(value: object, name: str) -> None:
    """Raise LvqaError for a value that is not a number above 0, or is beyond all sense."""
    require_number(value, name, 1e-9, 1e9)


def check_count(count: int, *, name: str = "frames") -> int:
    """The count, or LvqaError if it is not a whole number from 1 on."""
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise LvqaError(f"{name} must be a whole number, 1 or more, got {count!r}")
    return count


def check_question(question: Question, *, is_search: bool = False) -> None:
    """Raises LvqaError for a question that can't be asked. No text is needed with a voice, or to search a picture."""
    if question.image is not None:
        read_image(question.image)
    if question.voice is not None:
        read_audio(question.voice)
    if not question.text.strip() and not question.voice and not (is_search and question.image):
        raise LvqaError("the question is empty; ask something, for example: What happened after the door closed?")
    length = len(question.text) + sum(map(len, question.options))
    if length > MAX_QUESTION_CHARACTERS:
        raise LvqaError(f"the question has {length} characters with its options; allowed: {MAX_QUESTION_CHARACTERS}")
    if question.options and not 2 <= len(question.options) <= len(LETTERS):
        raise LvqaError(f"a question has 2 to {len(LETTERS)} options, or none; got {len(question.options)}")
    if any(not option.strip() for option in question.options):
        raise LvqaError(f"an option is empty: {list(question.options)!r}")

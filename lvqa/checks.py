"""What is refused before any work: settings that no room knows, counts and questions that make no sense."""

from __future__ import annotations

from collections.abc import Sequence

from lvqa.config import Config
from lvqa.records import LETTERS, LvqaError, Question
from lvqa.rerank import RERANKERS
from lvqa.selection import SELECTORS
from lvqa.video import DECODERS

CONTROLS = ("oracle", "blind")
"""Methods that only an evaluation can use: frames from the annotated time, and no frames."""
METHODS = (*SELECTORS, *CONTROLS)
"""All ways to choose frames."""

MAX_QUESTION_CHARACTERS = 8_000


def check_settings(config: Config) -> None:
    """Raises LvqaError for a name that no room knows. Costs nothing, so it stands before a model is loaded."""
    known(config.rerank.name, RERANKERS, "rerank.name")
    known(config.video.decoder, DECODERS, "video.decoder")
    known(config.method, METHODS, "method")


def known(name: str, allowed: Sequence[str] | dict[str, object] | object, setting: str) -> str:
    """The name, or LvqaError if it is none of them."""
    if name not in allowed:  # type: ignore[operator]
        raise LvqaError(f"{setting} must be one of {', '.join(allowed)}, got {name!r}")  # type: ignore[arg-type]
    return name


def check_count(count: int, *, name: str = "frames") -> int:
    """The count, or LvqaError if it is not a whole number from 1 on."""
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise LvqaError(f"{name} must be a whole number, 1 or more, got {count!r}")
    return count


def check_question(question: Question) -> None:
    """Raises LvqaError for a question that can't be asked."""
    if not question.text.strip():
        raise LvqaError("the question is empty; ask something, for example: What happened after the door closed?")
    length = len(question.text) + sum(map(len, question.options))
    if length > MAX_QUESTION_CHARACTERS:
        raise LvqaError(f"the question has {length} characters with its options; allowed: {MAX_QUESTION_CHARACTERS}")
    if question.options and not 2 <= len(question.options) <= len(LETTERS):
        raise LvqaError(f"a question has 2 to {len(LETTERS)} options, or none; got {len(question.options)}")
    if any(not option.strip() for option in question.options):
        raise LvqaError(f"an option is empty: {list(question.options)!r}")

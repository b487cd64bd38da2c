"""What is refused before any work: settings that no room knows, counts and questions that make no sense."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from lvqa.audio import read_audio
from lvqa.config import Config
from lvqa.image import read_image
from lvqa.plugins import is_file_name
from lvqa.records import LETTERS, LvqaError, Question
from lvqa.rerank import Reranker, make_reranker
from lvqa.selection import (
    SELECTORS,
    PrecomputedScores,
    PrecomputedSelection,
    Selector,
    is_selection_file,
    make_selector,
)
from lvqa.video import DECODERS, SAMPLINGS

CONTROLS = ("oracle", "blind")
"""Methods that only an evaluation can use: frames from the annotated time, and no frames."""
METHODS = (*SELECTORS, *CONTROLS)
"""All ways to choose frames, but for selectors of your own in a file."""

MAX_QUESTION_CHARACTERS = 8_000


def check_settings(config: Config) -> None:
    """Raises LvqaError for a name that no room knows. Costs nothing, so it stands before a model is loaded."""
    known(config.video.decoder, DECODERS, "video.decoder")
    known(config.video.sampling, SAMPLINGS, "video.sampling")
    reranker_of(config)
    selector_of(config)


@dataclass(frozen=True, slots=True)
class Control:
    """What stands for a selector where the method is a control. It needs nothing to be found."""

    method: str
    needs_scores: ClassVar[bool] = False
    needs_features: ClassVar[bool] = False


def selector_of(config: Config, method: str | None = None) -> Selector | Control:
    """What chooses the frames, with the options that the settings have for it.

    `method` is the configuration's where it is not given. LvqaError for what is unknown or not allowed.
    """
    method, settings = method or config.method, config.selection
    if method not in METHODS and not is_file_name(method) and not is_selection_file(method):
        raise LvqaError(f"method must be one of {', '.join(METHODS)}, or a file ending in .py or .json, got {method!r}")
    if method not in CONTROLS and not is_selection_file(method):
        shared = {"frames_per_clip": settings.frames_per_clip, "uniform": settings.uniform, "seed": config.seed}
        selector = make_selector(method, settings.options, **shared)
        by_file = settings.scores is not None and selector.needs_scores
        return PrecomputedScores(settings.scores, selector) if by_file else selector  # type: ignore[arg-type]
    if settings.options:
        raise LvqaError(f"method {method!r} takes no options (selection.options), got {', '.join(settings.options)}")
    return PrecomputedSelection(Path(method)) if is_selection_file(method) else Control(method)


def reranker_of(config: Config, *, layout: str = "question_first") -> Reranker:
    """What looks closer at the candidates; `layout` is for where the settings say nothing.

    LvqaError for what is unknown or not allowed.
    """
    s = config.rerank
    shared = {"layout": s.layout or layout, "labels": s.labels, "both_orders": s.both_orders}
    return make_reranker(s.name, s.options, **shared, probability=s.probability)


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

"""From settings to the parts of a pipeline: the selector and the reranker that they name, with their options."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from lvqa.config import Config
from lvqa.plugins import is_file_name
from lvqa.records import LvqaError
from lvqa.rerank import Reranker, make_reranker
from lvqa.selection import (
    SELECTORS,
    PrecomputedScores,
    PrecomputedSelection,
    Selector,
    is_selection_file,
    make_selector,
)
from lvqa.validation import require_one_of
from lvqa.video import DECODERS, SAMPLINGS

CONTROLS = ("oracle", "blind")
"""Methods that only an evaluation can use: frames from the annotated time, and no frames."""
METHODS = (*SELECTORS, *CONTROLS)
"""All ways to choose frames, but for selectors of your own in a file."""


def check_settings(config: Config) -> None:
    """Raises LvqaError for a name that no room knows. Costs nothing, so it stands before a model is loaded."""
    require_one_of(config.video.decoder, "video.decoder", DECODERS)
    require_one_of(config.video.sampling, "video.sampling", SAMPLINGS)
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

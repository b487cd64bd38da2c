"""From settings to the components of a pipeline: the model, the selector and the reranker that they name."""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections.abc import Sequence
from pathlib import Path

from lvqa.config import Config, VideoConfig, with_overrides
from lvqa.models import Model, load_model
from lvqa.records import LvqaError
from lvqa.rerank import RERANKERS, Reranker, make_reranker
from lvqa.selection import CONTROLS, SELECTORS, Selector, is_selection_file, make_selector
from lvqa.subtitles import PARSERS
from lvqa.validation import require, require_one_of
from lvqa.video import DECODERS, SAMPLINGS

__all__ = [
    "CONTROLS",
    "METHODS",
    "check_settings",
    "has_probabilities",
    "load_components",
    "reranker_of",
    "selector_of",
]

METHODS = tuple(SELECTORS)
"""The names of all built-in ways to choose frames."""


def check_settings(config: Config) -> None:
    """Check every setting that names a component, without loading a model.

    Raises:
        LvqaError: A name is unknown, or an option is not allowed.
    """
    require_one_of(config.video.decoder, "video.decoder", DECODERS)
    require_one_of(config.video.sampling, "video.sampling", SAMPLINGS)
    _check_clip_lengths(config.video)
    _check_subtitles(config.video.spoken.subtitles)
    reranker_of(config)
    selector_of(config)


def load_components(name: str | None, config: Config | None, overrides: Sequence[str]) -> tuple[Model, Config]:
    """Load the model that the settings name. Returns it with all settings.

    Args:
        name: A hub id, a folder, or "tiny"; None: the configuration's.
        config: All settings; None: the defaults.
        overrides: Settings as on the command line, "selection.frames=32", that replace those.

    Raises:
        LvqaError: A setting or a model is not known. Settings are checked before the model is looked for.
    """
    # A worker has fewer threads than a process that works alone, and must come to the same bits. Costs no time.
    os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")
    config = with_overrides(config or Config(), overrides)
    if name is not None:
        config = dataclasses.replace(config, model=dataclasses.replace(config.model, name=name))
    check_settings(config)
    settings = config.model
    model = load_model(
        settings.name,
        revision=settings.revision,
        device=settings.device,
        dtype=settings.dtype,
        device_map=settings.device_map,
        quantize=settings.quantize,
        max_batch_tokens=settings.max_batch_tokens,
    )
    if settings.compile:
        model.compile()
    return model, config


def selector_of(config: Config, method: str | None = None) -> Selector:
    """Return the selector that the settings name, with the options that they have for it.

    Args:
        config: The settings.
        method: It replaces the method of the settings, if it is given.

    Raises:
        LvqaError: The method is unknown, an option is not allowed, or the method can't choose for a second look.
    """
    s, method = config.selection, method or config.method
    if config.answer.look_again is not None and (method in CONTROLS or is_selection_file(method)):
        raise LvqaError(f"answer.look_again needs a method that can be asked for more frames, got {method!r}")
    shared = {"frames_per_clip": s.frames_per_clip, "uniform": s.uniform, "seed": config.seed}
    return make_selector(method, s.options, scores=s.scores, **shared)


def has_probabilities(config: Config) -> bool:
    """Return whether the scores of the reranker that the settings name are probabilities that a clip matches."""
    return config.rerank.name in RERANKERS and config.rerank.probability == "options"


def reranker_of(config: Config, *, layout: str = "question_first", prompts: str = "lvqa") -> Reranker:
    """Return the reranker that the settings name; `layout` and `prompts` are used where they name none.

    Raises:
        LvqaError: The reranker is unknown, or an option is not allowed.
    """
    s = config.rerank
    shared = {"layout": s.layout or layout, "labels": s.labels, "both_orders": s.both_orders}
    shared |= {"probability": s.probability, "wording": config.prompts or prompts}
    return make_reranker(s.name, s.options, **shared)


def _check_subtitles(source: str) -> None:
    """Raise LvqaError unless the lines of a video come from nowhere, from what lies beside or in it, or from a file."""
    allowed = f"auto, off, or a file of subtitles ({', '.join(PARSERS)})"
    require(source in ("auto", "off") or Path(source).suffix.lower() in PARSERS, "video.subtitles", source, allowed)


def _check_clip_lengths(settings: VideoConfig) -> None:
    """Raise LvqaError unless clips of one length lie inside those of the next longer one."""
    for shorter, longer in itertools.pairwise(sorted(settings.clip_lengths)):
        if longer == shorter or longer % shorter:
            raise LvqaError(
                f"video.clip_seconds and video.more_clip_seconds have clips of {shorter:g} and {longer:g} s; "
                "each length must be a whole multiple of the next shorter one, so that clips overlap as a whole"
            )

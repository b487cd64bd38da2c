"""Scores and a budget -> the seconds to show. Arithmetic alone: no model, no pixels.

A selector sees a `SelectorInput`: the time of each frame, its score, its clip, and, if it needs them, the vectors of
frames and question. A new one is a class with `select` and a line in SELECTORS, which `lvqa.selection.contract` then
checks; or a plug-in, from a file or an installed package (`lvqa.plugins`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lvqa.plugins import PluginPoint
from lvqa.records import LvqaError
from lvqa.selection.adaptive import AksReleasedSelector, AksSelector, BoltReleasedSelector, BoltSelector
from lvqa.selection.apportion import ApportionSelector
from lvqa.selection.candidates import FrameScores, frame_features, frame_scores
from lvqa.selection.controls import CONTROLS, BlindSelector, OracleSelector
from lvqa.selection.diverse import KMeansSelector, MmrSelector, SegmentsSelector
from lvqa.selection.dpp import DppSelector, Mdp3ReleasedSelector, Mdp3Selector
from lvqa.selection.freeret import FreeRetSelector
from lvqa.selection.plugin import UserSelector
from lvqa.selection.precomputed import PrecomputedScores, PrecomputedSelection, is_selection_file
from lvqa.selection.protocol import Selector, SelectorInput, evenly_spaced
from lvqa.selection.router import RouterSelector
from lvqa.selection.search import FocusSelector, QFrameSelector, TStarSelector
from lvqa.selection.simple import NmsSelector, RandomSelector, TopKSelector, UniformSelector

__all__ = [
    "CONTROLS",
    "SELECTOR",
    "SELECTORS",
    "FrameScores",
    "FreeRetSelector",
    "PrecomputedScores",
    "PrecomputedSelection",
    "Selector",
    "SelectorInput",
    "UniformSelector",
    "evenly_spaced",
    "frame_features",
    "frame_scores",
    "is_selection_file",
    "make_selector",
]

SELECTORS: dict[str, Callable[..., Selector]] = {
    "freeret": FreeRetSelector,
    "apportion": ApportionSelector,
    "uniform": UniformSelector,
    "random": RandomSelector,
    "topk": TopKSelector,
    "nms": NmsSelector,
    "mmr": MmrSelector,
    "dpp": DppSelector,
    "mdp3": Mdp3Selector,
    "mdp3_released": Mdp3ReleasedSelector,
    "aks": AksSelector,
    "aks_released": AksReleasedSelector,
    "bolt": BoltSelector,
    "bolt_released": BoltReleasedSelector,
    "qframe": QFrameSelector,
    "focus": FocusSelector,
    "tstar": TStarSelector,
    "kmeans": KMeansSelector,
    "segments": SegmentsSelector,
    "router": RouterSelector,
    "oracle": OracleSelector,
    "blind": BlindSelector,
}

SELECTOR: PluginPoint[Selector] = PluginPoint(
    name_setting="method",
    options_setting="selection.options",
    method_name="select",
    parameters="inputs",
    built_in=SELECTORS,
    entry_point_group="lvqa.selectors",
    guard=UserSelector,
    file_endings=".py or .json",
)


def make_selector(
    name: str, options: Mapping[str, Any] | None = None, *, scores: Path | None = None, **shared: Any
) -> Selector:
    """Return the selector of a name, or the selections of a file.

    Args:
        name: A name in SELECTORS, a plug-in, or a .json or .jsonl file of precomputed selections.
        options: The selector's own options, `selection.options`.
        scores: A file of scores, which then replace those of the model where the selector needs scores.
        shared: Settings that all selectors are offered, such as the seed; each gets those that it has.

    Raises:
        LvqaError: The name, an option or a value is not allowed, or the plug-in can't be loaded.
    """
    if is_selection_file(name):
        if options:
            raise LvqaError(f"method {name!r} takes no options (selection.options), got {', '.join(options)}")
        return PrecomputedSelection(Path(name))
    selector = SELECTOR.make(name, options, **shared)
    return selector if scores is None or not selector.needs_scores else PrecomputedScores(scores, selector)

"""Scores and a budget -> the seconds to show. Arithmetic alone: no model, no pixels.

A selector sees a `SelectorInput`: when each frame is, how good it is, in which clip it lies, and, where it asks for
them, the vectors of frames and question. A new one is a class with `select` and a line in SELECTORS, which
`lvqa.selection.contract` then checks; or a file of your own (`lvqa.plugins`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from lvqa.plugins import PluginPoint
from lvqa.selection.adaptive import AksReleasedSelector, AksSelector, BoltReleasedSelector, BoltSelector
from lvqa.selection.candidates import FrameScores, frame_features, frame_scores
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
}


SELECTOR: PluginPoint[Selector] = PluginPoint(
    setting="method",
    options="selection.options",
    method="select",
    arguments="grid",
    named=SELECTORS,
    guarded=UserSelector,
)


def make_selector(name: str, options: Mapping[str, Any] | None = None, **shared: Any) -> Selector:
    """The selector of this name, or of this file, as `PluginPoint.make` makes it; all are offered the seed."""
    return SELECTOR.make(name, options, **shared)

"""Scores and a budget -> the seconds to show. Arithmetic alone: no model, no pixels.

A selector sees a `SelectorInput`: when each frame is, how good it is, in which clip it lies, and, where it asks for
them, the vectors of frames and question. A new one is a class with `select` and a line in SELECTORS, which
`lvqa.selection.contract` then checks; or a file of your own (`lvqa.selection.plugin`).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from lvqa.records import LvqaError
from lvqa.selection.adaptive import AksReleasedSelector, AksSelector, BoltReleasedSelector, BoltSelector
from lvqa.selection.candidates import GridScores, grid_features, grid_scores
from lvqa.selection.diverse import KMeansSelector, MmrSelector, SegmentsSelector
from lvqa.selection.dpp import DppSelector, Mdp3ReleasedSelector, Mdp3Selector
from lvqa.selection.freeret import FreeRetSelector
from lvqa.selection.grid import Selector, SelectorInput, evenly_spaced
from lvqa.selection.plugin import is_file_name, load_selector
from lvqa.selection.router import RouterSelector
from lvqa.selection.search import FocusSelector, QFrameSelector, TStarSelector
from lvqa.selection.simple import NmsSelector, RandomSelector, TopKSelector, UniformSelector

__all__ = [
    "SELECTORS",
    "FreeRetSelector",
    "GridScores",
    "Selector",
    "SelectorInput",
    "UniformSelector",
    "evenly_spaced",
    "grid_features",
    "grid_scores",
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


def make_selector(name: str, options: Mapping[str, Any] | None = None, **shared: Any) -> Selector:
    """The selector of this name, or of this file ("path/to/file.py", "path/to/file.py:Class").

    `options` are its own, and one that it does not take is refused with those that it does. Of the `shared` ones, which
    all selectors are offered (seed), it gets those that it takes. LvqaError for a name, an option or a value that is
    not allowed, and for a file that can't be used.
    """
    options = options or {}
    if is_file_name(name):
        make = load_selector(name)
    elif name in SELECTORS:
        make = SELECTORS[name]
    else:
        raise LvqaError(f"method must be one of {', '.join(SELECTORS)}, or a file ending in .py, got {name!r}")
    takes = inspect.signature(make).parameters
    if unknown := [option for option in options if option not in takes]:
        allowed = ", ".join(takes) or "none"
        raise LvqaError(f"unknown option {unknown[0]!r} of method {name!r} (selection.options); it takes: {allowed}")
    return make(**{**{key: value for key, value in shared.items() if key in takes}, **options})

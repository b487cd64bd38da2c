"""A selector of your own, from a Python file: `--method path/to/file.py`, or `path/to/file.py:Class`.

The file has a class with `select(self, grid)`, as the Protocol `Selector` says. `needs_scores` (true unless it says
else) and `needs_features` (false) say what the pipeline must find first.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lvqa.plugins import located_errors
from lvqa.records import FrameSelection, LvqaError
from lvqa.selection.protocol import SelectorInput
from lvqa.validation import require_bool


@dataclass(frozen=True, slots=True, eq=False)
class UserSelector:
    """A selector from a file. What goes wrong in it is an LvqaError that names the file and the line."""

    path: Path
    inner: Any

    def __post_init__(self) -> None:
        for name in ("needs_scores", "needs_features"):
            require_bool(getattr(self, name), f"{self._name}.{name}")

    @property
    def needs_scores(self) -> bool:
        """As the class says; true if it says nothing."""
        return getattr(self.inner, "needs_scores", True)

    @property
    def needs_features(self) -> bool:
        """As the class says; false if it says nothing."""
        return getattr(self.inner, "needs_features", False)

    def select(self, grid: SelectorInput) -> FrameSelection:
        """What the class selects, if it is what was asked for."""
        with located_errors(self.path):
            selection = self.inner.select(grid)
        if fault := grid.fault(selection):
            raise LvqaError(f"{self._name}.select gives {fault}")
        checked: FrameSelection = selection
        return checked

    @property
    def _name(self) -> str:
        return f"{self.path}: {type(self.inner).__name__}"

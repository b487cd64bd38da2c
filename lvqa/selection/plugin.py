"""A selector of a plug-in: `--method NAME` of an installed package, or `path/to/file.py[:Class]`.

Its class has a method `select(self, inputs)`, as the Protocol `Selector` has. The class attributes `needs_scores` (true
if it is missing), `needs_features`, `uses_reading` and `uses_kind` (false) tell the pipeline what to compute first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lvqa.plugins import PluginSource, located_errors
from lvqa.records import FrameSelection, LvqaError
from lvqa.selection.protocol import SelectorInput
from lvqa.validation import require_bool


@dataclass(frozen=True, slots=True, eq=False)
class UserSelector:
    """A selector of a plug-in. What goes wrong in it is an LvqaError that names the plug-in and the line."""

    source: PluginSource
    inner: Any

    def __post_init__(self) -> None:
        for name in ("needs_scores", "needs_features", "uses_reading", "uses_kind"):
            require_bool(getattr(self, name), f"{self._name}.{name}")

    @property
    def needs_scores(self) -> bool:
        """The attribute of the class; true if there is none."""
        return getattr(self.inner, "needs_scores", True)

    @property
    def needs_features(self) -> bool:
        """The attribute of the class; false if there is none."""
        return getattr(self.inner, "needs_features", False)

    @property
    def uses_reading(self) -> bool:
        """The attribute of the class; false if there is none."""
        return getattr(self.inner, "uses_reading", False)

    @property
    def uses_kind(self) -> bool:
        """The attribute of the class; false if there is none."""
        return getattr(self.inner, "uses_kind", False)

    def select(self, inputs: SelectorInput) -> FrameSelection:
        """Return what the class selects.

        Raises:
            LvqaError: The class fails, or what it returns is not what a selector must return.
        """
        with located_errors(self.source):
            selection = self.inner.select(inputs)
        if problem := inputs.find_problem(selection):
            raise LvqaError(f"{self._name}.select gives {problem}")
        checked: FrameSelection = selection
        return checked

    @property
    def _name(self) -> str:
        return f"{self.source.label}: {type(self.inner).__name__}"

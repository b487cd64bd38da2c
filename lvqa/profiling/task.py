"""A task that can be measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from lvqa.records import Counts


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A piece of work, with the least that it can cost."""

    name: str
    unit: str
    """What `units` counts: "frame", "clip"."""
    units: int
    """How many units one call of `run` does."""
    run: Callable[[], object]
    lower_bound: Counts = field(default_factory=Counts)
    """The counts that can't be avoided."""
    lower_bound_flops: float = 0.0
    """The operations that can't be avoided."""
    lower_bound_bytes: int = 0
    """The bytes that must be read: of the file, of pixels, or of visual tokens and weights, each once."""
    ceiling: str | None = None
    """The name of the task whose rate bounds the rate of this one."""

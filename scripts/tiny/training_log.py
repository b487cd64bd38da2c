"""The log of the training: one JSON object a line."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import Tensor


class TrainingLog:
    """Averages values by name, and appends the averages to a JSON-lines file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._start = time.time()
        self._values: list[tuple[Sequence[str], Tensor]] = []

    def add(self, names: Sequence[str], values: Tensor) -> None:
        """Add a value under each name. The values stay on their device until they are written."""
        self._values.append((names, values))

    def clear(self) -> None:
        """Discard what is not written yet."""
        self._values.clear()

    def write(self, **fields: float | str) -> None:
        """Write the fields, and the averages since the last call."""
        by_name: dict[str, list[float]] = defaultdict(list)
        for names, values in self._values:
            for name, value in zip(names, values.tolist(), strict=True):
                by_name[name].append(value)
        means = {name: round(float(np.mean(values)), 4) for name, values in sorted(by_name.items())}
        line = {**fields, "seconds": round(time.time() - self._start, 1), **means}
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")
        self.clear()

"""Positions of a sequence that mixes text and video, by the rule that Qwen's models were trained with.

Three axes: time, height, width. Text moves along all three together. Visual tokens that start at s place the cell
(pair p, row y, column x) at (s + temporal[p], s + y, s + x), and the text after them goes on at their largest
position + 1. (transformers 5.23 forgets the temporal extent there: the text would lie inside the video.) In a row of
cells the width axis goes on as text does, so that it holds the positions of a model that knows a single axis.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Heard:
    """The tokens of a sound, which go on along all axes as text does."""

    length: int

    def __len__(self) -> int:
        return self.length


@dataclass(frozen=True, slots=True)
class Cells:
    """The visual tokens that stand together, in position space."""

    temporal: tuple[int, ...]
    """Temporal position of each pair, counted from the start, never falling."""
    rows: int
    cols: int

    def __len__(self) -> int:
        return len(self.temporal) * self.rows * self.cols


def position_ids(runs: Sequence[int | Cells | Heard]) -> Tensor:
    """(3, sequence) int64: a run is a number of text tokens, delimiters included, or visual tokens, or a sound's.

    >>> position_ids([2, 1]).tolist()
    [[0, 1, 2], [0, 1, 2], [0, 1, 2]]
    """
    pieces = [torch.zeros(3, 0, dtype=torch.long)]
    start = 0
    for run in runs:
        offsets = _offsets(run)  # (3, tokens)
        pieces.append(offsets + start)
        if offsets.numel():
            start += int(offsets.max()) + 1
    return torch.cat(pieces, dim=1)


def _offsets(run: int | Cells | Heard) -> Tensor:
    """(3, tokens): positions relative to their start; of cells pair by pair and row by row."""
    if not isinstance(run, Cells):
        return torch.arange(run if isinstance(run, int) else len(run)).expand(3, -1)
    axes = (torch.tensor(run.temporal), torch.arange(run.rows), torch.arange(run.cols))
    return torch.stack(torch.meshgrid(*axes, indexing="ij")).flatten(1)

"""Positions of a sequence that mixes text and video, by the rule that Qwen2.5-VL was trained with.

Three axes: time, height, width. Text moves along all three together. A visual block that starts at s places the cell
(pair p, row y, column x) at (s + temporal[p], s + y, s + x), and the text after it goes on at the block's largest
position + 1. (transformers 5.23 forgets the temporal extent there: the text would lie inside the video.)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor


class Grid(Protocol):
    """The shape of a visual block in position space; `VisualBlock` is one."""

    @property
    def rows(self) -> int: ...
    @property
    def cols(self) -> int: ...
    @property
    def temporal(self) -> tuple[int, ...]: ...


def position_ids(runs: Sequence[int | Grid]) -> Tensor:
    """(3, sequence) int64: a run is a number of text tokens, delimiters included, or a visual block.

    >>> position_ids([2, 1]).tolist()
    [[0, 1, 2], [0, 1, 2], [0, 1, 2]]
    """
    pieces = [torch.zeros(3, 0, dtype=torch.long)]
    start = 0
    for run in runs:
        offsets = torch.arange(run).expand(3, -1) if isinstance(run, int) else _block_offsets(run)  # (3, tokens)
        pieces.append(offsets + start)
        if offsets.numel():
            start += int(offsets.max()) + 1
    return torch.cat(pieces, dim=1)


def _block_offsets(grid: Grid) -> Tensor:
    """(3, pairs * rows * cols): positions of a block's cells relative to its start, row by row."""
    axes = (torch.tensor(grid.temporal), torch.arange(grid.rows), torch.arange(grid.cols))
    return torch.stack(torch.meshgrid(*axes, indexing="ij")).flatten(1)

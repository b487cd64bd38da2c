"""Positions of a sequence that mixes text and video, by the rule that Qwen's models were trained with.

Three axes: time, height, width. Text moves along all three together. Visual tokens that start at s put the cell
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
class AudioTokenSpan:
    """A run of audio tokens, which go on along all axes as text does."""

    length: int

    def __len__(self) -> int:
        return self.length


@dataclass(frozen=True, slots=True)
class VisualTokenSpan:
    """A run of visual tokens that form one block in position space."""

    temporal: tuple[int, ...]
    """The temporal position of each pair, counted from the start of the span, never falling."""
    rows: int
    cols: int

    def __len__(self) -> int:
        return len(self.temporal) * self.rows * self.cols


Span = int | VisualTokenSpan | AudioTokenSpan
"""A number of text tokens, delimiters included, or a run of visual or of audio tokens."""


def position_ids(spans: Sequence[Span]) -> Tensor:
    """Return the positions of consecutive spans of tokens, (3, sequence) int64.

    >>> position_ids([2, 1]).tolist()
    [[0, 1, 2], [0, 1, 2], [0, 1, 2]]
    """
    pieces = [torch.zeros(3, 0, dtype=torch.long)]
    start = 0
    for span in spans:
        offsets = _offsets(span)  # (3, tokens)
        pieces.append(offsets + start)
        if offsets.numel():
            start += int(offsets.max()) + 1
    return torch.cat(pieces, dim=1)


def _offsets(span: Span) -> Tensor:
    """Return (3, tokens) positions relative to the span's start; visual tokens go pair by pair and row by row."""
    if not isinstance(span, VisualTokenSpan):
        return torch.arange(span if isinstance(span, int) else len(span)).expand(3, -1)
    axes = (torch.tensor(span.temporal), torch.arange(span.rows), torch.arange(span.cols))
    return torch.stack(torch.meshgrid(*axes, indexing="ij")).flatten(1)

"""What a model is shown: the content of one user turn, text and visual tokens in order."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class VisualBlock:
    """A run of frame pairs, already encoded. The model sees it as one video."""

    tokens: Tensor
    """(pairs, rows * cols, dim): the merged visual tokens."""
    rows: int
    cols: int
    temporal: tuple[int, ...] = ()
    """Temporal position of each pair, counted from the block's start, never falling; 0, 1, 2 ... if left out."""

    def __post_init__(self) -> None:
        if not self.temporal:
            object.__setattr__(self, "temporal", tuple(range(len(self.tokens))))
        pairs, cells = self.tokens.shape[:2]
        if pairs == 0 or cells != self.rows * self.cols or len(self.temporal) != pairs:
            raise ValueError(
                f"tokens of shape {tuple(self.tokens.shape)} are no block of {self.rows} x {self.cols} cells "
                f"with {len(self.temporal)} temporal positions"
            )

    def __len__(self) -> int:
        """How many places the block takes in the sequence, without its two delimiters."""
        return len(self.temporal) * self.rows * self.cols


Part = str | VisualBlock
Prompt = tuple[Part, ...]
"""The content of the one user turn, in order."""

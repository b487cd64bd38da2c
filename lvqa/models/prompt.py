"""What a model is shown: the content of one user turn, text and visual tokens in order."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

Seconds = tuple[float, float]
"""When the two frames of a pair are shown; twice the same for a frame without a partner."""


@dataclass(frozen=True, slots=True, eq=False)
class ClipTokens:
    """A run of frame pairs, already encoded. The model sees it as one video."""

    tokens: Tensor
    """(pairs, rows * cols, width): the visual tokens, as the model has encoded them."""
    rows: int
    cols: int
    seconds: tuple[Seconds, ...] = ()
    """Of each pair, counted from where the block counts, never falling; without them the pairs follow evenly."""
    is_image: bool = False
    """A picture, and not film."""

    def __post_init__(self) -> None:
        pairs, cells = self.tokens.shape[:2]
        if pairs == 0 or cells != self.rows * self.cols or len(self.seconds) not in (0, pairs):
            raise ValueError(
                f"tokens of shape {tuple(self.tokens.shape)} are no block of {self.rows} x {self.cols} cells "
                f"with the seconds of {len(self.seconds)} pairs"
            )

    @property
    def num_pairs(self) -> int:
        return len(self.tokens)


class AudioTokens(ClipTokens):
    """Sound, already encoded: each of its tokens in the place of a pair of one cell."""


Part = str | ClipTokens
Prompt = tuple[Part, ...]
"""The content of the one user turn, in order."""

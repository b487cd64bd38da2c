"""What a model has read once and need not read again: the beginnings of prompts, as keys and values."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

from torch import Tensor

from lvqa.models.held import Held


@dataclass(frozen=True, slots=True, eq=False)
class PrefixKV:
    """A prompt up to the end of a visual block, as the model has read it."""

    keys_values: Tensor
    """(layers, 2, kv_heads, length, head_dim), keys with their rotation."""
    next_position: int
    """Where the text after it goes on."""

    def __len__(self) -> int:
        return int(self.keys_values.shape[3])

    @property
    def nbytes(self) -> int:
        """What it takes of the memory."""
        return self.keys_values.nbytes


PrefixCache = Held[Hashable, PrefixKV]
"""PrefixCache by the name that the caller has for them."""

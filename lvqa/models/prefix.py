"""Prompt prefixes that a model has already processed, kept as keys and values."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lvqa.models.cache import ByteLRUCache

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class PrefixKV:
    """The keys and values of a prompt's prefix, which ends with a clip."""

    keys_values: Tensor
    """The keys, with their rotation, and the values: (layers, 2, kv_heads, length, head_dim)."""
    next_position: int
    """The position of the first token after the prefix."""

    def __len__(self) -> int:
        return int(self.keys_values.shape[3])

    @property
    def nbytes(self) -> int:
        """How many bytes of memory the keys and values take."""
        return self.keys_values.nbytes


class PrefixCache(ByteLRUCache[Hashable, PrefixKV]):
    """Keep prefixes up to a number of bytes, by keys that the caller chooses."""

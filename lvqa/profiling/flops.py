"""Count the floating-point operations of a Qwen2.5-VL from its configuration. A multiply-add counts as two."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class LanguageCost:
    """The operations of the language model."""

    hidden: int
    intermediate: int
    heads_dim: int
    """The width of all query heads together."""
    kv_dim: int
    """The width of all key heads together."""
    layers: int
    vocabulary: int

    @classmethod
    def from_config(cls, config: Any) -> LanguageCost:
        """Read the sizes from a Qwen2.5-VL's text configuration."""
        head_dim = config.hidden_size // config.num_attention_heads
        return cls(
            hidden=config.hidden_size,
            intermediate=config.intermediate_size,
            heads_dim=head_dim * config.num_attention_heads,
            kv_dim=head_dim * config.num_key_value_heads,
            layers=config.num_hidden_layers,
            vocabulary=config.vocab_size,
        )

    @property
    def _keys_values(self) -> int:
        return 4 * self.hidden * self.kv_dim

    @property
    def _rest_of_layer(self) -> int:
        """Return the operations of the queries, the output and the MLP of one token."""
        return 4 * self.hidden * self.heads_dim + 6 * self.hidden * self.intermediate

    def _attention(self, num_keys: float) -> float:
        """Return the operations of one token that attends to so many keys."""
        return 4 * self.heads_dim * num_keys

    def last_position(self, length: int, past: int = 0, *, with_last_mlp: bool = True) -> float:
        """Return the least operations that give the last token's state, without the head.

        They are all layers but the last at each token, and the last layer's keys and values; the rest of the last layer
        is computed at the last token only.
        """
        num_keys = past + (length + 1) / 2
        lower_layers = (
            (self.layers - 1) * length * (self._keys_values + self._rest_of_layer + self._attention(num_keys))
        )
        mlp = 6 * self.hidden * self.intermediate if with_last_mlp else 0
        last_layer = (
            length * self._keys_values + 4 * self.hidden * self.heads_dim + self._attention(past + length) + mlp
        )
        return lower_layers + last_layer

    def keys_values(self, length: int) -> float:
        """Return the operations that prefill a prefix: all layers but the last, and the last one's keys and values."""
        num_keys = (length + 1) / 2
        per_token = self._keys_values + self._rest_of_layer + self._attention(num_keys)
        return (self.layers - 1) * length * per_token + length * self._keys_values

    def head(self, positions: int, words: int | None = None) -> float:
        """Return the operations of the language head at so many positions, for some words or the whole vocabulary."""
        return 2 * self.hidden * positions * (words or self.vocabulary)


@dataclass(frozen=True, slots=True)
class VisionCost:
    """The operations of the vision tower."""

    hidden: int
    intermediate: int
    layers: int
    full_layers: int
    out: int
    patch: int
    merge: int
    window: int

    @classmethod
    def from_config(cls, config: Any) -> VisionCost:
        """Read the sizes from a Qwen2.5-VL's vision configuration."""
        return cls(
            hidden=config.hidden_size,
            intermediate=config.intermediate_size,
            layers=config.depth,
            full_layers=len(config.fullatt_block_indexes),
            out=config.out_hidden_size,
            patch=config.patch_size,
            merge=config.spatial_merge_size,
            window=config.window_size,
        )

    def pair(self, height: int, width: int) -> float:
        """Return the operations of one frame pair of this size in pixels."""
        patches = (height // self.patch) * (width // self.patch)
        in_window = min(patches, (self.window // self.patch) ** 2)
        dense = 8 * self.hidden**2 + 6 * self.hidden * self.intermediate
        attention = 4 * self.hidden * (self.full_layers * patches + (self.layers - self.full_layers) * in_window)
        embed = 2 * (3 * 2 * self.patch**2) * self.hidden
        merged = patches / self.merge**2
        wide = self.hidden * self.merge**2
        merger = merged * (2 * wide * wide + 2 * wide * self.out)
        return patches * (self.layers * dense + attention + embed) + merger

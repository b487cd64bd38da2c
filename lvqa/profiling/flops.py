"""How many floating-point operations a Qwen2.5-VL needs, counted from its configuration. A multiply-add is two."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class LanguageCost:
    """Of the language model."""

    hidden: int
    intermediate: int
    heads_dim: int
    """Width of all query heads together."""
    kv_dim: int
    """Width of all key heads together."""
    layers: int
    vocabulary: int

    @classmethod
    def of(cls, config: Any) -> LanguageCost:
        """From a Qwen2.5-VL's text configuration."""
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
        """Queries, output and MLP of one token."""
        return 4 * self.hidden * self.heads_dim + 6 * self.hidden * self.intermediate

    def _attention(self, seen: float) -> float:
        """Of one token that sees so many."""
        return 4 * self.heads_dim * seen

    def all_positions(self, length: int, past: int = 0) -> float:
        """Every layer at each of `length` tokens behind `past` ones, as a plain forward does it; without the head."""
        seen = past + (length + 1) / 2
        return self.layers * length * (self._keys_values + self._rest_of_layer + self._attention(seen))

    def last_position(self, length: int, past: int = 0, *, with_last_mlp: bool = True) -> float:
        """What the last token's state needs: all layers but the last at each token, of the last its keys and values."""
        seen = past + (length + 1) / 2
        before = (self.layers - 1) * length * (self._keys_values + self._rest_of_layer + self._attention(seen))
        mlp = 6 * self.hidden * self.intermediate if with_last_mlp else 0
        last = length * self._keys_values + 4 * self.hidden * self.heads_dim + self._attention(past + length) + mlp
        return before + last

    def keys_values(self, length: int) -> float:
        """What reading a beginning needs: all layers but the last, and the last one's keys and values."""
        seen = (length + 1) / 2
        per_token = self._keys_values + self._rest_of_layer + self._attention(seen)
        return (self.layers - 1) * length * per_token + length * self._keys_values

    def head(self, positions: int, words: int | None = None) -> float:
        """The language head at so many positions, for some words or the whole vocabulary."""
        return 2 * self.hidden * positions * (words or self.vocabulary)


@dataclass(frozen=True, slots=True)
class VisionCost:
    """Of the vision tower."""

    hidden: int
    intermediate: int
    layers: int
    full_layers: int
    out: int
    patch: int
    merge: int
    window: int

    @classmethod
    def of(cls, config: Any) -> VisionCost:
        """From a Qwen2.5-VL's vision configuration."""
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
        """One frame pair of this size, in pixels."""
        patches = (height // self.patch) * (width // self.patch)
        in_window = min(patches, (self.window // self.patch) ** 2)
        dense = 8 * self.hidden**2 + 6 * self.hidden * self.intermediate
        attention = 4 * self.hidden * (self.full_layers * patches + (self.layers - self.full_layers) * in_window)
        embed = 2 * (3 * 2 * self.patch**2) * self.hidden
        merged = patches / self.merge**2
        wide = self.hidden * self.merge**2
        merger = merged * (2 * wide * wide + 2 * wide * self.out)
        return patches * (self.layers * dense + attention + embed) + merger

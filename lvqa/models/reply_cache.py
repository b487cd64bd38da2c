"""Keys and values of replies that are written together, in memory that is allocated once."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lvqa.models.prefix import PrefixKV


class ReplyCache:
    """The keys and values of a batch of sequences, with room for so many positions that none is copied to add one.

    Its columns are those of the prefixes, then those of what is read behind them, then the tokens of the replies.
    Shorter prefixes and prompts have padding on their left, which nothing attends to. It is to the layers what the
    library's caches are.
    """

    def __init__(self, prefixes: Sequence[PrefixKV | None], num_new: int) -> None:
        """Begin with what was read of each sequence.

        Args:
            prefixes: What was read of each sequence; None: nothing.
            num_new: How many columns the prompts and the replies take at most.
        """
        lengths = [0 if prefix is None else len(prefix) for prefix in prefixes]
        self._prefixes = list(prefixes)
        self._start = self._end = max(lengths)
        """The columns that the present pass adds: from here to there."""
        self._capacity = self._end + num_new
        self._is_token = torch.arange(self._end) >= self._end - torch.tensor(lengths)[:, None]  # (batch, columns)
        self._layers: dict[int, tuple[Tensor, Tensor]] = {}

    def extend(self, num_columns: int, padding: Tensor | None = None) -> None:
        """Begin a pass that adds so many columns.

        Args:
            num_columns: How many positions each sequence gets.
            padding: False where there is padding, (batch, num_columns) bool; None without any.
        """
        if padding is None:
            padding = self._is_token.new_ones(len(self._is_token), num_columns)
        self._is_token = torch.cat([self._is_token, padding], dim=1)
        self._start, self._end = self._end, self._end + num_columns

    def columns_with_tokens(self) -> Tensor | None:
        """Return False where a column is padding, (batch, columns) bool; None without any padding."""
        return None if bool(self._is_token.all()) else self._is_token

    def mask(self) -> Tensor | None:
        """Return what the positions of the present pass attend to, (batch, 1, new, columns) bool; None: all before.

        Padding attends to itself, so that nothing is the mean of nothing.
        """
        num_new = self._end - self._start
        is_plain = self._start == 0 or num_new == 1
        if is_plain and self.columns_with_tokens() is None:
            return None
        columns = torch.arange(self._end)
        own = columns == torch.arange(self._start, self._end)[:, None]  # (new, columns)
        before = columns <= torch.arange(self._start, self._end)[:, None]
        return ((before & self._is_token[:, None]) | own)[:, None]

    def update(self, keys: Tensor, values: Tensor, layer_index: int, *_: object, **__: object) -> tuple[Tensor, Tensor]:
        """Add the keys and values of the present pass to a layer's, (batch, kv_heads, new, head_dim) each.

        Returns:
            All of the layer's, (batch, kv_heads, columns, head_dim) each; by the library's contract of a cache.
        """
        if layer_index not in self._layers:
            self._layers[layer_index] = self._allocated(keys, layer_index, 0), self._allocated(values, layer_index, 1)
        both = self._layers[layer_index]
        for stored, new in zip(both, (keys, values), strict=True):
            stored[:, :, self._start : self._end] = new
        return both[0][:, :, : self._end], both[1][:, :, : self._end]

    def before(self, layer_index: int) -> tuple[Tensor, Tensor] | None:
        """Return a layer's keys and values in the columns before the present pass; None if there are none."""
        if not self._start:
            return None
        keys, values = self._layers[layer_index]
        return keys[:, :, : self._start], values[:, :, : self._start]

    def take(self, rows: Sequence[int]) -> None:
        """Go on with these sequences; a row may be taken several times."""
        self._prefixes = [self._prefixes[row] for row in rows]
        index = torch.tensor(rows)
        self._is_token = self._is_token[index]
        for i, both in self._layers.items():
            keys, values = (stored[index.to(stored.device)] for stored in both)
            self._layers[i] = keys, values

    def _allocated(self, like: Tensor, layer_index: int, which: int) -> Tensor:
        """Return the memory of a layer's keys or values, with those of the prefixes in it."""
        batch, kv_heads, _, head_dim = like.shape
        memory = like.new_zeros(batch, kv_heads, self._capacity, head_dim)  # what is masked must be finite, too
        first_new = max((len(prefix) for prefix in self._prefixes if prefix is not None), default=0)
        for row, prefix in zip(memory, self._prefixes, strict=True):
            if prefix is not None:
                row[:, first_new - len(prefix) : first_new] = prefix.keys_values[layer_index, which]
        return memory

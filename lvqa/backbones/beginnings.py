"""What a model has read once and need not read again: the beginnings of prompts, as keys and values."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Beginning:
    """A prompt up to the end of a visual block, as the model has read it."""

    keys_values: Tensor
    """(layers, 2, kv_heads, length, head_dim), keys with their rotation."""
    next_position: int
    """Where the text after it goes on."""

    def __len__(self) -> int:
        return int(self.keys_values.shape[3])


class Beginnings:
    """Beginnings by name, as many as fit into the memory; the least recently used one goes first."""

    def __init__(self, memory_bytes: int) -> None:
        self._memory_bytes, self._held_bytes = memory_bytes, 0
        self._held: OrderedDict[Hashable, Beginning] = OrderedDict()

    def get(self, name: Hashable) -> Beginning | None:
        """The beginning of this name, if it is held."""
        if name in self._held:
            self._held.move_to_end(name)
        return self._held.get(name)

    def keep(self, name: Hashable, beginning: Beginning) -> None:
        """Hold it, and let others go if they are too many."""
        replaced = self._held.pop(name, None)
        self._held_bytes += beginning.keys_values.nbytes - (0 if replaced is None else replaced.keys_values.nbytes)
        self._held[name] = beginning
        while self._held_bytes > self._memory_bytes:
            _, gone = self._held.popitem(last=False)
            self._held_bytes -= gone.keys_values.nbytes

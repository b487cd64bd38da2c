"""A cache that is bounded by the memory that its values take."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Protocol, TypeVar

from cachetools import LRUCache


class HasBytes(Protocol):
    """A tensor, or a value that holds tensors."""

    @property
    def nbytes(self) -> int:
        """How many bytes of memory the value takes."""
        ...


Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value", bound=HasBytes)


class ByteLRUCache(LRUCache[Key, Value]):
    """Keep values up to a number of bytes in all; the least recently used one is dropped first."""

    def __init__(self, max_bytes: int, *, on_growth: Callable[[], int] = lambda: 0) -> None:
        """Make an empty cache.

        Args:
            max_bytes: What all values may take together.
            on_growth: Called when a value has been added; returns how many bytes are to be freed again, since what is
                kept elsewhere leaves no room for them.
        """
        super().__init__(max_bytes, getsizeof=lambda value: value.nbytes)
        self._on_growth = on_growth

    @property
    def nbytes(self) -> int:
        """How many bytes the values take."""
        return int(self.currsize)

    def __setitem__(self, key: Key, value: Value) -> None:
        """Keep a value, and drop others until it fits; a value larger than the bound is not kept."""
        if value.nbytes > self.maxsize:
            self.pop(key, None)
        else:
            super().__setitem__(key, value)
            excess = self._on_growth()
            while excess > 0 and self:
                excess -= self.popitem()[1].nbytes

"""What is worth keeping, as far as the memory goes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterator, ValuesView
from typing import Generic, Protocol, TypeVar


class Sized(Protocol):
    """A tensor, or what holds one."""

    @property
    def nbytes(self) -> int: ...


Name = TypeVar("Name", bound=Hashable)
Value = TypeVar("Value", bound=Sized)


class Held(Generic[Name, Value]):
    """Values by name, as many as fit into the memory; the least recently used one goes first."""

    def __init__(self, memory_bytes: int) -> None:
        self._memory_bytes = memory_bytes
        self.num_bytes = 0
        """Of all that is held."""
        self._values: OrderedDict[Name, Value] = OrderedDict()

    def __contains__(self, name: object) -> bool:
        return name in self._values

    def __iter__(self) -> Iterator[Name]:
        return iter(self._values)

    def values(self) -> ValuesView[Value]:
        """The least recently used one first."""
        return self._values.values()

    def get(self, name: Name) -> Value | None:
        """The value of this name, if it is held."""
        if name in self._values:
            self._values.move_to_end(name)
        return self._values.get(name)

    def keep(self, name: Name, value: Value) -> None:
        """Hold it, and let others go if they are too many."""
        replaced = self._values.pop(name, None)
        self.num_bytes += value.nbytes - (0 if replaced is None else replaced.nbytes)
        self._values[name] = value
        while self.num_bytes > self._memory_bytes:
            self.num_bytes -= self._values.popitem(last=False)[1].nbytes

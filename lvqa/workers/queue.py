"""The items of a run: those that are tried again, and those that are still to come."""

from __future__ import annotations

import itertools
import operator
from collections import deque
from collections.abc import Iterable, Set
from dataclasses import dataclass
from typing import Any

from lvqa.workers.failures import Attempts, Failure


@dataclass(frozen=True, slots=True)
class Result:
    """What became of an item."""

    item: Any
    value: bytes
    """Pickled; empty if it has failed."""
    failure: Failure | None
    node: str
    """The name of the node that had the item last."""


class Queue:
    """Give out items one by one. New ones are taken from their source only when a worker is free."""

    def __init__(self, items: Iterable[Any]) -> None:
        self._source = iter(items)
        self._returned: deque[Attempts[Any]] = deque()

    def is_empty(self) -> bool:
        """Return whether nothing is left; the source may have more when an item that is out is back."""
        if not self._returned:
            self._returned.extend(Attempts(item) for item in itertools.islice(self._source, 1))
        return not self._returned

    def put_back(self, attempts: Iterable[Attempts[Any]]) -> None:
        """Have items tried again, before new ones."""
        self._returned.extend(attempts)

    def take(self, node: str, nodes: Set[str], at_most: int = 1) -> list[Attempts[Any]]:
        """Return items for a node that is free, or none if there is none for it now.

        Args:
            node: The node.
            nodes: The nodes that work, or will soon.
            at_most: How many new items may be taken at once. One that was put back comes alone.
        """
        for attempts in self._returned:
            if attempts.suits(node, nodes):
                self._returned.remove(attempts)
                return [attempts]
        return [Attempts(item) for item in itertools.islice(self._source, at_most)]

    def num_new(self) -> int:
        """Return how many new items there are at least: a list says how many it has left, and a schedule doesn't."""
        return operator.length_hint(self._source)

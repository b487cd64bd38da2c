"""The items of a run: those that are tried again, and those that are still to come."""

from __future__ import annotations

import itertools
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

    def put_back(self, attempts: Attempts[Any]) -> None:
        """Have an item tried again, before new ones."""
        self._returned.append(attempts)

    def take(self, node: str, nodes: Set[str]) -> Attempts[Any] | None:
        """Return an item for a node that is free, or None if there is none for it now.

        Args:
            node: The node.
            nodes: The nodes that work, or will soon.
        """
        for attempts in self._returned:
            if attempts.suits(node, nodes):
                self._returned.remove(attempts)
                return attempts
        return next((Attempts(item) for item in self._source), None)

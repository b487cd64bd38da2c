"""What a failure says about the item that it came with, and when an item is tried again.

An item is wrong only if it fails by itself. What the place did (a worker or a node that was lost, a full disk, no
memory, a file or a package that is not there) never counts against it, however often it happens.
"""

from __future__ import annotations

import enum
import errno
import traceback
from collections.abc import Set
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Generic, TypeVar

from lvqa.records import LvqaError

Item = TypeVar("Item")

MAX_CRASHES = 2
"""An item that has ended so many processes has failed."""
MAX_LOSSES = 3
"""So often an item is given to another worker after the place has failed; then it is for a later run."""
PLACE_ERRNOS = {
    *(errno.ENOENT, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.ENODEV, errno.ENXIO),
    *(errno.ENOSPC, errno.EDQUOT, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.EBUSY),
    *(errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT, errno.ECONNREFUSED, errno.ECONNRESET, errno.EHOSTUNREACH),
    *(errno.ENOLCK, errno.ENETUNREACH, errno.EHOSTDOWN),
}
"""Errors of the system that tell of a machine, not of a file's content. EIO is not among them: FFmpeg has it for
damaged files."""


class Blame(enum.Enum):
    """What a failure tells."""

    ITEM = "item"
    """The handler raised an error; it is the item's if another node raises one, too."""
    CRASH = "crash"
    """The item's process crashed or did not end."""
    PLACE = "place"
    """The handler raised an error that the node is to blame for: no memory, no room, a missing file or package."""
    LOST = "lost"
    """The process, the worker or the node was ended or stopped from outside."""


BLAMING = (Blame.ITEM, Blame.CRASH)
"""Failures that may be the item's own."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a try gave no value."""

    reason: str
    """One line."""
    blame: Blame
    details: str = ""
    """The traceback, or what else is for a log."""
    is_bug: bool = False
    """Whether the handler raised what is no message for a user."""

    @property
    def is_places(self) -> bool:
        """Whether the place is to blame, and not the item."""
        return self.blame in (Blame.PLACE, Blame.LOST)


def one_line(text: object) -> str:
    """Return the text on one line."""
    return " ".join(str(text).split())


def failure_of(error: Exception) -> Failure:
    """Return what an error of a handler says; one that is no LvqaError is a bug, and is named with its line."""
    reason, is_bug = one_line(error), not isinstance(error, LvqaError)
    if is_bug:
        frames = traceback.extract_tb(error.__traceback__)
        where = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
        reason = f"{type(error).__name__}: {reason}{where}"
    details = "".join(traceback.format_exception(error))
    return Failure(reason, Blame.PLACE if is_of_the_place(error) else Blame.ITEM, details, is_bug)


def is_of_the_place(error: BaseException | None) -> bool:
    """Return whether an error, or what it was raised from, tells of the machine and not of the item."""
    while error is not None:
        if isinstance(error, MemoryError | ImportError) or type(error).__name__ == "OutOfMemoryError":
            return True
        if isinstance(error, OSError) and error.errno in PLACE_ERRNOS:
            return True
        error = error.__cause__
    return False


@dataclass(slots=True)
class Attempts(Generic[Item]):
    """An item, and the tries of it that have failed."""

    item: Item
    failures: list[tuple[str, Failure]] = field(default_factory=list)
    """Node -> why, in the order of time."""

    def nodes_of(self, *blames: Blame) -> set[str]:
        """Return the nodes where it has failed so; with no argument, in any way."""
        return {node for node, failure in self.failures if not blames or failure.blame in blames}

    def suits(self, node: str, nodes: Set[str]) -> bool:
        """Return whether the node may try it: where there are others, not one where it has failed.

        Args:
            node: The node that is free.
            nodes: The nodes that work, or will soon.
        """
        for failed_on in (self.nodes_of(), self.nodes_of(*BLAMING)):
            if nodes - failed_on:
                return node not in failed_on
        return True

    def verdict(self, nodes: Set[str]) -> Failure | None:
        """Return the failure that is the item's result, or None if it is to be tried again.

        Args:
            nodes: The nodes that work, or will soon.
        """
        _, last = self.failures[-1]
        crashes = sum(failure.blame is Blame.CRASH for _, failure in self.failures)
        losses = sum(failure.is_places for _, failure in self.failures)
        blamed_nodes = self.nodes_of(*BLAMING)
        if crashes >= MAX_CRASHES:
            return replace(last, reason=f"{last.reason} ({crashes} tries)", blame=Blame.CRASH)
        if len(blamed_nodes) > 1 or (last.blame is Blame.ITEM and not nodes - blamed_nodes):
            return replace(last, blame=Blame.ITEM)
        if losses >= MAX_LOSSES:
            return replace(last, reason=f"{last.reason} ({losses} losses)", blame=Blame.PLACE)
        return last if last.blame is Blame.PLACE and not nodes - self.nodes_of(Blame.PLACE) else None

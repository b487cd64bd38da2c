"""What threads that share a model need: locks that are fair, and work that ends when nobody waits for it any more."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

STOP_SECONDS = 0.1
"""How often a thread that waits for its turn checks whether it is to stop."""


class StoppedError(Exception):
    """The work was stopped: `stop_when` says by whom. What was finished before is kept, and nothing is kept in part."""


_should_stop: ContextVar[Callable[[], bool] | None] = ContextVar("should_stop", default=None)


@contextmanager
def stop_when(should_stop: Callable[[], bool]) -> Iterator[None]:
    """Have the work inside the `with` block end with StoppedError soon after `should_stop` returns true.

    It is called between stages, batches and clips, in the thread that works. Blocks may be nested: any of them stops.
    """
    outer = _should_stop.get()
    token = _should_stop.set(lambda: should_stop() or (outer is not None and outer()))
    try:
        yield
    finally:
        _should_stop.reset(token)


def check_stop() -> None:
    """Raise StoppedError if the work in this thread is to stop."""
    should_stop = _should_stop.get()
    if should_stop is not None and should_stop():
        raise StoppedError("stopped: the answer is no longer wanted")


class FairLock:
    """A lock that threads get in the order in which they ask for it. The thread that has it may take it again.

    A usual lock mostly goes to the thread that has just released it, so that a question would wait until all of another
    video is indexed.
    """

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._waiting: deque[tuple[int, threading.Lock]] = deque()
        self._owner: int | None = None
        self._depth = 0

    @property
    def num_waiting(self) -> int:
        """How many threads wait for it."""
        return len(self._waiting)

    def __enter__(self) -> None:
        """Wait for the lock. Raises StoppedError if the work is to stop before its turn."""
        thread = threading.get_ident()
        with self._mutex:
            if self._owner in (None, thread):
                self._owner = thread
                self._depth += 1
                return
            turn = threading.Lock()
            turn.acquire()
            self._waiting.append((thread, turn))
        try:
            while not turn.acquire(timeout=STOP_SECONDS):
                check_stop()
        except BaseException:
            self._leave(thread, turn)
            raise

    def __exit__(self, *_: object) -> None:
        """Hand the lock to the thread that has waited longest."""
        with self._mutex:
            self._depth -= 1
            if not self._depth:
                self._hand_on()

    def _leave(self, thread: int, turn: threading.Lock) -> None:
        """Wait no longer; the turn may have come meanwhile."""
        with self._mutex:
            if (thread, turn) in self._waiting:
                self._waiting.remove((thread, turn))
            else:
                self._hand_on()

    def _hand_on(self) -> None:
        self._owner, self._depth = None, 0
        if self._waiting:
            self._owner, turn = self._waiting.popleft()
            self._depth = 1
            turn.release()

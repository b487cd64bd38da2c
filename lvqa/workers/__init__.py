"""Run a handler over items, in processes that may die: one child of this process, or actors of Ray, here or elsewhere.

The handler always lives in a spawned child (torch and faiss hang in a forked one) that does nothing else. The watch
over it is the same with Ray and without: it notices a death or a stall, says how the child ended, which Ray does not,
starts another, and gives up on an item after `retries`. Without Ray it is kept in this process, with Ray in an actor
beside its child; Ray places the actors, carries the items, and replaces an actor that is lost with its machine.

Actors rather than Ray Data, which was measured on 5 minutes of 720p cut into segments of a minute, on one core: a plain
loop 11.2 s, actors 16.5 s, Ray Data 21.2 s, its first row after 17 s; and a row that kills its process is tried for
ever there. A worker has one item at a time, and the next is drawn from `items` only when one is free: nothing piles
up, and a death costs the one item that it belongs to.
"""

from __future__ import annotations

import pickle
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from types import FrameType
from typing import Any, Generic, Protocol, Self, TypeVar

from lvqa.validation import require
from lvqa.workers.watch import Job, Worker

Item = TypeVar("Item")
Value = TypeVar("Value")

Prepare = Callable[[], None]
"""Called in each worker before its handler is made; a function of a module, or a `functools.partial` of one."""


@dataclass(frozen=True, slots=True)
class Outcome(Generic[Item, Value]):
    """What became of an item: the handler's value, or one line that says why there is none."""

    item: Item
    value: Value | None
    error: str | None


class Pool(Generic[Item, Value]):
    """Workers that outlive their items' accidents. Starts with the `with` block, and leaves no process behind it.

    `make()` is called once in each worker and returns its handler; it and the items are pickled, so `make` is a
    function of a module, or a `functools.partial` of one. An LvqaError that it raises ends the run: no worker could do
    better. What a handler raises is its item's error and is not tried again. An item whose worker dies, or takes longer
    than `stall_seconds` over it, is tried `retries` times more, in a fresh process each time.

    workers: 0 is one child of this process, with no Ray; it has all the cores. N are actors on a Ray of their own, or
    on the cluster at `address`, each with its share of the cores as OMP_NUM_THREADS, unless that is set. They see
    `gpus_per_worker` GPUs (at 0.5 two share one, and one decodes while the other computes), and none at 0. A Ray that
    this process has joined already is used as it is, and left running.
    """

    def __init__(
        self,
        make: Callable[[], Callable[[Item], Value]],
        *,
        workers: int,
        address: str | None = None,
        gpus_per_worker: float = 0,
        retries: int = 1,
        stall_seconds: float | None = None,
    ) -> None:
        """Raises LvqaError for a number that is not allowed. Starts nothing."""
        require(workers >= 0, "workers", workers, "0 (no Ray) or more")
        require(address is None or workers > 0, "workers", workers, "1 or more where the address of a Ray is given")
        whole_or_share = 0 <= gpus_per_worker <= 1 or (gpus_per_worker > 1 and float(gpus_per_worker).is_integer())
        require(whole_or_share, "gpus_per_worker", gpus_per_worker, "a share of one GPU, or a whole number")
        require(retries >= 0, "retries", retries, "0 or more")
        require(stall_seconds is None or stall_seconds > 0, "stall_seconds", stall_seconds, "more than 0, or null")
        self._workers, self._address, self._gpus_per_worker = workers, address, gpus_per_worker
        self._job = Job(pickle.dumps(make), retries=retries, stall_seconds=stall_seconds)

    def __enter__(self) -> Self:
        """Raises LvqaError if Ray can't be joined, or has no room for so many workers."""
        self._terminated = False
        self._sigterm = self._handle_sigterm(self._terminate)
        try:
            self._crew = self._hired()
        except BaseException:
            self._handle_sigterm(self._sigterm)
            raise
        self._handle_sigterm(self._terminate)  # once more: Ray puts its own beneath, which tells of it on stderr
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._crew.stop()
        finally:
            self._handle_sigterm(self._sigterm)
        if self._terminated:
            raise SystemExit(128 + signal.SIGTERM)  # Ray may have made a 1 of it

    def _terminate(self, signum: int, _: FrameType | None) -> None:
        """SIGTERM would end this process on the spot, and the pool would not be closed."""
        self._terminated = True
        raise SystemExit(128 + signum)

    @staticmethod
    def _handle_sigterm(handler: Any) -> Any:
        """Sets the handler and returns the one before, where that is possible: in the main thread."""
        if handler is not None and threading.current_thread() is threading.main_thread():
            return signal.signal(signal.SIGTERM, handler)
        return None

    def run(self, items: Iterable[Item]) -> Iterator[Outcome[Item, Value]]:
        """What becomes of each item, in the order in which they are done. `items` is drawn from as workers get free.

        May be called again while the pool is open. Raises what `make` raised.
        """
        for item, reply in self._crew.replies(items):
            value, error = pickle.loads(reply)
            yield Outcome(item, value, error)

    def _hired(self) -> _Backend:
        if not self._workers:
            return ProcessBackend(self._job)
        from lvqa.workers.ray_backend import RayBackend

        return RayBackend(
            self._job, workers=self._workers, address=self._address, gpus_per_worker=self._gpus_per_worker
        )


class _Backend(Protocol):
    """Workers, however many and wherever they are."""

    def replies(self, items: Iterable[Item]) -> Iterator[tuple[Item, bytes]]: ...

    def stop(self) -> None: ...


class ProcessBackend:
    """One child, no Ray."""

    def __init__(self, job: Job) -> None:
        self._worker = Worker(job)

    def replies(self, items: Iterable[Item]) -> Iterator[tuple[Item, bytes]]:
        for item in items:
            yield item, self._worker.handle(pickle.dumps(item))

    def stop(self) -> None:
        self._worker.stop()

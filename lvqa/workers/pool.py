"""The pool of workers, and the backend that runs them without Ray."""

from __future__ import annotations

import pickle
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from types import FrameType
from typing import Any, Generic, Protocol, Self, TypeVar

from lvqa.validation import require
from lvqa.workers import main_guard
from lvqa.workers.worker import Worker, WorkerSpec

Item = TypeVar("Item")
Value = TypeVar("Value")

Prepare = Callable[[], None]
"""A function that each worker calls before it makes its handler: one of a module, or a `functools.partial` of one."""


@dataclass(frozen=True, slots=True)
class Outcome(Generic[Item, Value]):
    """The result of one item: the handler's value, or an error of one line."""

    item: Item
    value: Value | None
    error: str | None


class Pool(Generic[Item, Value]):
    """Run a handler over items in worker processes, and outlive their deaths.

    The pool starts with the `with` block, and leaves no process behind it. An item whose worker dies or stalls is tried
    again in a fresh process. What a handler raises is the error of its item, and is not tried again.

    Args:
        make: Returns the handler. Each worker calls it once. It and the items are pickled, so it must be a function of
            a module, or a `functools.partial` of one. An LvqaError that it raises ends the run: no worker could do
            better.
        workers: 0 starts one child of this process, without Ray; the child has all cores. N starts N actors, each with
            its share of the cores as OMP_NUM_THREADS, unless that is set.
        address: The Ray cluster to join. By default Ray is started on this machine. A Ray that this process has joined
            already is used as it is, and left running.
        gpus_per_worker: The GPUs that an actor sees: none at 0. At 0.5 two actors share one, so that one decodes while
            the other computes.
        retries: How many more times an item is tried whose worker dies or stalls.
        stall_seconds: How long a worker may take for one item. By default there is no limit.

    Raises:
        LvqaError: A number is not allowed.
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
        require(workers >= 0, "workers", workers, "0 (no Ray) or more")
        require(address is None or workers > 0, "workers", workers, "1 or more where the address of a Ray is given")
        whole_or_share = 0 <= gpus_per_worker <= 1 or (gpus_per_worker > 1 and float(gpus_per_worker).is_integer())
        require(whole_or_share, "gpus_per_worker", gpus_per_worker, "a share of one GPU, or a whole number")
        require(retries >= 0, "retries", retries, "0 or more")
        require(stall_seconds is None or stall_seconds > 0, "stall_seconds", stall_seconds, "more than 0, or null")
        self._workers, self._address, self._gpus_per_worker = workers, address, gpus_per_worker
        self._spec = WorkerSpec(pickle.dumps(make), retries=retries, stall_seconds=stall_seconds)

    def __enter__(self) -> Self:
        """Start the workers.

        Raises:
            LvqaError: Ray can't be joined, or has no room for so many workers.
        """
        main_guard.exit_in_worker()
        self._terminated = False
        self._previous_sigterm = self._set_sigterm(self._terminate)
        try:
            self._backend = self._start_backend()
        except BaseException:
            self._set_sigterm(self._previous_sigterm)
            raise
        self._set_sigterm(self._terminate)  # again: Ray installs a handler of its own, which writes to stderr
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._backend.stop()
        finally:
            self._set_sigterm(self._previous_sigterm)
        if self._terminated:
            raise SystemExit(128 + signal.SIGTERM)  # Ray may have turned the exit code into 1

    def _terminate(self, signum: int, _: FrameType | None) -> None:
        """Leave the `with` block on SIGTERM, which would otherwise end this process before the pool is closed."""
        self._terminated = True
        raise SystemExit(128 + signum)

    @staticmethod
    def _set_sigterm(handler: Any) -> Any:
        """Install the handler and return the previous one; do nothing outside the main thread, where it is refused."""
        if handler is not None and threading.current_thread() is threading.main_thread():
            return signal.signal(signal.SIGTERM, handler)
        return None

    def run(self, items: Iterable[Item]) -> Iterator[Outcome[Item, Value]]:
        """Yield the outcome of each item, in the order in which they are completed.

        An item is taken from `items` when a worker is free. `run` may be called again while the pool is open.

        Raises:
            LvqaError: `make` raised it, or a worker's process dies whenever it starts.
            RuntimeError: `make` raised anything else; the message holds its traceback.
        """
        for item, reply in self._backend.replies(items):
            value, error = pickle.loads(reply)
            yield Outcome(item, value, error)

    def _start_backend(self) -> Backend:
        if not self._workers:
            return ProcessBackend(self._spec)
        from lvqa.workers.ray_backend import RayBackend

        return RayBackend(
            self._spec, workers=self._workers, address=self._address, gpus_per_worker=self._gpus_per_worker
        )


class Backend(Protocol):
    """Workers, of any number and on any machine."""

    def replies(self, items: Iterable[Item]) -> Iterator[tuple[Item, bytes]]:
        """Yield each item with its pickled (value, error), in the order in which they are completed."""
        ...

    def stop(self) -> None:
        """End all processes that the backend has started."""
        ...


class ProcessBackend:
    """One child of this process, without Ray."""

    def __init__(self, spec: WorkerSpec) -> None:
        self._worker = Worker(spec)

    def replies(self, items: Iterable[Item]) -> Iterator[tuple[Item, bytes]]:
        """Yield each item with its pickled (value, error), in order."""
        for item in items:
            yield item, self._worker.handle(pickle.dumps(item))

    def stop(self) -> None:
        """End the child."""
        self._worker.stop()

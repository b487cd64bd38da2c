"""The pool of workers, and the backend that runs them without Ray."""

from __future__ import annotations

import logging
import pickle
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Generic, Literal, Protocol, Self, TypeVar

from lvqa.validation import require
from lvqa.workers import main_guard
from lvqa.workers.failures import Attempts, Blame, Failure
from lvqa.workers.log_folder import LogFolder
from lvqa.workers.nodes import NodeFacts, Probe
from lvqa.workers.queue import Result
from lvqa.workers.worker import Worker, WorkerSpec

_log = logging.getLogger(__name__)

Item = TypeVar("Item")
Value = TypeVar("Value")

Prepare = Callable[[], None]
"""A function that each worker calls before it makes its handler: one of a module, or a `functools.partial` of one."""

STALL_SECONDS = 600.0
"""How long a worker may give no sign of progress, unless it is set."""
HEARTBEAT_SECONDS = 60.0
"""How often a pool says how its workers are."""


@dataclass(frozen=True, slots=True)
class Outcome(Generic[Item, Value]):
    """The result of one item: the handler's value, or an error of one line."""

    item: Item
    value: Value | None
    error: str | None
    node: str = field(default="", compare=False)
    """The name of the machine that had the item last."""
    by_place: bool = field(default=False, compare=False)
    """Whether the error says nothing about the item: what the machines did is to blame, and it is to be tried again."""
    is_unforeseen: bool = field(default=False, compare=False)
    """Whether its process crashed or did not end, or the handler met a bug: which part of the item is at fault is not
    known."""


class Pool(Generic[Item, Value]):
    """Run a handler over items in worker processes, and outlive their deaths.

    The pool starts with the `with` block, and leaves no process behind it. What the place has done is never the item's
    failure: an item whose worker is lost is given to another one, three times at most. What a handler raises is the
    item's error if another node raises an error, too, or if there is no other one; so is a crash of its process that
    happens twice.

    Args:
        make: Returns the handler. Each worker calls it once. It and the items are pickled, so it must be a function of
            a module, or a `functools.partial` of one. If it raises an error, the node is left out, and the run ends
            when no other is left. The handler may have an `identity`: text that must be equal in all workers.
        workers: 0 starts one child of this process, without Ray; the child has all cores. N starts N actors, each with
            its share of its node's cores as OMP_NUM_THREADS, unless that is set. "max" starts as many as there is room
            for, and more when nodes join.
        address: The Ray cluster to join: host:port, auto, or ray://host:port. By default that in RAY_ADDRESS, else Ray
            is started on this machine. A Ray that this process has joined already is used as it is, and left running.
        gpus_per_worker: The GPUs that an actor sees: none at 0. At 0.5 two actors share one, so that one decodes while
            the other computes.
        runtime_env: Ray's settings for what workers need, as `ray.init` takes them.
        stall_seconds: How long a worker may give no sign of progress while it has an item.
        item_seconds: Returns how much longer that may be for an item.
        probe: Tries a node before it works. What it says must equal what it says here.
        identity: What the handler's `identity` must be; by default what the first worker's is.
        status: Called every minute with a line on the workers.
        log_folder: Where tracebacks, and what workers on Ray print, are kept.

    Raises:
        LvqaError: A number is not allowed.
    """

    def __init__(
        self,
        make: Callable[[], Callable[[Item], Value]],
        *,
        workers: int | Literal["max"],
        address: str | None = None,
        gpus_per_worker: float = 0,
        runtime_env: Mapping[str, Any] | None = None,
        stall_seconds: float = STALL_SECONDS,
        item_seconds: Callable[[Item], float] = lambda _: 0.0,
        probe: Probe | None = None,
        identity: str | None = None,
        status: Callable[[str], None] = lambda _: None,
        log_folder: Path | None = None,
    ) -> None:
        require(workers == "max" or workers >= 0, "workers", workers, "0 (no Ray) or more, or max")
        require(address is None or workers != 0, "workers", workers, "1 or more where the address of a Ray is given")
        can_be_given = 0 <= gpus_per_worker <= 1 or (gpus_per_worker > 1 and gpus_per_worker % 1 == 0)
        allowed = "a share of one GPU, from 0 to 1, or a whole number of GPUs"
        require(can_be_given, "gpus_per_worker", gpus_per_worker, allowed)
        require(stall_seconds > 0, "stall_seconds", stall_seconds, "more than 0")
        self._workers, self._address, self._gpus_per_worker = workers, address, gpus_per_worker
        self._runtime_env, self._probe, self._item_seconds = runtime_env, probe, item_seconds
        self._identity = identity
        self._status, self._logs = status, LogFolder(log_folder)
        self._spec = WorkerSpec(pickle.dumps(make), stall_seconds=stall_seconds)
        self._next_heartbeat = time.monotonic() + HEARTBEAT_SECONDS

    def __enter__(self) -> Self:
        """Start the workers.

        Raises:
            ClusterError: Ray can't be joined, or has no room for so many workers.
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

    @property
    def node_facts(self) -> Mapping[str, NodeFacts]:
        """What is known of the nodes that were tried, by their names."""
        return self._backend.node_facts

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

        An item is taken from `items` when a worker is free, or several where they take a few milliseconds each and
        `items` says how many are left. `run` may be called again while the pool is open.

        Raises:
            LvqaError: `make` raised it on every node, or a worker's process dies whenever it starts.
            RuntimeError: `make` raised anything else; the message holds its traceback.
            ClusterLostError: The cluster has ended.
        """
        for result in self._backend.results(items):
            if result.failure is None:
                yield Outcome(result.item, pickle.loads(result.value), None, result.node)
            else:
                failure = result.failure
                is_unforeseen = failure.is_bug or failure.blame is Blame.CRASH
                yield Outcome(result.item, None, failure.reason, result.node, failure.is_places, is_unforeseen)

    def _start_backend(self) -> Backend:
        if self._workers == 0:
            return ProcessBackend(self._spec, self._item_seconds, self._logs, self._on_wait)
        from lvqa.workers.ray_backend import RayBackend, RayOptions

        options = RayOptions(
            workers=None if self._workers == "max" else self._workers,
            address=self._address,
            gpus_per_worker=self._gpus_per_worker,
            runtime_env=self._runtime_env,
            probe=self._probe,
            identity=self._identity,
            item_seconds=self._item_seconds,
        )
        return RayBackend(self._spec, options, self._logs, self._on_wait)

    def _on_wait(self, workers: str) -> None:
        if time.monotonic() >= self._next_heartbeat:
            self._next_heartbeat = time.monotonic() + HEARTBEAT_SECONDS
            self._status(workers)


class Backend(Protocol):
    """Workers, of any number and on any machine."""

    node_facts: dict[str, NodeFacts]

    def results(self, items: Iterable[Any]) -> Iterator[Result]:
        """Yield the result of each item, in the order in which they are completed."""
        ...

    def stop(self) -> None:
        """End all processes that the backend has started."""
        ...


class ProcessBackend:
    """One child of this process, without Ray."""

    def __init__(
        self,
        spec: WorkerSpec,
        item_seconds: Callable[[Any], float],
        logs: LogFolder,
        on_wait: Callable[[str], None],
    ) -> None:
        self._worker, self._item_seconds, self._logs, self._on_wait = Worker(spec), item_seconds, logs, on_wait
        self._node = socket.gethostname()
        self.node_facts: dict[str, NodeFacts] = {}

    def results(self, items: Iterable[Any]) -> Iterator[Result]:
        """Yield the result of each item, in order."""
        for item in items:
            attempts = Attempts(item)
            value, failure = self._try(item)
            while failure is not None:
                attempts.failures.append((self._node, failure))
                final = attempts.verdict({self._node})
                if final is not None:
                    failure = final
                    break
                _log.warning("%s; it is tried again", failure.reason)
                value, failure = self._try(item)
            yield Result(item, value, failure, self._node)

    def stop(self) -> None:
        """End the child."""
        self._worker.stop()

    def _try(self, item: Any) -> tuple[bytes, Failure | None]:
        (reply,) = self._worker.handle(
            [pickle.dumps(item)], [self._item_seconds(item)], lambda: self._on_wait("1 worker")
        )
        if reply.failure is not None:
            self._logs.note_failure(self._node, reply.failure.reason, reply.failure.details)
        return reply.value, reply.failure

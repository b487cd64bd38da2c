"""One worker on Ray: the actor in its own process, and what the driver knows of it."""

from __future__ import annotations

import os
import pickle
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from lvqa.records import counted
from lvqa.startup import num_cores
from lvqa.workers.failures import Attempts, one_line
from lvqa.workers.nodes import Node, NodeFacts
from lvqa.workers.worker import Reply, StartLostError, Worker, WorkerSpec

MAX_LOG_BYTES = 1 << 16
"""So much of what a child has printed is sent along with a reply; more is left out."""

PING_SECONDS = 5.0
"""How often a worker is asked for a sign."""
NODE_IS_GONE = ("its node is gone", "it can't be reached")
"""Reasons of a loss that all workers of a node share."""


@dataclass(frozen=True, slots=True)
class ActorSpec:
    """What an actor is started with."""

    worker: WorkerSpec
    probe: bytes
    """The function that tries the node, pickled; or None."""
    environment: dict[str, str]
    import_paths: list[str]
    num_threads: str | None
    """OMP_NUM_THREADS of the user; None takes the node's cores, shared by its workers."""
    num_cores: int
    """How many cores Ray has on the node."""
    num_sharing: int
    """How many workers the node has."""


@dataclass(slots=True, eq=False)
class RayWorker:
    """An actor, as the driver sees it. It is used again only after `start` has returned, and never after its end."""

    node: Node
    actor: Any
    created_at: float
    call: str = ""
    """The method that it was called with last."""
    is_alive: bool = False
    """Whether its first call has returned: it has its place on the node."""
    is_ready: bool = False
    """Whether it has its handler."""
    attempts: list[Attempts[Any]] = field(default_factory=list)
    """The items that it has; none if they belong to a run that was left."""
    is_quick: bool = False
    """Whether its last items took next to no time, so that the next call may have several."""
    ping: Any = None
    """The call by which it is asked for a sign."""
    pinged_at: float = 0.0

    @classmethod
    def create(cls, node: Node, spec: ActorSpec, gpus_per_worker: float) -> RayWorker:
        """Ask Ray for an actor on the node; it may have to wait for room there."""
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        actor = ray.remote(_Actor).options(
            num_cpus=1,
            num_gpus=gpus_per_worker,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node.id, soft=False),
            max_concurrency=3,  # `ping` and `stop` have to get through while `handle` waits
            max_restarts=0,  # whether there is another one, and where, is decided here
            max_task_retries=0,
        )
        return cls(node, actor.remote(spec), time.monotonic())

    def look_for_sign(self, silence_seconds: float) -> Exception | None:
        """Ask the actor for a sign now and then. Returns an error if it has ended, or is silent for too long."""
        import ray

        silent_for = time.monotonic() - self.pinged_at
        try:
            if self.ping is not None and ray.wait([self.ping], timeout=0)[0]:
                ray.get(self.ping)
                self.ping = None
            if self.ping is None and silent_for >= PING_SECONDS:
                self.ping, self.pinged_at = self.actor.ping.remote(), time.monotonic()
            elif self.ping is not None and silent_for > silence_seconds:
                return TimeoutError(f"it gave no sign for {silent_for:.0f} s")
        except (ray.exceptions.RayError, ConnectionError) as error:
            return error
        return None

    def kill(self) -> None:
        """End the actor and its child, if they can be reached."""
        import ray

        with suppress(ray.exceptions.RayError, ConnectionError):
            ray.kill(self.actor)


class _Actor:
    """A worker in a process of Ray's."""

    def __init__(self, spec: ActorSpec) -> None:
        self._probe = spec.probe
        threads = spec.num_threads or str(max(1, min(num_cores(), spec.num_cores) // spec.num_sharing))
        # The child inherits both.
        os.environ.update({**spec.environment, "OMP_NUM_THREADS": threads})
        sys.path += [path for path in spec.import_paths if path not in sys.path]
        # A spawned child runs its parent's script again as it starts, and here that would import Ray.
        sys.modules["__main__"].__dict__.pop("__file__", None)
        # The file has no name, so nothing is left of it however the process ends.
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - it is open as long as the actor lives
        self._log_end = 0
        self._worker = Worker(spec.worker, log=self._log.fileno())

    def probe(self) -> NodeFacts | None:
        """Try whether the node can work, and say what it is like."""
        probe = pickle.loads(self._probe)
        return None if probe is None else probe()

    def start(self) -> tuple[str | None, bytes]:
        """Start the child; return its handler's identity, and what it has printed."""
        return self._worker.start(), self._new_log()

    def handle(self, items: Sequence[bytes], item_seconds: Sequence[float]) -> tuple[list[Reply], bytes]:
        """Return what `Worker.handle` returns, and what the child has printed."""
        return self._worker.handle(items, item_seconds), self._new_log()

    def ping(self) -> None:
        """Return: the process is not stopped, and its node is not frozen."""

    def stop(self) -> None:
        """End the child."""
        self._worker.stop()

    def _new_log(self) -> bytes:
        size = os.fstat(self._log.fileno()).st_size
        start, self._log_end = max(self._log_end, size - MAX_LOG_BYTES), size
        return os.pread(self._log.fileno(), size - start, start)


def describe_workers(workers: Sequence[RayWorker], target: int) -> str:
    """Return "3 of 4 workers: n1 2, n2 1": how many have started, and where."""
    ready = Counter(worker.node.name for worker in workers if worker.is_ready)
    by_node = ": " + ", ".join(f"{name} {number}" for name, number in ready.items()) if ready else ""
    return f"{ready.total()} of {counted(target, 'worker')}{by_node}"


def reason_of_loss(error: Exception, *, has_begun: bool) -> str:
    """Return in a few words why Ray has lost an actor; `has_begun` if it has ever answered."""
    text = one_line(error)
    if isinstance(error, TimeoutError | StartLostError):
        return text
    if "low on memory" in text or type(error).__name__ == "OutOfMemoryError":
        return "Ray ended it, because the memory of the node ran low"
    if "out of disk" in text.lower() or "No space left" in text or type(error).__name__ == "OutOfDiskError":
        return "the disk of the node is full"
    if "node has died" in text or "unschedulable" in text.lower():
        return NODE_IS_GONE[0]
    if "No module named" in text:
        return f"a package is missing there: No module named {text.split('No module named ')[1].split(' ')[0]}"
    if "unavailable" in text:
        return NODE_IS_GONE[1]
    if not has_begun:
        return "its process has ended as it began (is the disk of Ray's folder there full, or its memory?)"
    return "its process has ended"

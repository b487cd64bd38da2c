"""Workers in actors of Ray: how Ray is joined and left, where the actors are placed, and what they are given."""

from __future__ import annotations

import logging
import os
import pickle
import socket
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any, TypeVar

from lvqa.records import LvqaError
from lvqa.startup import num_cores
from lvqa.workers.worker import Worker, WorkerSpec, encode_error

_log = logging.getLogger(__name__)

Item = TypeVar("Item")

OBJECT_STORE_BYTES = 256 << 20
"""The size of the object store of a Ray that is started here; only paths and small results pass through it."""
START_WARNING_SECONDS = 60.0
"""How long Ray may take to start the first worker before a warning is logged."""
STOP_TIMEOUT_SECONDS = 10.0
"""How long the actors may take to end their children before they are killed."""
CONNECT_TIMEOUT_SECONDS = 5.0
"""How long a cluster may take to accept a connection."""


class RayBackend:
    """The backend of a pool with `workers` of 1 or more: one worker in each of so many actors."""

    def __init__(self, spec: WorkerSpec, *, workers: int, address: str | None, gpus_per_worker: float) -> None:
        threads = os.environ.get("OMP_NUM_THREADS")  # read before Ray sets its own
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        # The outcomes report what matters about an actor's end; Ray would also write it to stdout and stderr.
        os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".")
        os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")
        import ray

        self._ray_thread = _RayLifecycleThread()
        self._actors: list[Any] = []
        self._owns_ray = not ray.is_initialized()
        try:
            if self._owns_ray:
                self._connect(address, workers)
            self._start_actors(spec, workers, gpus_per_worker, threads)
        except BaseException:
            self.stop()
            raise

    def _connect(self, address: str | None, workers: int) -> None:
        if address is None:
            self._ray_thread.run(lambda: start_ray(max(num_cores(), workers)))
        else:  # joining starts no process, and may take long: it can be interrupted
            _join_cluster(address)

    def _start_actors(self, spec: WorkerSpec, workers: int, gpus_per_worker: float, threads: str | None) -> None:
        import ray

        ray_cores = _require_capacity(workers, gpus_per_worker)
        environment = {"OMP_NUM_THREADS": threads or str(max(1, ray_cores // workers))}
        if not gpus_per_worker:
            environment["CUDA_VISIBLE_DEVICES"] = ""
        actor = ray.remote(_Actor).options(
            num_cpus=1,
            num_gpus=gpus_per_worker,
            scheduling_strategy="SPREAD",
            max_concurrency=2,  # `stop` has to get through while `handle` waits
            max_restarts=-1,  # still bounded, by the tries of the items
            max_task_retries=spec.retries,
        )
        self._actors += [actor.remote(spec, environment, sys.path) for _ in range(workers)]

    def replies(self, items: Iterable[Item]) -> Iterator[tuple[Item, bytes]]:
        """Yield each item with its pickled (value, error), in the order in which they are completed."""
        import ray

        remaining = iter(items)
        busy: dict[Any, tuple[Any, Item]] = {}
        starting = {actor.start.remote(): actor for actor in self._actors}  # the cluster may have room for only some
        idle: list[Any] = []
        while True:
            while idle:
                try:
                    item = next(remaining)
                except StopIteration:
                    break
                actor = idle.pop()
                busy[actor.handle.remote(pickle.dumps(item))] = actor, item
            if idle and not busy:
                return
            completed, _ = ray.wait([*busy, *starting], timeout=START_WARNING_SECONDS)
            if completed and completed[0] in busy:
                actor, item = busy.pop(completed[0])
                idle.append(actor)
                yield item, _actor_result(completed[0])
            elif completed:
                idle.append(starting.pop(completed[0]))
                _actor_result(completed[0])
            elif not busy:
                _log.warning("still waiting for Ray to start a worker")

    def stop(self) -> None:
        """End the children, then the actors, then Ray if this backend has started it."""
        try:
            self._ray_thread.run(self._stop_actors_and_ray)
        finally:
            self._ray_thread.close()

    def _stop_actors_and_ray(self) -> None:
        import ray

        try:
            stopping = [actor.stop.remote() for actor in self._actors]
            if stopping:
                ray.wait(stopping, num_returns=len(stopping), timeout=STOP_TIMEOUT_SECONDS)
            for actor in self._actors:
                ray.kill(actor)
        finally:
            if self._owns_ray:
                ray.shutdown()


class _RayLifecycleThread:
    """A thread that starts and stops Ray; if that is interrupted, Ray leaves processes behind for a minute.

    What interrupts the main thread meanwhile is raised there when the action is complete, however often it comes. Off
    the main thread, Ray also leaves Python's handling of signals as it is. The thread lives as long as the backend:
    Ray's processes end with the thread that started them.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="lvqa-ray")

    def run(self, action: Callable[[], None]) -> None:
        interrupt: BaseException | None = None
        running = self._thread.submit(action)
        while not running.done():
            try:
                wait([running])
            except (KeyboardInterrupt, SystemExit) as error:
                interrupt = error
        if interrupt is not None:
            raise interrupt
        running.result()

    def close(self) -> None:
        self._thread.shutdown()


class _Actor(Worker):
    """A worker in a process of Ray's."""

    def __init__(self, spec: WorkerSpec, environment: dict[str, str], import_paths: list[str]) -> None:
        super().__init__(spec)
        # The child inherits both.
        os.environ.update(environment)
        sys.path += [path for path in import_paths if path not in sys.path]
        # A spawned child runs its parent's script again as it starts, and here that would import Ray.
        sys.modules["__main__"].__dict__.pop("__file__", None)


def _actor_result(reference: Any) -> bytes:
    """Return what an actor's method returned; an actor that is lost repeatedly is its item's error."""
    import ray

    try:
        reply: bytes = ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None
    except ray.exceptions.RayError as error:
        return encode_error(f"its worker was lost repeatedly: {str(error)[:200]}")
    return reply


def start_ray(num_cores: int) -> None:
    """Start a Ray for this process alone: never join a cluster that happens to run here, or that a run has left."""
    import ray

    ray.init(
        address="local",
        num_cpus=num_cores,
        include_dashboard=False,
        object_store_memory=OBJECT_STORE_BYTES,
        logging_level=logging.ERROR,
        log_to_driver=False,
    )


def _join_cluster(address: str) -> None:
    import ray

    expected = "expected the host:port of a cluster (ray start --head), or none to work on this machine"
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:  # Ray itself would try for many minutes
        socket.create_connection((host, int(port)), timeout=CONNECT_TIMEOUT_SECONDS).close()
    except (OSError, ValueError, OverflowError) as error:
        raise LvqaError(f"no Ray answers at {address!r} ({error}); {expected}") from error
    try:
        ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False)
    except (OSError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise LvqaError(f"cannot join Ray at {address!r}: {reason}; {expected}") from error


def _require_capacity(workers: int, gpus_per_worker: float) -> int:
    """Return how many cores Ray has. Raises LvqaError if it can never hold so many workers: it would wait for ever."""
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    max_workers = ray_cores = sum(int(node.get("CPU", 0)) for node in nodes)
    gpus = [int(node.get("GPU", 0)) for node in nodes]
    if gpus_per_worker:
        per_node = [n * int(1 / gpus_per_worker) if gpus_per_worker <= 1 else n // int(gpus_per_worker) for n in gpus]
        max_workers = min(ray_cores, sum(per_node))
    elif any(gpus):
        _log.warning("Ray has %d GPUs, but with gpus_per_worker 0 the workers compute on CPUs", sum(gpus))
    if max_workers < workers:
        raise LvqaError(
            f"workers must be at most {max_workers}, each with a core and {gpus_per_worker:g} GPUs "
            f"of Ray's {ray_cores} and {sum(gpus)}; got {workers}"
        )
    return ray_cores

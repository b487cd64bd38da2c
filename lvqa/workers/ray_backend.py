"""A worker in each of some Ray actors: where they are placed, what they are given, how Ray is joined and left."""

from __future__ import annotations

import logging
import os
import pickle
import socket
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any, TypeVar

from lvqa.records import LvqaError, num_cores
from lvqa.workers.watch import Job, Worker, failure

_log = logging.getLogger(__name__)

Item = TypeVar("Item")

_OBJECT_STORE_BYTES = 256 << 20
_PATIENCE_SECONDS = 60.0
_STOPPING_SECONDS = 10.0
_CONNECT_TIMEOUT_SECONDS = 5.0


class RayBackend:
    """The crew of a pool with `workers` of 1 or more."""

    def __init__(self, job: Job, *, workers: int, address: str | None, gpus_per_worker: float) -> None:
        threads = os.environ.get("OMP_NUM_THREADS")  # before Ray sets its own
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        # What matters of an actor's end is told by the outcomes; Ray would tell it on stdout and stderr, too.
        os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".")
        os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")
        import ray

        self._steward = _RayThread()
        self._actors: list[Any] = []
        self._is_ours = not ray.is_initialized()
        try:
            if self._is_ours:
                self._join(address, workers)
            self._hire(job, workers, gpus_per_worker, threads)
        except BaseException:
            self.stop()
            raise

    def _join(self, address: str | None, workers: int) -> None:
        if address is None:
            self._steward.do(lambda: start_ray(max(num_cores(), workers)))
        else:  # starts no process, and may take long
            _join_cluster(address)

    def _hire(self, job: Job, workers: int, gpus_per_worker: float, threads: str | None) -> None:
        import ray

        num_cores = _checked_room(workers, gpus_per_worker)
        environment = {"OMP_NUM_THREADS": threads or str(max(1, num_cores // workers))}
        if not gpus_per_worker:
            environment["CUDA_VISIBLE_DEVICES"] = ""
        actor = ray.remote(_Actor).options(
            num_cpus=1,
            num_gpus=gpus_per_worker,
            scheduling_strategy="SPREAD",
            max_concurrency=2,  # `stop` has to get through while `handle` waits
            max_restarts=-1,  # bounded all the same, by the tries of the items
            max_task_retries=job.retries,
        )
        self._actors += [actor.remote(job, environment, sys.path) for _ in range(workers)]

    def replies(self, items: Iterable[Item]) -> Iterator[tuple[Item, bytes]]:
        """Each item with its reply, as they are done."""
        import ray

        waiting = iter(items)
        busy: dict[Any, tuple[Any, Item]] = {}
        starting = {actor.start.remote(): actor for actor in self._actors}  # the cluster may have room for some only
        free: list[Any] = []
        while True:
            while free:
                try:
                    item = next(waiting)
                except StopIteration:
                    break
                actor = free.pop()
                busy[actor.handle.remote(pickle.dumps(item))] = actor, item
            if free and not busy:
                return
            done, _ = ray.wait([*busy, *starting], timeout=_PATIENCE_SECONDS)
            if done and done[0] in busy:
                actor, item = busy.pop(done[0])
                free.append(actor)
                yield item, _result(done[0])
            elif done:
                free.append(starting.pop(done[0]))
                _result(done[0])
            elif not busy:
                _log.warning("still waiting for Ray to start a worker")

    def stop(self) -> None:
        """Ends the children, then the actors, then Ray if it is the pool's own."""
        try:
            self._steward.do(self._dismiss)
        finally:
            self._steward.close()

    def _dismiss(self) -> None:
        import ray

        try:
            told = [actor.stop.remote() for actor in self._actors]
            if told:
                ray.wait(told, num_returns=len(told), timeout=_STOPPING_SECONDS)
            for actor in self._actors:
                ray.kill(actor)
        finally:
            if self._is_ours:
                ray.shutdown()


class _RayThread:
    """A thread that starts and stops Ray; interrupted in that, Ray leaves processes behind for a minute.

    What interrupts the main thread meanwhile is raised there when the work is done, however often it comes. Off the
    main thread, Ray also leaves Python's handling of signals as it is. The thread lives as long as the crew: Ray's
    processes end with the thread that started them.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="lvqa-ray")

    def do(self, work: Callable[[], None]) -> None:
        interrupt: BaseException | None = None
        running = self._thread.submit(work)
        while not running.done():
            try:
                wait([running])
            except (KeyboardInterrupt, SystemExit) as signalled:
                interrupt = signalled
        if interrupt is not None:
            raise interrupt
        running.result()

    def close(self) -> None:
        self._thread.shutdown()


class _Actor(Worker):
    """The watch, in a process of Ray's."""

    def __init__(self, job: Job, environment: dict[str, str], path: list[str]) -> None:
        super().__init__(job)
        # The child's too, from its birth.
        os.environ.update(environment)
        sys.path += [folder for folder in path if folder not in sys.path]
        # A spawned child runs its parent's script again on its way, and here that would import Ray.
        sys.modules["__main__"].__dict__.pop("__file__", None)


def _result(done: Any) -> bytes:
    """What an actor's method returned. An actor that is lost again and again is its item's failure."""
    import ray

    try:
        reply: bytes = ray.get(done)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None
    except ray.exceptions.RayError as error:
        return failure(f"its worker was lost again and again: {str(error)[:200]}")
    return reply


def start_ray(num_cores: int) -> None:
    """A Ray of this process alone: never a cluster that happens to run here, nor what an earlier run has left."""
    import ray

    ray.init(
        address="local",
        num_cpus=num_cores,
        include_dashboard=False,
        object_store_memory=_OBJECT_STORE_BYTES,
        logging_level=logging.ERROR,
        log_to_driver=False,
    )


def _join_cluster(address: str) -> None:
    import ray

    expected = "expected the host:port of a cluster (ray start --head), or none to work on this machine"
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:  # Ray itself would knock for many minutes
        socket.create_connection((host, int(port)), timeout=_CONNECT_TIMEOUT_SECONDS).close()
    except (OSError, ValueError, OverflowError) as error:
        raise LvqaError(f"no Ray answers at {address!r} ({error}); {expected}") from error
    try:
        ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False)
    except (OSError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise LvqaError(f"cannot join Ray at {address!r}: {reason}; {expected}") from error


def _checked_room(workers: int, gpus_per_worker: float) -> int:
    """Ray's cores. Raises LvqaError if it can never hold so many workers, since it would wait for ever."""
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    room = num_cores = sum(int(node.get("CPU", 0)) for node in nodes)
    gpus = [int(node.get("GPU", 0)) for node in nodes]
    if gpus_per_worker:
        shares = [n * int(1 / gpus_per_worker) if gpus_per_worker <= 1 else n // int(gpus_per_worker) for n in gpus]
        room = min(num_cores, sum(shares))
    elif any(gpus):
        _log.warning("Ray has %d GPUs, but with gpus_per_worker 0 the workers compute on CPUs", sum(gpus))
    if room < workers:
        raise LvqaError(
            f"workers must be at most {room}, each with a core and {gpus_per_worker:g} GPUs "
            f"of Ray's {num_cores} and {sum(gpus)}; got {workers}"
        )
    return num_cores

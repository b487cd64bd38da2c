"""How Ray is started, joined and left, and how its head is watched."""

from __future__ import annotations

import atexit
import contextlib
import importlib.util
import logging
import os
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, Generic, TypeVar

from lvqa.records import LvqaError
from lvqa.startup import num_cores
from lvqa.workers.failures import one_line

T = TypeVar("T")

OBJECT_STORE_BYTES = 256 << 20
"""The size of the object store of a Ray that is started here; only paths and small results pass through it."""
CONNECT_TIMEOUT_SECONDS = 5.0
"""How long a cluster may take to accept a connection."""
JOIN_TIMEOUT_SECONDS = 60.0
"""How long Ray may take to join a cluster."""
WATCH_SECONDS = 2.0
"""How often the cluster is asked which nodes it has."""
HEAD_RESTART_SECONDS = 10.0
"""How long the head may be gone: where it is kept by an operator, it comes back."""
HEAD_TIMEOUT_SECONDS = 40.0
"""How long the head may take to answer that, before the cluster counts as gone. Ray would end the process at 60."""
LEAVE_TIMEOUT_SECONDS = 10.0
"""How long Ray may take to leave a cluster."""
EXPECTED = "expected host:port of a cluster (ray start --head), auto, ray://host:10001, or none for this machine alone"
TOKEN_ADVICE = (
    "the cluster wants a token (Ray's token authentication): set RAY_AUTH_MODE=token, and put the cluster's token into "
    "RAY_AUTH_TOKEN, a file named by RAY_AUTH_TOKEN_PATH, or ~/.ray/auth_token (ray get-auth-token prints it)"
)


class ClusterError(LvqaError):
    """There is no such cluster, or it can't be joined."""


class ClusterLostError(LvqaError):
    """The cluster has ended, or no node of it is left."""


class RayCluster:
    """The Ray that this process works on: one that was joined already, one of its own, or one at an address."""

    def __init__(self, address: str | None, *, num_workers: int | None, runtime_env: Mapping[str, Any] | None) -> None:
        """Join Ray, or start it.

        Args:
            address: See `Pool`; None takes RAY_ADDRESS, and without that starts Ray on this machine.
            num_workers: How many workers a Ray that is started must hold.
            runtime_env: Ray's settings for what workers need.

        Raises:
            ClusterError: No cluster can be joined there.
        """
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        # The outcomes report what matters about an actor's end; Ray would also write it to stdout and stderr.
        os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".")
        os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")
        import ray

        self._thread = _RayLifecycleThread()
        self._owns_ray = not ray.is_initialized()
        self.is_local = False
        """Whether Ray runs on this machine for this process alone."""
        if self._owns_ray:
            address = address if address is not None else os.environ.get("RAY_ADDRESS") or None
            try:
                if address in (None, "local"):
                    self.is_local = True
                    cores = max(num_cores(), num_workers or 0)
                    self._thread.run(lambda: start_ray(cores, runtime_env))
                else:  # joining starts no process, and may take long: it can be interrupted
                    _join_cluster(str(address), runtime_env)
            except BaseException:
                self._thread.close()
                raise
        self.address = _head_address(address)
        self._watch = _Watch()

    def nodes(self) -> list[dict[str, Any]]:
        """Return what `ray.nodes()` has returned last.

        Raises:
            ClusterLostError: The head does not answer any more.
        """
        if self._watch.age_seconds > HEAD_RESTART_SECONDS:
            self.require_head()
        if self._watch.age_seconds > HEAD_TIMEOUT_SECONDS:
            raise ClusterLostError(f"the head of the cluster at {self.address} gives no sign any more")
        return self._watch.nodes

    def require_head(self) -> None:
        """Raise ClusterLostError if nothing answers at the head's address."""
        if not _answers(self.address):
            raise ClusterLostError(f"the head of the cluster at {self.address} is gone")

    def ask(self, action: Callable[[], T]) -> T:
        """Return what a call returns for which Ray asks the head: without a head, Ray would end this process.

        Raises:
            ClusterLostError: The head does not answer any more.
        """
        call = _Call(action)
        while not call.wait(WATCH_SECONDS):
            self.nodes()
        return call.result()

    def close(self, stop_actors: Callable[[], None]) -> None:
        """Stop the actors, and then Ray if it was started or joined here."""
        self._watch.stop()
        try:
            self._thread.run(lambda: self._leave(stop_actors))
        finally:
            self._thread.close()

    def _leave(self, stop_actors: Callable[[], None]) -> None:
        import ray

        try:
            if _answers(self.address):
                stop_actors()
        finally:
            if self.is_local:
                ray.shutdown()
            elif self._owns_ray and not _Call(ray.shutdown).wait(LEAVE_TIMEOUT_SECONDS):
                atexit.unregister(ray.shutdown)  # it would wait for a head that is frozen once more


class _Watch:
    """A thread that asks for the cluster's nodes again and again, since a head that is frozen never answers."""

    def __init__(self) -> None:
        import ray

        self.nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
        self._answered_at = time.monotonic()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lvqa-ray-nodes", daemon=True)
        self._thread.start()

    @property
    def age_seconds(self) -> float:
        return time.monotonic() - self._answered_at

    def stop(self) -> None:
        self._ended.set()
        self._thread.join(WATCH_SECONDS)  # not for ever: the head may never answer

    def _run(self) -> None:
        import ray

        while not self._ended.wait(WATCH_SECONDS):
            with contextlib.suppress(Exception):  # whatever it is, the head has not answered
                self.nodes = ray.nodes()  # type: ignore[no-untyped-call]
                self._answered_at = time.monotonic()


class _RayLifecycleThread:
    """A thread that starts and stops Ray; if that is interrupted, Ray leaves processes behind for a minute.

    What interrupts the main thread meanwhile is raised there when the action is complete, however often it comes. Off
    the main thread, Ray also leaves Python's handling of signals as it is. The thread lives as long as the cluster:
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


def start_ray(num_cores: int, runtime_env: Mapping[str, Any] | None = None) -> None:
    """Start a Ray for this process alone: never join a cluster that happens to run here, or that a run has left."""
    import ray

    ray.init(
        address="local",
        num_cpus=num_cores,
        include_dashboard=False,
        object_store_memory=OBJECT_STORE_BYTES,
        logging_level=logging.ERROR,
        log_to_driver=False,
        runtime_env=dict(runtime_env) if runtime_env else None,
    )


def _join_cluster(address: str, runtime_env: Mapping[str, Any] | None) -> None:
    import ray

    if address.startswith(("http://", "https://")):
        raise ClusterError(f"{address!r} is where jobs are submitted (ray job submit); {EXPECTED}")
    if address == "auto":
        address, origin = _address_of_this_machine()
    else:
        origin = ""
    if address != "auto":
        try:  # Ray itself would try for many minutes
            socket.create_connection(_host_and_port(address), timeout=CONNECT_TIMEOUT_SECONDS).close()
        except (OSError, ValueError, OverflowError) as error:
            raise ClusterError(f"no Ray answers at {address!r}{origin} ({error}); {EXPECTED}") from error
    if address.startswith("ray://") and importlib.util.find_spec("grpc") is None:
        raise ClusterError(
            f"the address {address!r} needs Ray's client: pip install 'lvqa[cluster]', or give host:port"
        )
    options: dict[str, Any] = {"runtime_env": dict(runtime_env)} if runtime_env else {}
    try:
        with _quiet_stderr():  # the reasons are in the error
            joining = _Call(
                lambda: ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False, **options)
            )
            if not joining.wait(JOIN_TIMEOUT_SECONDS):
                raise TimeoutError(f"it has not answered as Ray does for {JOIN_TIMEOUT_SECONDS:g} s")
            joining.result()
    except Exception as error:  # Ray raises many kinds
        reason = _join_failure(error)
        raise ClusterError(f"cannot join Ray at {address!r}: {reason}") from error


def _address_of_this_machine() -> tuple[str, str]:
    """Return the address that `auto` stands for, and where it stands; "auto" if only Ray may find one."""
    if address := os.environ.get("RAY_ADDRESS"):
        return address, ", the auto of RAY_ADDRESS"
    folder = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp"  # as Ray looks for it
    noted = Path(folder, "ray", "ray_current_cluster")
    with contextlib.suppress(OSError, UnicodeDecodeError):
        if address := noted.read_text().strip():
            return address, f", the auto of {noted}"
    return "auto", ""


class _Call(Generic[T]):
    """A call in a thread of its own, since it may never return."""

    def __init__(self, action: Callable[[], T]) -> None:
        self._action, self._ended = action, threading.Event()
        self._values, self._errors = list[T](), list[BaseException]()
        threading.Thread(target=self._run, name="lvqa-ray-call", daemon=True).start()

    def _run(self) -> None:
        try:
            self._values.append(self._action())
        except BaseException as error:
            self._errors.append(error)
        self._ended.set()

    def wait(self, seconds: float) -> bool:
        """Wait so long for its end, and return whether it has ended."""
        return self._ended.wait(seconds)

    def result(self) -> T:
        """Return what the call has returned, or raise what it has raised."""
        for error in self._errors:
            raise error
        return self._values[0]


def _join_failure(error: Exception) -> str:
    """Return in a line why Ray can't be joined: what a token or a runtime_env lacks stands deep in the causes."""
    chain: list[BaseException] = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None and len(chain) < 10:
        chain.append(cause)
    text = " ".join(map(str, chain))
    if "AuthToken" in text or "authentication token" in text:
        return TOKEN_ADVICE
    return f"{one_line(error)[:300]}; {EXPECTED}"


def _host_and_port(address: str) -> tuple[str, int]:
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        raise ValueError("it has no host or no port")
    return host.strip("[]"), int(port)


def _head_address(address: str | None) -> str:
    import ray

    if address is not None and address.startswith("ray://"):
        return address
    return str(ray.get_runtime_context().gcs_address)


def _answers(address: str) -> bool:
    try:
        socket.create_connection(_host_and_port(address), timeout=CONNECT_TIMEOUT_SECONDS).close()
    except (OSError, ValueError):
        return False
    return True


@contextlib.contextmanager
def _quiet_stderr() -> Iterator[None]:
    """Keep what libraries write to the descriptor of stderr off it."""
    sys.stderr.flush()
    own = os.dup(2)
    with tempfile.TemporaryFile() as sink:
        os.dup2(sink.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(own, 2)
            os.close(own)

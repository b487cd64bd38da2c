"""The supervisor of one child process that runs a handler: it reports how the child ended, and starts another."""

from __future__ import annotations

import gc
import logging
import multiprocessing
import os
import pickle
import signal
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from tqdm import tqdm

from lvqa.records import LvqaError
from lvqa.startup import paused_gc
from lvqa.workers import main_guard

EXIT_TIMEOUT_SECONDS = 10.0
"""How long a child may take to exit after its connection has closed; it takes longer if it dumps core."""


@dataclass(frozen=True, slots=True)
class WorkerSpec:
    """The settings that a worker is started with."""

    make: bytes
    """The function that returns the handler; pickled, so that only the child imports what it needs."""
    retries: int
    """How many more times an item is tried, or a child is started, after a child is lost."""
    stall_seconds: float | None
    """How long a child may take for one item; None sets no limit."""


class Worker:
    """Run a handler in a child process, and in a new child whenever one dies or stalls."""

    def __init__(self, spec: WorkerSpec) -> None:
        self._spec = spec
        self._child: _Child | None = None
        self._stopped = False
        self._lock = threading.Lock()

    def start(self) -> None:
        """Start a child and make its handler, unless there is one.

        Raises:
            LvqaError: `make` raised it, or each child died while it started.
            RuntimeError: `make` raised anything else.
        """
        with self._lock, self._kill_child_on_error():
            self._running_child()

    def handle(self, item: bytes) -> bytes:
        """Return the pickled (value, error) of a pickled item. Raises what `start` raises."""
        end, tries = "", self._spec.retries + 1
        with self._lock, self._kill_child_on_error():
            for _ in range(tries):
                child = self._running_child()
                try:
                    return child.request(item, self._spec.stall_seconds)
                except _ChildLostError as error:
                    end = str(error)
        return encode_error(f"its process {end} ({tries} {'try' if tries == 1 else 'tries'})")

    def stop(self) -> None:
        """End the child, even while another thread waits in `handle`."""
        self._stopped = True
        if self._child is not None:
            self._child.kill()

    def _running_child(self) -> _Child:
        end = "was stopped"
        for _ in range(self._spec.retries + 1):
            if self._stopped:
                break
            if self._child is not None and self._child.is_alive:
                return self._child
            self._child = _Child(self._spec.make)
            try:
                self._child.start()
            except _ChildLostError as error:
                end = str(error)
            else:
                return self._child
        raise LvqaError(f"a worker could not start: its process {end}")

    @contextmanager
    def _kill_child_on_error(self) -> Iterator[None]:
        """Kill the child if a request is interrupted: its next reply would belong to the old request."""
        try:
            yield
        except BaseException:
            if self._child is not None:
                self._child.kill()
            raise


def encode_error(reason: object) -> bytes:
    """Return the pickled (None, error) whose error is the reason on one line."""
    return pickle.dumps((None, " ".join(str(reason).split())))


# --- the child, as its parent sees it --------------------------------------------------------------------------------


class _ChildLostError(Exception):
    """The child has ended; the message says how."""


class _Child:
    """A process and the connection to it. It never receives Ctrl-C, which a terminal sends to the whole group."""

    def __init__(self, make: bytes) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, self._child_end = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(self._child_end, make), name=main_guard.WORKER_NAME, daemon=True
        )

    @property
    def is_alive(self) -> bool:
        return self._process.pid is not None and self._process.is_alive()

    def start(self) -> None:
        """Start the process and wait until it has its handler. Raises as `Worker.start` does, or _ChildLostError."""
        with _sigint_blocked():
            self._process.start()
        self._child_end.close()
        try:
            failure = self._connection.recv()
        except (EOFError, OSError):
            raise _ChildLostError(self._describe_end()) from None
        if failure:
            is_user_error, text = failure
            raise LvqaError(text) if is_user_error else RuntimeError(f"a worker could not start:\n{text}")

    def request(self, item: bytes, stall_seconds: float | None) -> bytes:
        """Send an item and return the reply. Raises _ChildLostError."""
        try:
            self._connection.send_bytes(item)
            if self._connection.poll(stall_seconds):
                return self._connection.recv_bytes()
        except (EOFError, OSError):
            raise _ChildLostError(self._describe_end()) from None
        self.kill()
        raise _ChildLostError(f"gave no result for {stall_seconds:g} s")

    def kill(self) -> None:
        """Kill the process at once: it holds nothing that needs an orderly end, and may be unable to make one."""
        if self._process.pid is not None:
            self._process.kill()
            self._process.join()

    def _describe_end(self) -> str:
        self._process.join(EXIT_TIMEOUT_SECONDS)  # the connection closes a little before the process ends
        code = self._process.exitcode
        self.kill()
        main_guard.check_exit(code)
        if code is None:
            return "closed its connection"
        if code >= 0:
            return f"ended with exit code {code}"
        names = {member.value: member.name for member in signal.Signals}
        memory = ", as when memory runs out" if -code == signal.SIGKILL else ""
        return f"was killed by {names.get(-code, f'signal {-code}')}{memory}"


@contextmanager
def _sigint_blocked() -> Iterator[None]:
    """Block SIGINT for this thread and for the processes that it starts in the block."""
    resource_tracker.ensure_running()  # else the first start would start it too, and that unblocks the signal
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)


# --- in the child ----------------------------------------------------------------------------------------------------


def _serve(connection: Connection, make: bytes) -> None:
    """Make the handler, report that it is ready, and answer requests until the connection closes."""
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    tqdm.set_lock(threading.RLock())  # its own one is a semaphore, which nobody removes when this process is killed
    # What is wrong with an item is in its value: a line of this process would have no name, and on Ray no reader.
    logging.getLogger("lvqa").addHandler(logging.NullHandler())
    try:
        with paused_gc():
            handler = pickle.loads(make)()
            gc.collect()  # it may have done more than import
    except Exception as error:
        is_user_error = isinstance(error, LvqaError)
        connection.send((is_user_error, str(error) if is_user_error else traceback.format_exc()))
        return
    connection.send(None)
    with suppress(EOFError):
        while True:
            connection.send_bytes(_encode_outcome(handler, connection.recv_bytes()))


def _exit_with_parent() -> None:
    """Exit when the parent has ended: one that was killed could not end its child, which would compute for no one."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _encode_outcome(handler: Callable[[Any], Any], item: bytes) -> bytes:
    """Return (value, None) or (None, error), pickled."""
    try:
        return pickle.dumps((handler(pickle.loads(item)), None))
    except LvqaError as error:
        return encode_error(error)
    except Exception as error:  # a bug that one item triggers: report where it is, and go on with the others
        frame = traceback.extract_tb(error.__traceback__)[-1]
        return encode_error(f"{type(error).__name__}: {error} ({Path(frame.filename).name}:{frame.lineno})")

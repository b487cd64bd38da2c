"""The supervisor of one child process that runs a handler: it reports how the child ended, and starts another."""

from __future__ import annotations

import ctypes
import gc
import logging
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import reduction, resource_tracker
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

from lvqa.records import LvqaError
from lvqa.startup import quick_start
from lvqa.workers import main_guard
from lvqa.workers.failures import Blame, Failure, failure_of

PROCESSES = multiprocessing.get_context("spawn")
"""How children are started: torch and faiss hang in one that is forked from a process that has used them."""
EXIT_TIMEOUT_SECONDS = 10.0
"""How long a child may take to exit after its connection has closed; it takes longer if it dumps core."""
WAIT_SECONDS = 1.0
"""How often a worker looks at a child that computes."""
STOPPED_SECONDS = 30.0
"""How long a child may be stopped (SIGSTOP) before it is replaced."""
START_SECONDS = 3600.0
"""How long a child may take to make its handler."""
START_TRIES = 2
"""So many children are started, if each dies as it starts, before the worker has failed."""
QUICK_SECONDS = 0.02
"""Items that take less on average may come several at once."""
SECONDS_BETWEEN_SIGNS = 1.0
"""How often a child reports at most that its work goes on."""


class Reply(NamedTuple):
    """What became of a try of an item."""

    value: bytes
    """Pickled; empty if it has failed."""
    failure: Failure | None
    is_quick: bool
    """Whether it has not failed, and with those before it in the same request took next to no time."""


@dataclass(frozen=True, slots=True)
class WorkerSpec:
    """The settings that a worker is started with."""

    make: bytes
    """The function that returns the handler; pickled, so that only the child imports what it needs."""
    stall_seconds: float
    """How long a child may compute without a sign of progress, beyond what the item itself may take."""


class StartLostError(LvqaError):
    """A worker could not start, because its processes were ended from outside."""


class Worker:
    """Run a handler in a child process, and in a new child whenever one has died or was ended.

    Args:
        spec: The settings.
        log: The descriptor of a file for what the child prints; None leaves it the streams of this process.
    """

    def __init__(self, spec: WorkerSpec, log: int | None = None) -> None:
        self._spec, self._log = spec, log
        self._child: _Child | None = None
        self._stopped = False
        self._lock = threading.Lock()

    def start(self) -> str | None:
        """Start a child and make its handler, unless there is one.

        Returns:
            The handler's `identity`, if it has one: what must be equal in all workers.

        Raises:
            LvqaError: `make` raised it, or each child died while it started.
            RuntimeError: `make` raised anything else.
        """
        with self._lock, self._kill_child_on_error():
            try:
                return self._running_child().identity
            except LvqaError:
                if self._stopped:  # nobody waits for it any more
                    return None
                raise

    def handle(
        self, items: Sequence[bytes], item_seconds: Sequence[float], on_wait: Callable[[], None] = lambda: None
    ) -> list[Reply]:
        """Have the child compute items one after the other, each once, until one fails or is not quick.

        Args:
            items: The items, each pickled.
            item_seconds: How much longer than `stall_seconds` each may take without a sign of progress.
            on_wait: Called every WAIT_SECONDS while the child computes.

        Returns:
            The reply to each item that was tried. Raises what `start` raises.
        """
        with self._lock, self._kill_child_on_error():
            stall_seconds = [self._spec.stall_seconds + seconds for seconds in item_seconds]
            replies: list[Reply] = []
            try:
                for reply in self._running_child().request(items, stall_seconds, on_wait):
                    replies.append(reply)
            except _ChildLostError as error:
                replies.append(Reply(b"", Failure(f"its process {error}", error.blame), is_quick=False))
            return replies

    def stop(self) -> None:
        """End the child, even while another thread waits in `handle`."""
        self._stopped = True
        if self._child is not None:
            self._child.kill()

    def _running_child(self) -> _Child:
        end, blame = "was stopped", Blame.CRASH
        for _ in range(START_TRIES):
            if self._stopped:
                break
            if self._child is not None and self._child.is_alive:
                return self._child
            self._child = _Child(self._spec.make, self._log)
            try:
                self._child.start()
            except _ChildLostError as error:
                end, blame = str(error), error.blame
            else:
                return self._child
        kind = StartLostError if blame is Blame.LOST else LvqaError
        raise kind(f"a worker could not start: its process {end}")

    @contextmanager
    def _kill_child_on_error(self) -> Iterator[None]:
        """Kill the child if a request is interrupted: its next reply would belong to the old request."""
        try:
            yield
        except BaseException:
            if self._child is not None:
                self._child.kill()
            raise


# --- the child, as its parent sees it --------------------------------------------------------------------------------


class _ChildLostError(Exception):
    """The child has ended; the message says how."""

    def __init__(self, end: str, blame: Blame) -> None:
        super().__init__(end)
        self.blame = blame


class _Child:
    """A process and the connection to it. It never receives Ctrl-C, which a terminal sends to the whole group."""

    identity: str | None = None

    def __init__(self, make: bytes, log: int | None) -> None:
        self._connection, self._child_end = PROCESSES.Pipe()
        arguments = (self._child_end, make, None if log is None else _InheritedFile(log))
        self._process = PROCESSES.Process(target=_serve, args=arguments, name=main_guard.WORKER_NAME, daemon=True)

    @property
    def is_alive(self) -> bool:
        return self._process.pid is not None and self._process.is_alive()

    def start(self) -> None:
        """Start the process and wait until it has its handler. Raises as `Worker.start` does, or _ChildLostError."""
        with _sigint_blocked():
            self._process.start()
        self._child_end.close()
        failure, is_user_error, self.identity = self._receive(START_SECONDS, lambda: None)
        if failure:
            raise LvqaError(failure) if is_user_error else RuntimeError(f"a worker could not start:\n{failure}")

    def request(
        self, items: Sequence[bytes], stall_seconds: Sequence[float], on_wait: Callable[[], None]
    ) -> Iterator[Reply]:
        """Send items, and yield the reply to each until one has failed or was not quick. Raises _ChildLostError."""
        with suppress(OSError):  # a child that has ended is noticed as its reply is read
            self._connection.send_bytes(pickle.dumps(items))
        for seconds in stall_seconds:
            reply: Reply = self._receive(seconds, on_wait)
            yield reply
            if not reply.is_quick:
                return

    def _receive(self, stall_seconds: float, on_wait: Callable[[], None]) -> Any:
        """Wait for a reply, as long as the child makes progress and is not stopped."""
        sign_at, stopped_at = time.monotonic(), None
        while True:
            try:
                has_sent = self._connection.poll(min(WAIT_SECONDS, stall_seconds))
                reply = pickle.loads(self._connection.recv_bytes()) if has_sent else None
            except (EOFError, OSError):
                raise self._lost() from None
            if reply is not None:
                return reply
            on_wait()
            now = time.monotonic()
            sign_at = now if has_sent else sign_at
            stopped_at = (stopped_at or now) if self._is_stopped() else None
            if stopped_at is not None and now - stopped_at >= min(STOPPED_SECONDS, stall_seconds):
                raise self._killed(f"was stopped for {now - stopped_at:.0f} s", Blame.LOST)
            if now - sign_at >= stall_seconds and stopped_at is None:
                raise self._killed(f"gave no result for {stall_seconds:g} s", Blame.CRASH)

    def kill(self) -> None:
        """Kill the process at once: it holds nothing that needs an orderly end, and may be unable to make one."""
        if self._process.pid is not None:
            self._process.kill()
            self._process.join()

    def _is_stopped(self) -> bool:
        try:
            stat = Path(f"/proc/{self._process.pid}/stat").read_text()
        except OSError:  # it has ended; or this is a system without /proc, where a stopped process is one that stalls
            return False
        return stat.rpartition(")")[2].split()[0] in "Tt"

    def _killed(self, end: str, blame: Blame) -> _ChildLostError:
        self.kill()
        return _ChildLostError(end, blame)

    def _lost(self) -> _ChildLostError:
        """Return how the process has ended; a signal that comes from outside is not the item's doing."""
        self._process.join(EXIT_TIMEOUT_SECONDS)  # the connection closes a little before the process ends
        code = self._process.exitcode
        self.kill()
        main_guard.check_exit(code)
        if code is None:
            return _ChildLostError("closed its connection", Blame.CRASH)
        if code >= 0:
            return _ChildLostError(f"ended with exit code {code}", Blame.CRASH)
        names = {member.value: member.name for member in signal.Signals}
        memory = ", as when memory runs out" if -code == signal.SIGKILL else ""
        blame = Blame.LOST if -code in _OUTSIDE_SIGNALS else Blame.CRASH
        return _ChildLostError(f"was killed by {names.get(-code, f'signal {-code}')}{memory}", blame)


_OUTSIDE_SIGNALS = {signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT}


@contextmanager
def _sigint_blocked() -> Iterator[None]:
    """Block SIGINT for this thread and for the processes that it starts in the block."""
    resource_tracker.ensure_running()  # else the first start would start it too, and that unblocks the signal
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)


class _InheritedFile:
    """An open file that a spawned process gets, too."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def __reduce__(self) -> tuple[Any, ...]:
        return _detach, (reduction.DupFd(self.descriptor),)


def _detach(inherited: Any) -> int:
    descriptor: int = inherited.detach()
    return descriptor


# --- in the child ----------------------------------------------------------------------------------------------------


_connection: Connection | None = None
"""In a child: the connection to its worker."""
_last_sign = 0.0


def report_progress(*_: object) -> None:
    """Tell the worker that the work goes on, however long it takes; anywhere else than in its child, do nothing.

    Whatever reports progress can call it with its own arguments.
    """
    global _last_sign
    now = time.monotonic()
    if _connection is None or threading.current_thread() is not threading.main_thread():  # it is the one that replies
        return
    if now - _last_sign >= SECONDS_BETWEEN_SIGNS:
        _last_sign = now
        _connection.send_bytes(pickle.dumps(None))


def _serve(connection: Connection, make: bytes, log: int | None) -> None:
    """Make the handler, report that it is ready, and answer requests until the connection closes."""
    global _connection
    _connection = connection
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    _die_with_parent()
    from tqdm import tqdm

    tqdm.set_lock(threading.RLock())  # its own one is a semaphore, which nobody removes when this process is killed
    # What is wrong with an item is in its value: a line of this process would have no name, and on Ray no reader.
    logging.getLogger("lvqa").addHandler(logging.NullHandler())
    if log is not None:
        sys.stdout.flush()
        for stream in (1, 2):
            os.dup2(log, stream)
    try:
        with quick_start():
            handler = pickle.loads(make)()
            gc.collect()  # it may have done more than import
    except Exception as error:
        is_user_error = isinstance(error, LvqaError)
        text = str(error) if is_user_error else traceback.format_exc()
        connection.send_bytes(pickle.dumps((text, is_user_error, None)))
        return
    connection.send_bytes(pickle.dumps((None, False, getattr(handler, "identity", None))))
    with suppress(EOFError):
        while True:
            _reply(connection, handler, pickle.loads(connection.recv_bytes()))


def _die_with_parent() -> None:
    """Have the system kill this process when its parent ends, even if it is stopped then; only Linux can."""
    set_death_signal = 1  # PR_SET_PDEATHSIG of <linux/prctl.h>
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).prctl(set_death_signal, signal.SIGKILL)


def _exit_with_parent() -> None:
    """Exit when the parent has ended: one that was killed could not end its child, which would compute for no one."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _reply(connection: Connection, handler: Callable[[Any], Any], items: Sequence[bytes]) -> None:
    """Compute items, and reply to each at once, so that it is known at which one this process has died."""
    started_at = time.monotonic()
    for num_tried, item in enumerate(items, 1):
        value, failure = b"", None
        try:
            value = pickle.dumps(handler(pickle.loads(item)))
        except Exception as error:
            failure = failure_of(error)
        is_quick = failure is None and time.monotonic() - started_at < QUICK_SECONDS * num_tried
        connection.send_bytes(pickle.dumps(Reply(value, failure, is_quick)))
        if not is_quick:
            return

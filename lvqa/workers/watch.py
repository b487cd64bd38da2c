"""A handler in a process of its own, and the watch that says how it ended and starts another."""

from __future__ import annotations

import gc
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

from lvqa.records import LvqaError, paused_gc

_DYING_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Job:
    """What a worker is started with."""

    make: bytes
    """Pickled, so that only the child imports what it needs."""
    retries: int
    stall_seconds: float | None


class Worker:
    """A handler in a child, and in another child when that one dies or stalls."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._child: _Child | None = None
        self._stopped = False
        self._one_at_a_time = threading.Lock()

    def start(self) -> None:
        """Makes the handler, if there is none. Raises what `make` raised, LvqaError if the child only ever dies."""
        with self._one_at_a_time, self._ended_by_errors():
            self._made()

    def handle(self, item: bytes) -> bytes:
        """The pickled (value, error) of a pickled item. Raises as `start` does."""
        end, tries = "", self._job.retries + 1
        with self._one_at_a_time, self._ended_by_errors():
            for _ in range(tries):
                child = self._made()
                try:
                    return child.ask(item, self._job.stall_seconds)
                except _ChildLostError as lost:
                    end = str(lost)
        return failure(f"its process {end} ({tries} {'try' if tries == 1 else 'tries'})")

    def stop(self) -> None:
        """Ends the child, whatever it is at. Another thread may be in `handle`."""
        self._stopped = True
        if self._child is not None:
            self._child.kill()

    def _made(self) -> _Child:
        end = "was stopped"
        for _ in range(self._job.retries + 1):
            if self._stopped:
                break
            if self._child is not None and self._child.alive:
                return self._child
            self._child = _Child(self._job.make)
            try:
                self._child.start()
            except _ChildLostError as lost:
                end = str(lost)
            else:
                return self._child
        raise LvqaError(f"a worker could not be made: its process {end}")

    @contextmanager
    def _ended_by_errors(self) -> Iterator[None]:
        """What breaks in between a question and its answer leaves a child whose next answer would be the old one."""
        try:
            yield
        except BaseException:
            if self._child is not None:
                self._child.kill()
            raise


def failure(reason: object) -> bytes:
    """The reply that holds no value but one line that says why."""
    return pickle.dumps((None, " ".join(str(reason).split())))


# --- the child, seen from here ---------------------------------------------------------------------------------------


class _ChildLostError(Exception):
    """The child is no more; the text says how it ended."""


class _Child:
    """A process and the line to it. It never sees Ctrl-C, which a terminal sends to the whole group."""

    def __init__(self, make: bytes) -> None:
        context = multiprocessing.get_context("spawn")
        self._line, self._far = context.Pipe()
        self._process = context.Process(target=_serve, args=(self._far, make), name="lvqa-worker", daemon=True)

    @property
    def alive(self) -> bool:
        return self._process.pid is not None and self._process.is_alive()

    def start(self) -> None:
        """Returns when there is a handler. Raises what `make` raised: an LvqaError as such, a bug as RuntimeError."""
        with _sigint_blocked():
            self._process.start()
        self._far.close()
        try:
            failed = self._line.recv()
        except (EOFError, OSError):
            raise _ChildLostError(self._end()) from None
        if failed:
            is_mendable, text = failed
            raise LvqaError(text) if is_mendable else RuntimeError(f"a worker could not be made:\n{text}")

    def ask(self, item: bytes, stall_seconds: float | None) -> bytes:
        try:
            self._line.send_bytes(item)
            if self._line.poll(stall_seconds):
                return self._line.recv_bytes()
        except (EOFError, OSError):
            raise _ChildLostError(self._end()) from None
        self.kill()
        raise _ChildLostError(f"gave nothing for {stall_seconds:g} s")

    def kill(self) -> None:
        """At once: a child holds nothing that needs an orderly end, and may be unable to make one."""
        if self._process.pid is not None:
            self._process.kill()
            self._process.join()

    def _end(self) -> str:
        self._process.join(_DYING_SECONDS)  # the line closes a little before, more so if a core is dumped
        code = self._process.exitcode
        self.kill()
        if code is None:
            return "closed its line"
        if code >= 0:
            return f"ended with exit code {code}"
        names = {number.value: number.name for number in signal.Signals}
        memory = ", as when memory runs out" if -code == signal.SIGKILL else ""
        return f"was killed by {names.get(-code, f'signal {-code}')}{memory}"


@contextmanager
def _sigint_blocked() -> Iterator[None]:
    """For this thread and the processes that it starts meanwhile."""
    resource_tracker.ensure_running()  # else the first start would start it too, and that unblocks the signal
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


# --- in the child ----------------------------------------------------------------------------------------------------


def _serve(line: Connection, make: bytes) -> None:
    """The child's whole life: make the handler, say so, answer items until the line is closed."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        with paused_gc():
            handler = pickle.loads(make)()
            gc.collect()  # it may have done more than import
    except Exception as error:
        is_mendable = isinstance(error, LvqaError)
        line.send((is_mendable, str(error) if is_mendable else traceback.format_exc()))
        return
    line.send(None)
    with suppress(EOFError):
        while True:
            line.send_bytes(_handled(handler, line.recv_bytes()))


def _end_with_parent() -> None:
    """A parent that was killed could not end its child, which would go on computing for no one."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _handled(handler: Callable[[Any], Any], item: bytes) -> bytes:
    """(value, None) or (None, error), pickled."""
    try:
        return pickle.dumps((handler(pickle.loads(item)), None))
    except LvqaError as error:
        return failure(error)
    except Exception as error:  # a bug that one item brings out: the others go on, and its place is told
        place = traceback.extract_tb(error.__traceback__)[-1]
        return failure(f"{type(error).__name__}: {error} ({Path(place.filename).name}:{place.lineno})")

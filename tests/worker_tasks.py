"""Handlers for the tests of the workers, good and bad. A module of its own, so that a worker imports little else."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lvqa.records import LvqaError

Chore = tuple[Any, ...]
"""The name of a function here, and what it is called with."""


def make() -> Callable[[Chore], object]:
    """A handler that does worker_tasks."""
    return lambda chore: globals()[chore[0]](*chore[1:])


def make_refusing() -> Callable[[Chore], object]:
    raise LvqaError("model 'nobody' is unknown")


def make_broken() -> Callable[[Chore], object]:
    return {}["no such key"]


def make_dying() -> Callable[[Chore], object]:
    os._exit(7)


def make_counted(folder: Path) -> Callable[[Chore], object]:
    """As `make`, and leaves a file for each time that it is called."""
    (folder / f"{time.monotonic_ns()}-{os.getpid()}").touch()
    return make()


def square(number: int) -> int:
    return number * number


def pid() -> int:
    return os.getpid()


def environment(*names: str) -> list[str | None]:
    return [os.environ.get(name) for name in names]


def refuse(text: str) -> None:
    raise LvqaError(text)


def stumble() -> None:
    raise ZeroDivisionError("a bug\nin two lines")


def crash() -> None:
    ctypes.string_at(0)


def leave(code: int) -> None:
    os._exit(code)


def die_the_first_time(marker: Path) -> str:
    """By SIGKILL, unless somebody has died here before."""
    if not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return "done"


def sleep(seconds: float, marker: Path | None = None) -> str:
    if marker is not None:
        marker.write_text(str(os.getpid()))
    time.sleep(seconds)
    return "slept"


def unpicklable() -> object:
    return lambda: None


def leave_a_mark(folder: Path, then: str, *arguments: Any) -> object:
    """Does another chore, having left a file for this try."""
    (folder / f"{time.monotonic_ns()}-{os.getpid()}").touch()
    return globals()[then](*arguments)


def make_indexer_that_crashes(*arguments: Any, **options: Any) -> Callable[[Any], object]:
    """The real one, but the decoder kills the process at films whose name says so."""
    from lvqa import video
    from lvqa.library import _make_indexer

    class Crashing(video.PyAVDecoder):
        def frames(self, film: Any, *where: Any, **size: Any) -> Any:
            if "crash" in film.path.name:
                crash()
            return super().frames(film, *where, **size)

    video.DECODERS["pyav"] = Crashing
    return _make_indexer(*arguments, **options)

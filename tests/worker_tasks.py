"""Handlers for the tests of the workers, good and bad. It is a module of its own, so that a worker imports little."""

from __future__ import annotations

import ctypes
import importlib
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lvqa.records import LvqaError
from lvqa.workers import NodeFacts

Task = tuple[Any, ...]
"""The name of a function of this module, and its arguments."""


def make() -> Callable[[Task], object]:
    """Return a handler that calls the function of a task."""
    return lambda task: globals()[task[0]](*task[1:])


def make_refusing() -> Callable[[Task], object]:
    raise LvqaError("model 'nobody' is unknown")


def make_broken() -> Callable[[Task], object]:
    return {}["no such key"]


def make_dying() -> Callable[[Task], object]:
    os._exit(7)


def make_counted(folder: Path) -> Callable[[Task], object]:
    """Return what `make` returns, and create a file for each call."""
    (folder / f"{time.monotonic_ns()}-{os.getpid()}").touch()
    return make()


def square(i: int) -> int:
    return i * i


def pid() -> int:
    return os.getpid()


def environment(*names: str) -> list[str | None]:
    return [os.environ.get(name) for name in names]


def raise_user_error(text: str) -> None:
    raise LvqaError(text)


def raise_bug() -> None:
    raise ZeroDivisionError("a bug\nin two lines")


def crash() -> None:
    ctypes.string_at(0)


def exit_process(code: int) -> None:
    os._exit(code)


def die_once(marker: Path) -> str:
    """Die by SIGKILL, unless the marker exists: a process has died here before."""
    if not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return "completed"


def kill_worker() -> None:
    """End the process that supervises this one."""
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(60)


def sleep(seconds: float, marker: Path | None = None) -> str:
    if marker is not None:
        marker.write_text(str(os.getpid()))
    time.sleep(seconds)
    return "slept"


def return_unpicklable() -> object:
    return lambda: None


def record_try(folder: Path, function: str, *arguments: Any) -> object:
    """Create a file for this try, then call another function of this module."""
    (folder / f"{time.monotonic_ns()}-{os.getpid()}").touch()
    return globals()[function](*arguments)


def install_crashing_decoder() -> None:
    """Replace the decoder by one that kills the process at videos with "crash" in their names."""
    from lvqa.video import DECODERS, PyAVDecoder

    class CrashingDecoder(PyAVDecoder):
        def frames(self, video: Any, *times: Any, **size: Any) -> Any:
            if "crash" in video.path.name:
                crash()
            return super().frames(video, *times, **size)

    DECODERS["pyav"] = CrashingDecoder


def install_hanging_decoder() -> None:
    """Make "hanging" a decoder that stops at its sixth frame."""
    from lvqa.video import DECODERS, PyAVDecoder

    class HangingDecoder(PyAVDecoder):
        def frames(self, *arguments: Any, **size: Any) -> Any:
            for i, frame in enumerate(super().frames(*arguments, **size)):
                if i == 5:
                    time.sleep(1000)
                yield frame

    DECODERS["hanging"] = HangingDecoder


def limit_files() -> None:
    """Let this process write no file of more than a thousand bytes, as on a disk that is full."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
    sys.dont_write_bytecode = True  # Python 3.11 leaves a module cut off, and all later processes fail at it


def install_deadly(function: str) -> None:
    """Have "module.function", which opens a file, end the process if "deadly" is in its name, as a real decoder did."""
    module = importlib.import_module(function.rpartition(".")[0])
    name = function.rpartition(".")[2]
    open_file = getattr(module, name)

    def open_or_die(file: object, *arguments: Any, **options: Any) -> object:
        if "deadly" in str(file):
            os.kill(os.getpid(), signal.SIGSEGV)
        return open_file(file, *arguments, **options)

    setattr(module, name, open_or_die)


# --- on a cluster, whose nodes have homes of their own ---------------------------------------------------------------


def node() -> str:
    """Return the name of the node that this process is on."""
    return Path.home().name.removeprefix("home-")


def fail_on(name: str, text: str, _: int = 0) -> str:
    """Raise an error on one node, whatever the number is."""
    if node() == name:
        raise LvqaError(text)
    return node()


def fail_first_on(name: str, marker: Path, text: str, _: int = 0) -> str:
    """Raise an error on one node; the others return when that has happened, so that the node has had its chance."""
    if node() == name:
        marker.touch()
        raise LvqaError(text)
    _wait_for(marker)
    time.sleep(0.05)
    return node()


def _wait_for(path: Path) -> None:
    deadline = time.monotonic() + 300
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.01)


def sleep_after(flag: Path, _: int = 0) -> str:
    """Say that this process has a task, by a file beside the flag; sleep when the flag is there."""
    (flag.parent / f"{node()}-{os.getpid()}").touch()
    _wait_for(flag)
    time.sleep(0.2)
    return "slept"


def lack_file_on(name: str, path: Path) -> str:
    """Find no file on one node."""
    if node() == name:
        try:
            Path("/nowhere", path).read_bytes()
        except OSError as error:
            raise LvqaError(f"{path}: {error.strerror}") from error
    return node()


def read_missing(path: str) -> None:
    """Find no file on any node."""
    lack_file_on(node(), Path(path))


def fill_disk(folder: Path, _: int) -> str:
    """Write to a disk that is full."""
    try:
        (folder / "filler").write_bytes(bytes(4 << 20))
    except OSError as error:
        raise LvqaError(f"cannot write {folder}: {error.strerror}") from error
    return node()


def make_failing_on(name: str) -> Callable[[Task], object]:
    """Return what `make` returns, but not on one node."""
    if node() == name:
        raise LvqaError("the model can't be loaded")
    return make()


class Identified:
    """A handler whose model is another one on one node."""

    def __init__(self, name: str) -> None:
        self.identity = "commit b" if node() == name else "commit a"

    def __call__(self, task: Task) -> object:
        return make()(task)


def probe_of(differing: str) -> NodeFacts:
    """Say that a node differs."""
    return NodeFacts({"torch": "1" if node() == differing else "2"})


def write_modules(path: Path) -> None:
    """Write the names of the modules that a process has as it begins."""
    path.write_text(" ".join(sys.modules))

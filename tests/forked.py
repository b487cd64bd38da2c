"""Processes that are forked from one that has imported torch and transformers, and so start at once.

A new interpreter imports them for five seconds. Tests of what a process computes, or of how it ends, need no new one: a
forked process has its own id, signals, exit code and streams, too. What an interpreter and the libraries read from the
environment as they start must be what the first process had; where it is not, a new interpreter is started.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Sequence
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext, ForkServerProcess, SpawnProcess
from multiprocessing.process import BaseProcess
from multiprocessing.reduction import DupFd
from pathlib import Path
from typing import Any
from unittest import mock

READ_AT_START = ("CUDA", "HF_", "LD_", "MKL_", "OMP_", "OPENBLAS_", "PYTHON", "TORCH", "TRANSFORMERS_")
"""How the variables begin that Python or a library reads as it starts."""
READ_LATER = {"PYTHONBREAKPOINT"}
"""Ray sets this."""


def read_at_start() -> dict[str, str]:
    return {name: os.environ[name] for name in {*os.environ} - READ_LATER if name.startswith(READ_AT_START)}


class ForkedProcess(ForkServerProcess):
    """A process with the environment, the blocked signals and the streams of its starter, as a new one has them."""

    def __getstate__(self) -> dict[str, Any]:
        """Return what the server hands to the process: this is called as it starts."""
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        own = {"environment": dict(os.environ), "blocked": blocked, "streams": [DupFd(1), DupFd(2)]}
        return {**self.__dict__, **own}

    def run(self) -> None:
        for number, stream in enumerate(self.streams, 1):
            os.dup2(stream.detach(), number)
        os.environ.clear()
        os.environ.update(self.environment)
        signal.pthread_sigmask(signal.SIG_SETMASK, self.blocked)
        # Its own children are forked by the same server, as multiprocessing says it does; Python 3.11 starts another.
        forkserver.ensure_running.__self__.ensure_running = lambda: None
        super().run()


class WarmContext(ForkServerContext):
    """Start forked processes, but a new interpreter where a variable that is read at the start has changed."""

    def __init__(self) -> None:
        super().__init__()
        self._read_by_server: dict[str, str] | None = None

    def Process(self, *args: Any, **options: Any) -> BaseProcess:  # noqa: N802
        self._start_server()
        is_warm = self._read_by_server == read_at_start()
        return (ForkedProcess if is_warm else SpawnProcess)(*args, **options)

    def _start_server(self) -> None:
        if self._read_by_server is None:
            self._read_by_server = read_at_start()
            self.set_forkserver_preload(["warm_imports"])
            path = os.pathsep.join(filter(None, [str(Path(__file__).parent), os.environ.get("PYTHONPATH")]))
            with mock.patch.dict(os.environ, PYTHONPATH=path):
                forkserver.ensure_running()


WARM = WarmContext()


def fork_workers() -> None:
    """From now on workers without Ray run in forked processes."""
    from lvqa.workers import worker

    worker.PROCESSES = WARM


def start(function: Callable[..., object], *arguments: object) -> BaseProcess:
    """Start a function of a module in a process, whose workers are forked, too."""
    process = WARM.Process(target=_call, args=(function, arguments))
    process.start()
    return process


def _call(function: Callable[..., object], arguments: Sequence[object]) -> None:
    fork_workers()
    function(*arguments)


def start_lvqa(folder: Path, *words: object, before: Callable[[], None] = lambda: None) -> BaseProcess:
    """Start the command `lvqa` with these arguments.

    Args:
        folder: The process prints into its files stdout and stderr.
        before: A function of a module, which the process calls first.
    """
    return start(_run_lvqa, folder, [*map(str, words)], before)


def _run_lvqa(folder: Path, words: list[str], before: Callable[[], None]) -> None:
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    sys.argv[1:] = words
    before()
    from lvqa.cli.main import main

    main()

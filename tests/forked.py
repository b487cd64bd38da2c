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

from processes import PATIENCE_SECONDS

READ_AT_START = (
    *("CUDA_VISIBLE_DEVICES", "HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "LD_LIBRARY_PATH", "LD_PRELOAD", "MKL_CBWR"),
    *("MKL_NUM_THREADS", "OMP_NUM_THREADS", "OMP_WAIT_POLICY", "OPENBLAS_NUM_THREADS", "PYTHONHASHSEED", "PYTHONPATH"),
    "PYTHONWARNINGS",
)
"""What Python or a library reads as it starts."""


def read_at_start() -> dict[str, str | None]:
    return {name: os.environ.get(name) for name in READ_AT_START}


class ForkedProcess(ForkServerProcess):
    """A process with the environment, the blocked signals and the streams of its starter, as a new one has them."""

    def __init__(self, *args: Any, streams: Sequence[int] = (1, 2), **options: Any) -> None:
        super().__init__(*args, **options)
        self.streams = streams

    def __getstate__(self) -> dict[str, Any]:
        """Return what the server hands to the process: this is called as it starts."""
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        own = {"environment": dict(os.environ), "blocked": blocked, "streams": [*map(DupFd, self.streams)]}
        return {**self.__dict__, **own}

    def run(self) -> None:
        for number, stream in enumerate(self.streams, 1):
            os.dup2(stream.detach(), number)
        # The server's own may be files, in which one can seek.
        sys.stdout = os.fdopen(1, "w", encoding=sys.stdout.encoding, closefd=False)
        sys.stderr = os.fdopen(2, "w", 1, encoding=sys.stderr.encoding, errors="backslashreplace", closefd=False)
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
        self._read_by_server: dict[str, str | None] | None = None

    def Process(self, *args: Any, **options: Any) -> BaseProcess:  # noqa: N802
        self.start_server()
        is_warm = self._read_by_server == read_at_start()
        return (ForkedProcess if is_warm else SpawnProcess)(*args, **options)

    def start_server(self) -> None:
        """Start the server, unless it runs; multiprocessing has one in each process, whoever starts it."""
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


class Program:
    """The command `lvqa` in a process, as `subprocess.Popen` would have it.

    Args:
        words: The arguments of the command.
        before: A function of a module, which the process calls first.
    """

    def __init__(self, *words: object, before: Callable[[], None] | None = None) -> None:
        pipes = [os.pipe() for _ in range(2)]
        self._outputs = [os.fdopen(reading, encoding="utf-8") for reading, _ in pipes]
        arguments = (_run_lvqa, ([*map(str, words)], before))
        self.process = WARM.Process(target=_call, args=arguments, streams=[writing for _, writing in pipes])
        self.process.start()
        for _, writing in pipes:
            os.close(writing)

    def communicate(self) -> tuple[str, str]:
        """Wait for its end, and return what it has printed: no more than a pipe holds."""
        self.process.join(PATIENCE_SECONDS)
        self.process.kill()
        out, err = (output.read() for output in self._outputs)
        for output in self._outputs:
            output.close()
        return out, err


def _run_lvqa(words: list[str], before: Callable[[], None] | None) -> None:
    sys.argv[1:] = words
    if before is not None:
        before()
    from lvqa.cli.main import main

    main()

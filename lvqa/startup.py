"""What a process needs as it starts: imports that are quick and quiet, and the number of its cores."""

from __future__ import annotations

import gc
import logging
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from contextvars import ContextVar

from lvqa.control_group import read_limits
from lvqa.deferred import deferred_imports

CPU_FILES = (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us"))
"""The files of a control group's processor time and of the time that it is for, in the second version and the first."""

LOUD_LIBRARIES = ("accelerate", "torchao", "torch.utils._pytree")
"""The loggers of libraries that transformers imports wherever they are installed, and that warn of what is not used."""


def num_cores() -> int:
    """Return how many processor cores this process may use, by its affinity and by a container's quota.

    A quota of one and a half cores is two: with one thread half a core would be left over.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = [cores]
    for texts in read_limits("cpu", CPU_FILES):
        with suppress(ValueError, ZeroDivisionError):  # a quota may be the word max
            quota, period = map(int, " ".join(texts).split())
            quotas += [max(1, math.ceil(quota / period))] if quota > 0 else []
    return min(quotas)


def num_threads() -> int:
    """Return in how many threads one kind of work is done: OMP_NUM_THREADS, or else the number of cores.

    Numerical libraries follow the same variable, so that a worker with a share of the cores keeps to it.
    """
    value = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return max(1, int(value)) if value.isdecimal() else num_cores()


_is_starting: ContextVar[bool] = ContextVar("is_starting", default=False)
"""Whether this thread starts a process that runs lvqa alone."""


@contextmanager
def library_imports() -> Iterator[None]:
    """Hide what LOUD_LIBRARIES warn of while they are imported. Inside `quick_start`, import no more than is used."""
    levels = {name: logging.getLogger(name).level for name in LOUD_LIBRARIES}
    for name in levels:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with deferred_imports() if _is_starting.get() else nullcontext():
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


@contextmanager
def paused_gc() -> Iterator[None]:
    """Pause garbage collection while libraries are imported, and exempt from it all objects that exist afterwards.

    Collecting took a second during the imports, and another second when the process ended.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


@contextmanager
def quick_start() -> Iterator[None]:
    """Start a process that runs lvqa alone: no garbage is collected, and its libraries import what is used.

    Not for a user's own program, whose modules would meet the stand-ins for others.
    """
    token = _is_starting.set(True)
    try:
        with paused_gc():
            yield
    finally:
        _is_starting.reset(token)

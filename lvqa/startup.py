"""What a process needs as it starts: imports without garbage collection, and the number of its cores."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager


def num_cores() -> int:
    """Return how many processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


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

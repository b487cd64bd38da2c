"""A worker is a new process that imports the main script: one without a main guard would start its work anew there.

Such a process ends at once, and its parent says what the script lacks.
"""

from __future__ import annotations

import multiprocessing
import os
import sys

from lvqa.records import LvqaError

WORKER_NAME = "lvqa-worker"
"""The name of the process of a worker."""
_EXIT_CODE = 93
"""With this code a worker exits whose main script would start workers as it is imported."""


def exit_in_worker() -> None:
    """End this process if it is a worker: it comes here only where a script without a guard is imported."""
    if multiprocessing.current_process().name == WORKER_NAME:
        os._exit(_EXIT_CODE)


def check_exit(exit_code: int | None) -> None:
    """Raise LvqaError if a worker with this exit code has ended by `exit_in_worker`."""
    if exit_code == _EXIT_CODE:
        script = getattr(sys.modules["__main__"], "__file__", "the main script")
        raise LvqaError(
            f"{script} starts processes, and each of them imports it: put the code that calls lvqa under "
            'a line `if __name__ == "__main__":`, so that it runs once'
        ) from None

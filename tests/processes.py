"""Which processes run, read from /proc: for tests that kill some, and check that none stays behind."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

PATIENCE_SECONDS = 300.0
"""How long tests wait for what has to come: they are no benchmarks, and machines may be busy."""

LVQA_AND_MODULES = """
import sys
from lvqa.cli.main import main
try:
    main()
finally:
    print(*sys.modules, file=sys.stderr)
"""
"""A script that is the command `lvqa`, and prints last, on stderr, which modules it has imported."""

needs_proc = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="looks at processes in /proc")


def descendants(parent: int | None = None) -> dict[int, str]:
    """Return process id -> command line of all that descend from the parent, which is this process by default."""
    root = parent or os.getpid()
    parents, commands = {}, {}
    for folder in Path("/proc").iterdir():
        try:
            pid, stat = int(folder.name), (folder / "stat").read_text()
            commands[pid] = (folder / "cmdline").read_text().replace("\0", " ")
        except (ValueError, OSError):
            continue
        state, parent_pid = stat.rpartition(")")[2].split()[:2]
        if state != "Z":
            parents[pid] = int(parent_pid)
    family = {root}
    while grown := {pid for pid, parent_pid in parents.items() if parent_pid in family} - family:
        family |= grown
    return {pid: commands[pid] for pid in family - {root}}


def worker_children() -> set[int]:
    """Return the ids of the processes that run a handler."""
    return {pid for pid, command in descendants().items() if "spawn_main" in command}


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def is_alive(pid: int) -> bool:
    """Return whether any thread of the process runs; one that has ended can be waited for."""
    folder = Path(f"/proc/{pid}")
    try:
        state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
        return state != "Z" or len([*(folder / "task").iterdir()]) > 1
    except OSError:
        return False


def wait_until(condition: Callable[[], object], seconds: float = PATIENCE_SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"the condition is still false after {seconds} s"
        time.sleep(0.02)

"""What Linux lets a group of processes have, such as a container: memory and processor time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

FOLDER = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")


def read_limits(controller: str, files: Sequence[Sequence[str]]) -> Iterator[tuple[str, ...]]:
    """Yield what the files of this process's group say, and those of each group above it, as far as they are seen here.

    Args:
        controller: What is limited, "memory" or "cpu".
        files: The names of the files that are read together, in the second version of control groups and in the first.

    Yields:
        The texts of the files of one group. Groups without them are left out.
    """
    with suppress(OSError, ValueError):
        for line in MEMBERSHIP.read_text(encoding="utf-8").splitlines():
            _, controllers, group = line.split(":", 2)
            if controllers and controller not in controllers.split(","):
                continue
            top, names = (FOLDER / controller, files[1]) if controllers else (FOLDER, files[0])
            folder = top / group.lstrip("/")
            for path in (folder, *folder.parents):
                with suppress(OSError):  # inside a container the path of the host may not be there
                    yield tuple((path / name).read_text(encoding="utf-8") for name in names)
                if path == top:
                    break

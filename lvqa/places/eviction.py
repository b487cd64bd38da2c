"""Files that processes share within a bound: who uses one holds a lock on it, the least recently used goes first."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import BinaryIO


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file of a folder with a bound."""

    path: Path
    last_use: float
    """When it was used last, in seconds since 1970: `hold` sets the file's time of change."""
    num_bytes: int
    """What it takes on the disk, without its holes."""


def stored_files(folder: Path, suffix: str = "") -> list[StoredFile]:
    """Return the files of a folder whose names end so, the least recently used first; none if there is no folder."""
    files = list[StoredFile]()
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            with suppress(OSError):
                if entry.name.endswith(suffix) and entry.is_file(follow_symlinks=False):
                    status = entry.stat(follow_symlinks=False)
                    files.append(StoredFile(Path(entry.path), status.st_mtime, status.st_blocks * 512))
    return sorted(files, key=lambda file: file.last_use)


def hold(path: Path, flags: int = os.O_RDONLY) -> BinaryIO | None:
    """Open a file and hold a shared lock on it, which counts as a use.

    Args:
        path: The file.
        flags: How it is opened; with O_CREAT it is made if need be.

    Returns:
        What holds the lock until it is closed; None if there is no such file.

    Raises:
        OSError: It can't be opened or locked.
    """
    while True:
        try:
            file = FileIO(os.open(path, flags | os.O_CLOEXEC, 0o666), "r" if flags == os.O_RDONLY else "r+")
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(file, fcntl.LOCK_SH)
            if is_at(path, file):  # else it was removed before it was locked
                with suppress(OSError):  # of a disk that is only read
                    os.utime(path)
                return file
        except BaseException:
            file.close()
            raise
        file.close()


def is_at(path: Path, file: BinaryIO) -> bool:
    """Return whether this open file is still the one with this name."""
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def evict(files: Iterable[StoredFile], max_bytes: int) -> int:
    """Remove files until the rest fits; one that a process holds stays.

    Args:
        files: All files within the bound, those that go first first.
        max_bytes: What the rest may take.

    Returns:
        How many bytes the rest takes.
    """
    files = list(files)
    total = sum(file.num_bytes for file in files)
    for file in files:
        if total <= max_bytes:
            break
        if remove_unused(file.path):
            total -= file.num_bytes
    return total


def remove_unused(path: Path) -> bool:
    """Remove a file unless a process holds a lock on it. Returns whether it is gone."""
    try:
        with FileIO(
            os.open(path, os.O_RDWR | os.O_CLOEXEC), "r+"
        ) as file:  # some network disks lock no file that is read
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
    except FileNotFoundError:
        return True
    except OSError:  # in use
        return False
    return True

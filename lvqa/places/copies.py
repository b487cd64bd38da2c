"""Local copies of files that lie elsewhere: a bounded folder that processes share.

A copy appears whole or not at all, under a name that says of which object it is, and in which state of it. Whoever uses
one holds a shared lock on it; of those that nobody holds, the one whose last use is the longest ago is removed first.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import logging
import os
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from lvqa.places.eviction import StoredFile, evict, hold, remove_unused, stored_files
from lvqa.places.hosts import Host, ObjectState, PlaceError, host_of
from lvqa.records import VIDEO_SUFFIXES

_log = logging.getLogger(__name__)

DEFAULT_MIB = 20 << 10
"""The bound on all copies together, if nothing says another one."""
FETCHES = 2
"""An object that changes, or breaks off, while it is fetched is fetched so often."""
_LEFTOVER_SECONDS = 60
"""A file that no process writes any more is removed when it is so old."""
_NUM_LOCKS = 64
"""So many objects can be fetched at a time on a machine."""


def user_cache() -> Path:
    """Return the folder of lvqa on this machine: $LVQA_HOME unless that lies elsewhere, or lvqa in the user's cache.

    Raises:
        RuntimeError: Nothing says which folder is the user's.
    """
    home = os.environ.get("LVQA_HOME", "")
    if home and ":/" not in home:
        return Path(home).expanduser()
    cache = Path(os.environ.get("XDG_CACHE_HOME", ""))  # by its specification, a relative one does not count
    return (cache if cache.is_absolute() else Path.home() / ".cache") / "lvqa"


@dataclass(slots=True)
class _Use:
    """Who uses the copy of an object in this process."""

    num_users: int = 0
    copy: Path | None = None
    """The copy, once it was needed; it is that of all users, whatever becomes of the object."""
    lock: BinaryIO | None = None
    """Holds the shared lock on it."""
    mutex: threading.Lock = field(default_factory=threading.Lock)


_uses: dict[str, _Use] = {}
_uses_mutex = threading.Lock()
_max_bytes = DEFAULT_MIB << 20


def keep_copies(max_mib: int) -> None:
    """Set the bound on all copies together, for this process."""
    global _max_bytes
    _max_bytes = max_mib << 20


@contextmanager
def copy_in_use(url: str) -> Iterator[None]:
    """Have the copy of an object stay as it is inside the `with` block. Nothing is fetched before it is needed."""
    with _uses_mutex:
        use = _uses.setdefault(url, _Use())
        use.num_users += 1
    try:
        yield
    finally:
        with _uses_mutex:
            use.num_users -= 1
            if not use.num_users:
                del _uses[url]
                if use.lock is not None:
                    use.lock.close()


def local_copy(url: str, name: str) -> Path:
    """Return a local copy of an object, which is fetched if there is none of its present state.

    Args:
        url: Where it lies; `copy_in_use` keeps the copy there.
        name: Its name, for the suffix.

    Raises:
        PlaceError: It can't be fetched, or there is no room for it.
    """
    with _uses_mutex:
        use = _uses.get(url) or _Use()
    with use.mutex:
        if use.copy is None:
            use.copy, use.lock = _find_or_fetch(url, name)
        if not use.num_users and use.lock is not None:
            use.lock.close()
        return use.copy


def make_room(num_bytes: int = 0) -> None:
    """Remove copies that nobody uses until there is room for so many bytes more, and what killed processes left."""
    latest = time.time() - _LEFTOVER_SECONDS
    copies = list[StoredFile]()
    for file in stored_files(copies_folder()):
        if file.path.suffix != ".tmp":
            copies.append(file)
        elif file.last_use > latest or not remove_unused(file.path):
            num_bytes += file.num_bytes
    evict(copies, _max_bytes - num_bytes)


def copies_folder() -> Path:
    """Return the folder of the copies on this machine."""
    return user_cache() / "copies"


def _find_or_fetch(url: str, name: str) -> tuple[Path, BinaryIO]:
    """Return the copy of an object in its present state, and what holds the lock on it."""
    host = host_of(url)
    suffix = Path(name).suffix.lower()
    folder, digest = copies_folder(), hashlib.sha256(url.encode()).hexdigest()[:16]
    with _local_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for tries_left in reversed(range(FETCHES)):
            state = host.state(url)
            path = folder / f"{digest}-{state.digest}{suffix if suffix in VIDEO_SUFFIXES else ''}"
            if lock := hold(path):
                return path, lock
            with _one_at_a_time(folder, digest):
                lock = hold(path) or _try_fetch(host, url, state, path, is_last=not tries_left)
            if lock is not None:
                return path, lock
    raise PlaceError(errno.ECONNRESET, f"{url}: it broke off or was changed while it was fetched, {FETCHES} times")


def _try_fetch(host: Host, url: str, state: ObjectState, path: Path, *, is_last: bool) -> BinaryIO | None:
    """Do what `_fetch` does; a connection that is lost is no error unless it is the last try."""
    try:
        return _fetch(host, url, state, path)
    except PlaceError as error:
        if is_last or error.errno in (errno.ENOENT, errno.EACCES):
            raise
        _log.warning("%s; trying again", error)
        return None


def _fetch(host: Host, url: str, state: ObjectState, path: Path) -> BinaryIO | None:
    """Fetch an object into its place. Returns what holds the lock; None if it broke off or is another object now."""
    make_room(state.size)
    _log.info("fetching %s (%.1f MB)", url, state.size / 1e6)
    tmp_path = path.with_name(f"{path.name}.{uuid.uuid4().hex}.tmp")
    file = tmp_path.open("x+b")
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        num_bytes = 0
        for chunk in host.chunks(url):
            num_bytes += file.write(chunk)
            if num_bytes > state.size:
                break
        file.flush()
        if num_bytes == state.size == host.state(url).size and host.state(url) == state:
            tmp_path.replace(path)
            return file
    except BaseException:
        file.close()
        raise
    finally:
        with suppress(OSError):
            tmp_path.unlink()
    file.close()
    return None


@contextmanager
def _one_at_a_time(folder: Path, digest: str) -> Iterator[None]:
    """Wait until no other process fetches the same object. A process that dies holds nobody up."""
    locks = folder / "locks"
    locks.mkdir(exist_ok=True)
    with (locks / f"{int(digest, 16) % _NUM_LOCKS:02d}").open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def _local_errors(folder: Path) -> Iterator[None]:
    """Turn errors of this machine's disk into one line that says where copies lie."""
    try:
        yield
    except PlaceError:
        raise
    except OSError as error:
        reason = error.strerror or str(error)
        raise PlaceError(
            error.errno or errno.EIO, f"cannot keep a local copy in {folder}: {reason}; LVQA_HOME names another folder"
        ) from error

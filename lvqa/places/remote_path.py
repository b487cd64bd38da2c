"""A location elsewhere as a Path: its host is asked what it is like, and whoever opens it reads a local copy."""

from __future__ import annotations

import errno
import fnmatch
import os
import re
import stat as file_modes
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path, PosixPath
from threading import Lock
from typing import IO, Any, Self

from cachetools import TTLCache

from lvqa.places.copies import copy_in_use, local_copy, user_cache
from lvqa.places.hosts import HOSTS, MissingObjectError, ObjectState, PlaceError, host_of

STATE_SECONDS = 2.0
"""What a host has said of an object counts for so long: every batch of frames looks at its file."""
BYTES_PER_SECOND = 125_000
"""How fast a file is fetched at least: 1 Mbit/s."""

_LOCATION = re.compile(rf"(?i)({'|'.join(HOSTS)}):/{{1,2}}([^/].*)", re.DOTALL)

_states: TTLCache[str, ObjectState] = TTLCache(4096, STATE_SECONDS)
_states_mutex = Lock()


class RemotePath(PosixPath):
    """An object of a bucket, a file on the web, or a folder of such.

    `str` gives the URL. `os.fspath`, `open` and what takes a path-like give the local copy, which `places.in_use` keeps
    there. `stat`, `exists`, `iterdir`, `write_bytes`, `unlink` ask the host, and raise PlaceError.
    """

    __slots__ = ()

    def __str__(self) -> str:
        """Return the URL."""
        scheme, *rest = self.parts
        return f"{scheme}//{'/'.join(rest)}"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r})"

    def __fspath__(self) -> str:
        """Return the local copy's path, as text."""
        return str(local_copy(str(self), self.name))

    @property
    def name(self) -> str:
        """The last part, without the query of an address of the web."""
        is_web = self.parts[0].startswith("http")
        return str(self).partition("?")[0].rpartition("/")[2] if is_web else super().name

    def is_absolute(self) -> bool:
        """Return True."""
        return True

    def absolute(self) -> Self:
        """Return the same location."""
        return self

    def resolve(self, strict: bool = False) -> Self:
        """Return the same location: there are no links."""
        return self

    def expanduser(self) -> Self:
        """Return the same location."""
        return self

    def as_uri(self) -> str:
        """Return the URL."""
        return str(self)

    # --- what the host says -----------------------------------------------------------------------------------------

    def state(self) -> ObjectState:
        """Return what the object is like now, or was a moment ago."""
        url = str(self)
        with _states_mutex:
            state = _states.get(url)
        if state is None or not STATE_SECONDS:
            state = host_of(url).state(url)
            with _states_mutex:
                _states[url] = state
        return state

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
        """Return the object's state as that of a file: its tag stands in for the inode, 1970 for a time unknown."""
        state = self.state()
        seconds = state.modified_ns / 1e9
        fields = (file_modes.S_IFREG | 0o444, int(state.digest, 16) >> 1, 0, 1, 0, 0, state.size, *[int(seconds)] * 3)
        times = {f"st_{kind}time_ns": state.modified_ns for kind in "amc"}
        return os.stat_result(fields, times | {"st_blocks": -(-state.size // 512)})

    def exists(self, *, follow_symlinks: bool = True) -> bool:
        """Return whether there is such an object, or objects below it."""
        return self.is_file() or self.is_dir()

    def is_file(self, *, follow_symlinks: bool = True) -> bool:
        """Return whether there is such an object."""
        try:
            self.state()
        except MissingObjectError:
            return False
        return True

    def is_dir(self, *, follow_symlinks: bool = True) -> bool:
        """Return whether there are objects below it."""
        return host_of(str(self)).is_folder(str(self))

    def is_symlink(self) -> bool:
        """Return False."""
        return False

    def iterdir(self) -> Generator[Self]:
        """Yield the objects right below, by name, and no folder."""
        return (type(self)(url) for url in host_of(str(self)).list(str(self), recursive=False))

    def glob(self, pattern: str, **_: Any) -> Generator[Self]:
        """Yield the objects right below whose names match."""
        return (path for path in self.iterdir() if fnmatch.fnmatchcase(path.name, pattern))

    # --- content ----------------------------------------------------------------------------------------------------

    def open(self, mode: str = "r", *args: Any, **options: Any) -> IO[Any]:  # type: ignore[override]
        """Open the local copy; it can be read alone."""
        if set(mode) - set("rbt"):
            raise PlaceError(
                errno.EROFS, f"{self}: it can be read, or written as a whole, and not opened in mode {mode!r}"
            )
        with copy_in_use(str(self)):
            return open(os.fspath(self), mode, *args, **options)  # noqa: PTH123

    def read_bytes(self) -> bytes:
        """Return the content of a small object, without a copy."""
        url = str(self)
        return b"".join(host_of(url).chunks(url))

    def read_text(self, encoding: str | None = None, errors: str | None = None, newline: str | None = None) -> str:
        """Return the content of a small object as text."""
        return self.read_bytes().decode(encoding or "utf-8", errors or "strict").replace("\r\n", "\n")

    def write_bytes(self, data: Any) -> int:
        """Write the object in one step."""
        self._forget()
        host_of(str(self)).write(str(self), bytes(data))
        return len(data)

    def touch(self, mode: int = 0o666, exist_ok: bool = True) -> None:
        """Write an empty object."""
        self.write_bytes(b"")

    def unlink(self, missing_ok: bool = False) -> None:
        """Delete the object."""
        self._forget()
        try:
            host_of(str(self)).delete(str(self))
        except MissingObjectError:
            if not missing_ok:
                raise

    def mkdir(self, mode: int = 0o777, parents: bool = False, exist_ok: bool = False) -> None:
        """Do nothing: folders are there as soon as something lies in them."""

    def _forget(self) -> None:
        with _states_mutex:
            _states.pop(str(self), None)


def forget_states() -> None:
    """Have each host be asked again, as in a new process."""
    with _states_mutex:
        _states.clear()


def as_path(path: str | Path) -> Path:
    """Return a location as a path: a RemotePath if it begins with a scheme, also where it has lost a slash as a path.

    >>> as_path("s3://bucket/talks/one.mp4").name
    'one.mp4'
    """
    if isinstance(path, RemotePath):
        return path
    location = _LOCATION.fullmatch(str(path))
    return Path(path) if location is None else RemotePath(f"{location[1].lower()}://{location[2]}")


def beside(folder: Path, name: str) -> Path:
    """Return where a name leads that stands in a file of a folder: into the folder, or anywhere by a whole location."""
    location = as_path(name)
    return location if isinstance(location, RemotePath) else folder / name


@contextmanager
def in_use(path: Path) -> Iterator[None]:
    """Have the copy of a file elsewhere stay as it is inside the `with` block; a file of this machine is left alone.

    Nothing is fetched before it is needed.
    """
    with copy_in_use(str(path)) if isinstance(path, RemotePath) else nullcontext():
        yield


def local_folder(folder: Path) -> Path:
    """Return a folder of this machine for what must lie there: the folder itself, or the user's if it is elsewhere."""
    return user_cache() if isinstance(folder, RemotePath) else folder


def fetch_seconds(path: Path) -> float:
    """Return how long it may take to fetch a file; 0 for one of this machine."""
    if not isinstance(path, RemotePath):
        return 0.0
    try:
        return path.state().size / BYTES_PER_SECOND
    except PlaceError:
        return 0.0


def files_by_folder(folder: Path, on_error: Callable[[OSError], object] = lambda _: None) -> Iterator[list[Path]]:
    """Yield the regular files of a folder, and then of each folder below it, by name; no link to a folder is followed.

    Args:
        folder: A folder of this machine or elsewhere.
        on_error: Called for a folder that can't be read.
    """
    if isinstance(folder, RemotePath):
        yield from _objects_by_folder(folder, on_error)
        return
    for subfolder, below, names in os.walk(folder, onerror=on_error):
        below.sort()
        paths = [Path(subfolder, name) for name in sorted(names)]
        yield [path for path in paths if path.is_file()]


def _objects_by_folder(folder: RemotePath, on_error: Callable[[OSError], object]) -> Iterator[list[Path]]:
    try:
        urls = host_of(str(folder)).list(str(folder), recursive=True)
    except PlaceError as error:
        on_error(error)
        return
    by_folder: dict[Path, list[Path]] = {folder: []}
    for path in map(RemotePath, urls):
        by_folder.setdefault(path.parent, []).append(path)
    yield from (by_folder[each] for each in sorted(by_folder, key=lambda each: each.parts))

"""Try a node before it works: what must be equal on all nodes of a run, and what each of them needs.

`node_check` is called where a run is started, and gives the probe that is called on every node.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import platform
import shutil
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

import lvqa
from lvqa.files import write_atomically
from lvqa.places import RemotePath, local_folder
from lvqa.provenance import versions
from lvqa.records import LvqaError
from lvqa.video.identity import FileState, identify
from lvqa.workers import NodeFacts, Probe

MIN_FREE_DISK_BYTES = 256 << 20
MIN_FREE_MEMORY_BYTES = 512 << 20


@contextlib.contextmanager
def node_check(store: Path, videos: Sequence[Path], files: Sequence[Path] = ()) -> Iterator[Probe]:
    """Return a probe of nodes; while it is used, a file in the store tells whether a node has the same store.

    Args:
        store: The folder of the store, absolute.
        videos: The videos that are worked on; the smallest one must be readable, and be the same everywhere.
        files: Other files that decide results, for example a selector of your own.
    """
    marker = store / f".{uuid.uuid4().hex}.shared"
    with contextlib.suppress(OSError):  # whether the store can be written is for those who write it
        store.mkdir(parents=True, exist_ok=True)
        marker.touch()
    try:
        smallest = min(videos, key=_size, default=None)
        has_marker = marker.exists()
        yield functools.partial(probe_node, store, marker if has_marker else None, smallest, tuple(files))
    finally:
        with contextlib.suppress(OSError):
            marker.unlink()


def probe_node(store: Path, marker: Path | None, video: Path | None, files: Sequence[Path]) -> NodeFacts:
    """Return what this machine is like.

    Args:
        store: The folder of the store.
        marker: A file in it that is there if the store is the one of the machine where the run was started.
        video: A video that must be the same everywhere.
        files: Other files that must be.

    Raises:
        LvqaError: The machine can't work: a path is not there, or it has too little memory or disk.
    """
    installed = versions()
    equal = {name: version.partition("+")[0] for name, version in installed.items()}  # +cpu, +cu130: hardware
    equal["lvqa's code"] = _code_digest()
    if video is not None:
        equal[f"the content of {video}"] = _content(video)
    equal |= {f"the content of {path}": _content(path) for path in files}
    _require_writable(store)
    disk = _existing(local_folder(store))
    free_disk = shutil.disk_usage(disk).free
    free_memory = _free_memory()
    for name, free, least in (
        (f"the disk of the store {disk}", free_disk, MIN_FREE_DISK_BYTES),
        (f"the disk of {tempfile.gettempdir()}", shutil.disk_usage(tempfile.gettempdir()).free, MIN_FREE_DISK_BYTES),
        ("its memory", free_memory, MIN_FREE_MEMORY_BYTES),
    ):
        if free is not None and free < least:
            raise LvqaError(f"{name} has {free >> 20} MiB free, and a worker needs {least >> 20} MiB")
    own_store = f"the store {store} is not that of the machine where the run was started: indexes are made again"
    notes = {
        "host": platform.node(),
        "torch": installed.get("torch"),
        "free_disk_bytes": free_disk,
        "free_memory_bytes": free_memory,
    }
    return NodeFacts(equal, notes, (own_store,) if marker is not None and not marker.exists() else ())


@functools.cache
def _code_digest() -> str:
    """Return a digest of the package's files, the embedded model's weights among them."""
    digest = hashlib.sha256()
    package = Path(lvqa.__file__).parent
    for path in sorted(package.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            digest.update(str(path.relative_to(package)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]


def _existing(folder: Path) -> Path:
    """Return the folder, made if need be."""
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _content(path: Path) -> str:
    try:
        return path.state().digest if isinstance(path, RemotePath) else identify(FileState.of(path)).id
    except OSError as error:
        raise LvqaError(f"{path}: {error.strerror or error}; files must lie at the same path on all nodes") from error


def _require_writable(store: Path) -> None:
    try:
        store.mkdir(parents=True, exist_ok=True)
        trial = store / f".{uuid.uuid4().hex}.tmp"
        try:
            write_atomically(trial, b"lvqa")
        finally:
            trial.unlink(missing_ok=True)
    except OSError as error:
        raise LvqaError(f"the store {store} can't be written: {error.strerror or error}") from error


def _free_memory() -> int | None:
    """Return how many bytes of memory are free; None where the system does not say."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return None


def _size(path: Path) -> int:
    with contextlib.suppress(OSError):
        return path.stat().st_size
    return 0

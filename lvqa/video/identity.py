"""Tell video files by their content, which is hashed once: a file in a state that is known is not read again."""

from __future__ import annotations

import hashlib
import json
import re
import stat
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Condition
from typing import Any, Self

from cachetools import LRUCache, cached

from lvqa.files import write_atomically
from lvqa.places import as_path
from lvqa.records import file_key

IDENTITY_FORMAT = 1
"""The version of ids and of what is kept of them. Raise it when either changes."""

SETTLED_NS = 2_000_000_000
"""How long a file must have been unchanged before its hash is kept: file systems note changes in steps of up to 2 s."""

_MAX_BYTES = 65536
"""A file that keeps an id is no larger."""


@dataclass(frozen=True, slots=True)
class FileState:
    """A file in its present state: one that was changed, in place too, is another one."""

    path: Path
    size: int
    modified_ns: int
    changed_ns: int
    inode: int
    metadata_folder: Path | None = field(default=None, compare=False)

    @classmethod
    def of(cls, path: Path, metadata_folder: Path | None = None) -> Self:
        """Return the state of a file as it is now.

        Args:
            path: The file.
            metadata_folder: A folder where its metadata and its id may be kept.

        Raises:
            OSError: There is no such file.
        """
        return cls(path, *file_key(path), metadata_folder)


@dataclass(frozen=True, slots=True)
class Identity:
    """What tells a file's content from all others."""

    id: str
    """16 hexadecimal digits of the SHA-256 of the whole content."""
    is_settled: bool
    """Whether no later change can leave the file in the state that it had."""


@cached(LRUCache(4096), condition=Condition())  # two threads do not both read a file through
def identify(file: FileState) -> Identity:
    """Return a file's identity, whatever its name and its times.

    The file is read through once, at 1.5 GB/s where the processor has instructions for the hash. What `store_id` has
    kept in the metadata folder counts for a file of the same path, size, times and inode.

    Raises:
        OSError: The file can't be read.
    """
    known = _load_id(file)
    if known is not None:
        return Identity(known, is_settled=True)
    started_ns = time.time_ns()
    with file.path.open("rb", buffering=0) as stream:  # the digest has a buffer of its own
        video_id = hashlib.file_digest(stream, "sha256").hexdigest()[:16]
    return Identity(video_id, FileState.of(file.path) == file and started_ns - file.changed_ns > SETTLED_NS)


def content_id(path: Path, metadata_folder: Path) -> str:
    """Return the id of a file's content as it is now, and keep it in the folder, so that it is not hashed again.

    Raises:
        OSError: The file can't be read.
    """
    file = FileState.of(path.resolve(), metadata_folder)
    with suppress(OSError):  # a folder that can't be written is still of use
        store_id(file)
    return identify(file).id


def has_content(path: Path, video_id: str, metadata_folder: Path) -> bool:
    """Return whether a file has the content of this id now; if so it is kept that it has, and is not hashed again.

    Raises:
        OSError: The file can't be read.
    """
    file = FileState.of(path, metadata_folder)
    is_equal = identify(file).id == video_id
    if is_equal:
        with suppress(OSError):
            store_id(file)
    return is_equal


def store_id(file: FileState) -> None:
    """Keep a file's id in its metadata folder, unless it is there already, or the file was changed just now.

    Raises:
        OSError: The file can't be read, or the folder refuses it.
    """
    identity = identify(file)
    if file.metadata_folder is None or not identity.is_settled or _load_id(file) == identity.id:
        return
    content = json.dumps({"path": str(file.path), **_key(file), "id": identity.id}, indent=1) + "\n"
    write_atomically(_id_path(file, file.metadata_folder), content)


def read_identity(path: Path) -> tuple[Path, str] | None:
    """Return the file that a record of this format is of, and the id that it had; None for any other file."""
    content = _read_json(path)
    if content is None or content.get("identity_format") != IDENTITY_FORMAT:
        return None
    video, video_id = content.get("path"), content.get("id")
    if not isinstance(video, str) or not _is_id(video_id) or _id_name(as_path(video)) != path.name:
        return None
    return as_path(video), str(video_id)


def _key(file: FileState) -> dict[str, Any]:
    """Return what must be equal for an id to count again."""
    return {
        "identity_format": IDENTITY_FORMAT,
        "size": file.size,
        "modified_ns": file.modified_ns,
        "changed_ns": file.changed_ns,
        "inode": file.inode,
    }


def _id_path(file: FileState, metadata_folder: Path) -> Path:
    return metadata_folder / _id_name(file.path)


def _id_name(path: Path) -> str:
    return f"{hashlib.sha256(str(path).encode(errors='surrogateescape')).hexdigest()[:16]}.identity.json"


def _is_id(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{16}", value) is not None


def _load_id(file: FileState) -> str | None:
    """Return the id that is kept for this very state of the file, or None."""
    if file.metadata_folder is None:
        return None
    content = _read_json(_id_path(file, file.metadata_folder)) or {}
    expected = {"path": str(file.path), **_key(file)}
    return str(content["id"]) if {**content, **expected} == content and _is_id(content.get("id")) else None


def _read_json(path: Path) -> dict[str, Any] | None:
    """Return the JSON object that a small file holds, or None. Anyone may have written the content."""
    with suppress(OSError, ValueError, RecursionError):
        status = path.stat()
        # Opening a FIFO would wait for its writer for ever.
        if stat.S_ISREG(status.st_mode) and status.st_size <= _MAX_BYTES:
            content = json.loads(path.read_bytes())
            return content if isinstance(content, dict) else None
    return None

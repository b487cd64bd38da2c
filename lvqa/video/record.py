"""What a folder of metadata knows of a video whose file may have been moved or deleted: where it was seen last."""

from __future__ import annotations

import json
import math
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lvqa.files import write_atomically
from lvqa.places import as_path

RECORD_FORMAT = 1
"""The version of records. Raise it when what they hold changes."""

_MAX_PATHS = 16
"""A video has been seen under more names, perhaps; so many are kept."""
_MAX_BYTES = 1 << 20
"""A file that keeps a record is no larger."""


@dataclass(frozen=True, slots=True)
class VideoRecord:
    """A video that was seen, in one file or in several that are equal."""

    id: str
    """What tells its content from all others."""
    size: int
    """The size of the file, in bytes."""
    duration_seconds: float
    paths: tuple[Path, ...]
    """Where its files lay, the one that was seen last first."""


def load_record(folder: Path, video_id: str) -> VideoRecord | None:
    """Return what the folder knows of a video, or None. Anyone may have written the content."""
    path = record_path(folder, video_id)
    with suppress(OSError, ValueError, TypeError, KeyError, OverflowError, RecursionError):
        status = path.stat()
        # Opening a FIFO would wait for its writer for ever.
        if stat.S_ISREG(status.st_mode) and status.st_size <= _MAX_BYTES:
            return _parsed(json.loads(path.read_bytes()), video_id)
    return None


def keep_record(folder: Path, seen: VideoRecord) -> None:
    """Keep that a video was seen. Of the paths that were known before, those stay at which there is a file.

    Raises:
        OSError: The folder refuses it.
    """
    known = load_record(folder, seen.id)
    earlier = [path for path in known.paths if path not in seen.paths and _exists(path)] if known else []
    record = VideoRecord(seen.id, seen.size, seen.duration_seconds, (*seen.paths, *earlier)[:_MAX_PATHS])
    if record == known:
        return
    content = {
        "record_format": RECORD_FORMAT,
        "id": record.id,
        "size": record.size,
        "duration_seconds": record.duration_seconds,
        "paths": [str(path) for path in record.paths],
    }
    write_atomically(record_path(folder, seen.id), json.dumps(content, indent=1) + "\n")


def record_path(folder: Path, video_id: str) -> Path:
    """Return the file in which a folder keeps what it knows of a video."""
    return folder / f"{video_id}.video.json"


def _parsed(content: dict[str, Any], video_id: str) -> VideoRecord | None:
    """Return the record that a file holds, or None; an error of a mapping or a number for what is none."""
    if (content["record_format"], content["id"]) != (RECORD_FORMAT, video_id):
        return None
    paths, duration = tuple(as_path(path) for path in content["paths"]), float(content["duration_seconds"])
    if not paths or not all(path.is_absolute() for path in paths) or not 0 < duration < math.inf:
        return None
    return VideoRecord(video_id, int(content["size"]), duration, paths)


def _exists(path: Path) -> bool:
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError):  # it can't be reached now, and may be later
        return True
    return True

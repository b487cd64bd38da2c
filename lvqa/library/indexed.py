"""Which videos of a store have an index under a spec, and what a search of the library must know of each."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from lvqa.index import ClipIndex, IndexFileError, Store, StoreError, fingerprint
from lvqa.records import Candidate
from lvqa.validation import require
from lvqa.video import load_record

_log = logging.getLogger(__name__)

_RECORD = ".video.json"


@dataclass(frozen=True, slots=True)
class IndexedVideo:
    """A video that has an index."""

    id: str
    """The id of its content."""
    path: Path | None
    """Where its file was seen last."""
    duration_seconds: float
    modified: float
    """When its file was changed last, in seconds since 1970; of its index if the file is gone."""
    frames: int
    """How many frames the index was made from."""
    frames_substituted: int
    """How many of them are damaged, so that others stood in for them."""

    @classmethod
    def of(cls, index: ClipIndex, store: Store) -> Self:
        """Return what the store knows of an index's video."""
        record = load_record(store.folder, index.video_id)
        path = record.paths[0] if record else index.video_path
        duration = record.duration_seconds if record else index.clips[-1].end_seconds
        modified = _modified(path) or _modified(index.path) or 0.0
        return cls(index.video_id, path, duration, modified, index.frames, index.frames_substituted)


@dataclass(frozen=True, slots=True)
class LibraryClip:
    """A clip that an embedding search of the library has found."""

    candidate: Candidate
    video: IndexedVideo


@dataclass(frozen=True, slots=True)
class LibraryFilter:
    """Which videos of a library are searched: those that meet all conditions. Without any, all videos."""

    videos: tuple[str, ...] = ()
    """Ids, or absolute paths, of videos."""
    folder: Path | None = None
    """The folder where files lie, or in a folder below it; absolute."""
    since: float | None = None
    """Files that were changed at this time or later, in seconds since 1970."""
    until: float | None = None
    """Files that were changed before this time."""
    min_seconds: float | None = None
    """The shortest duration of a video."""
    max_seconds: float | None = None
    """The longest duration of a video."""

    def __post_init__(self) -> None:
        """Refuse numbers that are none."""
        for name in ("since", "until", "min_seconds", "max_seconds"):
            value = getattr(self, name)
            require(value is None or math.isfinite(value), name, value, "a finite number")

    def matches(self, video: IndexedVideo) -> bool:
        """Return whether a video meets all conditions."""
        path = path_text(video.path)
        return (
            (not self.videos or video.id in self.videos or path in map(path_text, self.videos))
            and (self.folder is None or path.startswith(self._prefix))
            and (self.since is None or video.modified >= self.since)
            and (self.until is None or video.modified < self.until)
            and (self.min_seconds is None or video.duration_seconds >= self.min_seconds)
            and (self.max_seconds is None or video.duration_seconds <= self.max_seconds)
        )

    @property
    def text(self) -> str:
        """The conditions in words, for a message; an empty text if there are none."""
        conditions = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return ", ".join(f"{name} {value}" for name, value in conditions.items() if value not in ((), None))

    @property
    def _prefix(self) -> str:
        return path_text(self.folder).rstrip("/") + "/"


ALL_VIDEOS = LibraryFilter()
"""The filter that every video meets."""


def path_text(path: Path | str | None) -> str:
    """Return a path as text that every program can hold: bytes that are no UTF-8 become escapes."""
    return "" if path is None else str(path).encode("utf-8", "backslashreplace").decode()


def indexed_states(store: Store, spec: Mapping[str, Any]) -> dict[str, str]:
    """Return the state of each video that has an index under a spec, by its id, sorted.

    A state tells an index, and where its video was seen last, from all earlier ones. Files are only listed, not read.

    Raises:
        StoreError: The store can't be read.
    """
    suffix = f"-{fingerprint(spec)}.parquet"
    indexes, records = dict[str, str](), dict[str, str]()
    try:
        with os.scandir(store.folder) as entries:
            for entry in entries:
                for ending, states in ((suffix, indexes), (_RECORD, records)):
                    if entry.name.endswith(ending):
                        with suppress(FileNotFoundError):
                            states[entry.name.removesuffix(ending)] = _state(entry.stat())
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise StoreError(f"cannot read the store {store.folder}: {error.strerror or error}") from error
    return {video_id: f"{indexes[video_id]}-{records.get(video_id, '')}" for video_id in sorted(indexes)}


def read_indexes(store: Store, spec: Mapping[str, Any], video_ids: Sequence[str]) -> Iterator[ClipIndex]:
    """Read the indexes of videos under a spec. One that can't be used is logged as a warning and left out."""
    for video_id in video_ids:
        try:
            index = store.load(video_id, spec)
        except IndexFileError as error:
            _log.warning("left out: %s", error)
        else:
            if index is not None:  # it may have been forgotten in the meantime
                yield index


def best_clips(clips: Iterable[LibraryClip], k: int | None) -> list[LibraryClip]:
    """Return the best clips by embedding, the best first; of equal ones those of the first id, and of them the earlier.

    Args:
        clips: In any order.
        k: How many to return; None: all.
    """
    return sorted(clips, key=lambda hit: (-hit.candidate.embed_score, hit.video.id, hit.candidate.start_seconds))[:k]


def _state(status: os.stat_result) -> str:
    return f"{status.st_mtime_ns:x}.{status.st_size:x}.{status.st_ino:x}"


def _modified(path: Path | None) -> float | None:
    with suppress(OSError, ValueError):
        return None if path is None else path.stat().st_mtime
    return None

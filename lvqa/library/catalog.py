"""What a store keeps of videos: list them, find their files, forget one, prune what is of no use any more."""

from __future__ import annotations

import os
import re
import stat
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

from lvqa.index import ClipIndex, IndexFileError, Store, StoreError
from lvqa.library.table import forget_clips, tables_folder, unused_tables
from lvqa.places import as_path
from lvqa.records import LvqaError, shorten
from lvqa.session import has_current_formats, has_current_frames
from lvqa.token_file import SUFFIX as TOKENS_SUFFIX
from lvqa.video import (
    VideoRecord,
    has_content,
    is_current_metadata,
    keep_record,
    load_record,
    read_identity,
    reread_metadata,
)

State = Literal["ok", "moved", "changed", "unreadable", "missing"]
"""`moved`: the file was found under another name, which is known from now on; `changed`: another content lies at the
last known path; `unreadable`: nothing can be said of the file now, for example for lack of a permission."""

_KEPT = re.compile(
    r"([0-9A-Za-z_]+)(?:-[0-9a-f]{16}\.(?:parquet|tokens|lines|transcript)|\.metadata\.npz|\.video\.json)", re.ASCII
)
"""The names of the files that a store keeps of a video; the group is its id."""
_LEFTOVER_SECONDS = 3600
"""A file that is being written is no older."""


@dataclass(frozen=True, slots=True)
class Location:
    """Where the file of a video lies, or lay when it was seen last."""

    path: Path | None
    """None if nobody knows."""
    state: State
    previous_path: Path | None = None
    """Where a moved file lay."""

    @property
    def is_there(self) -> bool:
        """Whether the file with this content is there and can be read."""
        return self.state in ("ok", "moved")


@dataclass(frozen=True, slots=True)
class StoredIndex:
    """An index of a video in the store."""

    path: Path
    model: str | None
    """The name of the model that made it; None if the file can't be read."""
    num_clips: int
    num_bytes: int
    problem: str | None
    """Why it can't be used any more, in one line; None if it can."""
    useless_files: tuple[Path, ...] = ()
    """What can't be used any more: the index itself, and the visual tokens of its frames."""


@dataclass(frozen=True, slots=True)
class LibraryVideo:
    """A video that the store knows."""

    id: str
    location: Location
    duration_seconds: float | None
    indexes: tuple[StoredIndex, ...]
    files: tuple[Path, ...]
    """All that is kept of it: indexes, visual tokens, metadata, records of its files."""
    num_bytes: int
    num_token_bytes: int
    """What its visual tokens take of that."""


@dataclass(frozen=True, slots=True)
class Removal:
    """Files of the store that were removed, or would be."""

    video: LibraryVideo | None
    """The video that they were of; None for leftovers of none."""
    reason: str
    files: tuple[Path, ...]
    num_bytes: int


class Library:
    """The videos of a store. It removes files of the store alone, never one of a video."""

    def __init__(self, store: Store) -> None:
        """Name the store; nothing is read yet."""
        self.store = store

    def videos(self) -> list[LibraryVideo]:
        """Return all videos that the store knows, by path. A file whose size or times changed is hashed again."""
        videos = [self._video(video_id, files) for video_id, files in self._files_by_id().items()]
        return sorted(videos, key=lambda video: (str(video.location.path), video.id))

    def locate(self, video_id: str, last_path: Path | None = None) -> Location:
        """Find the file of a video, at the paths that are known or next to files of the library.

        Args:
            video_id: The id of its content.
            last_path: Where it lay, for a video of which the store has no record.
        """
        record = load_record(self.store.folder, video_id)
        paths = record.paths if record else (last_path,) if last_path else ()
        states = {path: self._state_at(path, video_id, record) for path in paths}
        for path, state in states.items():
            if state == "ok":
                return Location(path, state)
        if record and (moved := self._find_moved(record)):
            return Location(moved, "moved", record.paths[0])
        for path, state in states.items():
            if state != "missing":
                return Location(path, state)
        return Location(next(iter(paths), None), "missing")

    def forget(self, video: str | Path) -> list[Removal]:
        """Remove all that is kept of a video: indexes, visual tokens, metadata, records of its files.

        Args:
            video: The path of its file, which may be gone, or its id.

        Raises:
            LvqaError: The store knows no such video, or can't be written.
        """
        videos = self._matching(video)
        if not videos:
            raise LvqaError(
                f"the store {self.store.folder} knows no video {shorten(str(video))}; "
                "`lvqa library list` prints the paths and ids that it knows"
            )
        files = self._files_by_id()  # again: that a file was hashed may have been kept in the meantime
        removals = [Removal(known, "forgotten", tuple(files[known.id]), known.num_bytes) for known in videos]
        removed = self._remove(removals)
        for known in videos:
            forget_clips(self.store, known.id)
        return removed

    def prune(self, *, dry_run: bool = False) -> list[Removal]:
        """Remove what is kept of videos whose files are gone, and what this version of lvqa can't read.

        A video whose file is `unreadable` stays.

        Args:
            dry_run: Remove nothing, and return what would be removed.

        Raises:
            LvqaError: The store can't be written.
        """
        removals = [*self._prunable_videos(), *self._leftovers()]
        return removals if dry_run else self._remove(removals)

    # --- what there is ----------------------------------------------------------------------------------------------

    def _files_by_id(self) -> dict[str, list[Path]]:
        """Return the files that are kept of each video."""
        files: dict[str, list[Path]] = {}
        for path in self._paths():
            if path.name.endswith(".identity.json"):
                identity = read_identity(path)
                video_id = identity[1] if identity else None
            else:
                match = _KEPT.fullmatch(path.name)
                video_id = match[1] if match else None
            if video_id is not None:
                files.setdefault(video_id, []).append(path)
        if self.store.tokens_folder != self.store.folder:  # several stores elsewhere share that on this machine
            for path in sorted(self.store.tokens_folder.glob(f"*{TOKENS_SUFFIX}")):
                files.get(path.name.partition("-")[0], []).append(path)
        return files

    def _paths(self) -> list[Path]:
        try:
            return sorted(self.store.folder.iterdir())
        except FileNotFoundError:
            return []
        except OSError as error:
            raise StoreError(f"cannot read the store {self.store.folder}: {error.strerror or error}") from error

    def _video(self, video_id: str, files: Sequence[Path]) -> LibraryVideo:
        indexes = {path: self._read_index(path) for path in files if path.suffix == ".parquet"}
        readable = [index for index in indexes.values() if isinstance(index, ClipIndex)]
        record = load_record(self.store.folder, video_id)
        duration = record.duration_seconds if record else None
        paths = [index.video_path for index in readable if index.video_path]
        if readable and duration is None:
            duration = readable[0].clips[-1].end_seconds
        paths += [identity[0] for path in files if (identity := read_identity(path))]
        return LibraryVideo(
            video_id,
            self.locate(video_id, next(iter(paths), None)),
            duration,
            tuple(self._stored(path, index) for path, index in indexes.items()),
            tuple(files),
            sum(map(_num_bytes, files)),
            sum(_num_bytes(path) for path in files if _holds_tokens(path)),
        )

    def _read_index(self, path: Path) -> ClipIndex | IndexFileError:
        try:
            return self.store.read(path)
        except IndexFileError as error:
            return error

    def _stored(self, path: Path, index: ClipIndex | IndexFileError) -> StoredIndex:
        """Return what is said of an index."""
        if isinstance(index, IndexFileError):
            return StoredIndex(path, None, 0, _num_bytes(path), str(index), (path,))
        problem, useless = None, tuple[Path, ...]()
        if not has_current_formats(index.spec):
            problem, useless = "it was made by another version of lvqa", (path,)
            if "frames" in index.spec and not has_current_frames(index.spec):
                useless = (path, self.store.tokens_path(index.video_id, index.spec["frames"]))
        return StoredIndex(path, index.model, len(index.clips), _num_bytes(path), problem, useless)

    def _matching(self, video: str | Path) -> list[LibraryVideo]:
        """Return the videos that are meant by an id, or by the path of a file that may be gone."""
        videos = {known.id: known for known in self.videos()}
        if str(video) in videos:
            return [videos[str(video)]]
        try:
            path = as_path(video).expanduser()
            paths = {path.absolute(), path.resolve()}
        except (OSError, RuntimeError, ValueError):  # no name of a file at all
            return []
        return [known for known in videos.values() if self._is_meant(known, paths)]

    def _is_meant(self, video: LibraryVideo, paths: set[Path]) -> bool:
        """Return whether a video lies at one of these paths, or lay there when it was seen last and is lost now."""
        record = load_record(self.store.folder, video.id)
        if any(self._state_at(path, video.id, record) == "ok" for path in paths):
            return True
        known = {*(record.paths if record else ()), video.location.path}
        return not video.location.is_there and not paths.isdisjoint(known)

    # --- where files are --------------------------------------------------------------------------------------------

    def _state_at(self, path: Path, video_id: str, record: VideoRecord | None) -> State:
        """Return what lies at a path, for the video of this id."""
        try:
            status = path.stat()
            # Opening a FIFO would wait for its writer for ever.
            if not stat.S_ISREG(status.st_mode) or (record and status.st_size != record.size):
                return "changed"
            return "ok" if has_content(path, video_id, self.store.folder) else "changed"
        except (FileNotFoundError, NotADirectoryError):
            return "missing"
        except (OSError, ValueError):
            return "unreadable"

    def _find_moved(self, record: VideoRecord) -> Path | None:
        """Look for the content of a video in the folders of all that is known; keep the path if it is there."""
        for path in self._files_by_size.get(record.size, ()):
            if self._state_at(path, record.id, record) == "ok":
                with suppress(OSError):  # a store that can't be written is still of use
                    keep_record(self.store.folder, replace(record, paths=(path,)))
                return path
        return None

    @cached_property
    def _files_by_size(self) -> dict[int, list[Path]]:
        """The files in the folders where videos of the library lay, by size."""
        records = (load_record(self.store.folder, video_id) for video_id in self._files_by_id())
        folders = {path.parent for record in records if record for path in record.paths}
        files: dict[int, list[Path]] = {}
        for folder in sorted(folders):
            with suppress(OSError):
                for entry in os.scandir(folder):
                    with suppress(OSError):
                        if entry.is_file():
                            files.setdefault(entry.stat().st_size, []).append(Path(entry.path))
        return files

    # --- what is removed --------------------------------------------------------------------------------------------

    def _prunable_videos(self) -> Iterator[Removal]:
        videos = self.videos()
        needed = self.store.needed_tokens(path.name for video in videos for path in video.files if _holds_tokens(path))
        for video in videos:
            if video.location.state in ("missing", "changed"):
                yield Removal(video, f"its file is {video.location.state}", video.files, video.num_bytes)
                continue
            unreadable = self._unreadable_files(video)
            tokens = [path for path in video.files if _holds_tokens(path) and path.name not in needed]
            unneeded = tuple(path for path in tokens if path not in unreadable)
            for reason, files in (
                ("this version of lvqa can't read it", unreadable),
                ("no index was made of these visual tokens", unneeded),
            ):
                if files:
                    yield Removal(video, reason, files, sum(map(_num_bytes, files)))

    def _unreadable_files(self, video: LibraryVideo) -> tuple[Path, ...]:
        """Return what is kept of a video in other formats than today's, and what is damaged."""
        useless = {path for index in video.indexes for path in index.useless_files}
        for path in video.files:
            is_useless = (
                (path.name.endswith(".identity.json") and self._is_of_gone_file(path))
                or (path.name.endswith(".npz") and not is_current_metadata(path))
                or (path.name.endswith(".video.json") and load_record(self.store.folder, video.id) is None)
            )
            useless |= {path} if is_useless else set()
        return tuple(path for path in video.files if path in useless)

    def _is_of_gone_file(self, path: Path) -> bool:
        """Return whether a record of a file's id is of a file that is not there any more."""
        identity = read_identity(path)
        return identity is not None and self._state_at(identity[0], identity[1], None) == "missing"

    def _leftovers(self) -> Iterator[Removal]:
        """Yield what belongs to no video: records of ids in another format, and what a killed process left."""
        latest = time.time() - _LEFTOVER_SECONDS
        for path in self._paths():
            is_record = path.name.endswith(".identity.json") and read_identity(path) is None
            is_temporary = path.name.startswith(".") and path.name.endswith(".tmp")
            with suppress(OSError):
                if is_record or (is_temporary and path.stat().st_mtime < latest):
                    reason = "this version of lvqa can't read it" if is_record else "a killed process left it"
                    yield Removal(None, reason, (path,), _num_bytes(path))

        for folder in unused_tables(self.store, (path.name for path in self._paths())):
            files = tuple(path for path in folder.rglob("*") if path.is_file())
            yield Removal(None, "no index is searched by it any more", files, sum(map(_num_bytes, files)))

    def _remove(self, removals: list[Removal]) -> list[Removal]:
        for path in (path for removal in removals for path in removal.files):
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise StoreError(f"cannot remove {path}: {error.strerror or error}") from error
            self._remove_empty(path.parent)
        reread_metadata()
        return removals

    def _remove_empty(self, folder: Path) -> None:
        """Remove a folder below the store's own, and those above it, if nothing is in them."""
        with suppress(OSError):
            while tables_folder(self.store) in folder.parents:
                folder.rmdir()
                folder = folder.parent


def _holds_tokens(path: Path) -> bool:
    return path.suffix == TOKENS_SUFFIX


def _num_bytes(path: Path) -> int:
    """Return what a file takes on the disk; files of visual tokens have holes."""
    try:
        status = path.stat()
    except OSError:
        return 0
    return min(status.st_size, status.st_blocks * 512)

"""A part of a library's table: clips of several videos in files that never change, so that a reader needs no lock.

A segment is a folder that appears whole: `codes` (n, bytes of a code), `vectors` (n, width) float16, `clips` (n, times
and a checksum of the vector), `mean`, which the codes are relative to, and `segment.json`, which says of which videos
they are. Anyone may have written it.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import uuid
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np

from lvqa.index import ClipIndex
from lvqa.library.codes import ClipCodes
from lvqa.library.indexed import IndexedVideo, LibraryClip
from lvqa.records import Candidate, Clip, LvqaError
from lvqa.validation import convert

SUFFIX = ".segment"
"""The ending of a segment's folder."""
TEMPORARY = ".tmp"
"""The ending of one that is being written."""

_INFO = "segment.json"
_CLIP = np.dtype([("start", "<f8"), ("end", "<f8"), ("checksum", "<u4")])
_MAX_INFO_BYTES = 1 << 28


class SegmentError(LvqaError):
    """A segment that can't be used: it is damaged, or gone."""

    def __init__(self, folder: Path, reason: object) -> None:
        """Say which, and why."""
        super().__init__(f"{folder} cannot be used: {' '.join(str(reason).split())[:200]}")
        self.folder = folder


@dataclass(frozen=True, slots=True)
class SegmentVideo:
    """A video in a segment."""

    video: IndexedVideo
    state: str
    """What `indexed_states` said of it when it was added."""
    num_clips: int


@dataclass(frozen=True, slots=True)
class _Info:
    width: int
    checksum: int
    """That of the mean, and then the clips."""
    videos: tuple[SegmentVideo, ...]


class Segment:
    """A segment that is there."""

    def __init__(self, folder: Path) -> None:
        """Open one, and check all but the codes and the vectors. Raises SegmentError."""
        self.folder = folder
        self._info = self._read_info()
        self.num_clips = sum(video.num_clips for video in self._info.videos)
        self.check_sizes()
        self.mean, self._clips = self._read("mean", np.dtype("<f4")), self._read("clips", _CLIP)
        if zlib.crc32(self._clips.tobytes(), zlib.crc32(self.mean.tobytes())) != self._info.checksum:
            raise SegmentError(folder, "its clips are damaged")

    @property
    def videos(self) -> tuple[SegmentVideo, ...]:
        """The videos in it, in the order of their rows."""
        return self._info.videos

    @property
    def width(self) -> int:
        """How many numbers a vector has."""
        return self._info.width

    def codes(self, coder: ClipCodes, start: int, stop: int) -> np.ndarray:
        """Return the codes of some rows, mapped from the disk. Raises SegmentError."""
        return self._map("codes", np.dtype(np.uint8), coder.num_bytes, start, stop)

    def clips(self, query: np.ndarray, rows: np.ndarray) -> Iterator[LibraryClip]:
        """Yield the clips of some rows with the cosines of their whole vectors and a query of unit length.

        Raises:
            SegmentError: A vector is not the one that was written.
        """
        vectors = self._map("vectors", np.dtype("<f2"), self.width, 0, self.num_clips)[rows]
        clips, owners = self._clips[rows], np.searchsorted(self._first_rows, rows, side="right") - 1
        if [zlib.crc32(vector.tobytes()) for vector in vectors] != clips["checksum"].tolist():
            raise SegmentError(self.folder, "a vector is damaged")
        wide = vectors.astype(np.float64)
        lengths = np.linalg.norm(wide, axis=1)  # that of a video's only clip, centred, is 0
        scores = (wide @ query / np.where(lengths > 0, lengths, 1)).astype(np.float32)
        for score, (start, end, _), owner in zip(scores.tolist(), clips.tolist(), owners.tolist(), strict=True):
            video = self.videos[owner].video
            yield LibraryClip(Candidate(Clip(video.id, start, end), embed_score=score), video)

    def check_sizes(self) -> None:
        """Raise SegmentError unless the files have the sizes that the numbers of clips say, now too."""
        counts = [video.num_clips for video in self.videos]
        row_bytes = {"codes": ClipCodes(self.width).num_bytes, "vectors": 2 * self.width, "clips": _CLIP.itemsize}
        expected = {
            **{name: self.num_clips * num_bytes for name, num_bytes in row_bytes.items()},
            "mean": 4 * self.width,
        }
        try:
            sizes = {name: (self.folder / name).stat().st_size for name in expected}
        except OSError as error:
            raise SegmentError(self.folder, error) from error
        if sizes != expected or not counts or min(counts) < 1:
            raise SegmentError(self.folder, "its files do not belong together")

    def remove(self) -> None:
        """Remove it. Its name goes first, so that nobody opens what is left of it."""
        gone = self.folder.with_name(f".{self.folder.name}{TEMPORARY}")
        with suppress(FileNotFoundError):
            self.folder.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)

    @cached_property
    def _first_rows(self) -> np.ndarray:
        """(videos + 1,), the row of each video's first clip, and the number of rows."""
        return np.cumsum([0, *(video.num_clips for video in self.videos)])

    def _read(self, name: str, dtype: np.dtype[Any]) -> np.ndarray:
        try:
            return np.fromfile(self.folder / name, dtype)
        except OSError as error:
            raise SegmentError(self.folder, error) from error

    def _map(self, name: str, dtype: np.dtype[Any], width: int, start: int, stop: int) -> np.ndarray:
        offset = start * width * dtype.itemsize
        try:
            return np.memmap(self.folder / name, dtype, "r", offset, (stop - start, width))
        except (OSError, ValueError) as error:
            raise SegmentError(self.folder, error) from error

    def _read_info(self) -> _Info:
        try:
            path = self.folder / _INFO
            if path.stat().st_size > _MAX_INFO_BYTES:
                raise ValueError(f"{path} is too large")
            return convert(json.loads(path.read_bytes()), _Info, origin=str(path))
        except (OSError, ValueError, RecursionError, LvqaError) as error:
            raise SegmentError(self.folder, error) from error


@functools.lru_cache(64)  # each has 3 MB in memory
def _opened(folder: Path, _: object) -> Segment:
    return Segment(folder)


def open_segment(folder: Path) -> Segment:
    """Open a segment; one that this process had open before is only looked at. Raises SegmentError."""
    try:
        status = (folder / _INFO).stat()
    except OSError as error:
        raise SegmentError(folder, error) from error
    segment = _opened(folder, (status.st_mtime_ns, status.st_size, status.st_ino))
    segment.check_sizes()
    return segment


class SegmentWriter:
    """Writes a segment, which is there when `close` returns. Left without `close`, nothing is."""

    def __init__(self, folder: Path, width: int) -> None:
        """Begin one in a folder of segments, of vectors of a width."""
        self._final = folder / f"{uuid.uuid4().hex}{SUFFIX}"
        self._folder = folder / f".{self._final.name}{TEMPORARY}"
        self._folder.mkdir()
        self._files = {name: (self._folder / name).open("xb") for name in ("codes", "vectors", "clips", "mean")}
        self._coder, self._mean = ClipCodes(width), np.zeros(0, np.float32)
        self._videos, self._checksum = list[SegmentVideo](), 0
        self.num_clips = 0
        """How many clips were added."""

    def __enter__(self) -> Self:
        """Return it."""
        return self

    def __exit__(self, *_: object) -> None:
        """Remove what was written, unless it was closed."""
        for file in self._files.values():
            file.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def add(self, indexes: Sequence[ClipIndex], halves: Sequence[np.ndarray], videos: Sequence[SegmentVideo]) -> None:
        """Add the clips of some videos.

        Args:
            indexes: Their indexes.
            halves: Of each, (clips, width) float16: its vectors as they are searched.
            videos: What is known of each.
        """
        vectors = np.ascontiguousarray(np.concatenate(halves), "<f2")
        if not self._videos:
            self._mean = vectors.mean(axis=0, dtype=np.float64).astype("<f4")
            self._files["mean"].write(self._mean.tobytes())
            self._checksum = zlib.crc32(self._mean.tobytes())
        rows = [
            (clip.start_seconds, clip.end_seconds, zlib.crc32(vector.tobytes()))
            for clip, vector in zip((clip for index in indexes for clip in index.clips), vectors, strict=True)
        ]
        clips = np.array(rows, _CLIP).tobytes()
        self._checksum = zlib.crc32(clips, self._checksum)
        self._files["clips"].write(clips)
        self._files["vectors"].write(vectors.tobytes())
        self._files["codes"].write(self._coder.encode(vectors, self._mean).tobytes())
        self._videos += videos
        self.num_clips += len(vectors)

    def close(self) -> None:
        """Finish the segment: write it to the disk, then give it its name."""
        info = _Info(self._coder.width, self._checksum, tuple(self._videos))
        with (self._folder / _INFO).open("xb") as file:
            file.write(json.dumps(asdict(info), default=str).encode("ascii"))
            self._files["info"] = file
            for written in self._files.values():
                written.flush()
                os.fsync(written.fileno())
        self._folder.rename(self._final)
        with suppress(OSError):  # as in `files.write_atomically`
            descriptor = os.open(self._final.parent, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

"""The clips' vectors, on disk and in faiss. An index is used only under the very stamp that made it.

One Parquet file an index, a row a clip: start_seconds, end_seconds, embedding (float16). Its metadata hold the *stamp*
(`lvqa`: all that made the vectors), the film's name and path (`lvqa.video`) and a digest of all of it (`lvqa.digest`).
A file in the store may be anyone's: nothing in it is believed before it is checked.
"""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import itertools
import json
import logging
import os
import re
import stat
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np

from lvqa.files import write_atomically
from lvqa.records import Candidate, Clip, LvqaError, Video

_log = logging.getLogger(__name__)

_STAMP, _VIDEO, _DIGEST = b"lvqa", b"lvqa.video", b"lvqa.digest"

# faiss's GPU kernels return no more than this many neighbours.
_MOST_FROM_GPU = 2048


class IndexFileError(LvqaError):
    """An index file that can't be used; names the file, why, and how to mend it."""


class StoreError(LvqaError):
    """A store that can't be written; names the folder and why."""


@dataclass(frozen=True, slots=True, eq=False)
class ClipIndex:
    """The clips of one video and their vectors. Made by `ClipIndex.of` or `Store.load`, with the same bits by both."""

    clips: tuple[Clip, ...]
    """In the order of time."""
    vectors: np.ndarray = field(repr=False)
    """(n, dim) float32, unit length: the stored ones, normalised (and centred, by `centred`)."""
    halves: np.ndarray = field(repr=False)
    """(n, dim) float16, as stored."""
    stamp: dict[str, Any]
    """All that made the vectors; "video" is the film's id."""
    path: Path | None = None
    """Its file, if it has one."""
    video_path: Path | None = None
    """Where the film lay when the index was saved."""
    _searcher: list[Any] = field(default_factory=list, init=False, repr=False)

    @classmethod
    def of(cls, clips: Sequence[Clip], vectors: np.ndarray, stamp: Mapping[str, Any]) -> Self:
        """An index over the vectors, at the precision of the store: a saved and reloaded one gives the same results.

        A stamp is what JSON can hold (a tuple counts as a list), with the film's id under "video".
        """
        own_stamp: dict[str, Any] = json.loads(_canonical(stamp))
        vectors = np.asarray(vectors, dtype=np.float64)
        if vectors.ndim != 2 or len(vectors) != len(clips) or 0 in vectors.shape:
            raise ValueError(f"{len(clips)} clips with vectors of shape {vectors.shape}")
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        if not (np.isfinite(lengths) & (lengths > 0)).all():
            raise ValueError("a clip's vector is zero or not finite")
        if any(clip.video_id != _video_id(own_stamp) for clip in clips):
            raise ValueError(f"clips of another video than the stamp's {_video_id(own_stamp)!r}")
        starts = [clip.start_seconds for clip in clips]
        if any(a >= b for a, b in itertools.pairwise(starts)):
            raise ValueError("clips must be in the order of time")
        halves = (vectors / lengths).astype(np.float16)
        return cls(clips=tuple(clips), vectors=_unit(halves), halves=halves, stamp=own_stamp)

    def search(self, query: np.ndarray, k: int | None = None) -> list[Candidate]:
        """The k clips (None: all) nearest to the query (dim,) by cosine, best first; of equals the earlier first."""
        if k is not None and k < 1:
            raise LvqaError(f"how many clips to find must be 1 or more, got {k}")
        query = np.asarray(query, dtype=np.float64)
        if self.path is not None and query.ndim == 1 and len(query) != self.vectors.shape[1]:
            raise _refused(self.path, f"its vectors have {self.vectors.shape[1]} numbers, the model's {len(query)}")
        length = float(np.linalg.norm(query))
        if query.shape != self.vectors.shape[1:] or not 0 < length < np.inf:
            raise ValueError(f"a query of shape {query.shape} and length {length} for vectors {self.vectors.shape}")
        if not self._searcher:
            self._searcher.append(_faiss_index(self.vectors))
        # All of them are fetched, so that clips with equal scores are cut off by time and not by chance.
        rows = (query / length).astype(np.float32)[None]  # (1, dim)
        scores, found = (part[0] for part in self._searcher[0].search(rows, len(self.clips)))
        order = np.lexsort((found, -scores))[:k]
        return [Candidate(self.clips[found[i]], embed_score=float(scores[i])) for i in order]

    def centred(self) -> Self:
        """The same index, searched without what all its clips share: less the mean vector, at unit length again.

        A clip that is the mean itself, as the only clip of a video is, scores 0. What is stored stays as it was.
        """
        rows = self.vectors.astype(np.float64)
        rows -= rows.mean(axis=0)
        lengths = np.linalg.norm(rows, axis=1, keepdims=True)
        # float32 vectors differ from their mean by rounding alone, up to here.
        apart = lengths > 1e-6
        vectors = np.where(apart, rows / np.where(apart, lengths, 1), 0).astype(np.float32)
        return dataclasses.replace(self, vectors=vectors)


def default_store() -> Path:
    """The folder of the store where none is given: $LVQA_HOME, or lvqa in the user's cache folder."""
    if home := os.environ.get("LVQA_HOME"):
        return Path(home).expanduser()
    cache = Path(os.environ.get("XDG_CACHE_HOME", ""))  # by its specification, a relative one does not count
    return (cache if cache.is_absolute() else Path.home() / ".cache") / "lvqa"


class Store:
    """A folder of indexes. Safe to share: a file appears whole or not at all."""

    def __init__(self, folder: Path | None = None) -> None:
        """By default in `default_store`."""
        self.folder = (folder or default_store()) / "index"
        """Where the indexes lie, and what else is kept of films."""

    def path_of(self, stamp: Mapping[str, Any]) -> Path:
        """Where the index with this stamp lies, or would."""
        digest = hashlib.sha256(_canonical(stamp)).hexdigest()[:16]
        return self.folder / f"{_video_id(stamp)}-{digest}.parquet"

    def tokens_path(self, stamp: Mapping[str, Any]) -> Path:
        """Where the visual tokens are kept that this stamp tells from others."""
        return self.path_of(stamp).with_suffix(".tokens")

    def load(self, stamp: Mapping[str, Any]) -> ClipIndex | None:
        """The index with exactly this stamp; None if there is none. A damaged file is refused with IndexFileError."""
        index = _read(self.path_of(stamp))
        if index is not None and _canonical(index.stamp) != _canonical(stamp):
            raise _refused(self.path_of(stamp), "it holds another index than its name says")
        return index

    def read(self, path: Path) -> ClipIndex:
        """The index in this file of the store, whatever its stamp."""
        index = _read(path)
        if index is None:
            raise IndexFileError(f"{path}: there is no such index")
        if self.path_of(index.stamp).name != path.name:
            raise _refused(path, "it holds another index than its name says")
        return index

    def save(self, index: ClipIndex, video: Video) -> ClipIndex:
        """Writes the index, whole or not at all, over one with the same stamp; returns it with its path."""
        if video.id != _video_id(index.stamp):
            raise ValueError(f"the index is of video {_video_id(index.stamp)}, not {video.id}")
        path = self.path_of(index.stamp)
        content = _to_parquet(index, video.path)
        with self._writing():
            write_atomically(path, content)
        return dataclasses.replace(index, path=path, video_path=video.path)

    def prepare(self) -> None:
        """Makes the folder and tries to write there, so that a store that can't be written is known before the work."""
        probe = self.folder / f".{uuid.uuid4().hex}.tmp"
        with self._writing():
            try:
                write_atomically(probe, b"lvqa")
            finally:  # an interrupt may come between the two
                with suppress(OSError):
                    probe.unlink()

    def paths(self) -> list[Path]:
        """The files of all indexes, sorted by name."""
        return sorted(self.folder.glob("*.parquet"))

    def others(self, video_id: str, stamp: Mapping[str, Any]) -> list[Path]:
        """The files of this video's indexes under other stamps: stale, or made with other settings."""
        mine = self.path_of(stamp)
        return [path for path in self.paths() if path.name.startswith(f"{video_id}-") and path != mine]

    def all(self) -> Iterator[ClipIndex]:
        """Every index of the store, of any stamp. One that can't be used is logged as a warning and left out."""
        for path in self.paths():
            try:
                yield self.read(path)
            except IndexFileError as error:
                _log.warning("left out: %s", error)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            yield
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
            advice = "make room there or" if full else "mend that or"
            raise StoreError(
                f"cannot write the index into {self.folder}: {error.strerror or error}; {advice} give another --store"
            ) from error


def _canonical(stamp: Mapping[str, Any]) -> bytes:
    return json.dumps(stamp, sort_keys=True, allow_nan=False, separators=(",", ":")).encode("ascii")


def _video_id(stamp: Mapping[str, Any]) -> str:
    video_id = stamp.get("video")
    # It becomes part of a file's name.
    if not isinstance(video_id, str) or not re.fullmatch(r"[0-9A-Za-z_]+", video_id):
        raise ValueError(f'a stamp holds the id of its video under "video", got {video_id!r}')
    return video_id


def _unit(halves: np.ndarray) -> np.ndarray:
    """float16 rows -> float32 rows of length 1. In float64, where the sum of squares is exact enough for any order."""
    rows = halves.astype(np.float64)
    unit: np.ndarray = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return unit


def _faiss_index(vectors: np.ndarray) -> Any:
    import faiss

    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    # The CPU build may lack the function.
    if len(vectors) <= _MOST_FROM_GPU and getattr(faiss, "get_num_gpus", int)() > 0:
        return faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, index)
    return index


# --- the file ------------------------------------------------------------------------------------------------------


def _digest(index: ClipIndex, video: bytes) -> bytes:
    """Over all that counts, so that no flipped bit passes for a vector, a time or a path."""
    times = np.array([(clip.start_seconds, clip.end_seconds) for clip in index.clips], dtype="<f8")
    digest = hashlib.sha256()
    for part in (_canonical(index.stamp), video, repr(index.halves.shape).encode(), times.tobytes()):
        digest.update(len(part).to_bytes(8, "little") + part)
    digest.update(np.ascontiguousarray(index.halves, dtype="<f2").tobytes())
    return digest.hexdigest().encode()


def _to_parquet(index: ClipIndex, video_path: Path) -> bytes:
    import pyarrow
    import pyarrow.parquet

    video = json.dumps({"name": video_path.name, "path": str(video_path)}).encode("ascii")
    embedding = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(index.halves.ravel()), index.halves.shape[1])
    columns = {
        "start_seconds": pyarrow.array([clip.start_seconds for clip in index.clips], pyarrow.float64()),
        "end_seconds": pyarrow.array([clip.end_seconds for clip in index.clips], pyarrow.float64()),
        "embedding": embedding,
    }
    metadata = {_STAMP: _canonical(index.stamp), _VIDEO: video, _DIGEST: _digest(index, video)}
    table = pyarrow.table(columns).replace_schema_metadata(metadata)
    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(table, sink, compression="none", use_dictionary=False, write_statistics=False)
    return bytes(sink.getvalue())


def _read(path: Path) -> ClipIndex | None:
    """The index in the file, checked; None if there is no file."""
    try:
        # Opening a FIFO would wait for its writer for ever.
        if not stat.S_ISREG(path.stat().st_mode):
            raise _refused(path, "it is not a regular file")
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise IndexFileError(f"cannot read the index {path}: {error.strerror}") from error
    return dataclasses.replace(_parsed(path, content), path=path)


def _refused(path: Path, reason: str) -> IndexFileError:
    reason = " ".join(reason.split())
    return IndexFileError(
        f"{path} cannot be used as an index: {reason[:200]}; make it anew with `lvqa index --rebuild`, or delete it"
    )


def _parsed(path: Path, content: bytes) -> ClipIndex:
    """A file's bytes as an index. Whatever is wrong with them comes out as IndexFileError."""
    import pyarrow

    # pyarrow answers damage with its own errors, the built-in ones, or running out of memory; json with RecursionError.
    failures = (pyarrow.ArrowException, OSError, ValueError, TypeError, LookupError, RecursionError, MemoryError)
    try:
        return _checked(_table(content))
    except failures as error:
        raise _refused(path, f"it is damaged or not lvqa's ({error})") from error


def _table(content: bytes) -> Any:
    """The rows of a Parquet file, if its schema and size are those of an index."""
    import pyarrow
    import pyarrow.parquet

    file = pyarrow.parquet.ParquetFile(pyarrow.BufferReader(content))
    schema, rows = file.schema_arrow, file.metadata.num_rows
    if schema.names != ["start_seconds", "end_seconds", "embedding"]:
        raise ValueError("its columns are not an index's")
    dim = getattr(schema.field("embedding").type, "list_size", 0)
    expected = [pyarrow.float64(), pyarrow.float64(), pyarrow.list_(pyarrow.float16(), dim)]
    if dim < 1 or schema.types != expected:
        raise ValueError("its columns have other types than an index's")
    # Vectors are stored uncompressed, so a small file that claims to unfold into a large one is no index.
    if rows < 1 or rows * (16 + 2 * dim) > len(content):
        raise ValueError(f"{rows} rows of {dim} numbers in {len(content)} bytes")
    table = file.read()
    table.validate(full=True)
    return table


def _checked(table: Any) -> ClipIndex:
    metadata = table.schema.metadata or {}
    stamp, video = json.loads(metadata[_STAMP]), json.loads(metadata[_VIDEO])
    if not isinstance(stamp, dict) or not isinstance(video, dict) or not isinstance(video.get("path"), str):
        raise ValueError("its stamp is not a mapping")
    starts, ends, halves = (_numbers(table.column(name)) for name in table.column_names)
    halves = halves.reshape(len(starts), -1)
    if not (np.isfinite(halves).all() and np.isfinite(starts).all() and np.isfinite(ends).all()):
        raise ValueError("it holds numbers that are not finite")
    if (np.diff(starts) <= 0).any() or (np.diff(ends) <= 0).any():
        raise ValueError("its clips are not in the order of time")
    if (np.abs(np.linalg.norm(halves.astype(np.float64), axis=1) - 1) > 2e-3).any():
        raise ValueError("its vectors are not of unit length")
    video_id = _video_id(stamp)
    clips = tuple(Clip(video_id, float(a), float(b)) for a, b in zip(starts, ends, strict=True))
    index = ClipIndex(clips=clips, vectors=_unit(halves), halves=halves, stamp=stamp, video_path=Path(video["path"]))
    if metadata[_DIGEST] != _digest(index, metadata[_VIDEO]):
        raise ValueError("its digest does not fit its contents")
    return index


def _numbers(column: Any) -> np.ndarray:
    """One column as a flat array that owns its memory; ValueError if a value is missing."""
    array = column.combine_chunks()
    values = array.flatten() if hasattr(array, "flatten") else array
    if array.null_count or values.null_count:
        raise ValueError("values are missing")
    return np.array(values.to_numpy(zero_copy_only=False))

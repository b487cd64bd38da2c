"""Keep the clips' vectors of a video, on disk and in faiss. An index is used only under what made it, its spec.

One Parquet file an index, a row a clip: start_seconds, end_seconds, embedding (float16). Its metadata hold the video's
id and the *spec* of all that made the vectors (`lvqa`), names of video and model (`lvqa.video`) and a digest of all
this (`lvqa.digest`). A file in the store may be anyone's: nothing in it is believed before it is checked.
"""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import itertools
import json
import os
import re
import stat
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np

from lvqa.files import write_atomically
from lvqa.places import RemotePath, as_path, user_cache
from lvqa.records import Candidate, Clip, LvqaError, Video

INDEX_FORMAT = 3
"""Raise this number when the layout of an index's file changes, or the clips that a video is split into: it is in every
index's fingerprint. Format 1 is that of lvqa 0.1."""

_SPEC, _VIDEO, _DIGEST = b"lvqa", b"lvqa.video", b"lvqa.digest"
_MAX_GPU_NEIGHBOURS = 2048  # faiss's GPU kernels return no more


def fingerprint(spec: Mapping[str, Any]) -> str:
    """Return 16 hexadecimal digits that tell this spec from all others.

    Args:
        spec: What JSON can hold; a tuple counts as a list.
    """
    return hashlib.sha256(_canonical(spec)).hexdigest()[:16]


class IndexFileError(LvqaError):
    """An index file that can't be used; the message names the file, the reason and the fix."""


class StoreError(LvqaError):
    """A store that can't be written; the message names the folder and the reason."""


@dataclass(frozen=True, slots=True, eq=False)
class ClipIndex:
    """The clips of one video and their vectors. `ClipIndex.of` and `Store.load` make it with the same bits."""

    clips: tuple[Clip, ...]
    """All clips of the video, in the order of time."""
    vectors: np.ndarray = field(repr=False)
    """(n, dim) float32, unit length: the stored ones, normalised (and centred, by `centred`)."""
    halves: np.ndarray = field(repr=False)
    """(n, dim) float16, as stored."""
    video_id: str
    """The fingerprint of the video's bytes."""
    spec: dict[str, Any]
    """All else that made the vectors, as JSON holds it: see `session.IndexSpec`."""
    model: str = ""
    """What the model was called that made the vectors; which one it was, the spec says."""
    path: Path | None = None
    """The index's file, if it has one."""
    video_path: Path | None = None
    """Where the video lay when the index was saved; the record of the video knows where it was seen last."""
    frames: int = 0
    """How many frames of the video it was made from."""
    frames_substituted: int = 0
    """How many of them are damaged, so that others stood in for them."""
    _searcher: list[Any] = field(default_factory=list, init=False, repr=False)

    @classmethod
    def of(
        cls, clips: Sequence[Clip], vectors: np.ndarray, *, video_id: str, spec: Mapping[str, Any], model: str = ""
    ) -> Self:
        """Make an index at the precision of the store: a saved and reloaded one gives the same results.

        Args:
            clips: The clips of the video, in the order of time.
            vectors: (clips, dim), of any length but zero.
            video_id: The fingerprint of the video's bytes.
            spec: All else that made the vectors; what JSON can hold.
            model: The model's name.
        """
        own_spec: dict[str, Any] = json.loads(_canonical(spec))
        _check_video_id(video_id)
        vectors = np.asarray(vectors, dtype=np.float64)
        if vectors.ndim != 2 or len(vectors) != len(clips) or 0 in vectors.shape:
            raise ValueError(f"{len(clips)} clips with vectors of shape {vectors.shape}")
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        if not (np.isfinite(lengths) & (lengths > 0)).all():
            raise ValueError("a clip's vector is zero or not finite")
        if any(clip.video_id != video_id for clip in clips):
            raise ValueError(f"clips of another video than {video_id!r}")
        starts = [clip.start_seconds for clip in clips]
        if any(a >= b for a, b in itertools.pairwise(starts)):
            raise ValueError("clips must be in the order of time")
        halves = (vectors / lengths).astype(np.float16)
        return cls(tuple(clips), _unit(halves), halves, video_id, own_spec, model)

    def search(self, query: np.ndarray, k: int | None = None) -> list[Candidate]:
        """Return the clips nearest to a query by cosine, the best first; of equal ones the earlier.

        Args:
            query: (dim,) of any length but zero.
            k: How many to return; None: all.
        """
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
        scores, neighbours = (row[0] for row in self._searcher[0].search(rows, len(self.clips)))
        order = np.lexsort((neighbours, -scores))[:k]
        return [Candidate(self.clips[neighbours[i]], embed_score=float(scores[i])) for i in order]

    def centred(self) -> Self:
        """Return the same index, searched without what all its clips share: see `centred_rows`."""
        return dataclasses.replace(self, vectors=centred_rows(self.vectors))


def centred_rows(vectors: np.ndarray) -> np.ndarray:
    """Return (n, dim) vectors less their mean, at unit length again; zeros for one that equals it."""
    rows = vectors.astype(np.float64)
    rows -= rows.mean(axis=0)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    apart = lengths > 1e-6  # float32 vectors differ from their mean by rounding alone, up to here
    return np.where(apart, rows / np.where(apart, lengths, 1), 0).astype(np.float32)


def default_store() -> Path:
    """Return the folder of the store where none is given: $LVQA_HOME, or lvqa in the user's cache folder.

    Raises:
        StoreError: Nothing says which folder is the user's.
    """
    try:
        home = os.environ.get("LVQA_HOME")
        return as_path(home).expanduser() if home else user_cache()
    except RuntimeError as error:  # there is neither HOME nor an entry in the system's list of users
        raise StoreError("this user has no home folder; set LVQA_HOME, or give a folder with --store") from error


class Store:
    """A folder of indexes, here or elsewhere. Processes may share it: a file appears whole or not at all."""

    def __init__(self, folder: Path | None = None) -> None:
        """Name the folder; by default `default_store()`."""
        self.folder = (folder or default_store()) / "index"
        """Where the indexes lie, and what else is kept of videos."""

    def path_of(self, video_id: str, spec: Mapping[str, Any]) -> Path:
        """Return where the video's index under this spec lies, or would lie."""
        return self.folder / f"{_check_video_id(video_id)}-{fingerprint(spec)}.parquet"

    @property
    def tokens_folder(self) -> Path:
        """Where the visual tokens of videos are kept: on this machine, wherever the store lies."""
        return user_cache() / "tokens" if isinstance(self.folder, RemotePath) else self.folder

    def tokens_path(self, video_id: str, spec: Mapping[str, Any]) -> Path:
        """Return the file of the video's visual tokens under this spec."""
        return self.tokens_folder / self.path_of(video_id, spec).with_suffix(".tokens").name

    def needed_tokens(self, names: Iterable[str]) -> set[str]:
        """Return which files of visual tokens, by their names, an index was made of; of a store elsewhere all."""
        ids, needed = {name.partition("-")[0] for name in names}, set[str]()
        if isinstance(self.folder, RemotePath):  # to read the indexes there would take a request for each
            return set(names)
        for path in self.paths():
            video_id = path.name.partition("-")[0]
            if video_id in ids:
                with suppress(IndexFileError, KeyError):
                    needed.add(self.tokens_path(video_id, self.read(path).spec["frames"]).name)
        return needed

    def load(self, video_id: str, spec: Mapping[str, Any]) -> ClipIndex | None:
        """Return the video's index under exactly this spec, or None if there is none.

        Raises:
            IndexFileError: The file is damaged, or holds another index.
        """
        path = self.path_of(video_id, spec)
        index = _read(path)
        if index is not None and (index.video_id != video_id or _canonical(index.spec) != _canonical(spec)):
            raise _refused(path, "it holds another index than its name says")
        return index

    def read(self, path: Path) -> ClipIndex:
        """Read the index in this file of the store, whatever its spec. Raises IndexFileError if it can't be used."""
        index = _read(path)
        if index is None:
            raise IndexFileError(f"{path}: there is no such index")
        if self.path_of(index.video_id, index.spec).name != path.name:
            raise _refused(path, "it holds another index than its name says")
        return index

    def save(self, index: ClipIndex, video: Video) -> ClipIndex:
        """Write the index, whole or not at all, over one with the same spec; return it with its path."""
        if video.id != index.video_id:
            raise ValueError(f"the index is of video {index.video_id}, not {video.id}")
        path = self.path_of(index.video_id, index.spec)
        content = _to_parquet(index, video.path)
        with self._writing():
            write_atomically(path, content)
        return dataclasses.replace(index, path=path, video_path=video.path)

    def prepare(self) -> None:
        """Make the folder and try to write there, so that a store that can't be written is refused before the work."""
        trial = self.folder / f".{uuid.uuid4().hex}.tmp"
        with self._writing():
            try:
                write_atomically(trial, b"lvqa")
            finally:  # an interrupt may come between the two
                with suppress(OSError):
                    trial.unlink()

    def paths(self) -> list[Path]:
        """Return the files of all indexes, sorted by name."""
        return sorted(self.folder.glob("*.parquet"))

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            yield
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
            advice = "make room there or" if full else "fix that or"
            raise StoreError(
                f"cannot write the index into {self.folder}: {error.strerror or error}; {advice} give another --store"
            ) from error


def _canonical(spec: Mapping[str, Any]) -> bytes:
    return json.dumps(spec, sort_keys=True, allow_nan=False, separators=(",", ":")).encode("ascii")


def _check_video_id(video_id: object) -> str:
    # It becomes part of a file's name.
    if not isinstance(video_id, str) or not re.fullmatch(r"[0-9A-Za-z_]+", video_id):
        raise ValueError(f"the id of a video is letters and digits, got {video_id!r}")
    return video_id


def _unit(halves: np.ndarray) -> np.ndarray:
    """Return float16 rows as float32 rows of length 1, by float64, whose sum of squares is exact in any order."""
    rows = halves.astype(np.float64)
    unit: np.ndarray = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return unit


def _faiss_index(vectors: np.ndarray) -> Any:
    import faiss

    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    # The CPU build may lack the function.
    if len(vectors) <= _MAX_GPU_NEIGHBOURS and getattr(faiss, "get_num_gpus", int)() > 0:
        return faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, index)
    return index


def _digest(index: ClipIndex, video: bytes) -> bytes:
    """Return a digest of all that counts, so that no flipped bit passes for a vector, a time or a path."""
    times = np.array([(clip.start_seconds, clip.end_seconds) for clip in index.clips], dtype="<f8")
    digest = hashlib.sha256()
    for part in (_made_by(index), video, repr(index.halves.shape).encode(), times.tobytes()):
        digest.update(len(part).to_bytes(8, "little") + part)
    digest.update(np.ascontiguousarray(index.halves, dtype="<f2").tobytes())
    return digest.hexdigest().encode()


def _made_by(index: ClipIndex) -> bytes:
    return _canonical({"video": index.video_id, "spec": index.spec})


def _to_parquet(index: ClipIndex, video_path: Path) -> bytes:
    import pyarrow
    import pyarrow.parquet

    counts = {"frames": index.frames, "frames_substituted": index.frames_substituted, "model": index.model}
    video = json.dumps({"name": video_path.name, "path": str(video_path), **counts}).encode("ascii")
    embedding = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(index.halves.ravel()), index.halves.shape[1])
    columns = {
        "start_seconds": pyarrow.array([clip.start_seconds for clip in index.clips], pyarrow.float64()),
        "end_seconds": pyarrow.array([clip.end_seconds for clip in index.clips], pyarrow.float64()),
        "embedding": embedding,
    }
    metadata = {_SPEC: _made_by(index), _VIDEO: video, _DIGEST: _digest(index, video)}
    table = pyarrow.table(columns).replace_schema_metadata(metadata)
    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(table, sink, compression="none", use_dictionary=False, write_statistics=False)
    return bytes(sink.getvalue())


def _read(path: Path) -> ClipIndex | None:
    """Return the index in the file, checked; None if there is no file."""
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
        f"{path} cannot be used as an index: {reason[:200]}; rebuild it with `lvqa index --rebuild`, or delete it"
    )


def _parsed(path: Path, content: bytes) -> ClipIndex:
    """Parse a file's bytes as an index. Whatever is wrong with them comes out as IndexFileError."""
    import pyarrow

    # pyarrow answers damage with its own errors, the built-in ones, or running out of memory; json with RecursionError.
    failures = (pyarrow.ArrowException, OSError, ValueError, TypeError, LookupError, RecursionError, MemoryError)
    try:
        return _checked(_table(content))
    except failures as error:
        raise _refused(path, f"it is damaged or not lvqa's ({error})") from error


def _table(content: bytes) -> Any:
    """Return the rows of a Parquet file, if its schema and size are those of an index."""
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
    made_by, video = json.loads(metadata[_SPEC]), json.loads(metadata[_VIDEO])
    if not isinstance(made_by, dict) or not isinstance(video, dict):
        raise ValueError("its metadata are not mappings")
    spec = made_by.get("spec")
    if not isinstance(spec, dict):
        raise ValueError("it was made by lvqa 0.1" if "version" in made_by else "its spec is not a mapping")
    starts, ends, halves = (_numbers(table.column(name)) for name in table.column_names)
    halves = halves.reshape(len(starts), -1)
    if not (np.isfinite(halves).all() and np.isfinite(starts).all() and np.isfinite(ends).all()):
        raise ValueError("it holds numbers that are not finite")
    if (np.diff(starts) <= 0).any() or (np.diff(ends) <= 0).any():
        raise ValueError("its clips are not in the order of time")
    if (np.abs(np.linalg.norm(halves.astype(np.float64), axis=1) - 1) > 2e-3).any():
        raise ValueError("its vectors are not of unit length")
    video_id = _check_video_id(made_by.get("video"))
    clips = tuple(Clip(video_id, float(a), float(b)) for a, b in zip(starts, ends, strict=True))
    model, path, counts = str(video["model"]), as_path(video["path"]), (video["frames"], video["frames_substituted"])
    index = ClipIndex(clips, _unit(halves), halves, video_id, spec, model, None, path, *map(int, counts))
    if metadata[_DIGEST] != _digest(index, metadata[_VIDEO]):
        raise ValueError("its digest does not fit its contents")
    return index


def _numbers(column: Any) -> np.ndarray:
    """Return one column as a flat array that owns its memory; ValueError if a value is missing."""
    array = column.combine_chunks()
    values = array.flatten() if hasattr(array, "flatten") else array
    if array.null_count or values.null_count:
        raise ValueError("values are missing")
    return np.array(values.to_numpy(zero_copy_only=False))

"""The vectors of a run's queries and candidates, in its folder: embedded once, whatever arms share them."""

from __future__ import annotations

import hashlib
import io
import logging
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from lvqa.files import write_atomically
from lvqa.records import LvqaError

_log = logging.getLogger(__name__)

AT_ONCE = 16
"""So many queries or candidates are embedded together, and kept in one file."""

Embedded = np.ndarray | str
"""A vector, or why there is none."""


@dataclass(frozen=True, slots=True)
class Vectors:
    """The vectors of some queries or candidates."""

    values: np.ndarray
    """(n, dim) float32, of unit length; NaN for what could not be embedded."""
    errors: tuple[str, ...]
    """Why a vector is not there; "" where it is."""

    @classmethod
    def of(cls, embedded: Sequence[Embedded], dim: int) -> Vectors:
        """Return vectors and errors as one array."""
        values = np.full((len(embedded), dim), np.nan, np.float32)
        for i, one in enumerate(embedded):
            if not isinstance(one, str):
                values[i] = one
        return cls(values, tuple(one if isinstance(one, str) else "" for one in embedded))

    @classmethod
    def joined(cls, parts: Sequence[Vectors]) -> Vectors:
        """Return several one after the other; at least one."""
        width = max(part.values.shape[1] for part in parts)
        values = [part.values if part.values.shape[1] else np.full((len(part.errors), width), np.nan) for part in parts]
        return cls(np.concatenate(values).astype(np.float32), tuple(e for part in parts for e in part.errors))


@dataclass(slots=True)
class VectorFolder:
    """Files of vectors by their ids."""

    folder: Path
    _known: set[str] = field(default_factory=set)

    def load(self, id: str, number: int) -> Vectors | None:
        """Return the vectors of an id; None if they are not there, or the file is damaged."""
        path = self._path(id)
        try:
            with np.load(path, allow_pickle=False) as file:
                values, errors, digest = file["values"], file["errors"], str(file["digest"])
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            _log.warning("%s is damaged (%s); it is made again", path, " ".join(str(error).split()))
            return None
        is_right = values.ndim == 2 and values.dtype == np.float32 and errors.shape == (number,) == values.shape[:1]
        if not is_right or digest != _digest(id, values):
            _log.warning("%s is damaged (it is not what was written); it is made again", path)
            return None
        return Vectors(values, tuple(map(str, errors)))

    def has(self, id: str, number: int, *, retry_failed: bool = False) -> bool:
        """Return whether the vectors of an id are there, all of them if those that failed are tried again."""
        if id not in self._known:
            vectors = self.load(id, number)
            if vectors is None or (retry_failed and any(vectors.errors)):
                return False
            self._known.add(id)
        return True

    def save(self, id: str, vectors: Vectors) -> None:
        """Keep vectors under an id, whole or not at all."""
        content = io.BytesIO()
        digest = np.array(_digest(id, vectors.values))
        np.savez(content, values=vectors.values, errors=np.array(vectors.errors, dtype=np.str_), digest=digest)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_atomically(self._path(id), content.getvalue())
        except OSError as error:
            raise LvqaError(f"cannot write {self._path(id)}: {error.strerror or error}") from error
        self._known.add(id)

    def _path(self, id: str) -> Path:
        return self.folder / f"{id}.npz"


def _digest(id: str, values: np.ndarray) -> str:
    return hashlib.sha256(id.encode() + np.ascontiguousarray(values).tobytes()).hexdigest()

"""The bytes of a file, read where they are asked for."""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from types import TracebackType
from typing import Self, overload

import numpy as np

_WINDOW_BYTES = 1 << 20
"""Bytes that lie so near to each other are read together: to read what lies between costs less than a call each."""


class FileBytes:
    """A file as if it were its bytes. One that is cut meanwhile has fewer; a memory map would end the process then."""

    def __init__(self, path: Path) -> None:
        """Open the file, which ends with the `with` block."""
        self._file = os.open(path, os.O_RDONLY)
        self._size = os.fstat(self._file).st_size

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        os.close(self._file)

    def __len__(self) -> int:
        return self._size

    @overload
    def __getitem__(self, where: int) -> int: ...
    @overload
    def __getitem__(self, where: slice) -> bytes: ...
    def __getitem__(self, where: int | slice) -> int | bytes:
        """Return a byte, or those of a slice without a step. Raises IndexError for a byte behind the end."""
        if isinstance(where, int):
            return os.pread(self._file, 1, where)[0]
        start, stop, _ = where.indices(self._size)
        return os.pread(self._file, max(0, stop - start), start)

    def parts(self, begins: np.ndarray, num_bytes: int) -> np.ndarray:
        """Return short parts of the file.

        Args:
            begins: (n,) positions; parts that follow each other should be neighbours.
            num_bytes: How long each part is.

        Returns:
            (n, num_bytes) uint8.

        Raises:
            IndexError: A part does not lie in the file.
        """
        parts, within = np.empty((len(begins), num_bytes), dtype=np.uint8), np.arange(num_bytes)
        edges = np.flatnonzero(np.diff(begins // _WINDOW_BYTES, prepend=-1, append=-1)).tolist()
        for first, end in itertools.pairwise(edges):
            window = begins[first:end]
            start = int(window.min())
            content = np.frombuffer(self[start : int(window.max()) + num_bytes], dtype=np.uint8)
            parts[first:end] = content[(window - start)[:, None] + within]
        return parts

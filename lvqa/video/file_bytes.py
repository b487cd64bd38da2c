"""The bytes of a file, read where they are asked for."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType
from typing import Self, overload


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

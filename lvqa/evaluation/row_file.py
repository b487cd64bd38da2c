"""A file with a row a line, in JSON, that is added to and may end in a line that was not written to its end."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from lvqa.files import write_atomically
from lvqa.records import LvqaError

_log = logging.getLogger(__name__)

R = TypeVar("R", bound=Mapping[str, Any])


@dataclass(frozen=True, slots=True)
class RowFile(Generic[R]):
    """How rows of one kind stand in their file."""

    name: str
    """The name of the file."""
    key_of: Callable[[R], Any]
    """Returns what tells a row from all others."""
    to_line: Callable[[R], str]
    from_line: Callable[[bytes, str], R]
    """Returns the row on a line, given where it stands; LvqaError if it is none."""
    duplicate: str
    """What a message says of a row whose key stands on an earlier line: "the same question, arm and budget"."""

    def read(self, path: Path) -> Iterator[R]:
        """Yield the rows of a file of this kind.

        A last line without its end was being written when the process was killed, or still is: it is left out.

        Raises:
            LvqaError: A line is not a row, or has the key of an earlier one; or the file can't be read.
        """
        line_numbers = dict[Any, int]()
        try:
            with path.open("rb") as file:
                for line_number, line in enumerate(file, start=1):
                    if not line.endswith(b"\n"):
                        return
                    row = self.from_line(line, f"{path}, line {line_number}; take the line out, and run again")
                    first = line_numbers.setdefault(self.key_of(row), line_number)
                    if first != line_number:
                        raise LvqaError(f"{path}, line {line_number}: {self.duplicate} as in line {first}")
                    yield row
        except OSError as error:
            raise LvqaError(f"cannot read {path}: {error.strerror or error}") from error

    def write(self, folder: Path, rows: Iterable[R]) -> None:
        """Write the file anew, whole or not at all."""
        write_text(folder / self.name, "".join(map(self.to_line, rows)))

    def take_out_failed(self, folder: Path, *, every: bool) -> list[R]:
        """Take out the rows that failed by the place, or every row that failed. Returns those that stay."""
        rows = list(self.read(folder / self.name))
        kept = [row for row in rows if not (row["by_place"] or (every and row["error"] is not None))]
        if len(kept) < len(rows):
            _log.info("%s: %d answers that failed are asked again", folder, len(rows) - len(kept))
            self.write(folder, kept)
        return kept


def whole_bytes(path: Path) -> int:
    """Return how many bytes of a file are whole lines."""
    whole = 0
    with path.open("rb") as file:
        for line in file:
            whole += len(line) if line.endswith(b"\n") else 0
    return whole


def write_text(path: Path, text: str) -> None:
    """Write a file of a run folder, whole or not at all; LvqaError if the folder or the disk refuses it."""
    try:
        write_atomically(path, text)
    except OSError as error:
        raise LvqaError(f"cannot write {path}: {error.strerror or error}") from error

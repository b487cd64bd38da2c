"""A folder of rows: `config.yaml` (resolved), `run.json` (where and with what), and a file with a row a line.

Rows are appended as they come, and never changed. So a run that was killed goes on where it stopped. A line without its
end is all that a kill leaves behind, and it is cut off.
"""

from __future__ import annotations

import contextlib
import errno
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Generic, TypeVar

from filelock import FileLock, Timeout

from lvqa.config import to_yaml
from lvqa.datasets import named
from lvqa.evaluation.changes import file_changes
from lvqa.evaluation.row_file import R, RowFile, whole_bytes, write_text
from lvqa.evaluation.run_info import read_info, update_info
from lvqa.evaluation.settings import WorkConfig
from lvqa.records import LvqaError
from lvqa.workers import NodeFacts

_log = logging.getLogger(__name__)

C = TypeVar("C", bound=WorkConfig)

CONFIG, LOCK = "config.yaml", ".lock"
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}
"""The errors of file systems without locks, as network file systems can be."""


class RowFolder(Generic[R]):
    """A folder to which rows are added, and what is known of the run in its run.json."""

    def __init__(self, folder: Path, file: RowFile[R], answered: set[Any], *, session: int) -> None:
        self.folder, self.file = folder, file
        self.answered = answered
        """The keys of the rows that are there already."""
        self._session = session
        self._revision: str | None = None
        self._devices: set[str] = set()
        self.open()

    def open(self) -> None:
        """Open the file of the rows to append, and cut off a line that was not written to its end."""
        path = self.folder / self.file.name
        self._rows: IO[bytes] = path.open("ab")
        self._rows.truncate(whole_bytes(path))

    def close(self) -> None:
        """Close the file of the rows."""
        self._rows.close()

    def append(self, rows: Sequence[R]) -> None:
        """Add rows; one that is there already is refused, for there is one row for a key."""
        keys = [self.file.key_of(row) for row in rows]
        assert len({*keys}) == len(keys) and not self.answered & {*keys}, "an answer must be given once"
        # In one piece, so that hardly any kill can come between the rows of a question.
        try:
            lines = [self.file.to_line({**row, "session": self._session}) for row in rows]  # type: ignore[arg-type]
            self._rows.write("".join(lines).encode())
            self._rows.flush()
        except OSError as error:
            raise LvqaError(f"cannot write {self.folder / self.file.name}: {error.strerror or error}") from error
        self.answered.update(keys)

    def describe(self, **info: object) -> None:
        """Note in run.json what the run is about, under keys of RunInfo."""
        update_info(self.folder, **info)

    def note_nodes(self, facts: Mapping[str, NodeFacts]) -> None:
        """Note in run.json what is known of the machines of the cluster."""
        info = read_info(self.folder)
        known = info.get("nodes", {}) if info else {}
        self.describe(nodes={**known, **{name: {**node.equal, **node.notes} for name, node in facts.items()}})

    @property
    def revision(self) -> str | None:
        """The model's revision that the run was begun with, if it has any answer."""
        info = read_info(self.folder)
        return info.get("model_revision") if info else None

    def note_device(self, device: str) -> None:
        """Note in run.json a device that answers."""
        if device not in self._devices:
            info = read_info(self.folder)
            self._devices = {*(info.get("devices", []) if info else []), device}
            self.describe(devices=sorted(self._devices))

    def check_revision(self, revision: str) -> None:
        """Note the model's revision, or raise LvqaError if the run was begun with another."""
        if self._revision is None:
            self._revision = self.revision or revision
            self.describe(model_revision=self._revision)
        if self._revision != revision:
            raise LvqaError(
                f"{self.folder} was begun with revision {self._revision} of the model, and now it is {revision}; "
                "take another folder, or the model that it had"
            )


@contextlib.contextmanager
def locked(folder: Path, file_name: str) -> Iterator[None]:
    """Make the folder if it is missing, and hold its lock; no other process can add to it meanwhile.

    The system releases the lock when the process ends, however it ends.

    Raises:
        LvqaError: The folder can't be written, or another process adds to it, or it has rows and no settings.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / file_name).touch()
    except OSError as error:
        raise LvqaError(f"cannot write the run folder {folder}: {error.strerror or error}") from error
    lock = FileLock(folder / LOCK, blocking=False)
    try:
        lock.acquire()
    except Timeout:
        raise LvqaError(f"another process is adding to the run folder {folder}; wait for it, or end it") from None
    except (OSError, NotImplementedError) as error:  # the latter where an older filelock meets ENOSYS
        if isinstance(error, OSError) and error.errno not in _NO_LOCKS:
            raise LvqaError(f"cannot lock the run folder {folder}: {error.strerror or error}") from error
        _log.warning(
            "%s: its file system has no locks (%s); see to it that no other process adds to this run",
            *(folder, getattr(error, "strerror", None) or error),
        )
    try:
        if (folder / file_name).stat().st_size and not (folder / CONFIG).exists():
            raise LvqaError(f"{folder} has an {file_name} but no {CONFIG}; take another folder")
        yield
    finally:
        lock.release()


def check_inputs(folder: Path, changes: Sequence[str], files: Mapping[str, str]) -> None:
    """Raise LvqaError if the rows in a folder were made from something else than what is there now.

    Args:
        folder: The folder.
        changes: What of the questions has changed.
        files: The files that decide answers -> their digests.
    """
    info = read_info(folder)
    changed = [*file_changes(info.get("files", {}) if info else {}, files), *changes]
    if changed:
        raise LvqaError(
            f"{folder} has answers to something else: {named(changed)}; take another folder, or what it had"
        )


def write_settings(folder: Path, before: C | None, now: C, growing: Sequence[str], changes: Sequence[str]) -> None:
    """Write the settings of a new run, and those of one to which arms are added.

    Args:
        folder: The folder.
        before: The settings that it has; None: it is new.
        now: The settings.
        growing: The keys that may get more.
        changes: What else has changed, and may not.

    Raises:
        LvqaError: Something may not change.
    """
    if changes:
        raise LvqaError(
            f"{folder} was begun with other settings ({'; '.join(changes)}); take another folder, "
            "or the settings it had"
        )
    if before is not None:
        added = [key for key in growing if getattr(before, key) != getattr(now, key)]
        if not added:
            return
        _log.info("%s: %s are added to", folder, " and ".join(added))
    write_text(folder / CONFIG, to_yaml(now))

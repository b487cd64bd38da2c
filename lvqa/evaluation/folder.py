"""A run folder: `config.yaml` (resolved), `run.json` (where and with what), `answers.jsonl` (a row an answer).

Rows are appended one batch of questions after another, and never changed but for what a judge says of an open answer.
So a run that was killed goes on where it stopped. A line without its end is all that a kill leaves behind, and it
is cut off. A folder that lvqa 0.1 wrote is read, and never added to.
"""

from __future__ import annotations

import contextlib
import errno
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from filelock import FileLock, Timeout

from lvqa.config import to_yaml
from lvqa.datasets import named
from lvqa.evaluation.changes import GROWING_SETTINGS, file_changes, settings_changes
from lvqa.evaluation.judges import judge_rows, with_judge
from lvqa.evaluation.rows import ROWS_FORMAT, Key, Row, is_unjudged, key_of, read_rows, to_line, whole_bytes
from lvqa.evaluation.run_info import RunInfo, note_session, read_info, update_info, write_text
from lvqa.evaluation.settings import Judge, JudgeModel, RunConfig, load_run_config
from lvqa.records import LvqaError, counted
from lvqa.workers import NodeFacts

_log = logging.getLogger(__name__)

CONFIG, ANSWERS, LOCK = "config.yaml", "answers.jsonl", ".lock"
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}
"""The errors of file systems without locks, as network file systems can be."""


@dataclass(frozen=True, slots=True)
class Run:
    """What a run folder holds."""

    folder: Path
    config: RunConfig
    about: RunInfo
    """What run.json holds; empty if there is none."""
    rows: tuple[Row, ...]

    @property
    def num_questions(self) -> int:
        """How many questions there are in all, those about missing videos not among them."""
        return self.about.get("questions") or 0

    @property
    def num_failed(self) -> int:
        """How many answers have failed."""
        return sum(row["error"] is not None for row in self.rows)

    @property
    def num_failed_by_place(self) -> int:
        """How many of them have failed by what the machines did."""
        return sum(row["by_place"] for row in self.rows)

    @property
    def num_unjudged(self) -> int:
        """How many answers to open questions wait for their judge."""
        return sum(map(is_unjudged, self.rows))

    @property
    def missing(self) -> tuple[str, ...]:
        """The dataset's videos that the run went on without."""
        return tuple(self.about.get("missing") or ())


def require_run(folder: Path) -> None:
    """Raise LvqaError if the folder is no run folder."""
    if not (folder / CONFIG).is_file():
        raise LvqaError(f"{folder} is not a run folder: it has no {CONFIG}; lvqa eval makes one")


def read_run(folder: Path) -> Run:
    """Return the run in a folder, as far as it is; one of lvqa 0.1 under the names of today.

    Raises:
        LvqaError: The folder is no run, or a line of it is not a row.
    """
    require_run(folder)
    rows = tuple(read_rows(folder / ANSWERS))
    about = read_info(folder) or cast(RunInfo, {})
    return Run(folder, load_run_config(folder / CONFIG, accept_old=True), about, rows)


class RunFolder:
    """A run folder that is being added to; made by `open_run`."""

    def __init__(self, folder: Path, answered: set[Key], *, judge: Judge | None, session: int) -> None:
        self.folder = folder
        self.answered = answered
        """The keys of the rows that are there already."""
        self._answers: IO[bytes] = (folder / ANSWERS).open("ab")
        self._answers.truncate(whole_bytes(folder / ANSWERS))
        self._judge, self._session = judge, session
        self._revision: str | None = None
        self._devices: set[str] = set()

    def close(self) -> None:
        """Close the file of the rows."""
        self._answers.close()

    def append(self, rows: Sequence[Row]) -> None:
        """Add rows; one that is there already is refused, for there is one answer to a question in an arm."""
        keys = [key_of(row) for row in rows]
        assert len({*keys}) == len(keys) and not self.answered & {*keys}, "an answer must be given once"
        # In one piece, so that hardly any kill can come between the rows of a question.
        try:
            lines = [to_line({**with_judge(row, self._judge), "session": self._session}) for row in rows]
            self._answers.write("".join(lines).encode())
            self._answers.flush()
        except OSError as error:
            raise LvqaError(f"cannot write {self.folder / ANSWERS}: {error.strerror or error}") from error
        self.answered.update(keys)

    def judge(self) -> int:
        """Have the open answers judged that no judge has spoken about, by a model. Returns how many stay so."""
        rows = {key_of(row): row for row in read_rows(self.folder / ANSWERS)}
        unjudged = [row for row in rows.values() if is_unjudged(row)]
        if unjudged and isinstance(self._judge, JudgeModel):
            _log.info("%s judges %s", self._judge.model, counted(len(unjudged), "answer"))
            try:
                for row in judge_rows(self._judge, unjudged):
                    rows[key_of(row)] = row
            finally:  # also where it is interrupted: each verdict costs a request
                self._answers.close()
                write_text(self.folder / ANSWERS, "".join(map(to_line, rows.values())))
                self._answers = (self.folder / ANSWERS).open("ab")
        return sum(map(is_unjudged, rows.values()))

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

    def note_contents(self) -> None:
        """Note in run.json which content each video had that was answered about."""
        rows = read_rows(self.folder / ANSWERS)
        self.describe(content_ids={row["video_id"]: row["content_id"] for row in rows if row["content_id"]})

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
def open_run(
    folder: Path,
    config: RunConfig,
    *,
    retry_failed: bool = False,
    changes: Callable[[Sequence[Row]], Sequence[str]] = lambda _: (),
    files: Mapping[str, str] | None = None,
) -> Iterator[RunFolder]:
    """Open a run folder to add to it, a new one or one to go on with; no other process can add to it meanwhile.

    Arms and budgets may be added to a run. Answers that failed by what the machines did are taken out, so that they are
    asked again.

    Args:
        folder: The folder.
        config: The settings of the run.
        retry_failed: Take out all answers that failed.
        changes: Called with the rows that are there, before anything is written; returns what of their questions and
            videos has changed.
        files: The files beside the annotations that decide answers -> their digests.

    Raises:
        LvqaError: The run was begun with other settings, questions, videos or files (which are named) or by lvqa 0.1,
            another process is adding to it, or a line of it is not a row.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ANSWERS).touch()
    except OSError as error:
        raise LvqaError(f"cannot write the run folder {folder}: {error.strerror or error}") from error
    with _lock(folder):
        if (folder / CONFIG).exists():
            _check_format(folder)
            _check_same(folder, config)
            _check_inputs(folder, changes, files or {})
        elif (folder / ANSWERS).stat().st_size:
            raise LvqaError(f"{folder} has an {ANSWERS} but no {CONFIG}; take another folder")
        _write_settings(folder, config)
        session = note_session(folder, config, files or {})
        rows = _take_out_failed(folder / ANSWERS, every=retry_failed)
        answered = {key_of(row) for row in rows}
        with contextlib.closing(RunFolder(folder, answered, judge=config.benchmark.judge, session=session)) as run:
            yield run


def _take_out_failed(path: Path, *, every: bool) -> list[Row]:
    """Take out the rows that failed by the place, or every row that failed. Returns those that stay."""
    rows = list(read_rows(path))
    kept = [row for row in rows if not (row["by_place"] or (every and row["error"] is not None))]
    if len(kept) < len(rows):
        _log.info("%s: %d answers that failed are asked again", path.parent, len(rows) - len(kept))
        write_text(path, "".join(map(to_line, kept)))
    return kept


@contextlib.contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, which the system releases when the process ends, however it ends."""
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
        yield
    finally:
        lock.release()


# --- settings and circumstances --------------------------------------------------------------------------------------


def _check_format(folder: Path) -> None:
    info = read_info(folder)
    if info is not None and info.get("rows_format") != ROWS_FORMAT:
        raise LvqaError(f"{folder} was begun by an older lvqa, which had other rows; take another folder")


def _check_same(folder: Path, config: RunConfig) -> None:
    if changes := settings_changes(load_run_config(folder / CONFIG), config):
        listed = "; ".join(changes)
        raise LvqaError(
            f"{folder} was begun with other settings ({listed}); take another folder, or the settings it had"
        )


def _check_inputs(folder: Path, changes: Callable[[Sequence[Row]], Sequence[str]], files: Mapping[str, str]) -> None:
    info = read_info(folder)
    changed = [
        *file_changes(info.get("files", {}) if info else {}, files),
        *changes(list(read_rows(folder / ANSWERS))),
    ]
    if changed:
        raise LvqaError(
            f"{folder} has answers to something else: {named(changed)}; take another folder, or what it had"
        )


def _write_settings(folder: Path, config: RunConfig) -> None:
    """Write the settings of a new run, and those of one to which arms or budgets are added."""
    path = folder / CONFIG
    if path.exists():
        before = load_run_config(path)
        added = [key for key in GROWING_SETTINGS if getattr(before, key) != getattr(config, key)]
        if not added:
            return
        _log.info("%s: %s are added to", folder, " and ".join(added))
    write_text(path, to_yaml(config))

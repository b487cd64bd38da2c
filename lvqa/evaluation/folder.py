"""A run folder: `config.yaml` (resolved), `run.json` (where and with what), `answers.jsonl` (a row an answer).

Rows are appended one question after another and never changed, so a run that was killed goes on where it stopped. A
line without its end is the only thing that a kill leaves behind; it is cut off. A folder that lvqa 0.1 wrote is read,
and never added to.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import json
import logging
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, NotRequired, TypedDict, cast

from filelock import FileLock, Timeout

from lvqa.config import flat, to_dict, to_yaml
from lvqa.evaluation.rows import ROWS_FORMAT, Key, Row, key_of, read_rows, to_line, whole_bytes
from lvqa.evaluation.settings import RunConfig, load_run_config
from lvqa.files import write_atomically
from lvqa.provenance import provenance
from lvqa.records import LvqaError
from lvqa.validation import NonNegativeInt, decode_json, in_yaml
from lvqa.workers import NodeFacts

_log = logging.getLogger(__name__)

CONFIG, RUN_INFO, ANSWERS, LOCK = "config.yaml", "run.json", "answers.jsonl", ".lock"
CHANGEABLE_SETTINGS = (
    "workers",
    "ray_address",
    "gpus_per_worker",
    "runtime_env",
    "stall_seconds",
    "allow_missing",
    "benchmark.videos",
    "benchmark.limit",
    "model.device",
    "store",
    "video.threads",
    "video.stall_seconds",
    "rerank.memory_mib",
)
"""Settings that may differ when a run goes on: they change no answer, or how many. "store" is all keys below it."""
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}
"""The errors of file systems without locks, as network file systems can be."""


class Session(TypedDict):
    """Where and with what a run was worked on."""

    started: str
    """The time in ISO 8601, UTC."""
    versions: dict[str, str]
    """The versions of lvqa, of Python and of the packages that compute."""
    machine: NotRequired[dict[str, Any]]
    """The system, its number of processors, and the number of workers."""


class RunInfo(Session):
    """What run.json holds: the first session, and what is known of the whole run."""

    rows_format: NotRequired[Literal[1, 2, 3, 4]]
    """The format of the rows; lvqa 0.1 wrote none, and its rows are of format 1."""
    model: NotRequired[str]
    """The name of the model."""
    settings: NotRequired[dict[str, Any]]
    """All settings, those of the arms among them, as the first session had them."""
    seed: NotRequired[int]
    """The seed of the run's random generators."""
    resumed: list[Session]
    """The later sessions."""
    videos: NotRequired[NonNegativeInt | None]
    """How many videos the run has."""
    questions: NotRequired[NonNegativeInt | None]
    """How many questions there are in all, those about missing videos not among them."""
    missing: NotRequired[list[str] | None]
    """The dataset's videos that the run went on without."""
    skipped: NotRequired[list[str] | None]
    """A line for all annotations of a kind that are odd or left out, and for each time that can't be used."""
    model_revision: NotRequired[str | None]
    """The revision of the model that answered."""
    nodes: NotRequired[dict[str, dict[str, Any]]]
    """Machine of the cluster -> its versions, and what else was seen when it was tried."""


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
    def missing(self) -> tuple[str, ...]:
        """The dataset's videos that the run went on without."""
        return tuple(self.about.get("missing") or ())


def read_run(folder: Path) -> Run:
    """Return the run in a folder, as far as it is; one of lvqa 0.1 under the names of today.

    Raises:
        LvqaError: The folder is no run, or a line of it is not a row.
    """
    if not (folder / CONFIG).is_file():
        raise LvqaError(f"{folder} is not a run folder: it has no {CONFIG}; lvqa eval makes one")
    rows = tuple(read_rows(folder / ANSWERS))
    about = _read_info(folder) or cast(RunInfo, {})
    return Run(folder, load_run_config(folder / CONFIG, accept_old=True), about, rows)


class RunFolder:
    """A run folder that is being added to; made by `open_run`."""

    def __init__(self, folder: Path, answers: IO[bytes], answered: set[Key], *, session: int) -> None:
        self.folder = folder
        self.answered = answered
        """The keys of the rows that are there already."""
        self._answers, self._session = answers, session
        self._revision: str | None = None

    def append(self, rows: Sequence[Row]) -> None:
        """Add rows; one that is there already is refused, for there is one answer to a question in an arm."""
        keys = [key_of(row) for row in rows]
        assert len({*keys}) == len(keys) and not self.answered & {*keys}, "an answer must be given once"
        # In one piece, so that hardly any kill can come between the rows of a question.
        try:
            self._answers.write("".join(to_line({**row, "session": self._session}) for row in rows).encode())
            self._answers.flush()
        except OSError as error:
            raise LvqaError(f"cannot write {self.folder / ANSWERS}: {error.strerror or error}") from error
        self.answered.update(keys)

    def describe(self, **info: object) -> None:
        """Note in run.json what the run is about, under keys of RunInfo."""
        _write(self.folder / RUN_INFO, json.dumps({**(_read_info(self.folder) or {}), **info}, indent=1) + "\n")

    def note_nodes(self, facts: Mapping[str, NodeFacts]) -> None:
        """Note in run.json what is known of the machines of the cluster."""
        info = _read_info(self.folder)
        known = info.get("nodes", {}) if info else {}
        self.describe(nodes={**known, **{name: {**node.equal, **node.notes} for name, node in facts.items()}})

    @property
    def revision(self) -> str | None:
        """The model's revision that the run was begun with, if it has any answer."""
        info = _read_info(self.folder)
        return info.get("model_revision") if info else None

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
def open_run(folder: Path, config: RunConfig, *, retry_failed: bool = False) -> Iterator[RunFolder]:
    """Open a run folder to add to it, a new one or one to go on with; no other process can add to it meanwhile.

    Answers that failed by what the machines did are taken out, so that they are asked again.

    Args:
        folder: The folder.
        config: The settings of the run.
        retry_failed: Take out all answers that failed.

    Raises:
        LvqaError: The run was begun with other settings (which are named) or by lvqa 0.1, another process is adding to
            it, or a line of it is not a row.
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
        elif (folder / ANSWERS).stat().st_size:
            raise LvqaError(f"{folder} has an {ANSWERS} but no {CONFIG}; take another folder")
        else:
            _write(folder / CONFIG, to_yaml(config))
        session = _note_session(folder, config)
        rows = _take_out_failed(folder / ANSWERS, every=retry_failed)
        with (folder / ANSWERS).open("ab") as answers:
            answers.truncate(whole_bytes(folder / ANSWERS))
            yield RunFolder(folder, answers, {key_of(row) for row in rows}, session=session)


def _take_out_failed(path: Path, *, every: bool) -> list[Row]:
    """Take out the rows that failed by the place, or every row that failed. Returns those that stay."""
    rows = list(read_rows(path))
    kept = [row for row in rows if not (row["by_place"] or (every and row["error"] is not None))]
    if len(kept) < len(rows):
        _log.info("%s: %d answers that failed are asked again", path.parent, len(rows) - len(kept))
        _write(path, "".join(map(to_line, kept)))
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
    info = _read_info(folder)
    if info is not None and info.get("rows_format") != ROWS_FORMAT:
        raise LvqaError(f"{folder} was begun by an older lvqa, which had other rows; take another folder")


def _check_same(folder: Path, config: RunConfig) -> None:
    before, now = flat(to_dict(load_run_config(folder / CONFIG))), flat(to_dict(config))
    differing = [key for key in {**before, **now} if before.get(key) != now.get(key) and not _may_change(key)]
    if differing:
        changes = "; ".join(f"{key}: {in_yaml(before.get(key))}, now {in_yaml(now.get(key))}" for key in differing)
        raise LvqaError(
            f"{folder} was begun with other settings ({changes}); take another folder, or the settings it had"
        )


def _may_change(key: str) -> bool:
    return any(key == setting or key.startswith(f"{setting}.") for setting in CHANGEABLE_SETTINGS)


def _note_session(folder: Path, config: RunConfig) -> int:
    """Note where and with what the run is worked on, and return which session it is.

    The first one, 0, stands for itself, later ones in a list.
    """
    made_with = provenance(config, model_revision=None)
    versions = made_with["versions"]
    session: Session = {
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "versions": versions,
        "machine": {"system": platform.platform(), "processors": os.cpu_count(), "workers": config.workers},
    }
    info = _read_info(folder)
    content: Mapping[str, object]
    if info is None:
        content = {**made_with, **session, "rows_format": ROWS_FORMAT, "seed": config.seed, "resumed": []}
    else:
        changed = [name for name, version in versions.items() if info["versions"].get(name) != version]
        if changed:
            _log.warning("%s goes on with other versions than it was begun with: %s", folder, ", ".join(changed))
        content = {**info, "resumed": [*info["resumed"], session]}
    _write(folder / RUN_INFO, json.dumps(content, indent=1) + "\n")
    return 0 if info is None else len(info["resumed"]) + 1


def _read_info(folder: Path) -> RunInfo | None:
    """Return what run.json holds, or None if there is no such file."""
    path = folder / RUN_INFO
    if not path.exists():
        return None
    try:
        content = path.read_bytes()
    except OSError as error:
        raise LvqaError(f"cannot read {path}: {error.strerror or error}") from error
    return decode_json(content, RunInfo, origin=f"{path}; delete it, and the next lvqa eval writes it again")


def _write(path: Path, text: str) -> None:
    try:
        write_atomically(path, text)
    except OSError as error:
        raise LvqaError(f"cannot write {path}: {error.strerror or error}") from error

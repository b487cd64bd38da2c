"""A run folder: `config.yaml` (resolved), `run.json` (where and with what), `answers.jsonl` (a row an answer).

Rows are appended as they are done, and nothing else is ever done to them, so a run that was killed goes on where it
stopped. A line without its end is the only thing that a kill leaves behind; it is cut off.
"""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import importlib.metadata
import json
import logging
import os
import platform
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import lvqa
from lvqa.config import flat, to_dict, to_yaml
from lvqa.evaluation.rows import (
    Check,
    Key,
    Row,
    is_count,
    is_text,
    key_of,
    many,
    mapping,
    or_null,
    read_rows,
    to_line,
    whole_bytes,
)
from lvqa.evaluation.settings import RunConfig, load_run_config
from lvqa.files import write_atomically
from lvqa.records import LvqaError
from lvqa.validation import in_yaml

_log = logging.getLogger(__name__)

CONFIG, ABOUT, ANSWERS = "config.yaml", "run.json", "answers.jsonl"
FREE_KEYS = (
    "workers",
    "ray_address",
    "gpus_per_worker",
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
PACKAGES = ("torch", "transformers", "av", "numpy", "faiss-cpu", "ray")


@dataclass(frozen=True, slots=True)
class Run:
    """What a run folder holds."""

    folder: Path
    config: RunConfig
    about: dict[str, Any]
    """run.json."""
    rows: tuple[Row, ...]

    @property
    def num_questions(self) -> int:
        """How many are asked in all, those about missing videos not among them."""
        return int(self.about.get("questions") or 0)

    @property
    def missing(self) -> tuple[str, ...]:
        """The benchmark's videos that the run went on without."""
        return tuple(self.about.get("missing") or ())


def read_run(folder: Path) -> Run:
    """The run in a folder, as far as it is. Raises LvqaError if it is none, or if a line of it is not a row."""
    if not (folder / CONFIG).is_file():
        raise LvqaError(f"{folder} is not a run folder: it has no {CONFIG}; lvqa eval makes one")
    rows = tuple(read_rows(folder / ANSWERS))
    return Run(folder, load_run_config(folder / CONFIG), _read_about(folder), rows)


class RunFolder:
    """A run folder that is being added to; made by `open_run`."""

    def __init__(self, folder: Path, answers: IO[bytes], done: set[Key]) -> None:
        self.folder = folder
        self.done = done
        """What has a row already."""
        self._answers = answers
        self._revision: str | None = None

    def append(self, rows: Sequence[Row]) -> None:
        """Add rows; one that is there already is refused, for there is one answer to a question in an arm."""
        keys = [key_of(row) for row in rows]
        assert len({*keys}) == len(keys) and not self.done & {*keys}, "an answer must be given once"
        # In one piece, so that hardly any kill can come between the rows of a question.
        try:
            self._answers.write("".join(map(to_line, rows)).encode())
            self._answers.flush()
        except OSError as error:
            raise LvqaError(f"cannot write {self.folder / ANSWERS}: {error.strerror or error}") from error
        self.done.update(keys)

    def describe(self, **known: object) -> None:
        """Note in run.json what the run is about."""
        _write(self.folder / ABOUT, json.dumps({**_read_about(self.folder), **known}, indent=1) + "\n")

    def check_revision(self, revision: str) -> None:
        """Note the model's revision, or raise LvqaError if the run was begun with another."""
        if self._revision is None:
            self._revision = str(_read_about(self.folder).get("model_revision") or revision)
            self.describe(model_revision=self._revision)
        if self._revision != revision:
            raise LvqaError(
                f"{self.folder} was begun with revision {self._revision} of the model, and now it is {revision}; "
                "take another folder, or the model that it had"
            )


@contextlib.contextmanager
def open_run(folder: Path, config: RunConfig) -> Iterator[RunFolder]:
    """The run folder, new or to go on with; nobody else can add to it meanwhile.

    Raises LvqaError if it was begun with other settings (naming the keys), if another process is adding to it, or if a
    line of it is not a row.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        answers = (folder / ANSWERS).open("ab")
    except OSError as error:
        raise LvqaError(f"cannot write the run folder {folder}: {error.strerror or error}") from error
    with answers:
        try:
            fcntl.flock(answers, fcntl.LOCK_EX | fcntl.LOCK_NB)  # let go by the system when the process ends, however
        except BlockingIOError:
            raise LvqaError(f"another process is adding to the run folder {folder}; wait for it, or end it") from None
        if (folder / CONFIG).exists():
            _check_same(folder, config)
        elif answers.tell():
            raise LvqaError(f"{folder} has an {ANSWERS} but no {CONFIG}; take another folder")
        else:
            _write(folder / CONFIG, to_yaml(config))
        _note_session(folder, config)
        answers.truncate(whole_bytes(folder / ANSWERS))
        yield RunFolder(folder, answers, {key_of(row) for row in read_rows(folder / ANSWERS)})


# --- settings and circumstances --------------------------------------------------------------------------------------


def _check_same(folder: Path, config: RunConfig) -> None:
    before, now = flat(to_dict(load_run_config(folder / CONFIG))), flat(to_dict(config))
    differing = [key for key in {**before, **now} if before.get(key) != now.get(key) and not _is_free(key)]
    if differing:
        told = "; ".join(f"{key}: {in_yaml(before.get(key))}, now {in_yaml(now.get(key))}" for key in differing)
        raise LvqaError(f"{folder} was begun with other settings ({told}); take another folder, or the settings it had")


def _is_free(key: str) -> bool:
    return any(key == free or key.startswith(f"{free}.") for free in FREE_KEYS)


def _note_session(folder: Path, config: RunConfig) -> None:
    """Where and with what the run is worked on: the first time for itself, later ones in a list."""
    versions = _versions()
    session = {
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "versions": versions,
        "machine": {"system": platform.platform(), "processors": os.cpu_count(), "workers": config.workers},
    }
    about = _read_about(folder)
    if not about:
        about = {**session, "seed": config.seed, "resumed": []}
    else:
        changed = [name for name, version in versions.items() if about["versions"].get(name) != version]
        if changed:
            _log.warning("%s goes on with other versions than it was begun with: %s", folder, ", ".join(changed))
        about["resumed"].append(session)
    _write(folder / ABOUT, json.dumps(about, indent=1) + "\n")


def _versions() -> dict[str, str]:
    versions = {"lvqa": lvqa.__version__, "python": platform.python_version()}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return versions


def _read_about(folder: Path) -> dict[str, Any]:
    path = folder / ABOUT
    if not path.exists():
        return {}
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise LvqaError(f"{path} can't be read: {error}") from error
    for name, check in _ABOUT.items():
        if not isinstance(about, dict) or not check(about.get(name)):
            raise LvqaError(
                f"{path} is not what lvqa eval wrote: {name} is wrong; if it is taken away, it is made anew"
            )
    return dict(about)


_ABOUT: dict[str, Check] = {
    "started": is_text,
    "versions": mapping(is_text),
    "resumed": many(lambda session: isinstance(session, dict)),
    "questions": or_null(is_count),
    "missing": or_null(many(is_text)),
    "model_revision": or_null(is_text),
}
"""What others rely on in run.json; the last three are not known from the beginning."""


def _write(path: Path, text: str) -> None:
    try:
        write_atomically(path, text)
    except OSError as error:
        raise LvqaError(f"cannot write {path}: {error.strerror or error}") from error

"""`run.json` in a run folder: with what a run was made, where, and on what; a session for each call of `lvqa eval`."""

from __future__ import annotations

import datetime
import json
import logging
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict

from lvqa.evaluation.row_file import write_text
from lvqa.evaluation.settings import WorkConfig
from lvqa.provenance import GitState, git_state, provenance
from lvqa.records import LvqaError
from lvqa.validation import NonNegativeInt, decode_json

_log = logging.getLogger(__name__)

RUN_INFO = "run.json"


class Session(TypedDict):
    """Where and with what a run was worked on."""

    started: str
    """The time in ISO 8601, UTC."""
    versions: dict[str, str]
    """The versions of lvqa, of Python and of the packages that compute."""
    git: NotRequired[GitState | None]
    """The commit of lvqa, where it runs from a checkout."""
    machine: NotRequired[dict[str, Any]]
    """The system, its number of processors, and the number of workers."""


class RunInfo(Session):
    """What run.json holds: the first session, and what is known of the whole run."""

    rows_format: NotRequired[Literal[1, 2, 3, 4, 5, 6, 7, 8]]
    """The format of the rows; lvqa 0.1 wrote none, and its rows are of format 1."""
    model: NotRequired[str]
    """The name of the model."""
    settings: NotRequired[dict[str, Any]]
    """All settings, those of the arms among them, as the last session had them."""
    seed: NotRequired[int]
    """The seed of the run's random generators."""
    resumed: list[Session]
    """The later sessions."""
    videos: NotRequired[NonNegativeInt | None]
    """How many videos the run has."""
    questions: NotRequired[NonNegativeInt | None]
    """How many questions there are in all, those about missing videos not among them."""
    sets: NotRequired[dict[str, NonNegativeInt]]
    """Of `lvqa retrieve`: set -> how many queries it has."""
    embed_seconds: NotRequired[float]
    """Of `lvqa retrieve`: how long its last session embedded, in all workers together."""
    missing: NotRequired[list[str] | None]
    """The dataset's videos that the run went on without."""
    skipped: NotRequired[list[str] | None]
    """A line for all annotations of a kind that are odd or left out, and for each time that can't be used."""
    model_revision: NotRequired[str | None]
    """The revision of the model that answered."""
    annotations: NotRequired[dict[str, str]]
    """Annotation file, from the benchmark's folder -> its SHA-256."""
    content_ids: NotRequired[dict[str, str]]
    """Video -> the first 16 digits of the SHA-256 of its file, as `Video.id`."""
    files: NotRequired[dict[str, str]]
    """A file beside the annotations that decides answers (own code, scores, subtitles) -> its SHA-256."""
    devices: NotRequired[list[str]]
    """The devices that answered: the names of GPUs, or cpu."""
    nodes: NotRequired[dict[str, dict[str, Any]]]
    """Machine of the cluster -> its versions, and what else was seen when it was tried."""


def read_info(folder: Path) -> RunInfo | None:
    """Return what run.json holds, or None if there is no such file."""
    path = folder / RUN_INFO
    if not path.exists():
        return None
    try:
        content = path.read_bytes()
    except OSError as error:
        raise LvqaError(f"cannot read {path}: {error.strerror or error}") from error
    return decode_json(content, RunInfo, origin=f"{path}; delete it, and the next lvqa eval writes it again")


def update_info(folder: Path, **info: object) -> None:
    """Note something in run.json, under keys of RunInfo."""
    write_text(folder / RUN_INFO, json.dumps({**(read_info(folder) or {}), **info}, indent=1) + "\n")


def note_session(folder: Path, config: WorkConfig, files: Mapping[str, str], *, rows_format: int) -> int:
    """Note where and with what the run is worked on, and return which session it is.

    The first one, 0, stands for itself, later ones in a list.
    """
    made_with = provenance(config, model_revision=None)
    versions = made_with["versions"]
    session: Session = {
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "versions": versions,
        "git": git_state(),
        "machine": {"system": platform.platform(), "processors": os.cpu_count(), "workers": config.workers},
    }
    info = read_info(folder)
    content: Mapping[str, object]
    if info is None:
        first = {"rows_format": rows_format, "seed": config.seed, "files": files, "resumed": []}
        content = {**made_with, **session, **first}
    else:
        changed = [name for name, version in versions.items() if info["versions"].get(name) != version]
        if changed:
            _log.warning("%s goes on with other versions than it was begun with: %s", folder, ", ".join(changed))
        known = {"settings": made_with["settings"], "files": {**info.get("files", {}), **files}}
        content = {**info, **known, "resumed": [*info["resumed"], session]}
    write_text(folder / RUN_INFO, json.dumps(content, indent=1) + "\n")
    return 0 if info is None else len(info["resumed"]) + 1

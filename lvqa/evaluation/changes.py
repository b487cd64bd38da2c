"""What may change when a run goes on, and what may not.

Arms, budgets, questions and videos may be added. Whatever an answer that is there was made with must be as it was: the
settings, the question and what is expected of it, the video, and the files with the user's own code and scores.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from lvqa.config import to_dict
from lvqa.datasets import Dataset, named
from lvqa.evaluation.rows import Row
from lvqa.evaluation.settings import Arm, RunConfig, resolve_arms
from lvqa.records import LvqaError, Question
from lvqa.settings_tree import flat
from lvqa.validation import in_yaml
from lvqa.video import content_id

CHANGEABLE_SETTINGS = (
    "workers",
    "ray_address",
    "gpus_per_worker",
    "runtime_env",
    "stall_seconds",
    "questions_at_once",
    "allow_missing",
    "benchmark.videos",
    "benchmark.limit",
    "benchmark.judge.url",
    "benchmark.judge.key_variable",
    "benchmark.judge.timeout_seconds",
    "benchmark.judge.attempts",
    "benchmark.judge.parallel",
    "model.device",
    "model.device_map",
    "model.max_batch_tokens",
    "model.memory_mib",
    "store",
    "video.threads",
    "video.stall_seconds",
)
"""Settings that may differ when a run goes on: they change no answer, or how many. "store" is all keys below it."""
GROWING_SETTINGS = ("arms", "frames")
"""Settings that may get more, and not less."""


# --- settings --------------------------------------------------------------------------------------------------------


def settings_changes(before: RunConfig, now: RunConfig) -> list[str]:
    """Return what differs in the settings of a run and may not, each with its key; what was added is not among it."""
    old, new = flat(to_dict(before)), flat(to_dict(now))
    differing = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    fixed = [key for key in differing if not _may_change(key) and key not in GROWING_SETTINGS]
    changes = [_change(key, old.get(key), new.get(key)) for key in fixed]
    if not {*before.frames} <= {*now.frames}:
        changes.append(_change("frames", list(before.frames), list(now.frames)))
    old_arms, new_arms = ({arm.name: arm for arm in resolve_arms(config)} for config in (before, now))
    if gone := [name for name in old_arms if name not in new_arms]:
        changes.append(f"arms: {named([*old_arms])}, now without {named(gone)}")
    for name, arm in old_arms.items():
        if name in new_arms:
            changes += [f"arm {name}: {change}" for change in _arm_changes(arm, new_arms[name], but=differing)]
    return changes


def _arm_changes(before: Arm, now: Arm, *, but: Sequence[str]) -> Iterator[str]:
    """Yield what differs in an arm and may not; settings that differ in the whole run are `but`, and named there."""
    if not {*before.budgets} <= {*now.budgets} and "frames" not in but:
        yield _change("frames", list(before.budgets), list(now.budgets))
    if before.baseline != now.baseline and "baseline" not in but:
        yield _change("baseline", before.baseline, now.baseline)
    old, new = flat(to_dict(before.complete)), flat(to_dict(now.complete))
    for key in {**old, **new}:
        if old.get(key) != new.get(key) and key not in but and not _may_change(key):
            yield _change(key, old.get(key), new.get(key))


def _change(key: str, before: object, now: object) -> str:
    return f"{key}: {in_yaml(before)}, now {in_yaml(now)}"


def _may_change(key: str) -> bool:
    return any(key == setting or key.startswith(f"{setting}.") for setting in CHANGEABLE_SETTINGS)


# --- questions, videos and files -------------------------------------------------------------------------------------


def input_changes(rows: Iterable[Row], dataset: Dataset, store: Path) -> list[str]:
    """Return which questions and videos of a run's rows are no longer as they were, and in what.

    Args:
        rows: The rows of the run.
        dataset: All of the benchmark, whatever of it is asked.
        store: The folder that keeps what is known of videos, so that none is hashed again that did not change.
    """
    questions = {(task.video_id, question.id): question for task in dataset.tasks for question in task.questions}
    paths = {task.video_id: task.path for task in dataset.tasks}
    changes: dict[str, None] = {}
    contents: dict[str, str] = {}
    for row in rows:
        question = questions.get((row["video_id"], row["question_id"]))
        changes |= dict.fromkeys(_question_changes(row, question))
        if row["content_id"] is not None:
            contents.setdefault(row["video_id"], row["content_id"])
    for video_id, before in contents.items():
        path = paths.get(video_id)
        with contextlib.suppress(OSError):  # what can't be read is for the worker that needs it
            if path is not None and path.is_file() and (now := content_id(path, store)) != before:
                changes[f"video {video_id} has another content ({before}, now {now}: {path})"] = None
    return [*changes]


def _question_changes(row: Row, question: Question | None) -> Iterator[str]:
    name = f"question {row['question_id']} of video {row['video_id']}"
    if question is None:
        yield f"{name} is gone"
        return
    span = question.evidence_seconds
    now = {
        "question": question.text,
        "options": list(question.options),
        "target": question.answer,
        "tags": list(question.tags),
        "evidence_seconds": None if span is None else list(span),
    }
    before = {
        "question": row["question"],
        "options": row["options"],
        "target": row["target"],
        "tags": row["tags"],
        "evidence_seconds": None if row["evidence_seconds"] is None else list(row["evidence_seconds"]),
    }
    for key, value in now.items():
        if before[key] != value:
            yield f"{name} has {_OTHER[key]} ({in_yaml(before[key])}, now {in_yaml(value)})"


_OTHER = {
    "question": "another text",
    "options": "other options",
    "target": "another answer",
    "tags": "other tags",
    "evidence_seconds": "its evidence elsewhere",
}


def digests(paths: Iterable[Path]) -> dict[Path, str]:
    """Return path -> the SHA-256 of the file, as `sha256sum` prints it.

    Raises:
        LvqaError: A file can't be read.
    """
    hashes: dict[Path, str] = {}
    for path in paths:
        try:
            with path.open("rb") as file:
                hashes[path] = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise LvqaError(f"cannot read {path}: {error.strerror or error}") from error
    return hashes


def file_changes(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Return which files of the user's own code or scores have another content than at the beginning."""
    return [f"{path} has another content" for path, digest in now.items() if before.get(path, digest) != digest]

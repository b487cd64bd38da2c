"""What the tests of runs share: a benchmark of synthetic videos, a run's settings, and one finished run.

A run takes some seconds, because its worker is a process of its own that loads the model. So tests read the one
finished run wherever that shows the same.
"""

from __future__ import annotations

import functools
import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from shared_videos import shared_benchmark, shared_folder

from lvqa.evaluation import Run, RunConfig, load_run_config, read_run
from lvqa.evaluation.rows import FIELDS
from lvqa.evaluation.run import evaluate
from lvqa.files import write_atomically
from lvqa.records import LvqaError

NUM_VIDEOS, NUM_QUESTIONS = 2, 4
MINUTES = 2
NUM_PAIRS = 30 * MINUTES
ARMS = """
  - {method: uniform, frames: [4]}
  - {method: freeret}
  - {method: topk, frames: [4]}
  - {name: embedding only, method: freeret, frames: [4], settings: {rerank.name: none}}
  - {name: generated, method: uniform, frames: [4], settings: {answer.mode: text, answer.max_new_tokens: 4}}
  - {method: blind}
"""
CONDITIONS = [
    ("uniform", 4),
    ("freeret", 4),
    ("freeret", 8),
    ("topk", 4),
    ("embedding only", 4),
    ("generated", 4),
    ("blind", 0),
]
COSTS = ("seconds", "counts", "index", "node", "session", "video_path")
"""The fields of a row that depend on where it was made, where its video lies, and what was in memory and the store."""


def benchmark_folder(base: Path) -> Path:
    """Make two synthetic videos of two minutes, in LVBench's layout, once in a test run; `base` is of this process."""
    return shared_benchmark(base, num_videos=NUM_VIDEOS, minutes=MINUTES, num_questions=NUM_QUESTIONS, seed=11)


@functools.cache
def settings_file(base: Path) -> Path:
    """Return the YAML file of a run on them, with a store of its own, written once in a test run."""
    folder = shared_folder(base)
    path = folder / "run.yaml"
    write_atomically(
        path,
        "model: {name: tiny, device: cpu}\n"
        "video: {clip_seconds: 8}\nrerank: {pool: 5}\nframes: [4, 8]\n"
        f"benchmark: {{folder: {benchmark_folder(base)}}}\nstore: {{folder: {folder / 'store-of-runs'}}}\narms: {ARMS}",
    )
    return path


@functools.cache
def finished_run(base: Path) -> Run:
    """Return the finished run, made once in a test run; tests must not change the folder."""
    folder = shared_folder(base) / "finished-run"
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            new = folder.with_suffix(".new")
            evaluate(load_run_config(settings_file(base)), new)
            new.rename(folder)
    return read_run(folder)


def copy_of(run: Run, folder: Path) -> Path:
    """Copy a run's folder, and return the copy."""
    return Path(shutil.copytree(run.folder, folder / "run"))


def results(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the rows without their costs, sorted: an order that does not depend on the workers."""
    return sorted(json.dumps({name: row[name] for name in FIELDS if name not in COSTS}) for row in rows)


def refusal(folder: Path, config: RunConfig) -> str:
    """Return the message with which `evaluate` refuses a run before it has loaded or written anything."""
    with pytest.raises(LvqaError) as caught:
        evaluate(config, folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)

"""Measure revisions of lvqa beside this one: each in processes of its own, in turn, on the same work."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lvqa.provenance import checkout_folder, run_git
from lvqa.records import LvqaError, shorten

HERE = "this tree"
"""The name of the checkout that the command runs from, with what is changed in it."""
REPEATS = 3
"""How many times a process measures each task, once it has warmed up; its median is one round's figure."""


@dataclass(frozen=True, slots=True)
class Ratio:
    """How many times as long a revision takes for a task as this tree does, over the rounds."""

    median: float
    lowest: float
    highest: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What several revisions took for the same tasks."""

    machine: str
    clock: str
    """The seconds that are compared: "processor", of all threads, on a CPU; "wall" on a GPU."""
    commits: dict[str, str]
    """The name of a revision, as it was given -> its commit."""
    seconds: dict[str, dict[str, list[float]]]
    """A task -> a revision or HERE -> its seconds in each round. A task that a revision lacks has none of it."""

    def ratio(self, task: str, revision: str) -> Ratio | None:
        """Return how a revision compares with this tree in a task; None if it has no such task."""
        of_task = self.seconds[task]
        if revision not in of_task:
            return None
        ratios = [theirs / ours for theirs, ours in zip(of_task[revision], of_task[HERE], strict=True)]
        return Ratio(statistics.median(ratios), min(ratios), max(ratios))

    def as_json(self) -> dict[str, Any]:
        """Return plain values that JSON can hold, the ratios among them."""
        ratios = {
            task: {revision: asdict(ratio) for revision in self.commits if (ratio := self.ratio(task, revision))}
            for task in self.seconds
        }
        return asdict(self) | {"ratios": ratios}


def compare(
    revisions: Sequence[str],
    arguments: Sequence[str],
    *,
    rounds: int,
    progress: Callable[[str], None] = lambda _: None,
    on_round: Callable[[Comparison], None] = lambda _: None,
) -> Comparison:
    """Run `lvqa bench` of this tree and of other revisions in turn, and compare what each task took.

    Every round starts each of them once, another one first each time, so that a machine that becomes slower or quicker
    does so for all. Only the code differs: Python and the libraries are those of this process.

    Args:
        revisions: Commits, tags or branches of the checkout that lvqa runs from.
        arguments: What `lvqa bench` is given: the video, and options that all of them know.
        rounds: How many rounds there are.
        progress: Receives a line after each process.
        on_round: Receives after each round what the rounds up to it give.

    Raises:
        LvqaError: lvqa does not run from a checkout, a revision is not in it, or a revision can't measure this.
    """
    folder = checkout_folder()
    if folder is None:
        raise LvqaError("--compare needs lvqa to run from a checkout with its history: clone the repository")
    commits = {name: _commit(folder, name) for name in dict.fromkeys(revisions)}
    with tempfile.TemporaryDirectory(prefix="lvqa-compare-") as temporary:
        folders = {HERE: folder} | {
            name: _extract(folder, commit, Path(temporary) / commit) for name, commit in commits.items()
        }
        names, reports = list(folders), dict[str, list[dict[str, Any]]]()
        for i in range(rounds):
            start = i % len(names)
            for name in names[start:] + names[:start]:
                reports.setdefault(name, []).append(_bench(name, folders[name], arguments))
                progress(f"round {i + 1} of {rounds}: {name} is measured")
            comparison = _comparison(commits, reports)
            on_round(comparison)
    return comparison


def _comparison(commits: dict[str, str], reports: Mapping[str, Sequence[dict[str, Any]]]) -> Comparison:
    """Return what the reports of each revision, one of every round, give."""
    ours = reports[HERE][0]
    clock = "wall" if ours["device"].startswith("cuda") else "processor"
    return Comparison(machine=ours["machine"], clock=clock, commits=commits, seconds=_seconds(reports, clock))


def _commit(folder: Path, revision: str) -> str:
    """Return the commit that a revision of the checkout is."""
    try:
        return run_git(folder, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
    except (OSError, subprocess.SubprocessError) as error:
        raise LvqaError(
            f"revision {shorten(revision)} is not in the history of {folder}; give a commit, a tag or a branch"
        ) from error


def _extract(folder: Path, commit: str, target: Path) -> Path:
    """Write the package of a commit into a new folder, which is returned."""
    target.mkdir()
    archive = target / "lvqa.zip"
    run_git(folder, "archive", f"--output={archive}", commit, "lvqa")
    with zipfile.ZipFile(archive) as files:
        files.extractall(target)
    return target


def _bench(name: str, folder: Path, arguments: Sequence[str]) -> dict[str, Any]:
    """Return the report of one process that runs the package in a folder."""
    command = [sys.executable, "-P", "-m", "lvqa.cli", "bench", *arguments, "--repeats", str(REPEATS), "--json"]
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    process = subprocess.run([*command, "--quiet"], env=environment, capture_output=True, text=True, check=False)
    if process.returncode:
        reason = (process.stderr.strip().splitlines() or ["it said nothing"])[-1].removeprefix("lvqa: ")
        raise LvqaError(f"{name} can't measure this: {reason}")
    report: dict[str, Any] = json.loads(process.stdout)
    return report


def _seconds(reports: Mapping[str, Sequence[dict[str, Any]]], clock: str) -> dict[str, dict[str, list[float]]]:
    """Return the seconds of each task of this tree, of each revision that has it, in each round."""
    key = "seconds" if clock == "wall" else "processor_seconds"
    by_task: dict[str, dict[str, list[float]]] = {result["name"]: {} for result in reports[HERE][0]["results"]}
    for name, of_revision in reports.items():
        for report in of_revision:
            for result in report["results"]:
                if result["name"] in by_task:
                    by_task[result["name"]].setdefault(name, []).append(result[key])
    return by_task

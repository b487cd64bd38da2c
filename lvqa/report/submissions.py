"""Write the files in which benchmarks take submissions, for each arm at each budget."""

from __future__ import annotations

import itertools
import json
import logging
import re
from collections.abc import Sequence, Set
from pathlib import Path

from lvqa.datasets.submissions import SUBMISSIONS
from lvqa.records import LvqaError, counted
from lvqa.report.conditions import Condition, NamedRun
from lvqa.report.page import write_file
from lvqa.report.tables import frames_text

_log = logging.getLogger(__name__)


def write_submissions(folder: Path, runs: Sequence[NamedRun], conditions: Sequence[Condition]) -> None:
    """Write a folder for each condition of a benchmark that takes submissions; warn of questions without an answer.

    Raises:
        LvqaError: No run is of such a benchmark, or a file can't be written.
    """
    by_name = {run.name: run for run in runs}
    names = {condition.run: by_name[condition.run].run.config.benchmark.name for condition in conditions}
    with_form = [c for c in conditions if names[c.run] in SUBMISSIONS and c.judge is None]
    if not with_form:
        benchmarks = ", ".join(dict.fromkeys(run.run.config.benchmark.name for run in runs))
        raise LvqaError(f"no form of submissions is known for {benchmarks}; there are: {', '.join(SUBMISSIONS)}")
    taken: set[str] = set()
    for condition in with_form:
        _warn(condition, by_name[condition.run])
        taken.add(subfolder := _folder_name(condition, taken))
        for name, content in SUBMISSIONS[names[condition.run]](condition.rows).items():
            text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
            write_file(folder / subfolder / name, text.encode("utf-8", errors="backslashreplace"))


def _folder_name(condition: Condition, taken: Set[str]) -> str:
    """Return the name of a condition's folder: "freeret-16"."""
    arm = re.sub(r"[^\w.=-]+", "-", condition.arm).strip("-.") or "arm"
    name = f"{arm}-{condition.budget}" if condition.budget else arm
    names = itertools.chain([name], (f"{name}-{i}" for i in itertools.count(2)))
    return next(name for name in names if name not in taken)


def _warn(condition: Condition, named: NamedRun) -> None:
    """Say what is wrong with a submission."""
    where = f"{condition.arm}, {frames_text(condition.budget)}"
    num_failed = sum(row["error"] is not None for row in condition.rows)
    num_missing = named.run.num_questions - len(condition.rows)
    if num_failed or num_missing > 0:
        total = counted(max(named.run.num_questions, len(condition.rows)), "question")
        _log.warning("%s: %d of %s have no answer in the submission", where, num_failed + max(0, num_missing), total)
    if named.run.config.benchmark.make is not None:
        _log.warning("%s: a submission about synthetic videos is of no use but to try its form", where)

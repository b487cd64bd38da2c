"""Runs of `lvqa eval` on a cluster of tests: a driver as a process of its own, and a benchmark for it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from cluster import Cluster, send
from processes import descendants, is_alive, wait_until
from runs import results

from lvqa.evaluation import read_run
from lvqa.synthetic.videos import make_videos

MISSING_MODULE = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Blocker())
"""
"""What Python runs as it starts on a node that lacks a package."""


def without_module(folder: Path, module: str) -> Path:
    """Return a folder for PYTHONPATH that makes Python lack a package."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sitecustomize.py").write_text(MISSING_MODULE.format(module=module))
    return folder


def benchmark(folder: Path, *, videos: int, minutes: float, questions: int, seed: int = 700) -> Path:
    """Make a benchmark of synthetic videos; return the settings of a run that asks each question twice."""
    make_videos(folder / "benchmark", num_videos=videos, minutes=minutes, num_questions=questions, seed=seed)
    path = folder / "run.yaml"
    path.write_text(
        "model: {name: tiny, device: cpu}\nframes: [8]\nrerank: {pool: 6}\n"
        f"benchmark: {{folder: {folder / 'benchmark'}}}\nstore: {{folder: {folder / 'store'}}}\n"
        "arms:\n  - {method: uniform}\n  - {method: freeret}\n"
    )
    return path


class Driver:
    """A running `lvqa eval`."""

    def __init__(self, settings: Path, folder: Path, *options: object, cluster: Cluster | None = None) -> None:
        self.folder = folder
        command = [sys.executable, "-m", "lvqa.cli", "eval", str(settings), "--folder", str(folder), *map(str, options)]
        environment = dict(os.environ)
        if cluster is not None:
            environment = cluster.environment()
            command += ["--ray-address", cluster.address]
        environment |= {"OMP_NUM_THREADS": "1"}
        self._log = folder.with_suffix(".log")
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                command, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )

    @property
    def output(self) -> str:
        """What it has printed."""
        return self._log.read_text(errors="replace")

    def num_rows(self) -> int:
        """Return how many rows there are."""
        path = self.folder / "answers.jsonl"
        return path.read_bytes().count(b"\n") if path.exists() else 0

    def wait_for_rows(self, number: int) -> None:
        """Wait until there are so many rows, or the driver has ended."""
        wait_until(lambda: self.num_rows() >= number or self.process.poll() is not None)

    def wait_for_line(self, text: str) -> None:
        """Wait until the driver has printed a text."""
        wait_until(lambda: text in self.output or self.process.poll() is not None)
        assert text in self.output, self.output

    def wait(self, seconds: float = 900) -> int:
        """Wait for the end, and return the exit code."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"the driver has not ended after {seconds} s:\n{self.output}") from None

    def kill(self) -> None:
        """Kill it with all its processes."""
        pids = {self.process.pid, *descendants(self.process.pid)}
        for pid in pids:
            send(pid, signal.SIGKILL)
        self.process.wait()
        wait_until(lambda: not any(map(is_alive, pids)))


def expected_results(settings: Path, folder: Path) -> list[str]:
    """Return the results of a run without Ray and without disturbance."""
    driver = Driver(settings, folder)
    assert driver.wait(900) == 0, driver.output
    return results(read_run(folder).rows)


def results_of(folder: Path) -> list[str]:
    """Return the results of a run, each answer once."""
    return results(read_run(folder).rows)


def rows_by_node(folder: Path) -> dict[str, int]:
    """Return how many rows each node gave."""
    counts: dict[str, int] = {}
    for line in (folder / "answers.jsonl").read_text().splitlines():
        node = json.loads(line)["node"]
        counts[node] = counts.get(node, 0) + 1
    return counts

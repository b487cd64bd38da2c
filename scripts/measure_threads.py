"""Measure which numbers of threads are quick, and where: `python scripts/measure_threads.py FOLDER [MEASUREMENT ...]`.

cores       on one core and on two
neighbours  on two cores beside programs that compute without end, with threads that sleep or spin while they wait
quota       on two cores in a control group that may have the time of one core, or of half a core
counts      how many threads there are at most, and the peak of memory, as on 1, 2 and 16 cores; no times

"1+2" is one thread that computes and two that decode. Each arm indexes a synthetic video of --minutes and asks a
question about it with the embedded model, and indexes a minute with 3B's widths, one layer and random weights (left out
by --no-wide). Arms take turns, after a round that is not counted; printed are medians of --rounds, wall and processor
time, and whether all indexes and scores were the same bits. The script runs on Linux only; `quota` needs control groups
of version 1, and root.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import hashlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lvqa.synthetic.videos import make_videos

CHILD = "--measure-in-this-process"
GROUP = Path("/sys/fs/cgroup/cpu/lvqa-measure-threads")
PERIOD_US = 100_000
QUESTION, OPTIONS = "What colour is the small car at sea?", ("red", "green", "blue", "white")
GRID = ("1+1", "1+2", "2+1", "2+2")
WITH_SPINNING = (*GRID, "2+2 ACTIVE")


@dataclass(frozen=True)
class Condition:
    """Where processes run, and in how many threads."""

    name: str
    num_cores: int = 2
    arms: tuple[str, ...] = GRID
    """The threads of each, and OMP_WAIT_POLICY where it is not PASSIVE, our default."""
    neighbours: int = 0
    quota: float | None = None
    """So many cores' time."""


CONDITIONS = {
    "cores": (Condition("one core", 1), Condition("two cores")),
    "neighbours": (
        Condition("two cores, a neighbour on one", arms=WITH_SPINNING, neighbours=1),
        Condition("two cores, a neighbour on each", arms=WITH_SPINNING, neighbours=2),
    ),
    "quota": (Condition("one core's time", quota=1.0), Condition("half a core's time", quota=0.5)),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the videos are made")
    parser.add_argument("measurements", nargs="*", default=["cores"], help="cores by default")
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--no-wide", action="store_true", help="measure the embedded model alone")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=7)
    a = parser.parse_args()
    lengths = [a.minutes] if a.no_wide else [a.minutes, 1]
    make = functools.partial(make_videos, num_videos=1, num_questions=1, seed=a.seed)
    videos = [make(a.folder / f"{minutes:g}", minutes=minutes)[0] for minutes in lengths]
    for name in a.measurements:
        if name == "counts":
            report_counts(videos)
        for condition in CONDITIONS.get(name, ()):
            report(condition, in_turn(condition, videos, a.rounds))


def report(condition: Condition, results: dict[str, list[dict[str, Any]]]) -> None:
    """Print the medians of each arm, and which one is the default."""
    print(f"\n{condition.name}")
    for arm, rounds in results.items():
        tasks = rounds[0]["seconds"]
        medians = {
            task: [statistics.median(one["seconds"][task][i] for one in rounds) for i in range(2)] for task in tasks
        }
        times = "   ".join(f"{task} {wall:6.2f} s, processor {cpu:6.2f} s" for task, (wall, cpu) in medians.items())
        print(f"  {arm:13} {times}", flush=True)
    bits = {one["bits"] for rounds in results.values() for one in rounds}
    print(f"  the same bits: {len(bits) == 1}", flush=True)


def in_turn(condition: Condition, videos: list[Path], num_rounds: int) -> dict[str, list[dict[str, Any]]]:
    """Return what each arm measured in each round but the first."""
    results: dict[str, list[dict[str, Any]]] = {}
    with contextlib.ExitStack() as stack:
        if condition.quota is not None:
            stack.enter_context(control_group(condition.quota))
        for core in range(condition.neighbours):
            stack.enter_context(neighbour(core))
        children: dict[str, Child] = {}
        for i in range(num_rounds + 1):
            for arm in condition.arms:
                threads, _, policy = arm.partition(" ")
                if policy not in children:
                    children[policy] = stack.enter_context(Child(condition, policy or "PASSIVE", videos))
                result = children[policy].measure(threads)
                name = f"{arm}{' (default)' if arm == children[policy].default else ''}"
                results.setdefault(name, []).extend([result] if i else [])
    return results


class Child:
    """A process with the models loaded, which is stopped while others have their turn: its threads may spin."""

    def __init__(self, condition: Condition, policy: str, videos: list[Path]) -> None:
        group = "" if condition.quota is None else str(GROUP)
        environment = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
        environment["OMP_WAIT_POLICY"] = policy
        self._process = start_child(condition.num_cores, group, videos, environment)
        self.default = self._read()["default"]
        self._process.send_signal(signal.SIGSTOP)

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    def measure(self, threads: str) -> dict[str, Any]:
        """Return what is measured in so many threads."""
        assert self._process.stdin is not None
        self._process.send_signal(signal.SIGCONT)
        self._process.stdin.write(f"{threads}\n")
        self._process.stdin.flush()
        result = self._read()
        self._process.send_signal(signal.SIGSTOP)
        return result

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("a process has ended before its time")
        result: dict[str, Any] = json.loads(line)
        return result


def start_child(num_cores: int, group: str, videos: list[Path], environment: dict[str, str]) -> subprocess.Popen[str]:
    command = [sys.executable, str(Path(__file__).resolve()), CHILD, str(num_cores), group, *map(str, videos)]
    return subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


@contextlib.contextmanager
def neighbour(core: int) -> Iterator[None]:
    """Run a program that computes without end on a core."""
    code = f"import os\nos.sched_setaffinity(0, {{{core}}})\nwhile True: pass"
    process = subprocess.Popen([sys.executable, "-c", code])
    try:
        yield
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def control_group(num_cores: float) -> Iterator[None]:
    """Make a control group that may have the time of so many cores."""
    GROUP.mkdir()
    try:
        (GROUP / "cpu.cfs_period_us").write_text(str(PERIOD_US))
        (GROUP / "cpu.cfs_quota_us").write_text(str(int(num_cores * PERIOD_US)))
        yield
    finally:
        GROUP.rmdir()


def measure_on_request(num_cores: int, group: str, videos: list[Path]) -> None:
    """Load the models, and measure in as many threads as each line of the input says."""
    os.sched_setaffinity(0, range(num_cores))
    if group:
        (Path(group) / "cgroup.procs").write_text(str(os.getpid()))
    import torch

    from lvqa.models import load_model
    from lvqa.models.random_weights import random_model
    from lvqa.startup import num_threads

    tasks = [Task(load_model("tiny", device="cpu"), videos[0], ())]
    if len(videos) > 1:
        wide = random_model("3b", layers=1, vision_layers=1, device="cpu", dtype="float32")
        tasks.append(Task(wide, videos[1], ("video.frames_per_second=0.5", "model.max_pixels=50176")))
    print(json.dumps({"default": f"{torch.get_num_threads()}+{num_threads()}"}), flush=True)
    for line in sys.stdin:
        compute, decode = line.strip().split("+")
        torch.set_num_threads(int(compute))
        digest = hashlib.sha256()
        seconds = {name: cost for task in tasks for name, cost in task.run(decode, digest).items()}
        print(json.dumps({"seconds": seconds, "bits": digest.hexdigest()}), flush=True)


@dataclass(frozen=True)
class Task:
    """A model and a video that it indexes."""

    model: Any
    video: Path
    overrides: tuple[str, ...]

    def run(self, decoding_threads: str, digest: Any) -> dict[str, tuple[float, float]]:
        """Index into a temporary store, and ask if the model can answer. Returns wall and processor time of both."""
        from lvqa import LongVideoQA
        from lvqa.config import load_config

        with tempfile.TemporaryDirectory() as store:
            overrides = [f"store.folder={store}", f"video.threads={decoding_threads}", *self.overrides]
            qa = LongVideoQA(self.model, load_config(overrides=overrides))
            index = seconds_of(lambda: qa.index(self.video))
            for path in sorted(Path(store).rglob("*.parquet")):
                digest.update(path.read_bytes())
            if self.model.name != "tiny":
                return {"3b index": index}
            ask = seconds_of(lambda: digest.update(seen_by(qa.ask(self.video, QUESTION, options=OPTIONS)).encode()))
            return {"index": index, "ask": ask}


def seen_by(answer: Any) -> str:
    """Return all that an answer rests on, to the last digit."""
    evidence = [(clip.clip.start_seconds, clip.embed_score, clip.rerank_score) for clip in answer.evidence]
    return repr((evidence, answer.frames, answer.text, answer.option_scores))


def seconds_of(work: Callable[[], object]) -> tuple[float, float]:
    wall, processor = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - processor


def report_counts(videos: list[Path]) -> None:
    """Print how many threads a process has at most when it indexes and asks."""
    for num_cores in (1, 2, 16):
        command = [sys.executable, str(Path(__file__).resolve()), CHILD, "counts", *map(str, videos)]
        environment = {**os.environ, "OMP_NUM_THREADS": str(num_cores)}
        print(subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout, end="")


def count_threads(videos: list[Path]) -> None:
    """Index and ask, and print the largest numbers of threads meanwhile."""
    import resource

    from lvqa.models import load_model

    def num_threads() -> int:
        return len(list(Path("/proc/self/task").iterdir()))

    model = load_model("tiny", device="cpu")
    loaded, most, ended = num_threads(), 0, threading.Event()

    def watch() -> None:
        nonlocal most
        while not ended.wait(0.002):
            most = max(most, num_threads() - 1)

    watcher = threading.Thread(target=watch)
    watcher.start()
    Task(model, videos[0], ()).run("null", hashlib.sha256())
    ended.set()
    watcher.join()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    threads = os.environ["OMP_NUM_THREADS"]
    print(f"{threads:>2} cores: {loaded} threads with the model loaded, {most} at most, {peak:.0f} MiB", flush=True)


if __name__ == "__main__":
    if CHILD not in sys.argv:
        main()
    elif sys.argv[2] == "counts":
        count_threads(list(map(Path, sys.argv[3:])))
    else:
        measure_on_request(int(sys.argv[2]), sys.argv[3], list(map(Path, sys.argv[4:])))

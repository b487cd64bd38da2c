"""Measure what workers gain and cost: `python scripts/measure_workers.py [speed] [overhead] [memory] [dispatch]`.

speed     index videos with one worker and with two, each on one core
overhead  index one video in a process alone and with one worker of Ray, both on one core
memory    index two videos and ten with two workers: the peak of the proportional set sizes of all processes together
dispatch  give 64 workers items that do nothing: how many the driver handles in a second

Each run is a fresh process that is bound to as many cores as it has workers, with one thread each. "ready" is the time
until all videos are inspected, when Ray has started and the embedded model is loaded; "index" is the time from there
until the last index is saved. The script runs on Linux only.
"""

from __future__ import annotations

import argparse
import functools
import json
import operator
import os
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from lvqa.synthetic.videos import make_videos
from lvqa.workers import Pool

CHILD = "--index-these"


@dataclass(frozen=True)
class Run:
    """The cost of a run."""

    ready_seconds: float
    index_seconds: float
    peak_megabytes: float

    def __str__(self) -> str:
        return f"ready {self.ready_seconds:6.1f} s   index {self.index_seconds:7.1f} s   {self.peak_megabytes:5.0f} MB"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("measurements", nargs="*", default=["speed", "overhead", "memory"], help="all three by default")
    parser.add_argument("--folder", type=Path, default=Path("runs/measure_workers"), help="the folder of the videos")
    parser.add_argument("--minutes", type=float, default=60, help="the length of the video of `overhead`")
    parser.add_argument("--short-minutes", type=float, default=20, help="the length of the other videos")
    parser.add_argument(
        "--videos",
        type=int,
        nargs=2,
        default=[2, 10],
        metavar=("FEW", "MANY"),
        help="the numbers of videos of `memory`",
    )
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--workers", type=int, default=64, help="the number of workers of `dispatch`")
    arguments = parser.parse_args()

    def videos(num: int, minutes: float) -> list[Path]:
        return make_videos(arguments.folder, num_videos=num, minutes=minutes, num_questions=1, seed=arguments.seed)

    few, many = arguments.videos
    if "speed" in arguments.measurements:
        paths = videos(few, arguments.short_minutes)
        one, two = report("1 worker", measure(1, paths)), report("2 workers", measure(2, paths))
        report_ratio("speed of 2 workers to 1", one.index_seconds / two.index_seconds, "1.5 or more")
    if "overhead" in arguments.measurements:
        paths = videos(1, arguments.minutes)
        alone, ray = report("in process", measure(0, paths)), report("1 worker", measure(1, paths))
        report_ratio("time with Ray to time alone", ray.index_seconds / alone.index_seconds, "near 1")
    if "memory" in arguments.measurements:
        paths = videos(many, arguments.short_minutes)
        small, large = report(f"{few} videos", measure(2, paths[:few])), report(f"{many} videos", measure(2, paths))
        report_ratio(f"memory of {many} videos to {few}", large.peak_megabytes / small.peak_megabytes, "1.3 or less")
    if "dispatch" in arguments.measurements:
        report_ratio("empty items in a second", items_in_a_second(arguments.workers), "1000 or more")


def report(name: str, run: Run) -> Run:
    """Print the run, and return it."""
    print(f"{name:12} {run}", flush=True)
    return run


def report_ratio(name: str, value: float, expected: str) -> None:
    print(f"{name}: {value:.2f} ({expected})\n", flush=True)


def measure(workers: int, paths: list[Path]) -> Run:
    """Run `index_and_report` in a process of its own, and watch the memory of its family."""
    command = [sys.executable, str(Path(__file__).resolve()), CHILD, str(workers), *map(str, paths)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    running = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    peak = 0.0
    ended = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not ended.wait(0.5):
            peak = max(peak, megabytes_of_family(running.pid))

    watcher = threading.Thread(target=watch)
    watcher.start()
    output, _ = running.communicate()
    ended.set()
    watcher.join()
    if running.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {running.returncode}")
    return Run(**json.loads(output.splitlines()[-1]), peak_megabytes=peak)


def megabytes_of_family(pid: int) -> float:
    """Return the proportional set size of a process and all its descendants, in units of 10^6 bytes."""
    return sum(map(megabytes_of, family_of(pid)))


def family_of(pid: int) -> set[int]:
    """Return a process and all its descendants."""
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:  # it has ended
            continue
    family = {pid}
    while grown := {child for child, parent in parents.items() if parent in family} - family:
        family |= grown
    return family


def megabytes_of(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * 1024 / 1e6


def items_in_a_second(workers: int, num_items: int = 10_000) -> float:
    """Return how many items without work pass through a pool in a second, once all its workers have started."""
    make = functools.partial(operator.attrgetter, "real")  # of a module that workers can import
    with Pool(make, workers=workers) as pool:
        deadline, seen = time.monotonic() + 600, 0
        while seen < workers and time.monotonic() < deadline:  # a worker that is slow to start gets no item
            time.sleep(1)
            list(pool.run(range(workers)))
            seen = len(worker_children())
        started = time.perf_counter()
        assert sum(outcome.error is None for outcome in pool.run(range(num_items))) == num_items
        return num_items / (time.perf_counter() - started)


def worker_children() -> set[int]:
    """Return the processes of this one's family that run a handler."""
    commands = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            commands[int(folder.name)] = (folder / "cmdline").read_bytes()
        except OSError:  # it has ended
            continue
    return {pid for pid in family_of(os.getpid()) if b"spawn_main" in commands.get(pid, b"")}


def index_and_report(workers: int, paths: list[Path]) -> None:
    """Index the videos into a temporary store, in this process if `workers` is 0, and print the seconds as JSON."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: max(1, workers)])
    started_at = time.perf_counter()
    ready_at = started_at

    def progress(stage: str, num_done: int, total: int) -> None:
        nonlocal ready_at
        if stage == "plan" and num_done == total:
            ready_at = time.perf_counter()

    from lvqa.config import load_config
    from lvqa.library import index_videos
    from lvqa.pipeline import LongVideoQA

    with tempfile.TemporaryDirectory() as store:
        config = load_config(None, ["model.name=tiny", "model.device=cpu", f"store.folder={store}"])
        if workers:
            for result in index_videos(paths, config, workers=workers, progress=progress):
                if result.error:
                    raise SystemExit(result.error)
                ended_at = time.perf_counter()  # Ray has yet to stop
        else:
            qa = LongVideoQA.load(config=config)
            ready_at = time.perf_counter()
            for path in paths:
                qa.index(path)
            ended_at = time.perf_counter()
    print(json.dumps({"ready_seconds": ready_at - started_at, "index_seconds": ended_at - ready_at}))


if __name__ == "__main__":
    if CHILD in sys.argv:
        index_and_report(int(sys.argv[2]), list(map(Path, sys.argv[3:])))
    else:
        main()

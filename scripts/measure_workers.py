"""Measure what workers bring and cost: `python scripts/measure_workers.py [speed] [overhead] [memory]`.

speed     films with one worker and with two, each on one core
overhead  one film in a process alone and with one worker over Ray, both on one core
memory    two films and ten with two workers: the peak of the proportional set sizes of all processes together

Each run is a fresh process that is bound to as many cores as it has workers, with one thread each. "ready" is the time
until all videos are looked at, so with Ray started and the embedded model loaded; "index" is the time from there until
the last is saved. Linux only.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from lvqa.synthetic.videos import make_videos

CHILD = "--index-these"


@dataclass(frozen=True)
class Run:
    """What a run took."""

    ready_seconds: float
    index_seconds: float
    peak_megabytes: float

    def __str__(self) -> str:
        return f"ready {self.ready_seconds:6.1f} s   index {self.index_seconds:7.1f} s   {self.peak_megabytes:5.0f} MB"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", default=["speed", "overhead", "memory"], help="all three by default")
    parser.add_argument("--folder", type=Path, default=Path("runs/measure_workers"), help="where the films go")
    parser.add_argument("--minutes", type=float, default=60, help="how long the film of `overhead` is")
    parser.add_argument("--short-minutes", type=float, default=20, help="how long the other films are")
    parser.add_argument("--films", type=int, nargs=2, default=[2, 10], metavar=("FEW", "MANY"), help="for `memory`")
    parser.add_argument("--seed", type=int, default=7)
    arguments = parser.parse_args()

    def films(number: int, minutes: float) -> list[Path]:
        return make_videos(arguments.folder, num_videos=number, minutes=minutes, num_questions=1, seed=arguments.seed)

    few, many = arguments.films
    if "speed" in arguments.what:
        paths = films(few, arguments.short_minutes)
        one, two = told("1 worker", measured(1, paths)), told("2 workers", measured(2, paths))
        ratio("speed of 2 workers to 1", one.index_seconds / two.index_seconds, "1.5 or more")
    if "overhead" in arguments.what:
        paths = films(1, arguments.minutes)
        alone, ray = told("in process", measured(0, paths)), told("1 worker", measured(1, paths))
        ratio("time over Ray to time alone", ray.index_seconds / alone.index_seconds, "near 1")
    if "memory" in arguments.what:
        paths = films(many, arguments.short_minutes)
        small, large = told(f"{few} films", measured(2, paths[:few])), told(f"{many} films", measured(2, paths))
        ratio(f"memory of {many} films to {few}", large.peak_megabytes / small.peak_megabytes, "1.3 or less")


def told(name: str, run: Run) -> Run:
    print(f"{name:12} {run}", flush=True)
    return run


def ratio(name: str, value: float, wanted: str) -> None:
    print(f"{name}: {value:.2f} ({wanted})\n", flush=True)


def measured(workers: int, paths: list[Path]) -> Run:
    """Runs `index_and_tell` in a process of its own."""
    command = [sys.executable, str(Path(__file__).resolve()), CHILD, str(workers), *map(str, paths)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    running = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    peak = 0.0
    done = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.5):
            peak = max(peak, megabytes_of_family(running.pid))

    watching = threading.Thread(target=watch)
    watching.start()
    printed, _ = running.communicate()
    done.set()
    watching.join()
    if running.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {running.returncode}")
    return Run(**json.loads(printed.splitlines()[-1]), peak_megabytes=peak)


def megabytes_of_family(pid: int) -> float:
    """Proportional set size of a process and all that descend from it, in units of 10^6 bytes."""
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:  # it has ended
            continue
    family = {pid}
    while grown := {child for child, parent in parents.items() if parent in family} - family:
        family |= grown
    return sum(map(megabytes_of, family))


def megabytes_of(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * 1024 / 1e6


def index_and_tell(workers: int, paths: list[Path]) -> None:
    """Index the films into a store that is thrown away, in this process if `workers` is 0; print times as JSON."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: max(1, workers)])
    started = time.perf_counter()
    ready = started

    def progress(stage: str, done: int, total: int) -> None:
        nonlocal ready
        if stage == "plan" and done == total:
            ready = time.perf_counter()

    from lvqa.config import load_config
    from lvqa.library import index_videos
    from lvqa.pipeline import LongVideoQA

    with tempfile.TemporaryDirectory() as store:
        config = load_config(None, ["model.name=tiny", "model.device=cpu", f"store.folder={store}"])
        if workers:
            for done in index_videos(paths, config, workers=workers, progress=progress):
                if done.error:
                    raise SystemExit(done.error)
                ended = time.perf_counter()  # Ray has yet to stop
        else:
            qa = LongVideoQA.load(config=config)
            ready = time.perf_counter()
            for path in paths:
                qa.index(path)
            ended = time.perf_counter()
    print(json.dumps({"ready_seconds": ready - started, "index_seconds": ended - ready}))


if __name__ == "__main__":
    if CHILD in sys.argv:
        index_and_tell(int(sys.argv[2]), list(map(Path, sys.argv[3:])))
    else:
        main()

"""Simulate how evenly a run's work lies on many workers: `python scripts/simulate_schedule.py`.

Nothing is computed: the run's own `Schedule` gives out the questions of drawn videos, and each item takes as long as a
7B model would need. Videos are as long as LVBench's: 103 of 30 minutes or more, 4,101 s on average (arXiv 2406.08035),
with 1,549 questions. In units of a share of a video of mean length, a video costs 4.7 for its index and 0.73 for each
question, by the counted operations of docs/performance.md. A worker that has not opened a video yet encodes its clips
once more for the questions that it takes over, which costs a quarter of the index: the tower's share.

"ideal" is the time in which the work, shared out evenly, would be done.
"""

from __future__ import annotations

import argparse
import heapq
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from lvqa.datasets import VideoTask
from lvqa.evaluation import RunConfig, resolve_arms
from lvqa.evaluation.schedule import Schedule, WorkItem
from lvqa.records import Question

NUM_VIDEOS, NUM_QUESTIONS = 103, 1549
MEAN_SECONDS, LEAST_SECONDS, SPREAD = 4101.0, 1800.0, 0.4
INDEX_COST, QUESTION_COST, REOPENING_SHARE = 4.7, 10.9 / 15, 0.27


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=64)
    parser.add_argument("--draws", type=int, default=20, help="how many benchmarks are drawn")
    parser.add_argument("--seed", type=int, default=700)
    arguments = parser.parse_args()
    at_once = RunConfig().questions_at_once
    print(f"{arguments.workers} workers, share of the ideal: mean of {arguments.draws} draws, least")
    for name, questions_at_once, is_sorted in (
        ("one by one, in the benchmark's order", 1, False),
        (f"{at_once} questions together, in the benchmark's order", at_once, False),
        (f"{at_once} questions together, the longest video first", at_once, True),
    ):
        shares = []
        for draw in range(arguments.draws):
            tasks, seconds = drawn_benchmark(arguments.seed + draw)
            shares.append(share_of_ideal(tasks, seconds, arguments.workers, questions_at_once, is_sorted=is_sorted))
        print(f"{name:55} {statistics.mean(shares):6.1%} {min(shares):6.1%}", flush=True)


def drawn_benchmark(seed: int) -> tuple[list[VideoTask], dict[Path, float]]:
    """Return videos with their questions, and how long each is, by path."""
    rng = np.random.default_rng(seed)
    lengths = rng.lognormal(0.0, SPREAD, NUM_VIDEOS)
    lengths = LEAST_SECONDS + lengths * (MEAN_SECONDS - LEAST_SECONDS) / lengths.mean()
    num_questions = rng.multinomial(NUM_QUESTIONS, np.full(NUM_VIDEOS, 1 / NUM_VIDEOS))
    tasks = [
        VideoTask(str(i), Path(f"/{i}"), tuple(Question("?", id=f"{i}-{j}") for j in range(n)))
        for i, n in enumerate(num_questions.tolist())
    ]
    return tasks, {task.path: float(length) for task, length in zip(tasks, lengths, strict=True)}


def share_of_ideal(
    tasks: Sequence[VideoTask], seconds: Mapping[Path, float], workers: int, questions_at_once: int, *, is_sorted: bool
) -> float:
    """Return the ideal time over the simulated one."""
    known = seconds if is_sorted else None
    schedule = Schedule(tasks, resolve_arms(RunConfig()), set(), questions_at_once=questions_at_once, seconds=known)
    opened: list[Path | None] = [None] * workers
    indexed: set[Path] = set()
    busy: list[tuple[float, int, int, WorkItem]] = []
    idle, now, num_given = list(range(workers)), 0.0, 0
    while True:
        while idle and (item := next(schedule, None)) is not None:
            worker = idle.pop()  # the one that has just become free
            cost = QUESTION_COST * len(item.questions)
            if opened[worker] != item.path:
                index = INDEX_COST * seconds[item.path] / MEAN_SECONDS
                cost += index if item.path not in indexed else REOPENING_SHARE * index
            opened[worker] = item.path
            num_given += 1
            heapq.heappush(busy, (now + cost, num_given, worker, item))
        if not busy:
            break
        now, _, worker, item = heapq.heappop(busy)
        indexed.add(item.path)
        schedule.requeue(item)
        idle.append(worker)
    total = INDEX_COST * sum(seconds.values()) / MEAN_SECONDS + QUESTION_COST * sum(len(t.questions) for t in tasks)
    assert math.isclose(schedule.num_left, 0)
    return total / workers / now


if __name__ == "__main__":
    main()

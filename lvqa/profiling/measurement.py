"""Measure all tasks in the same rounds, and compare each with its lower bound, its ceiling and its baselines."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from lvqa.models.qwen_vl import Qwen25VL
from lvqa.profiling.baselines import BASELINES, baseline_tasks
from lvqa.profiling.machine import flop_counter, machine_name, processor_seconds, synchronize
from lvqa.profiling.sample import Sample
from lvqa.profiling.stages import DECODE, MATRIX, StageTasks, ceiling_tasks, reading_tasks
from lvqa.profiling.task import Task
from lvqa.records import Counts, LvqaError, Video, shorten

_MIN_SECONDS = 1e-9
"""A time that is divided by is at least so long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchSettings:
    """How much is measured."""

    minutes: float = 2.0
    """How many minutes of the video are decoded, from its start."""
    clips: int = 4
    """How many clips are embedded, and reranked for every question."""
    baseline_clips: int = 4
    """How many of the clips the baselines take, at most. They take one at a time, so the cost of a clip is the same."""
    questions: int = 15
    """How many questions are reranked for and answered."""
    frames: int = 32
    """How many frames an answer is given."""
    repeats: int = 5
    """How many rounds are measured. Each runs everything once; the result is their median."""
    baselines: bool = True
    """Whether the baselines are measured too."""
    only: tuple[str, ...] = ()
    """The names of the tasks that are measured besides the machine's ceilings; without any, all are."""
    max_pixels: int | None = None
    """How many pixels a frame may have."""

    def __post_init__(self) -> None:
        for name in ("minutes", "clips", "baseline_clips", "questions", "frames", "repeats"):
            if not getattr(self, name) > 0:
                raise LvqaError(f"{name} must be above 0, got {getattr(self, name)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskResult:
    """A task and what it cost."""

    name: str
    unit: str
    units: int
    """How many units one run does."""
    lower_bound: Counts
    """The counts that can't be avoided."""
    lower_bound_flops: float
    lower_bound_bytes: int
    measured: Counts
    """The counts of one run."""
    measured_flops: float
    """The operations of one run as torch counts them; attention counts whole, with its masked upper triangle."""
    seconds: float
    """The median over the rounds."""
    all_seconds: tuple[float, ...]
    """The seconds of each round."""
    processor_seconds: float
    """The median over all threads and programs. On a CPU, shares and ratios use it: other programs disturb it less."""
    share_of_ceiling: float | None = None
    """The share of what the machine can do that the task reached: of its operations a second, or of its decoding."""

    @property
    def units_per_second(self) -> float:
        return self.units / self.seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchReport:
    """All that was measured in one run."""

    model: str
    video: str
    machine: str
    device: str
    dtype: str
    """The type of the weights, as DTYPES names it."""
    threads: int
    frame_size: tuple[int, int]
    """The height and width of a frame as the model receives it."""
    settings: BenchSettings
    results: tuple[TaskResult, ...]
    ratios: dict[str, float]
    """For each stage and baseline, how many times as many units a second the stage does."""

    def result(self, name: str) -> TaskResult:
        """Return the result of the task of this name."""
        return next(result for result in self.results if result.name == name)

    @property
    def product_rate(self) -> float:
        """The operations a second of the large product that bounds the model's stages."""
        product = self.result(MATRIX)
        return product.lower_bound_flops / max(product.seconds, _MIN_SECONDS)

    def as_json(self) -> dict[str, Any]:
        """Return plain values that JSON can hold."""
        return asdict(self)


def measure(
    model: Qwen25VL, video: Video | None, settings: BenchSettings, *, progress: Callable[[str], None] = lambda _: None
) -> BenchReport:
    """Measure every task on the start of a video: one warm-up run, which is counted, then rounds, which are timed.

    Args:
        model: The model whose stages are measured.
        video: The video. Without one the frames are noise of the usual size, and nothing is read from a file.
        settings: How much is measured.
        progress: Receives a line after each run.

    Raises:
        LvqaError: The video is shorter than the clips that are to be measured, or no task has a name in `only`.
    """
    sample = Sample.load(
        model, video, num_clips=settings.clips, minutes=settings.minutes, max_pixels=settings.max_pixels
    )
    tasks = _select_tasks(model, sample, settings)
    counts = _count(model, tasks, progress)
    timings = _time(model, tasks, settings.repeats, progress)
    seconds = {name: statistics.median(timing.seconds) for name, timing in timings.items()}
    on_processor = {name: statistics.median(timing.processor_seconds) for name, timing in timings.items()}
    compared = on_processor if model.device.type == "cpu" else seconds
    by_name = {task.name: task for task in tasks}
    results = tuple(
        TaskResult(
            name=task.name,
            unit=task.unit,
            units=task.units,
            lower_bound=task.lower_bound,
            lower_bound_flops=task.lower_bound_flops,
            lower_bound_bytes=task.lower_bound_bytes,
            measured=counts[task.name][0],
            measured_flops=counts[task.name][1],
            seconds=seconds[task.name],
            all_seconds=tuple(timings[task.name].seconds),
            processor_seconds=on_processor[task.name],
            share_of_ceiling=_share_of_ceiling(task, by_name, compared),
        )
        for task in tasks
    )
    return BenchReport(
        model=model.name,
        video=sample.video.path.name,
        machine=machine_name(model.device),
        device=str(model.device),
        dtype=str(model.dtype).removeprefix("torch."),
        threads=torch.get_num_threads(),
        frame_size=(sample.tokens.height, sample.tokens.width),
        settings=settings,
        results=results,
        ratios=_ratios(by_name, compared),
    )


def _select_tasks(model: Qwen25VL, sample: Sample, settings: BenchSettings) -> list[Task]:
    stages = StageTasks(model, sample, num_questions=settings.questions, num_frames=settings.frames)
    tasks = [*ceiling_tasks(model, sample), *reading_tasks(sample), *stages.all()]
    if settings.baselines:
        tasks += baseline_tasks(model, sample, num_clips=settings.baseline_clips)
    names = [task.name for task in tasks]
    unknown = set(settings.only) - set(names)
    if unknown:
        raise LvqaError(f"no task has the name {shorten(min(unknown))}; known: {'; '.join(names)}")
    if settings.only:
        tasks = [task for task in tasks if task.name in (MATRIX, DECODE, *settings.only)]
    return tasks


def _count(model: Qwen25VL, tasks: Sequence[Task], progress: Callable[[str], None]) -> dict[str, tuple[Counts, float]]:
    """Run each task once, and return the counts and the operations of each."""
    counts = {}
    for task in tasks:
        before = replace(model.counts)
        with flop_counter() as flops:
            task.run()
        counts[task.name] = (model.counts - before, float(flops.get_total_flops()))
        if model.device.type == "cuda":
            task.run()  # what is compiled is not compiled under the counter
        progress(f"counted: {task.name}")
    return counts


@dataclass(frozen=True, slots=True)
class _Timing:
    """The times of a task, one for each round."""

    seconds: list[float]
    processor_seconds: list[float]


def _time(model: Qwen25VL, tasks: Sequence[Task], repeats: int, progress: Callable[[str], None]) -> dict[str, _Timing]:
    """Run all tasks in turn, as many rounds as `repeats`."""
    timings = {task.name: _Timing([], []) for task in tasks}
    for i in range(repeats):
        for task in tasks:
            synchronize(model.device)
            started, processor_started = time.perf_counter(), processor_seconds()
            task.run()
            synchronize(model.device)
            timing = timings[task.name]
            timing.seconds.append(time.perf_counter() - started)
            timing.processor_seconds.append(processor_seconds() - processor_started)
            took = f"{task.units} x {task.unit} in {timing.seconds[-1]:.3f} s"
            progress(f"round {i + 1} of {repeats}: {task.name}: {took}")
    return timings


def _share_of_ceiling(task: Task, tasks: Mapping[str, Task], seconds: Mapping[str, float]) -> float | None:
    if task.ceiling is None:
        return None
    ceiling, took = tasks[task.ceiling], max(seconds[task.name], _MIN_SECONDS)
    if task.ceiling == DECODE:
        return seconds[DECODE] / took
    return (task.lower_bound_flops / took) / (ceiling.lower_bound_flops / max(seconds[ceiling.name], _MIN_SECONDS))


def _ratios(tasks: Mapping[str, Task], seconds: Mapping[str, float]) -> dict[str, float]:
    rates = {name: task.units / max(seconds[name], _MIN_SECONDS) for name, task in tasks.items()}
    pairs = [(stage, baseline) for stage, baseline in BASELINES if {stage, baseline} <= tasks.keys()]
    return {f"{stage} to {baseline}": rates[stage] / rates[baseline] for stage, baseline in pairs}

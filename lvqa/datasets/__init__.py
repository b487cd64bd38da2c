"""Benchmarks as they are published: annotation files to questions and video paths.

A benchmark lies in one folder: its annotations under their published names, and its videos as `videos/KEY.mp4` (or
another common suffix). Nothing is repaired in silence: what can't be read is an LvqaError that names file, line and
what is allowed; a time reference that can't be used costs that question its evidence, and is listed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lvqa.datasets.annotations import Benchmark
from lvqa.datasets.longvideobench import LongVideoBench
from lvqa.datasets.lvbench import LVBench
from lvqa.datasets.mlvu import MLVU
from lvqa.datasets.videomme import VideoMME
from lvqa.records import VIDEO_SUFFIXES, LvqaError, Question, shorten


@dataclass(frozen=True, slots=True)
class VideoTask:
    """A video and all that is asked about it."""

    video_id: str
    """The benchmark's key of the video."""
    path: Path
    """Its file; `videos/KEY.mp4` if there is none."""
    questions: tuple[Question, ...]


@dataclass(frozen=True, slots=True)
class Loaded:
    """A benchmark: every video of its annotations in their order, whether its file is there or not."""

    tasks: tuple[VideoTask, ...]
    unusable: tuple[str, ...]
    """One line for each time reference that can't be used; its question has no evidence_seconds."""


def load_benchmark(name: str, folder: Path) -> Loaded:
    """The benchmark of that name from its folder. Raises LvqaError at the first thing that can't be read."""
    if name not in BENCHMARKS:
        raise LvqaError(f"no benchmark {name!r}; there are: {', '.join(BENCHMARKS)}")
    try:
        return _load(BENCHMARKS[name](folder), folder)
    except OSError as error:
        raise LvqaError(f"{error.filename or folder}: {error.strerror or error}") from error


def _load(benchmark: Benchmark, folder: Path) -> Loaded:
    asked: dict[str, list[Question]] = {}
    places: dict[str, str] = {}
    unusable = []
    for entry in benchmark.entries():
        question = entry.question
        if question.id in places:
            raise LvqaError(
                f"{entry.place}: question id {shorten(question.id)} stands at {places[question.id]} already"
            )
        places[question.id] = entry.place
        asked.setdefault(question.video_id, []).append(question)
        if entry.unusable:
            unusable.append(entry.unusable)
    if not asked:
        raise LvqaError(f"{folder}: the benchmark's annotations hold no question")
    tasks = (VideoTask(key, _video_path(folder, key), tuple(questions)) for key, questions in asked.items())
    return Loaded(tuple(tasks), tuple(unusable))


def _video_path(folder: Path, key: str) -> Path:
    paths = [folder / "videos" / f"{key}{suffix}" for suffix in VIDEO_SUFFIXES]
    return next((path for path in paths if path.is_file()), paths[0])


def padded(span: tuple[float, float], least_seconds: float = 2.0) -> tuple[float, float]:
    """The span, widened about its middle to `least_seconds` if it is shorter; it never begins before 0.

    For evidence recall: hardly a frame ever falls into a span of length zero, and LVBench has 241 of them.
    """
    start, end = span
    missing = max(0.0, least_seconds - (end - start))
    start = max(0.0, start - missing / 2)
    return start, max(end + missing / 2, start + least_seconds)


BENCHMARKS: dict[str, type[Benchmark]] = {
    "lvbench": LVBench,
    "videomme": VideoMME,
    "longvideobench": LongVideoBench,
    "mlvu": MLVU,
}

__all__ = ["BENCHMARKS", "Benchmark", "Loaded", "VideoTask", "load_benchmark", "padded"]

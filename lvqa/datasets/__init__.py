"""Datasets as they are published: annotation files to questions and video paths.

A dataset lies in one folder: its annotations under their published names, and its videos as `videos/KEY.mp4` (or
another common suffix). Nothing is repaired in silence: what can't be read is an LvqaError with the key, the value, what
is allowed, and file and line; a time reference that can't be used costs that question its evidence, and is listed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lvqa.datasets.annotations import DatasetReader
from lvqa.datasets.longvideobench import LongVideoBench
from lvqa.datasets.lvbench import LVBench
from lvqa.datasets.mlvu import MLVU
from lvqa.datasets.videomme import VideoMME
from lvqa.records import VIDEO_SUFFIXES, LvqaError, Question, shorten


@dataclass(frozen=True, slots=True)
class VideoTask:
    """A video and all questions about it."""

    video_id: str
    """The dataset's key of the video."""
    path: Path
    """The video's file; `videos/KEY.mp4` if there is none."""
    questions: tuple[Question, ...]


@dataclass(frozen=True, slots=True)
class Dataset:
    """A dataset: every video of its annotations in their order, whether its file is there or not."""

    tasks: tuple[VideoTask, ...]
    skipped: tuple[str, ...]
    """One line for each time reference that can't be used; its question has no evidence_seconds."""


def load_dataset(name: str, folder: Path) -> Dataset:
    """Read a dataset.

    Args:
        name: A name in DATASETS.
        folder: The folder of its annotations and of `videos/`.

    Raises:
        LvqaError: There is no such dataset, or something in it can't be read.
    """
    if name not in DATASETS:
        raise LvqaError(f"no benchmark {name!r}; there are: {', '.join(DATASETS)}")
    try:
        return _load(DATASETS[name](folder), folder)
    except OSError as error:
        raise LvqaError(f"{error.filename or folder}: {error.strerror or error}") from error


def _load(reader: DatasetReader, folder: Path) -> Dataset:
    by_video: dict[str, list[Question]] = {}
    origins: dict[str, str] = {}
    skipped = []
    for entry in reader.entries():
        question = entry.question
        if question.id in origins:
            first = origins[question.id]
            raise LvqaError(f"question id {shorten(question.id)} stands at {first} already ({entry.origin})")
        origins[question.id] = entry.origin
        by_video.setdefault(question.video_id, []).append(question)
        if entry.skipped:
            skipped.append(entry.skipped)
    if not by_video:
        raise LvqaError(f"{folder}: the benchmark's annotations hold no question")
    tasks = (VideoTask(key, _video_path(folder, key), tuple(questions)) for key, questions in by_video.items())
    return Dataset(tuple(tasks), tuple(skipped))


def _video_path(folder: Path, key: str) -> Path:
    paths = [folder / "videos" / f"{key}{suffix}" for suffix in VIDEO_SUFFIXES]
    return next((path for path in paths if path.is_file()), paths[0])


def padded(span: tuple[float, float], least_seconds: float = 2.0) -> tuple[float, float]:
    """Return the span, widened about its middle to `least_seconds` if it is shorter; it never begins before 0.

    For evidence recall: hardly a frame ever falls into a span of length zero, and LVBench has 241 of them.
    """
    start, end = span
    missing = max(0.0, least_seconds - (end - start))
    start = max(0.0, start - missing / 2)
    return start, max(end + missing / 2, start + least_seconds)


DATASETS: dict[str, type[DatasetReader]] = {
    "lvbench": LVBench,
    "videomme": VideoMME,
    "longvideobench": LongVideoBench,
    "mlvu": MLVU,
}
"""The reader of each dataset."""

__all__ = ["DATASETS", "Dataset", "DatasetReader", "VideoTask", "load_dataset", "padded"]

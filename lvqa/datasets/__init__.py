"""Datasets as they are published: annotation files to questions and video paths.

A dataset lies in one folder: its annotations under their published names, and its videos as `videos/KEY.mp4` (or
another common suffix). Nothing is repaired in silence: what can't be read is an LvqaError with the key, the value, what
is allowed, and file and line; a time reference that can't be used costs that question its evidence, and is listed; what
is odd as it is published, and what can't be asked here, is counted and named in one warning.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lvqa.datasets.annotations import DatasetReader, Entry, files_read
from lvqa.datasets.cgbench import CGBench, CGBenchMini
from lvqa.datasets.egoschema import EgoSchema
from lvqa.datasets.hourvideo import HourVideo
from lvqa.datasets.longvideobench import LongVideoBench
from lvqa.datasets.lsdbench import LSDBench
from lvqa.datasets.lvbench import LVBench
from lvqa.datasets.mlvu import MLVU, MLVUTest
from lvqa.datasets.nextqa import NExTQA, NExTQAVal
from lvqa.datasets.own import Own, QuestionList, questions_about
from lvqa.datasets.subtitles import SubtitleFile
from lvqa.datasets.timescope import LongTimeScope, TimeScope
from lvqa.datasets.videomme import VideoMME, VideoMMELong
from lvqa.datasets.videomme_v2 import VideoMMEv2
from lvqa.records import VIDEO_SUFFIXES, LvqaError, Question, counted, shorten

_log = logging.getLogger(__name__)

MAX_NAMED = 10
"""So many questions are named in a warning; the others are counted."""


@dataclass(frozen=True, slots=True)
class VideoTask:
    """A video and all questions about it."""

    video_id: str
    """The dataset's key of the video."""
    path: Path
    """The video's file; `videos/KEY.mp4` if there is none."""
    questions: tuple[Question, ...]
    subtitles: SubtitleFile | None = None
    """The benchmark's own subtitles of the video, if their file is there."""


@dataclass(frozen=True, slots=True)
class Dataset:
    """A dataset: every video of its annotations in their order, whether its file is there or not."""

    tasks: tuple[VideoTask, ...]
    skipped: tuple[str, ...]
    """One line for each time reference that can't be used; its question has no evidence_seconds."""
    warnings: tuple[str, ...] = ()
    """What is odd in the published files, or left out here: a line for all questions of a kind."""
    files: tuple[Path, ...] = field(default=(), compare=False)
    """The annotation files that were read."""


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
    with files_read() as files:
        entries = list(reader.entries())
    origins: dict[str, str] = {}
    by_video: dict[str, list[Entry]] = {}
    for entry in entries:
        question = entry.question
        if question.id in origins:
            first = origins[question.id]
            raise LvqaError(f"question id {shorten(question.id)} stands at {first} already ({entry.origin})")
        origins[question.id] = entry.origin
        if not entry.left_out:
            by_video.setdefault(question.video_id, []).append(entry)
    if not by_video:
        raise LvqaError(f"{folder}: the benchmark's annotations hold no question")
    tasks = (
        VideoTask(
            key,
            of_video[0].path or _video_path(folder, key),
            tuple(entry.question for entry in of_video),
            next((file for entry in of_video if (file := entry.subtitles) and file.path.is_file()), None),
        )
        for key, of_video in by_video.items()
    )
    skipped = tuple(entry.skipped for entry in entries if entry.skipped)
    dataset = Dataset(tuple(tasks), skipped, tuple(_warnings(entries)), tuple(dict.fromkeys(files)))
    for line in dataset.warnings:
        _log.warning("%s", line)
    return dataset


def _warnings(entries: list[Entry]) -> Iterable[str]:
    """Yield a line on all questions that are odd, and one on all that are left out."""
    total = counted(len(entries), "question")
    odd = [f"{entry.question.id} ({entry.odd})" for entry in entries if entry.odd and not entry.left_out]
    if odd:
        yield f"{len(odd)} of {total} are odd as published, and are asked as they are: {named(odd)}"
    left_out = [f"{entry.question.id} ({entry.left_out})" for entry in entries if entry.left_out]
    if left_out:
        yield f"{len(left_out)} of {total} are left out: {named(left_out)}"
    unread = dict.fromkeys(key for entry in entries for key in entry.unread)
    if unread:
        yield f"not read, since nothing is known by these names: {named(list(unread))}"


def named(items: Sequence[str]) -> str:
    """Return the first items of a list for a message, and how many more there are."""
    more = [f"and {len(items) - MAX_NAMED} more"] if len(items) > MAX_NAMED else []
    return join_names([*items[:MAX_NAMED], *more])


def join_names(names: Sequence[str], last: str = "") -> str:
    """Return names as a list in a sentence, with semicolons where a name has a comma of its own.

    Args:
        names: The names.
        last: The word before the last one: "a, b and c" and "a; b, c; and d" with "and", "a, b, c" without.
    """
    separator = "; " if any("," in name for name in names) else ", "
    if not last or len(names) < 2:
        return separator.join(names)
    return f"{separator.join(names[:-1])}{separator.replace(',', '')}{last} {names[-1]}"


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
    "videomme_long": VideoMMELong,
    "videomme_v2": VideoMMEv2,
    "longvideobench": LongVideoBench,
    "mlvu": MLVU,
    "mlvu_test": MLVUTest,
    "cgbench": CGBench,
    "cgbench_mini": CGBenchMini,
    "hourvideo": HourVideo,
    "lsdbench": LSDBench,
    "timescope": TimeScope,
    "longtimescope": LongTimeScope,
    "egoschema": EgoSchema,
    "nextqa": NExTQA,
    "nextqa_val": NExTQAVal,
    "own": Own,
}
"""The reader of each dataset."""

__all__ = [
    "DATASETS",
    "Dataset",
    "DatasetReader",
    "QuestionList",
    "VideoTask",
    "load_dataset",
    "named",
    "padded",
    "questions_about",
]

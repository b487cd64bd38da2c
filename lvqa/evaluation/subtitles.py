"""The subtitles that a benchmark publishes, put to its questions."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path

from lvqa.datasets import Dataset, named
from lvqa.evaluation.settings import BenchmarkConfig
from lvqa.records import LvqaError, counted

_log = logging.getLogger(__name__)


def with_subtitles(dataset: Dataset, settings: BenchmarkConfig) -> Dataset:
    """Return the dataset with the subtitles of its videos in its questions; those of a video without any are empty.

    Raises:
        LvqaError: No video has any, or a file can't be read.
    """
    without = [task.video_id for task in dataset.tasks if task.subtitles is None]
    if len(without) == len(dataset.tasks):
        raise LvqaError(
            f"benchmark.subtitles: {settings.name} has no file of subtitles in {settings.folder}; "
            "put them where it publishes them, or set it to false"
        )
    tasks = []
    for task in dataset.tasks:
        lines = () if task.subtitles is None else task.subtitles.read()
        questions = tuple(dataclasses.replace(question, subtitles=lines) for question in task.questions)
        tasks.append(dataclasses.replace(task, questions=questions))
    warnings = dataset.warnings
    if without:
        line = f"{len(without)} of {counted(len(tasks), 'video')} have no subtitles, and are asked without: "
        warnings += (line + named(without),)
        _log.warning("%s", warnings[-1])
    return dataclasses.replace(dataset, tasks=tuple(tasks), warnings=warnings)


def subtitle_files(dataset: Dataset) -> list[Path]:
    """Return the files of the subtitles of a dataset's videos."""
    return [task.subtitles.path for task in dataset.tasks if task.subtitles is not None]

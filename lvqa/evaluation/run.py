"""Drive a run: what still lacks answers goes to workers, and what comes back is appended."""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from lvqa.components import check_settings
from lvqa.config import Config
from lvqa.datasets import Dataset, VideoTask, load_dataset
from lvqa.evaluation.folder import Run, RunFolder, open_run, read_run
from lvqa.evaluation.rows import Key
from lvqa.evaluation.runner import Condition, Runner, WorkItem, blank_row
from lvqa.evaluation.settings import Arm, RunConfig, resolve_arms
from lvqa.plugins import absolute
from lvqa.records import LvqaError
from lvqa.workers import Pool, Prepare

_log = logging.getLogger(__name__)

Progress = Callable[[str, int, int], None]
"""Called as work goes on: "answer", how many are done by this call, of how many."""


def evaluate(
    config: RunConfig, folder: Path, *, progress: Progress = lambda *_: None, prepare: Prepare | None = None
) -> Run:
    """Answer every question of the benchmark in every arm, and append the rows to the run folder.

    A run that is there goes on. A video that fails, or that kills the process decoding it, gives rows with its error.

    Args:
        config: The benchmark, the arms and where the work is done.
        folder: The run folder.
        progress: Called as answers are done.
        prepare: Called in each worker before its model is loaded.

    Raises:
        LvqaError: A setting is not known, or videos are missing and that is not allowed; raised before anything is
            loaded or written.
    """
    check_run(config)
    dataset = chosen_tasks(config)
    missing = missing_videos(dataset)
    if missing:
        message = f"{len(missing)} of {len(dataset.tasks)} videos have no file: {', '.join(missing)}"
        if not config.allow_missing:
            raise LvqaError(f"{message}; get them into {_folder(config) / 'videos'}, or go on without: --allow-missing")
        _log.warning("%s; their questions are left out", message)
    for line in dataset.skipped:
        _log.info("%s", line)
    tasks = [task for task in dataset.tasks if task.video_id not in missing]
    if not tasks:
        raise LvqaError(f"none of the {len(dataset.tasks)} videos is in {_folder(config) / 'videos'}")
    with open_run(folder, config) as run:
        questions = sum(len(task.questions) for task in tasks)
        run.describe(videos=len(tasks), questions=questions, missing=missing, skipped=list(dataset.skipped))
        schedule = Schedule(tasks, resolve_arms(config), run.answered)
        if schedule.num_left:
            make = functools.partial(_make_runner, for_workers(config), prepare)
            _answer_all(config, run, schedule, progress, make)
    return read_run(folder)


def check_run(config: RunConfig) -> None:
    """Raise LvqaError for a setting of an arm that no module knows. Costs nothing."""
    for arm in resolve_arms(config):
        check_settings(arm.complete)


def chosen_tasks(config: RunConfig) -> Dataset:
    """Return the benchmark's videos and questions, cut to `benchmark.videos` and `benchmark.limit`."""
    dataset = load_dataset(config.benchmark.name, _folder(config))
    tasks = dataset.tasks[: config.benchmark.videos]
    cut = tuple(dataclasses.replace(task, questions=task.questions[: config.benchmark.limit]) for task in tasks)
    return dataclasses.replace(dataset, tasks=cut)


def missing_videos(dataset: Dataset) -> list[str]:
    """Return the videos whose files are not there."""
    return [task.video_id for task in dataset.tasks if not task.path.is_file()]


def _folder(config: RunConfig) -> Path:
    if config.benchmark.folder is None:
        raise LvqaError("benchmark.folder must say where the benchmark's files are, got null")
    return config.benchmark.folder


def for_workers(config: RunConfig) -> RunConfig:
    """Return the same settings for another working directory, as a worker may have."""
    folder = config.store.folder and config.store.folder.absolute()
    arms = [
        dataclasses.replace(
            settings,
            name=arm.name,
            method=absolute(arm.method),
            settings={**settings.settings, **_absolute_settings(arm.config)},
        )
        for settings, arm in zip(config.arms, resolve_arms(config), strict=True)
    ]
    store = dataclasses.replace(config.store, folder=folder)
    return dataclasses.replace(config, store=store, arms=tuple(arms))


def _absolute_settings(config: Config) -> dict[str, str]:
    settings = {"rerank.name": absolute(config.rerank.name)}
    if config.selection.scores is not None:
        settings["selection.scores"] = str(config.selection.scores.absolute())
    return settings


def _make_runner(config: RunConfig, prepare: Prepare | None) -> Runner:
    """Load the model; this runs in a worker."""
    if prepare is not None:
        prepare()
    return Runner(config)


def _answer_all(
    config: RunConfig, run: RunFolder, schedule: Schedule, progress: Progress, make: Callable[[], Runner]
) -> None:
    total, gpus = schedule.num_left, config.gpus_per_worker
    warned: set[tuple[str, str]] = set()
    if run.answered:
        _log.info("%s: %d answers are there, %d are lacking", run.folder, len(run.answered), total)
    progress("answer", 0, total)
    with Pool(make, workers=config.workers, address=config.ray_address, gpus_per_worker=gpus) as pool:
        while schedule.num_left:
            for outcome in pool.run(schedule):
                item, result = outcome.item, outcome.value
                if result is None:
                    error = outcome.error or "no answer"
                    _log.warning("video %s: %s", item.video_id, error)
                    for failed in schedule.abandon(item):
                        run.append(
                            [blank_row(failed, *condition) | {"error": error} for condition in failed.conditions]
                        )
                else:
                    run.check_revision(result.revision)
                    run.append(result.rows)
                    for warning in dict.fromkeys(text for row in result.rows for text in row["warnings"]):
                        if (item.video_id, warning) not in warned:
                            warned.add((item.video_id, warning))
                            _log.warning("video %s: %s", item.video_id, warning)
                    for error in dict.fromkeys(row["error"] for row in result.rows if row["error"] is not None):
                        _log.warning("question %s: %s", item.question.id, error)
                    schedule.requeue(item)
                progress("answer", total - schedule.num_left, total)


class Schedule(Iterator[WorkItem]):
    """Says which question comes next: those on one video follow each other, so that it is open in its worker.

    A video is with one worker at a time. Its next question comes as soon as the last one is back, before any new video,
    so it goes to the worker that has just become free. Where all that is left waits for a question that is out, the
    iterator ends, and goes on after `requeue`.
    """

    def __init__(self, tasks: Sequence[VideoTask], arms: Sequence[Arm], completed: set[Key]) -> None:
        """Schedule all questions of the tasks that lack answers; `completed` are the keys of rows that are there."""
        conditions = [(arm.name, budget) for arm in arms for budget in arm.budgets]
        self._new = deque(items for task in tasks if (items := _work_items(task, conditions, completed)))
        self._returned: deque[deque[WorkItem]] = deque()
        self._out: dict[str, deque[WorkItem]] = {}
        self.num_left = sum(len(item.conditions) for items in self._new for item in items)
        """How many answers are still lacking."""

    def __next__(self) -> WorkItem:
        """Return what can be answered now."""
        if not (self._returned or self._new):
            raise StopIteration
        items = (self._returned or self._new).popleft()
        self._out[items[0].video_id] = items
        return items[0]

    def requeue(self, item: WorkItem) -> None:
        """Note that the question is answered; the next one on its video can come."""
        items = self._out.pop(item.video_id)
        self.num_left -= len(items.popleft().conditions)
        if items:
            self._returned.append(items)

    def abandon(self, item: WorkItem) -> deque[WorkItem]:
        """Return all that was still to be answered about a video that failed; none of it comes any more."""
        items = self._out.pop(item.video_id)
        self.num_left -= sum(len(item.conditions) for item in items)
        return items


def _work_items(task: VideoTask, conditions: Sequence[Condition], completed: set[Key]) -> deque[WorkItem]:
    """Return the questions on a video that lack answers."""
    items: deque[WorkItem] = deque()
    for question in task.questions:
        lacking = tuple(
            condition for condition in conditions if (task.video_id, question.id, *condition) not in completed
        )
        if lacking:
            items.append(WorkItem(task.video_id, task.path.absolute(), question, lacking))
    return items

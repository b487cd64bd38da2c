"""The driver of a run: what is still to be asked goes to workers, and what comes back is appended."""

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
from lvqa.evaluation.runner import Asker, Work, blank_row
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
    """Ask every question of the benchmark in every arm, and append the rows to the run folder; go on if it is there.

    A video that fails, or that kills the process decoding it, is rows with its error. Raises LvqaError, before
    anything is loaded or written, for settings that are not known and for missing videos unless they are allowed.
    """
    check_run(config)
    loaded = chosen_tasks(config)
    missing = missing_videos(loaded)
    if missing:
        told = f"{len(missing)} of {len(loaded.tasks)} videos have no file: {', '.join(missing)}"
        if not config.allow_missing:
            raise LvqaError(f"{told}; get them into {_folder(config) / 'videos'}, or go on without: --allow-missing")
        _log.warning("%s; their questions are left out", told)
    for line in loaded.skipped:
        _log.info("%s", line)
    tasks = [task for task in loaded.tasks if task.video_id not in missing]
    if not tasks:
        raise LvqaError(f"none of the {len(loaded.tasks)} videos is in {_folder(config) / 'videos'}")
    with open_run(folder, config) as run:
        questions = sum(len(task.questions) for task in tasks)
        run.describe(videos=len(tasks), questions=questions, missing=missing, skipped=list(loaded.skipped))
        schedule = Schedule(tasks, resolve_arms(config), run.answered)
        if schedule.num_left:
            _ask_all(config, run, schedule, progress, functools.partial(_make_asker, for_workers(config), prepare))
    return read_run(folder)


def check_run(config: RunConfig) -> None:
    """Raises LvqaError for a setting of an arm that no room knows. Costs nothing."""
    for arm in resolve_arms(config):
        check_settings(arm.complete)


def chosen_tasks(config: RunConfig) -> Dataset:
    """The benchmark's videos and questions, cut to `benchmark.videos` and `benchmark.limit`."""
    loaded = load_dataset(config.benchmark.name, _folder(config))
    tasks = loaded.tasks[: config.benchmark.videos]
    cut = tuple(dataclasses.replace(task, questions=task.questions[: config.benchmark.limit]) for task in tasks)
    return dataclasses.replace(loaded, tasks=cut)


def missing_videos(loaded: Dataset) -> list[str]:
    """The videos whose files are not there."""
    return [task.video_id for task in loaded.tasks if not task.path.is_file()]


def _folder(config: RunConfig) -> Path:
    if config.benchmark.folder is None:
        raise LvqaError("benchmark.folder must say where the benchmark's files are, got null")
    return config.benchmark.folder


def for_workers(config: RunConfig) -> RunConfig:
    """The same where the working directory is another one, as it may be in a worker."""
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


def _make_asker(config: RunConfig, prepare: Prepare | None) -> Asker:
    """Runs in a worker."""
    if prepare is not None:
        prepare()
    return Asker(config)


def _ask_all(
    config: RunConfig, run: RunFolder, schedule: Schedule, progress: Progress, make: Callable[[], Asker]
) -> None:
    to_ask, gpus = schedule.num_left, config.gpus_per_worker
    if run.answered:
        _log.info("%s: %d answers are there, %d are asked", run.folder, len(run.answered), to_ask)
    progress("answer", 0, to_ask)
    with Pool(make, workers=config.workers, address=config.ray_address, gpus_per_worker=gpus) as pool:
        while schedule.num_left:
            for outcome in pool.run(schedule):
                if outcome.value is None:
                    error = outcome.error or "no answer"
                    _log.warning("video %s: %s", outcome.item.video_id, error)
                    for work in schedule.give_up(outcome.item):
                        run.append([blank_row(work, *cell) | {"error": error} for cell in work.cells])
                else:
                    run.check_revision(outcome.value.revision)
                    run.append(outcome.value.rows)
                    for error in dict.fromkeys(row["error"] for row in outcome.value.rows if row["error"] is not None):
                        _log.warning("question %s: %s", outcome.item.question.id, error)
                    schedule.take_back(outcome.item)
                progress("answer", to_ask - schedule.num_left, to_ask)


class Schedule(Iterator[Work]):
    """Which question comes next: those on one video one after the other, so that it is open and its tokens are there.

    A video is with one worker at a time. Its next question comes as soon as the last one is back, before any new video,
    so it goes to the worker that has just become free. Where all that is left waits for a question that is out, the
    iterator ends, and goes on after `take_back`.
    """

    def __init__(self, tasks: Sequence[VideoTask], arms: Sequence[Arm], done: set[Key]) -> None:
        cells = [(arm.name, budget) for arm in arms for budget in arm.budgets]
        self._new = deque(works for task in tasks if (works := _works(task, cells, done)))
        self._back: deque[deque[Work]] = deque()
        self._out: dict[str, deque[Work]] = {}
        self.num_left = sum(len(work.cells) for works in self._new for work in works)
        """Answers that are still lacking."""

    def __next__(self) -> Work:
        """What can be asked now."""
        if not (self._back or self._new):
            raise StopIteration
        works = (self._back or self._new).popleft()
        self._out[works[0].video_id] = works
        return works[0]

    def take_back(self, work: Work) -> None:
        """The question is answered; the next one on its video can be asked."""
        works = self._out.pop(work.video_id)
        self.num_left -= len(works.popleft().cells)
        if works:
            self._back.append(works)

    def give_up(self, work: Work) -> deque[Work]:
        """All that was still to be asked about a video that failed."""
        works = self._out.pop(work.video_id)
        self.num_left -= sum(len(work.cells) for work in works)
        return works


def _works(task: VideoTask, cells: Sequence[tuple[str, int]], done: set[Key]) -> deque[Work]:
    """The questions on a video that lack answers."""
    works: deque[Work] = deque()
    for question in task.questions:
        lacking = tuple(cell for cell in cells if (task.video_id, question.id, *cell) not in done)
        if lacking:
            works.append(Work(task.video_id, task.path.absolute(), question, lacking))
    return works

"""Drive a run: what still lacks answers goes to workers, and what comes back is appended."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import os
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from lvqa.caveats import is_about_question
from lvqa.components import check_settings
from lvqa.config import Config
from lvqa.datasets import Dataset, VideoTask, join_names, load_dataset, named
from lvqa.evaluation.changes import digests, input_changes
from lvqa.evaluation.folder import Run, RunFolder, open_run, read_run
from lvqa.evaluation.judges import check_judge
from lvqa.evaluation.lengths import video_lengths
from lvqa.evaluation.rows import Row, blank_row
from lvqa.evaluation.schedule import Schedule, WorkItem, WorkResult
from lvqa.evaluation.settings import Judge, JudgeModel, RunConfig, resolve_arms
from lvqa.evaluation.subtitles import subtitle_files, with_subtitles
from lvqa.evaluation.work import open_pool
from lvqa.index import default_store
from lvqa.plugins import absolute, file_of
from lvqa.records import LvqaError, clock_time, counted
from lvqa.validation import require
from lvqa.workers import ClusterError, ClusterLostError, Outcome, Pool, Prepare

if TYPE_CHECKING:
    from lvqa.evaluation.runner import Runner

_log = logging.getLogger(__name__)

Progress = Callable[[str, int, int], None]
"""Called as work goes on: "answer", how many are done by this call, of how many."""
Status = Callable[[str], None]
"""Called now and then with a line on how the run goes."""


BYTES_PER_SECOND = 125_000
"""How fast a video is at least that is read through without a sign of progress: 1 Mbit/s."""


def evaluate(
    config: RunConfig,
    folder: Path,
    *,
    progress: Progress = lambda *_: None,
    prepare: Prepare | None = None,
    status: Status = lambda line: _log.info("%s", line),
    retry_failed: bool = False,
) -> Run:
    """Answer every question of the benchmark in every arm, and append the rows to the run folder.

    A run that is there goes on. A video that fails, or that kills the process decoding it, gives rows with its error.
    What failed by the machines is asked again when the run goes on.

    Args:
        config: The benchmark, the arms and where the work is done.
        folder: The run folder.
        progress: Called as answers are done.
        prepare: Called in each worker before its model is loaded.
        status: Called every minute with a line on how the run goes.
        retry_failed: Ask all questions again that failed.

    Raises:
        LvqaError: A setting is not known, or videos are missing and that is not allowed, or there is no such cluster;
            raised before anything is loaded or written. Or no machine is left that can work: the run goes on later.
    """
    check_run(config)
    whole = load_dataset(config.benchmark.name, _folder(config))
    dataset = _cut(whole, config)
    _check_scorable(dataset, config.benchmark.judge)
    missing = _check_videos(dataset, config)
    tasks = [task for task in dataset.tasks if task.video_id not in missing]
    changes = functools.partial(input_changes, dataset=whole, store=_store_folder(config))
    is_new, files = not folder.exists(), _own_digests(config, dataset)
    try:
        with open_run(folder, config, retry_failed=retry_failed, changes=changes, files=files) as run:
            _describe(run, dataset, tasks, missing, _folder(config))
            schedule = _schedule(config, tasks, run)
            if schedule.num_left:
                if run.answered:
                    _log.info("%s: %d answers are there, %d are lacking", folder, len(run.answered), schedule.num_left)
                with _open_pool(config, run, tasks, prepare, report := _Report(schedule, progress, status)) as pool:
                    _answer_all(pool, run, schedule, report)
            run.note_contents()
            run.judge()
    except ClusterError:
        if is_new:  # nothing has been asked
            shutil.rmtree(folder, ignore_errors=True)
        raise
    except ClusterLostError as error:
        raise LvqaError(f"{error}; {folder} goes on from there with the same command and a cluster") from error
    return read_run(folder)


def _describe(
    run: RunFolder, dataset: Dataset, tasks: Sequence[VideoTask], missing: Sequence[str], folder: Path
) -> None:
    """Note in run.json what is asked."""
    for line in dataset.skipped:
        _log.info("%s", line)
    run.describe(
        videos=len(tasks),
        questions=sum(len(task.questions) for task in tasks),
        missing=missing,
        skipped=[*dataset.warnings, *dataset.skipped],
        annotations={
            os.path.relpath(str(path), str(folder)): digest for path, digest in digests(dataset.files).items()
        },
    )


def check_run(config: RunConfig) -> None:
    """Raise LvqaError for a setting of an arm that no module knows. Costs nothing."""
    config.benchmark.check()
    for arm in resolve_arms(config):
        check_settings(arm.complete)
        source = arm.complete.video.spoken.subtitles
        require(source in ("auto", "off"), f"video.subtitles of arm {arm.name!r}", source, "auto or off in a run")
        if arm.config.answer.mode is not None and config.benchmark.answer_format is not None:
            allowed = f"null, since protocol {config.benchmark.protocol!r} reads generated replies"
            require(False, f"answer.mode of arm {arm.name!r}", arm.config.answer.mode, allowed)


def chosen_tasks(config: RunConfig) -> Dataset:
    """Return the benchmark's videos and questions, cut to `benchmark.videos` and `benchmark.limit`."""
    return _cut(load_dataset(config.benchmark.name, _folder(config)), config)


def _cut(dataset: Dataset, config: RunConfig) -> Dataset:
    tasks = dataset.tasks[: config.benchmark.videos]
    cut = [dataclasses.replace(task, questions=task.questions[: config.benchmark.limit]) for task in tasks]
    dataset = dataclasses.replace(dataset, tasks=tuple(cut))
    return with_subtitles(dataset, config.benchmark) if config.benchmark.shows_subtitles else dataset


def _check_scorable(dataset: Dataset, judge: Judge | None) -> None:
    """Raise LvqaError for questions whose answers could not be called correct or wrong; all that they lack is named."""
    if isinstance(judge, JudgeModel):
        check_judge(judge)
    questions = [question for task in dataset.tasks for question in task.questions]
    lacking = {
        "have no answer, so nothing can be scored": [q.id for q in questions if q.answer is None],
        "have no options, and free answers can't be scored without benchmark.judge": [
            q.id for q in questions if not q.options and judge is None
        ],
    }
    total = counted(len(questions), "question")
    problems = [f"{len(ids)} of {total} {problem}: {named(ids)}" for problem, ids in lacking.items() if ids]
    if problems:
        raise LvqaError("; ".join(problems))


def _check_videos(dataset: Dataset, config: RunConfig) -> list[str]:
    """Return the videos that the run goes on without; raise LvqaError if that is not allowed, or none is left."""
    missing, folder = missing_videos(dataset), _folder(config) / "videos"
    if len(missing) == len(dataset.tasks):
        raise LvqaError(f"none of the {len(dataset.tasks)} videos is in {folder}")
    if missing:
        message = f"{len(missing)} of {len(dataset.tasks)} videos have no file: {join_names(missing)}"
        if not config.allow_missing:
            raise LvqaError(f"{message}; get them into {folder}, or go on without: --allow-missing")
        _log.warning("%s; their questions are left out", message)
    return missing


def missing_videos(dataset: Dataset) -> list[str]:
    """Return the videos whose files are not there."""
    return [task.video_id for task in dataset.tasks if not task.path.is_file()]


def _folder(config: RunConfig) -> Path:
    if config.benchmark.folder is None:
        raise LvqaError("benchmark.folder must say where the benchmark's files are, got null")
    return config.benchmark.folder


def for_workers(config: RunConfig) -> RunConfig:
    """Return the same settings for another working directory and another home, as a worker may have."""
    arms = [
        dataclasses.replace(
            settings,
            name=arm.name,
            method=absolute(arm.method),
            settings={**settings.settings, **_absolute_settings(arm.config)},
        )
        for settings, arm in zip(config.arms, resolve_arms(config), strict=True)
    ]
    store = dataclasses.replace(config.store, folder=_store_folder(config))
    return dataclasses.replace(config, store=store, arms=tuple(arms))


def _store_folder(config: RunConfig) -> Path:
    return (config.store.folder or default_store()).absolute()


def _absolute_settings(config: Config) -> dict[str, str]:
    settings = {"rerank.name": absolute(config.rerank.name)}
    if config.selection.scores is not None:
        settings["selection.scores"] = str(config.selection.scores.absolute())
    return settings


def _own_files(config: RunConfig) -> list[Path]:
    """Return the files with the user's own code and scores, which must be the same on all nodes."""
    arms = resolve_arms(config)
    names = [name for arm in arms for name in (arm.method, arm.config.rerank.name)]
    files = [file_of(name) for name in names] + [arm.config.selection.scores for arm in arms]
    return list(dict.fromkeys(file.absolute() for file in files if file is not None and file.is_file()))


def _own_digests(config: RunConfig, dataset: Dataset) -> dict[str, str]:
    """Return the digests of the files beside the annotations that decide what is asked, and how."""
    files = [*_own_files(config), *(subtitle_files(dataset) if config.benchmark.shows_subtitles else ())]
    return {str(path): digest for path, digest in digests(files).items()}


def _make_runner(config: RunConfig, prepare: Prepare | None) -> Runner:
    """Load the model; this runs in a worker."""
    if prepare is not None:
        prepare()
    from lvqa.evaluation.runner import Runner

    return Runner(config)


def _schedule(config: RunConfig, tasks: Sequence[VideoTask], run: RunFolder) -> Schedule:
    """Return what is to be asked; the longest videos come first where several workers share them."""
    make = functools.partial(
        Schedule, tasks, resolve_arms(config), run.answered, questions_at_once=config.questions_at_once
    )
    schedule = make()
    are_shared = config.workers not in (0, 1) and len(tasks) > 1 and schedule.num_left
    return make(seconds=video_lengths([task.path for task in tasks])) if are_shared else schedule


# --- the work --------------------------------------------------------------------------------------------------------


class _Report:
    """Says how a run goes, and what is wrong with its videos."""

    def __init__(self, schedule: Schedule, progress: Progress, status: Status) -> None:
        self._schedule, self._progress, self._status = schedule, progress, status
        self._total, self.num_failed, self._started = schedule.num_left, 0, time.monotonic()
        self._warned: set[str] = set()
        progress("answer", 0, self._total)

    def warn(self, video_id: str, rows: Sequence[Row]) -> None:
        """Log what is wrong with the video or the model, each text with the first video; a report lists it all."""
        for warning in dict.fromkeys(text for row in rows for text in row["warnings"]):
            if warning not in self._warned and not is_about_question(warning):
                self._warned.add(warning)
                _log.warning("video %s: %s", video_id, warning)

    def update(self) -> None:
        """Report how many answers there are now."""
        self._progress("answer", self._total - self._schedule.num_left, self._total)

    def beat(self, workers: str) -> None:
        """Say how it goes; `workers` says how they are."""
        left = self._schedule.num_left
        num_done, seconds = self._total - left, time.monotonic() - self._started
        time_left = f", {clock_time(seconds / num_done * left)} left" if num_done else ""
        self._status(f"{num_done} answers done, {self.num_failed} failed, {left} to come{time_left}; {workers}")


def _open_pool(
    config: RunConfig, run: RunFolder, tasks: Sequence[VideoTask], prepare: Prepare | None, report: _Report
) -> AbstractContextManager[Pool[WorkItem, WorkResult]]:
    """Start the workers of a run."""
    return open_pool(
        functools.partial(_make_runner, for_workers(config), prepare),
        config,
        run,
        store=_store_folder(config),
        media=[task.path.absolute() for task in tasks],
        files=_own_files(config),
        item_seconds=_item_seconds,
        status=report.beat,
    )


def _item_seconds(item: WorkItem) -> float:
    """Return how long reading the video of an item may take without a sign of progress."""
    with contextlib.suppress(OSError):
        return item.path.stat().st_size / BYTES_PER_SECOND
    return 0.0


def _answer_all(pool: Pool[WorkItem, WorkResult], run: RunFolder, schedule: Schedule, report: _Report) -> None:
    num_nodes = 0
    while schedule.num_left:
        for outcome in pool.run(schedule):
            if len(pool.node_facts) > num_nodes:
                num_nodes = len(pool.node_facts)
                run.note_nodes(pool.node_facts)
            if outcome.value is None:
                report.num_failed += _note_failure(outcome, run, schedule)
            else:
                _append_answers(outcome.value, outcome, run)
                report.warn(outcome.item.video_id, outcome.value.rows)
                schedule.requeue(outcome.item)
            report.update()


def _append_answers(result: WorkResult, outcome: Outcome[WorkItem, WorkResult], run: RunFolder) -> None:
    run.check_revision(result.revision)
    run.note_device(result.device)
    run.append([{**row, "node": outcome.node} for row in result.rows])
    errors = dict.fromkeys((row["question_id"], row["error"]) for row in result.rows if row["error"] is not None)
    for question_id, error in errors:
        _log.warning("question %s: %s (on %s)", question_id, error, outcome.node)


def _note_failure(outcome: Outcome[WorkItem, WorkResult], run: RunFolder, schedule: Schedule) -> int:
    """Append rows with the error. Returns how many there are.

    What failed by the machines costs these questions alone. Where the process died or met a bug, each is asked alone to
    find the one at fault. Else the video can't be read, and all that was to be asked about it has failed.
    """
    error = outcome.error or "no answer"
    _log.warning("video %s: %s (on %s)", outcome.item.video_id, error, outcome.node)
    if outcome.by_place:
        schedule.postpone(outcome.item)
        failed = [outcome.item]
    else:
        failed = schedule.fail(outcome.item, by_video=not outcome.is_unforeseen)
    rows: list[Row] = [
        {
            **blank_row(item.video_id, question, *condition),
            "error": error,
            "node": outcome.node,
            "by_place": outcome.by_place,
        }
        for item in failed
        for question, lacking in zip(item.questions, item.lacking, strict=True)
        for condition in lacking
    ]
    run.append(rows)
    return len(rows)

"""Build indexes: plan -> split -> embed segments -> assemble. One loop, for one video or many, here or in workers.

The `IndexBuilder` has the loop: it decides which steps there are, has them executed, and saves what is whole. The steps
themselves, which need the model, are in `index_steps`.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from lvqa.caveats import describe_damage
from lvqa.costs import CostMeter
from lvqa.index import ClipIndex, Store, StoreError, fingerprint
from lvqa.index_steps import (
    EmbedStep,
    IndexPlan,
    OnPairs,
    PlanStep,
    SegmentResult,
    SplitStep,
    Step,
    VideoIndexer,
    run_step,
    segments,
)
from lvqa.records import Clip, Cost, IndexUse, LvqaError, Video
from lvqa.session import IndexSpec, VideoSession
from lvqa.video import store_metadata

Progress = Callable[[str, int, int], None]
"""Called as work goes on: the stage, how many are done, of how many."""


Execute = Callable[[Iterable[Step], OnPairs], Iterator[tuple[Step, Any, str | None]]]
"""Executes steps in some order: each with what it returned, or with one line that says why it failed."""


def execute_here(indexers: Sequence[VideoIndexer]) -> Execute:
    """Execute steps in this process, one after the other. A failure is raised."""

    def execute(steps: Iterable[Step], on_pairs: OnPairs) -> Iterator[tuple[Step, Any, str | None]]:
        for step in steps:
            yield step, run_step(indexers, step, on_pairs), None

    return execute


@dataclass(frozen=True, slots=True)
class Indexed:
    """What became of one video under one set of settings."""

    path: Path
    """As it was given."""
    use: IndexUse | None
    error: str | None
    """One line, if there is no index of it."""
    seconds: float
    """The time from the first step for it to the last; other videos may have had their turn in between."""
    setting: int = 0
    """The index of the VideoIndexer whose settings it is for."""
    index: ClipIndex | None = field(default=None, repr=False)
    """The index, if there is one."""
    video: Video | None = None
    """The file, if it could be inspected."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is wrong with the file, in one line each."""
        use, video = self.use, self.video
        damage = () if use is None else describe_damage(use.frames, use.frames_substituted)
        return (*(() if video is None else video.warnings), *damage)

    cause: LvqaError | None = field(default=None, repr=False)
    """What was raised as the index was saved."""


@dataclass(slots=True)
class _Task:
    """An index on its way into the store."""

    paths: list[Path]
    """As given: several, if the same video is there under several names."""
    setting: int
    video: Video
    spec: dict[str, Any]
    model: str
    clips: dict[Clip, int] = field(default_factory=dict)
    """The clips in the order of time, and how many pairs each has."""
    results: dict[float, SegmentResult] = field(default_factory=dict)
    """Where a segment starts -> what embedding it gave."""
    pairs_left: int = 0
    started: float = 0.0
    is_over: bool = False


class IndexBuilder:
    """Builds the indexes that are lacking, of some videos under one set of settings or several."""

    def __init__(
        self,
        store: Store,
        execute: Execute,
        *,
        num_settings: int = 1,
        rebuild: bool = False,
        must_save: bool = True,
        progress: Progress | None = None,
    ) -> None:
        """Make a builder.

        Args:
            store: Where indexes are looked for, and saved.
            execute: Has the steps done, here or in workers.
            num_settings: How many indexers there are; each video gets an index from each.
            rebuild: Build indexes even where they are there.
            must_save: Whether an index that can't be saved is a failure; if not, it serves this process alone.
            progress: Gets the stages "plan", in videos, and "index", in pairs of all indexes to be built.
        """
        self._store, self._execute, self._rebuild, self._must_save = store, execute, rebuild, must_save
        self._num_settings = num_settings
        self._progress = progress or (lambda *_: None)
        self._tasks: dict[Path, _Task] = {}  # by where the index will lie

    def build(self, paths: Sequence[Path]) -> Iterator[Indexed]:
        """Build the indexes, and yield each video when it is done or has failed.

        All videos are inspected first, so that one that can't be read is reported before the work begins. Then they are
        embedded segment by segment. Segments of one video under several settings take turns in the order of time, so
        that what one has decoded and encoded is still in memory when the next one needs it.
        """
        yield from self._plan(paths)
        if self._tasks:
            self._store.prepare()
            yield from self._split()
            yield from self._embed()

    def _plan(self, paths: Sequence[Path]) -> Iterator[Indexed]:
        """Find out which indexes are lacking, and yield the others."""
        started: dict[Path, float] = {}

        def steps() -> Iterator[Step]:
            for path in paths:
                started[path] = time.perf_counter()
                yield from (PlanStep(setting, path) for setting in range(self._num_settings))

        total = len(paths) * self._num_settings
        for num_done, (step, plan, error) in enumerate(self._execute(steps(), lambda _: None), 1):
            assert isinstance(step, PlanStep)
            index = video = None
            if plan is not None:
                video = plan.video
                try:
                    index = self._load_or_add(step, plan)
                except LvqaError as unusable:
                    error = str(unusable)
            self._progress("plan", num_done, total)
            if index or error:
                seconds = time.perf_counter() - started[step.path]
                use = None if index is None else _use_of(index, reused=True)
                yield _indexed(step.path, use, error, seconds, setting=step.setting, index=index, video=video)

    def _load_or_add(self, step: PlanStep, plan: IndexPlan) -> ClipIndex | None:
        """Return the index that is in the store; None if it has to be built, which is then a task."""
        video, spec = plan.video, plan.spec
        index_path = self._store.path_of(video.id, spec)
        if index_path in self._tasks:
            self._tasks[index_path].paths.append(step.path)
            return None
        if not self._rebuild and (index := self._store.load(video.id, spec)):
            return index
        self._tasks[index_path] = _Task([step.path], step.setting, video, spec, plan.model)
        return None

    def _split(self) -> Iterator[Indexed]:
        by_step: dict[Step, _Task] = {SplitStep(task.setting, task.video): task for task in self._tasks.values()}
        for step, clips, error in self._execute(by_step, lambda _: None):
            task = by_step[step]
            if clips is None:
                yield from self._finish(task, error)
            else:
                task.clips, task.pairs_left = clips, sum(clips.values())

    def _embed(self) -> Iterator[Indexed]:
        num_done, total = 0, sum(task.pairs_left for task in self._tasks.values())
        num_running = 0  # pairs of the step that is executed, where that can be seen from here

        def on_pairs(count: int) -> None:
            nonlocal num_running
            num_running += count
            self._progress("index", num_done + num_running, total)

        tasks = {(task.setting, task.video): task for task in self._tasks.values()}
        for step, result, error in self._execute(self._segments(), on_pairs):
            assert isinstance(step, EmbedStep)
            task = tasks[step.setting, step.video]
            if task.is_over:
                continue
            num_pairs = task.pairs_left if result is None else sum(task.clips[clip] for clip in step.clips)
            task.pairs_left, num_done = task.pairs_left - num_pairs, num_done + num_pairs
            if num_running != num_pairs:
                self._progress("index", num_done, total)
            num_running = 0
            if result is not None:
                task.results[step.clips[0].start_seconds] = result
            if not task.pairs_left:
                yield from self._finish(task, error)

    def _segments(self) -> Iterator[EmbedStep]:
        """Yield the segments of each video in turn, those of several settings in the order of time."""
        by_video: dict[Video, list[_Task]] = {}
        for task in self._tasks.values():
            by_video.setdefault(task.video, []).append(task)
        for video, tasks in by_video.items():
            parts = [
                (list(task.clips)[part][0].start_seconds, i, part)
                for i, task in enumerate(tasks)
                for part in segments(len(task.clips))
            ]
            for task in tasks:
                task.started = time.perf_counter()
            for _, i, part in sorted(parts, key=lambda turn: turn[:2]):
                if not tasks[i].is_over:
                    clips = tuple(tasks[i].clips)[part]
                    yield EmbedStep(tasks[i].setting, video, clips, fingerprint(tasks[i].spec))

    def _finish(self, task: _Task, error: str | None) -> Iterator[Indexed]:
        """Save what is whole, and yield it."""
        task.is_over = True
        use = index = cause = None
        if error is None:
            try:
                index, unsaved = self._save(_assemble(task), task.video)
                use = dataclasses.replace(_use_of(index, reused=False), unsaved=unsaved)
            except LvqaError as unsaved:
                error, cause = str(unsaved), unsaved
        task.clips, task.results = {}, {}
        for path in task.paths:
            seconds = time.perf_counter() - task.started
            indexed = _indexed(path, use, error, seconds, setting=task.setting, index=index, video=task.video)
            yield dataclasses.replace(indexed, cause=cause)
            use = use and dataclasses.replace(use, reused=True)  # by the same video under its other names

    def _save(self, index: ClipIndex, video: Video) -> tuple[ClipIndex, str | None]:
        """Save an index. Returns it with its path; or without one, and why, if that is allowed."""
        try:
            return self._store.save(index, video), None
        except StoreError as error:
            if self._must_save:
                raise
            return index, str(error)


def _assemble(task: _Task) -> ClipIndex:
    """Join the segments of a video in the order of time."""
    results = [task.results[start] for start in sorted(task.results)]
    vectors = np.concatenate([result.vectors for result in results])
    index = ClipIndex.of(list(task.clips), vectors, video_id=task.video.id, spec=task.spec, model=task.model)
    return dataclasses.replace(
        index,
        frames=sum(result.frames for result in results),
        frames_substituted=sum(result.frames_substituted for result in results),
    )


def _use_of(index: ClipIndex, *, reused: bool, cost: Cost | None = None) -> IndexUse:
    """Return what a result says of the index that it was made with."""
    return IndexUse(
        reused=reused,
        clips=len(index.clips),
        path=index.path,
        frames=index.frames,
        frames_substituted=index.frames_substituted,
        cost=cost or Cost(),
    )


def _indexed(
    path: Path,
    use: IndexUse | None,
    error: str | None,
    seconds: float,
    *,
    setting: int,
    index: ClipIndex | None,
    video: Video | None,
) -> Indexed:
    """Return what became of a video; an error that does not name the file gets its name."""
    if error is not None and path.name not in error:
        error = f"{path}: {error}"
    return Indexed(path, use, error, seconds, setting, index, video)


def build_here(
    store: Store,
    indexers: Sequence[VideoIndexer],
    video: Video,
    meter: CostMeter,
    *,
    rebuild: bool = False,
    must_save: bool = False,
    progress: Progress | None = None,
) -> list[IndexUse]:
    """See to it that a video has the index of each indexer; those that are lacking are built in one reading of it.

    Args:
        store: Where indexes are looked for, and saved.
        indexers: Those of pipelines that share their sessions; the sessions get the indexes.
        video: An inspected file.
        meter: Gets the stage "index", unless all indexes are in memory; measures what building costs.
        rebuild: Build all of them.
        must_save: As for IndexBuilder.
        progress: As for IndexBuilder.

    Returns:
        The index of each indexer, with what building all that were lacking cost.

    Raises:
        LvqaError: The video can't be read, the store can't be written, or an index's file is damaged.
    """
    builder = partial(IndexBuilder, store, rebuild=rebuild, must_save=must_save, progress=_index_stage(progress))
    with ExitStack() as stack:
        sessions = {indexer.spec: stack.enter_context(indexer.open(video)) for indexer in indexers}
        uses = _build_lacking(builder, indexers, sessions, video, meter, rebuild=rebuild)
    store_metadata(video.path, store.folder)
    return uses


def join_uses(uses: Sequence[IndexUse]) -> IndexUse:
    """Return what a result says of the indexes that it was made with, one for each length of clips.

    Those that were built were built together, so each says what all of them cost.
    """
    built = [use for use in uses if not use.reused]
    unsaved = next((use for use in uses if use.path is None), uses[0])
    return dataclasses.replace(
        (built or uses)[0], path=unsaved.path, unsaved=unsaved.unsaved, clips=sum(use.clips for use in uses)
    )


def _build_lacking(
    make_builder: Callable[..., IndexBuilder],
    indexers: Sequence[VideoIndexer],
    sessions: Mapping[IndexSpec, VideoSession],
    video: Video,
    meter: CostMeter,
    *,
    rebuild: bool,
) -> list[IndexUse]:
    """Do what `build_here` does, for sessions that are open."""
    lacking = {
        indexer.spec: indexer for indexer in indexers if rebuild or indexer.spec not in sessions[indexer.spec].indexes
    }
    built: dict[IndexSpec, str | None] = {}  # with why it could not be saved
    if lacking:
        own = CostMeter(meter.model_counts)
        builder = make_builder(execute_here(list(lacking.values())), num_settings=len(lacking))
        with meter.stage("index"), own.stage("index"):
            for indexed in builder.build([video.path]):
                if indexed.index is None or indexed.use is None:
                    raise LvqaError(indexed.error) from indexed.cause
                spec = list(lacking)[indexed.setting]
                sessions[spec].add_index(spec, indexed.index)
                built |= {} if indexed.use.reused else {spec: indexed.use.unsaved}
    uses = []
    for indexer in indexers:
        index, is_new = sessions[indexer.spec].indexes[indexer.spec], indexer.spec in built
        use = _use_of(index, reused=not is_new, cost=own.cost if is_new else None)
        uses.append(dataclasses.replace(use, unsaved=built.get(indexer.spec)))
    return uses


def _index_stage(progress: Progress | None) -> Progress | None:
    """Leave out the stage "plan": that one video was inspected is no news."""
    return progress and (lambda stage, *numbers: progress(stage, *numbers) if stage == "index" else None)

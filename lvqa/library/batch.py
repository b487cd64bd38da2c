"""Index many videos in workers: each in segments, so that one long video keeps all of them busy."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal

from lvqa.components import check_settings
from lvqa.config import Config
from lvqa.index import Store, default_store
from lvqa.index_steps import OnPairs, PlanStep, Step, run_step
from lvqa.indexing import IndexBuilder, Indexed, Progress, join_uses
from lvqa.library.background import TableUpdates
from lvqa.node_check import node_check
from lvqa.pipeline import LongVideoQA
from lvqa.places import fetch_seconds, local_folder
from lvqa.settings_tree import load_yaml
from lvqa.workers import Pool, Prepare, report_progress

_log = logging.getLogger(__name__)

__all__ = ["Indexed", "index_videos"]


def index_videos(
    paths: Iterable[Path],
    config: Config,
    *,
    workers: int | Literal["max"] = 0,
    address: str | None = None,
    gpus_per_worker: float = 0,
    runtime_env: Path | None = None,
    rebuild: bool = False,
    progress: Progress | None = None,
    prepare: Prepare | None = None,
    status: Callable[[str], None] = lambda line: _log.info("%s", line),
) -> Generator[Indexed]:
    """Index videos in workers, and yield each when it is done or has failed.

    Each video is decoded and embedded segment by segment in whatever worker is free; its vectors are joined and saved
    here. The index is the one that `LongVideoQA.index` makes, whatever the number of workers. This process loads no
    model.

    Args:
        paths: The video files.
        config: All settings.
        workers: How many Ray actors, or "max"; 0: one child of this process, as for `workers.Pool`.
        address: A Ray cluster to work on.
        gpus_per_worker: The share of a GPU that each actor has.
        runtime_env: A YAML file with a runtime_env of Ray.
        rebuild: Build indexes even where they are there.
        progress: Gets the stages "plan", in videos, and "index", in pairs of all videos to be indexed.
        prepare: Called in each worker before its model is loaded.
        status: Called every minute with a line on the workers.

    Raises:
        LvqaError: What no video could do without is wrong: a setting, the model, the store, Ray.
    """
    check_settings(config)
    paths, store = list(paths), (config.store.folder or default_store()).absolute()
    config = dataclasses.replace(config, store=dataclasses.replace(config.store, folder=store))
    with contextlib.ExitStack() as stack:
        is_local = workers == 0
        absolute_paths = [path.absolute() for path in paths if path.is_file()]
        probe = None if is_local else stack.enter_context(node_check(store, absolute_paths))
        pool = Pool[Step, Any](
            partial(_make_worker, config, prepare),
            workers=workers,
            address=address,
            gpus_per_worker=gpus_per_worker,
            runtime_env=load_yaml(runtime_env) if runtime_env else None,
            item_seconds=_step_seconds,
            probe=probe,
            status=status,
            log_folder=local_folder(store) / "logs",
        )
        execute = _execute_in(stack.enter_context(pool))
        num_settings = len(config.video.clip_lengths)
        report = None if progress is None else _in_videos(progress, num_settings)
        indexes = Store(store)
        builder = IndexBuilder(indexes, execute, num_settings=num_settings, rebuild=rebuild, progress=report)
        updates = stack.enter_context(TableUpdates(indexes, centred=config.embedding.centre))
        yield from _join_lengths(_noted(builder.build(paths), updates), num_settings)


def _noted(results: Iterable[Indexed], updates: TableUpdates) -> Iterator[Indexed]:
    """Yield results; the library's table gets the new indexes of the first length of clips, which it searches."""
    for indexed in results:
        if indexed.setting == 0 and indexed.index is not None and indexed.use is not None and not indexed.use.reused:
            updates.on_indexed(indexed.index.spec)
        yield indexed


def _in_videos(progress: Progress, number: int) -> Progress:
    """Return what reports the stage "plan" in videos, of which each is planned so many times."""

    def report(stage: str, num_done: int, total: int) -> None:
        per_video = number if stage == "plan" else 1
        if num_done % per_video == 0:
            progress(stage, num_done // per_video, total // per_video)

    return report


def _join_lengths(results: Iterable[Indexed], number: int) -> Iterator[Indexed]:
    """Yield each video once, when it has so many indexes, one for each length of clips, or one of them has failed."""
    num_seen = Counter[tuple[Path, int]]()  # a path may be given twice
    groups: dict[tuple[Path, int], list[Indexed]] = {}
    for indexed in results:
        num_seen[indexed.path, indexed.setting] += 1
        group = groups.setdefault((indexed.path, num_seen[indexed.path, indexed.setting]), [])
        group.append(indexed)
        if len(group) == number:
            uses = [one.use for one in group if one.use is not None]
            failed = next((one for one in group if one.use is None), None)
            seconds = max(one.seconds for one in group)
            yield failed or dataclasses.replace(group[0], use=join_uses(uses), seconds=seconds)


def _step_seconds(step: Step) -> float:
    """Return how long a step may take without a sign of progress: as long as its video, and fetching it, if known."""
    if isinstance(step, PlanStep):
        return fetch_seconds(step.path)
    return step.video.duration_seconds + fetch_seconds(step.video.path)


def _execute_in(pool: Pool[Step, Any]) -> Callable[..., Iterator[tuple[Step, Any, str | None]]]:
    """Return what executes steps in a pool; how far a step is can't be seen from here."""

    def execute(steps: Iterable[Step], _: OnPairs) -> Iterator[tuple[Step, Any, str | None]]:
        return ((outcome.item, outcome.value, outcome.error) for outcome in pool.run(steps))

    return execute


def _make_worker(config: Config, prepare: Prepare | None) -> Callable[[Step], Any]:
    """Load the model; this runs in a worker."""
    if prepare is not None:
        prepare()
    # No pair is needed twice, so none is kept in memory.
    qa = LongVideoQA.load(config=dataclasses.replace(config, model=dataclasses.replace(config.model, memory_mib=3)))
    return partial(run_step, qa.indexers, on_pairs=report_progress)

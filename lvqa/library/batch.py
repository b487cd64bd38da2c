"""Index many videos in workers: each in segments, so that one long video keeps all of them busy."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Generator, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from lvqa.components import check_settings
from lvqa.config import Config
from lvqa.index import Store
from lvqa.index_steps import OnPairs, Step, run_step
from lvqa.indexing import IndexBuilder, Indexed, Progress
from lvqa.pipeline import LongVideoQA
from lvqa.workers import Pool, Prepare

__all__ = ["Indexed", "index_videos"]


def index_videos(
    paths: Iterable[Path],
    config: Config,
    *,
    workers: int = 0,
    address: str | None = None,
    gpus_per_worker: float = 0,
    rebuild: bool = False,
    progress: Progress | None = None,
    prepare: Prepare | None = None,
) -> Generator[Indexed]:
    """Index videos in workers, and yield each when it is done or has failed.

    Each video is decoded and embedded segment by segment in whatever worker is free; its vectors are joined and saved
    here. The index is the one that `LongVideoQA.index` makes, whatever the number of workers. This process loads no
    model.

    Args:
        paths: The video files.
        config: All settings.
        workers: How many Ray actors; 0: one child of this process, as for `workers.Pool`.
        address: A Ray cluster to work on.
        gpus_per_worker: How many GPUs each actor has.
        rebuild: Build indexes even where they are there.
        progress: Gets the stages "plan", in videos, and "index", in pairs of all videos to be indexed.
        prepare: Called in each worker before its model is loaded.

    Raises:
        LvqaError: What no video could do without is wrong: a setting, the model, the store, Ray.
    """
    check_settings(config)
    make = partial(_make_worker, config, prepare)
    with Pool(make, workers=workers, address=address, gpus_per_worker=gpus_per_worker) as pool:
        builder = IndexBuilder(Store(config.store.folder), _execute_in(pool), rebuild=rebuild, progress=progress)
        yield from builder.build(list(paths))


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
    qa = LongVideoQA.load(config=dataclasses.replace(config, store=dataclasses.replace(config.store, memory_mib=1)))
    return partial(run_step, [qa.indexer])

"""The workers of a run, whatever they do."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from lvqa.evaluation.row_folder import RowFolder
from lvqa.evaluation.settings import WorkConfig
from lvqa.node_check import node_check
from lvqa.settings_tree import load_yaml
from lvqa.workers import Pool

Item = TypeVar("Item")
Value = TypeVar("Value")


@contextlib.contextmanager
def open_pool(
    make: Callable[[], Callable[[Item], Value]],
    config: WorkConfig,
    run: RowFolder[Any],
    *,
    store: Path,
    media: Sequence[Path],
    files: Sequence[Path],
    item_seconds: Callable[[Item], float],
    status: Callable[[str], None],
) -> Iterator[Pool[Item, Value]]:
    """Start the workers of a run.

    Args:
        make: Returns the handler, in a worker.
        config: Where the work is done.
        run: The folder of the run.
        store: The folder of the store, absolute.
        media: The files that are worked on, absolute; on a cluster the smallest must be the same everywhere.
        files: The user's own code and scores, which must be the same everywhere.
        item_seconds: Returns how long an item may take without a sign of progress, beyond `stall_seconds`.
        status: Called every minute with a line on the workers.
    """
    with contextlib.ExitStack() as stack:
        probe = None if config.workers == 0 else stack.enter_context(node_check(store, media, files))
        pool = Pool[Item, Value](
            make,
            workers=config.workers,
            address=config.ray_address,
            gpus_per_worker=config.gpus_per_worker,
            runtime_env=load_yaml(config.runtime_env) if config.runtime_env else None,
            stall_seconds=config.stall_seconds,
            item_seconds=item_seconds,
            probe=probe,
            identity=run.revision,
            status=status,
            log_folder=run.folder.absolute() / "logs",
        )
        yield stack.enter_context(pool)

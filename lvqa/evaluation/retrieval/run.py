"""Drive a run of `lvqa retrieve`: read the sets, search in workers what is lacking, and write what others read."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lvqa.components import check_settings
from lvqa.datasets import named
from lvqa.datasets.retrieval import Content, RetrievalSet, load_sets
from lvqa.evaluation.changes import digests
from lvqa.evaluation.retrieval.identity import ContentIds
from lvqa.evaluation.retrieval.rows import RANKINGS, RANKINGS_FORMAT, RankingRow
from lvqa.evaluation.retrieval.search import Search
from lvqa.evaluation.retrieval.searcher import Searcher, SearchItem, SearchResult
from lvqa.evaluation.retrieval.settings import (
    GROWING_SETTINGS,
    RetrieveConfig,
    load_retrieve_config,
    resolve_arms,
    settings_changes,
)
from lvqa.evaluation.retrieval.vlm2vec import write_vlm2vec_files
from lvqa.evaluation.row_folder import CONFIG, RowFolder, check_inputs, locked, write_settings
from lvqa.evaluation.run_info import RunInfo, note_session, read_info
from lvqa.evaluation.work import open_pool
from lvqa.index import default_store
from lvqa.plugins import absolute, file_of
from lvqa.records import LvqaError, clock_time, counted
from lvqa.workers import ClusterError, ClusterLostError, Pool, Prepare

_log = logging.getLogger(__name__)

Progress = Callable[[str, int, int], None]
"""Called as work goes on: "embed" or "rank", how many are done by this call, of how many."""


@dataclass(frozen=True, slots=True)
class RetrieveRun:
    """What a run folder of `lvqa retrieve` holds."""

    folder: Path
    config: RetrieveConfig
    about: RunInfo | None
    rows: tuple[RankingRow, ...]

    @property
    def num_failed(self) -> int:
        """How many rankings have failed."""
        return sum(row["error"] is not None for row in self.rows)

    @property
    def num_failed_by_place(self) -> int:
        """How many of them have failed by what the machines did."""
        return sum(row["by_place"] for row in self.rows)


def read_retrieve_run(folder: Path) -> RetrieveRun:
    """Return the run in a folder, as far as it is; LvqaError if it is none."""
    if not (folder / RANKINGS.name).is_file():
        raise LvqaError(f"{folder} is not a folder of lvqa retrieve: it has no {RANKINGS.name}")
    rows = tuple(RANKINGS.read(folder / RANKINGS.name))
    return RetrieveRun(folder, load_retrieve_config(folder / CONFIG), read_info(folder), rows)


def retrieve(
    config: RetrieveConfig,
    folder: Path,
    *,
    progress: Progress = lambda *_: None,
    prepare: Prepare | None = None,
    status: Callable[[str], None] = lambda line: _log.info("%s", line),
    retry_failed: bool = False,
) -> RetrieveRun:
    """Rank the candidates for every query in every arm, and append the rows. A run that is there goes on.

    Args:
        config: The dataset, the arms and where the work is done.
        folder: The run folder.
        progress: Called as the work goes on.
        prepare: Called in each worker before its model is loaded.
        status: Called every minute with a line on how the run goes.
        retry_failed: Do all again that failed.

    Raises:
        LvqaError: A setting is not known, or files are missing, or there is no such cluster; raised before anything is
            loaded or written. Or no machine is left that can work: the run goes on later.
    """
    for arm in resolve_arms(config):
        check_settings(arm.config)
    sets, files = read_sets(config)
    _check_files(sets)
    is_new = not folder.exists()
    try:
        with _open(folder, config, sets, retry_failed=retry_failed) as run:
            run.describe(
                sets={one.name: len(one.queries) for one in sets},
                annotations={os.path.relpath(path, _folder(config)): digest for path, digest in digests(files).items()},
            )
            _search(config, sets, run, progress, prepare, status, retry_failed=retry_failed)
    except ClusterError:
        if is_new:  # nothing has been searched
            shutil.rmtree(folder, ignore_errors=True)
        raise
    except ClusterLostError as error:
        raise LvqaError(f"{error}; {folder} goes on from there with the same command and a cluster") from error
    result = read_retrieve_run(folder)
    write_vlm2vec_files(folder, sets, [arm.name for arm in resolve_arms(config)], result.rows)
    return result


def read_sets(config: RetrieveConfig) -> tuple[list[RetrievalSet], list[Path]]:
    """Return the sets of a run, with the texts as the model reads them, and the annotation files."""
    settings = config.dataset
    sets, files = load_sets(settings.name, _folder(config), sets=settings.sets, limit=settings.queries)
    return [_as_read(one, with_instructions=settings.instructions) for one in sets], files


def _folder(config: RetrieveConfig) -> Path:
    if config.dataset.folder is None:
        raise LvqaError("dataset.folder must say where the dataset's files are, got null")
    return config.dataset.folder


def _as_read(one: RetrievalSet, *, with_instructions: bool) -> RetrievalSet:
    """Return a set with absolute paths and, if wanted, with the dataset's instructions before its texts."""
    return dataclasses.replace(
        one,
        queries=tuple(
            dataclasses.replace(query, content=_content(query.content, query.instruction if with_instructions else ""))
            for query in one.queries
        ),
        candidates={
            name: _content(content, one.instruction if with_instructions else "")
            for name, content in one.candidates.items()
        },
    )


def _content(content: Content, instruction: str) -> Content:
    def full(path: Path | None) -> Path | None:
        return None if path is None else path.absolute()

    return dataclasses.replace(
        content,
        text=" ".join(filter(None, (instruction, content.text))),
        image=full(content.image),
        video=full(content.video),
        sound=full(content.sound),
        frames=tuple(path.absolute() for path in content.frames),
    )


def _check_files(sets: Sequence[RetrievalSet]) -> None:
    """Raise LvqaError if pictures, videos or sounds of the sets are missing; all are counted, and the first named."""
    contents = [content for one in sets for content in (*(q.content for q in one.queries), *one.candidates.values())]
    paths = dict.fromkeys(path for content in contents for path in content.files)
    missing = [str(path) for path in paths if not path.is_file()]
    if missing:
        raise LvqaError(f"{len(missing)} of {counted(len(paths), 'file')} of the sets are missing: {named(missing)}")


@contextlib.contextmanager
def _open(
    folder: Path, config: RetrieveConfig, sets: Sequence[RetrievalSet], *, retry_failed: bool
) -> Iterator[RowFolder[RankingRow]]:
    """Open a run folder to add to it, a new one or one to go on with."""
    files = {str(path): digest for path, digest in digests(_own_files(config)).items()}
    with locked(folder, RANKINGS.name):
        before = load_retrieve_config(folder / CONFIG) if (folder / CONFIG).exists() else None
        changes = [] if before is None else settings_changes(before, config)
        if before is not None and not changes:
            check_inputs(folder, _input_changes(folder, sets), files)
        write_settings(folder, before, config, GROWING_SETTINGS, changes)
        session = note_session(folder, config, files, rows_format=RANKINGS_FORMAT)
        answered = {RANKINGS.key_of(row) for row in RANKINGS.take_out_failed(folder, every=retry_failed)}
        with contextlib.closing(RowFolder(folder, RANKINGS, answered, session=session)) as run:
            yield run


def _input_changes(folder: Path, sets: Sequence[RetrievalSet]) -> list[str]:
    """Return which queries of a run's rows are no longer as they were; a set or a query that is left out now is not."""
    now: Mapping[tuple[str, str], str] = {
        (one.name, query.id): ids.of(query) for one in sets for ids in [ContentIds(one)] for query in one.queries
    }
    rows = RANKINGS.read(folder / RANKINGS.name)
    changed = {(row["set"], row["query_id"]): row["content_id"] for row in rows}
    return [
        f"query {key[1]} of {key[0]} has another content, other candidates or other right ones"
        for key, id in changed.items()
        if now.get(key, id) != id
    ]


def _own_files(config: RetrieveConfig) -> list[Path]:
    """Return the files with the user's own rerankers, which must be the same on all nodes."""
    files = [file_of(arm.config.rerank.name) for arm in resolve_arms(config)]
    return list(dict.fromkeys(file.absolute() for file in files if file is not None and file.is_file()))


def _search(
    config: RetrieveConfig,
    sets: Sequence[RetrievalSet],
    run: RowFolder[RankingRow],
    progress: Progress,
    prepare: Prepare | None,
    status: Callable[[str], None],
    *,
    retry_failed: bool,
) -> None:
    is_synthetic = config.dataset.make is not None
    search = Search(resolve_arms(config), sets, run, is_synthetic=is_synthetic, report=progress)
    if not search.num_left:
        return
    if run.answered:
        _log.info("%s: %d rankings are there, %d are lacking", run.folder, len(run.answered), search.num_left)
    started, total = time.monotonic(), search.num_left

    def beat(workers: str) -> None:
        num_ranked = total - search.num_left
        seconds = (time.monotonic() - started) / num_ranked * search.num_left if num_ranked else 0.0
        left = f", {clock_time(seconds)} left" if num_ranked else ""
        status(f"{num_ranked} rankings made, {search.num_left} to come{left}; {workers}")

    contents = [content for one in sets for content in (*(q.content for q in one.queries), *one.candidates.values())]
    pool: contextlib.AbstractContextManager[Pool[SearchItem, SearchResult]] = open_pool(
        functools.partial(_make_searcher, for_workers(config), prepare),
        config,
        run,
        store=(config.store.folder or default_store()).absolute(),
        media=list(dict.fromkeys(path for content in contents for path in content.files)),
        files=_own_files(config),
        item_seconds=lambda _: 0.0,
        status=beat,
    )
    with pool as open_workers:
        search.carry_out(open_workers, retry_failed=retry_failed)
    run.describe(embed_seconds=round(search.embed_seconds, 2))


def for_workers(config: RetrieveConfig) -> RetrieveConfig:
    """Return the same settings for another working directory and another home, as a worker may have."""
    arms = [
        dataclasses.replace(
            settings, name=arm.name, settings={**settings.settings, "rerank.name": absolute(arm.config.rerank.name)}
        )
        for settings, arm in zip(config.arms, resolve_arms(config), strict=True)
    ]
    folder = (config.store.folder or default_store()).absolute()
    return dataclasses.replace(config, arms=tuple(arms), store=dataclasses.replace(config.store, folder=folder))


def _make_searcher(config: RetrieveConfig, prepare: Prepare | None) -> Searcher:
    """Load the model; this runs in a worker."""
    if prepare is not None:
        prepare()
    return Searcher(config)

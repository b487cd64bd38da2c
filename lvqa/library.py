"""Many videos, indexed in workers: each in segments, so that one long video keeps all of them busy."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from lvqa.components import check_settings
from lvqa.config import Config
from lvqa.index import ClipIndex, Store
from lvqa.pipeline import LongVideoQA, Progress, log_if_stale, segments
from lvqa.records import Clip, IndexUse, LvqaError, Video
from lvqa.workers import Pool, Prepare


@dataclass(frozen=True, slots=True)
class Indexed:
    """What became of one video of many."""

    path: Path
    """As it was given."""
    use: IndexUse | None
    error: str | None
    """One line, if there is no index of it."""
    seconds: float
    """From the first that was done for it to the last; other videos may have had their turn in between."""


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
    """Index videos in workers, as `Pool` has them, and tell of each when it is done or has failed.

    All are probed first, so that those that can't be read are told of before the work begins. Then each is decoded and
    embedded segment by segment in whatever worker is free, and its vectors are joined and saved here: the same file as
    `LongVideoQA.index` makes, whatever the number of workers. This process loads no model. Progress has the stages
    "plan", in videos, and "index", in pairs of all videos to be made.

    Raises LvqaError for what no video could do without: a setting, the model, the store, Ray.
    """
    check_settings(config)
    make = partial(_make_indexer, config, prepare)
    with Pool(make, workers=workers, address=address, gpus_per_worker=gpus_per_worker) as pool:
        yield from _Library(config, pool, rebuild=rebuild, progress=progress or (lambda *_: None)).index(list(paths))


@dataclass(frozen=True, slots=True)
class _Step:
    """A method of the worker's LongVideoQA, what it is called with, and the key of what it is for."""

    key: Path
    method: str
    arguments: tuple[Any, ...]


def _make_indexer(config: Config, prepare: Prepare | None) -> Callable[[_Step], Any]:
    """Runs in a worker."""
    if prepare is not None:
        prepare()
    # No pair is needed twice, so none is held.
    qa = LongVideoQA.load(config=dataclasses.replace(config, store=dataclasses.replace(config.store, memory_mib=1)))
    return lambda step: getattr(qa, step.method)(*step.arguments)


@dataclass(slots=True)
class _Film:
    """A video on its way into the store."""

    paths: list[Path]
    """As given: several, if the same film is there under several names."""
    video: Video
    stamp: dict[str, object]
    clips: dict[Clip, int] = field(default_factory=dict)
    """In the order of time, and how many pairs each has."""
    vectors: dict[float, np.ndarray] = field(default_factory=dict)
    """Where a segment starts -> its clips' vectors."""
    pairs_left: int = 0
    started: float = 0.0
    is_over: bool = False


class _Library:
    """The videos of one call, and how far each is."""

    def __init__(self, config: Config, pool: Pool[_Step, Any], *, rebuild: bool, progress: Progress) -> None:
        self._pool, self._rebuild, self._progress = pool, rebuild, progress
        self._store = Store(config.store.folder)
        self._films: dict[Path, _Film] = {}  # by where the index will lie

    def index(self, paths: Sequence[Path]) -> Iterator[Indexed]:
        yield from self._survey(paths)
        if self._films:
            self._store.prepare()
            yield from self._cut()
            yield from self._embed()

    def _survey(self, paths: Sequence[Path]) -> Iterator[Indexed]:
        """Finds out what there is to do, and tells of the rest."""
        started: dict[Path, float] = {}

        def steps() -> Iterator[_Step]:
            for path in paths:
                started[path] = time.perf_counter()
                yield _Step(path, "survey", (path,))

        for done, outcome in enumerate(self._pool.run(steps()), 1):
            path, use, error = outcome.item.key, None, outcome.error
            if outcome.value is not None:
                try:
                    use = self._found(path, *outcome.value)
                except LvqaError as unusable:
                    error = str(unusable)
            self._progress("plan", done, len(paths))
            if use or error:
                yield _told(path, use, error, time.perf_counter() - started[path])

    def _found(self, path: Path, video: Video, stamp: dict[str, object]) -> IndexUse | None:
        """The index that is in the store; None if it has to be made."""
        place = self._store.path_of(stamp)
        if place in self._films:
            self._films[place].paths.append(path)
            return None
        if not self._rebuild:
            if index := self._store.load(stamp):
                return IndexUse(True, len(index.clips), index.path)
            log_if_stale(self._store, video, stamp)
        self._films[place] = _Film([path], video, stamp)
        return None

    def _cut(self) -> Iterator[Indexed]:
        for outcome in self._pool.run(_Step(place, "cut", (film.video,)) for place, film in self._films.items()):
            film = self._films[outcome.item.key]
            if outcome.value is None:
                yield from self._over(film, outcome.error)
            else:
                film.clips, film.pairs_left = outcome.value, sum(outcome.value.values())

    def _embed(self) -> Iterator[Indexed]:
        done, total = 0, sum(film.pairs_left for film in self._films.values())
        for outcome in self._pool.run(self._segments()):
            film, (_, clips) = self._films[outcome.item.key], outcome.item.arguments
            if film.is_over:
                continue
            vectors = outcome.value
            num_pairs = film.pairs_left if vectors is None else sum(film.clips[clip] for clip in clips)
            film.pairs_left, done = film.pairs_left - num_pairs, done + num_pairs
            self._progress("index", done, total)
            if vectors is not None:
                film.vectors[clips[0].start_seconds] = vectors
            if not film.pairs_left:
                yield from self._over(film, outcome.error)

    def _segments(self) -> Iterator[_Step]:
        for place, film in self._films.items():
            film.started = time.perf_counter()
            for part in segments(len(film.clips)):
                if film.is_over:
                    break
                yield _Step(place, "embed", (film.video, list(film.clips)[part]))

    def _over(self, film: _Film, error: str | None) -> Iterator[Indexed]:
        """Saves what is whole, and tells of it."""
        film.is_over = True
        use = None
        if error is None:
            try:
                vectors = np.concatenate([film.vectors[start] for start in sorted(film.vectors)])
                index = self._store.save(ClipIndex.of(list(film.clips), vectors, film.stamp), film.video)
                use = IndexUse(False, len(index.clips), index.path)
            except LvqaError as unsaved:
                error = str(unsaved)
        film.clips, film.vectors = {}, {}
        for path in film.paths:
            yield _told(path, use, error, time.perf_counter() - film.started)
            use = use and dataclasses.replace(use, reused=True)  # by the same film under its other names


def _told(path: Path, use: IndexUse | None, error: str | None, seconds: float) -> Indexed:
    """An error that does not say which file it is about is told with the file's name."""
    if error is not None and path.name not in error:
        error = f"{path}: {error}"
    return Indexed(path, use, error, seconds)

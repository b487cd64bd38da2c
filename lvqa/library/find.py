"""Find the clips of a library nearest to a query: by the table of all clips, and in what it lacks by the indexes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from lvqa.index import Store, StoreError
from lvqa.library.indexed import IndexedVideo, LibraryClip, LibraryFilter, best_clips, indexed_states, read_indexes
from lvqa.library.segment import SegmentError
from lvqa.library.table import BusyError, ClipTable, TableView
from lvqa.records import counted

FEW_VIDEOS = 64
"""So many indexes are read at a search, so that a small library is searched exactly, and needs no table."""

_MAX_TRIES = 3  # a segment may be joined with others by another process, or be damaged


class ClipFinder:
    """Finds clips in all videos of a store that have an index under one spec."""

    def __init__(
        self,
        store: Store,
        spec: Mapping[str, Any],
        *,
        centred: bool = False,
        on_video: Callable[[int, int], None] = lambda *_: None,
    ) -> None:
        """List the videos.

        Args:
            store: The store.
            spec: The indexes' spec.
            centred: Whether each video's vectors are searched less their mean.
            on_video: Called as videos are added to the table, with how many are done, and of how many.
        """
        self._store, self._spec, self._centred, self._on_video = store, spec, centred, on_video
        self._table = ClipTable(store, spec, centred=centred)
        self.states = indexed_states(store, spec)
        """The state of each video, by its id."""
        self.warnings: list[str] = []
        """What a reader must know."""

    def find(
        self, query: np.ndarray, k: int | None, condition: LibraryFilter, *, exact: bool = False
    ) -> list[LibraryClip]:
        """Return the clips nearest to a query by cosine, as `best_clips` sorts them.

        Args:
            query: (dim,) of any length but zero.
            k: How many to return; None: all.
            condition: Which videos are searched.
            exact: Read all indexes, however many they are.
        """
        if exact or k is None or len(self.states) <= FEW_VIDEOS:
            return self._find_exactly(query, k, condition, list(self.states))
        for _ in range(_MAX_TRIES):
            view = self._updated()
            try:
                hits = view.search(query, k, condition)
            except SegmentError as error:
                self._table.discard(error)
            else:
                return best_clips([*hits, *self._find_exactly(query, k, condition, view.lacking)], k)
        return self._find_exactly(query, k, condition, list(self.states))

    def _updated(self) -> TableView:
        """Return the table, which lacks only few videos, if it can be written."""
        view = self._table.read(self.states)
        if (num_lacking := len(view.lacking)) > FEW_VIDEOS:
            try:
                self._table.update(self.states, self._on_video)
            except (BusyError, StoreError) as error:
                reads = f"the search reads the indexes of {counted(num_lacking, 'video')}, which takes long"
                self.warnings.append(f"{error}; until then {reads}")
            view = self._table.read(self.states)
        return view

    def _find_exactly(
        self, query: np.ndarray, k: int | None, condition: LibraryFilter, video_ids: Sequence[str]
    ) -> list[LibraryClip]:
        """Search the indexes of videos one after the other, so that one at a time is in memory."""
        best = list[LibraryClip]()
        for hits in self._search_each(query, k, condition, video_ids):
            best = best_clips([*best, *hits], k)
        return best

    def _search_each(
        self, query: np.ndarray, k: int | None, condition: LibraryFilter, video_ids: Sequence[str]
    ) -> Iterator[list[LibraryClip]]:
        for index in read_indexes(self._store, self._spec, video_ids):
            video = IndexedVideo.of(index, self._store)
            if condition.matches(video):
                searched = index.centred() if self._centred else index
                yield [LibraryClip(candidate, video) for candidate in searched.search(query, k)]

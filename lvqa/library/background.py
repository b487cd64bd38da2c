"""Keep the table of a library's clips up to date while a command indexes videos."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any, Self

from lvqa.index import Store, StoreError
from lvqa.library.find import FEW_VIDEOS
from lvqa.library.indexed import indexed_states
from lvqa.library.table import BusyError, ClipTable

_log = logging.getLogger(__name__)


class TableUpdates:
    """Adds videos to the table in a thread, so many at a time, and the last ones at the end of the `with` block."""

    def __init__(self, store: Store, *, centred: bool) -> None:
        """Prepare; nothing is read yet.

        Args:
            store: The store.
            centred: As for the table.
        """
        self._store, self._centred = store, centred
        self._spec: Mapping[str, Any] = {}
        self._num_new = 0
        self._pool, self._stopped = ThreadPoolExecutor(1), Event()

    def __enter__(self) -> Self:
        """Return it."""
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        """Add what is left, and wait for it; after an error, end after the segment's videos that are being added."""
        if kind is not None:
            self._stopped.set()
        elif self._num_new:
            self._pool.submit(self._update)
        self._pool.shutdown(cancel_futures=kind is not None)

    def on_indexed(self, spec: Mapping[str, Any]) -> None:
        """Note that a video has an index under the table's spec."""
        self._spec, self._num_new = spec, self._num_new + 1
        if self._num_new == FEW_VIDEOS:
            self._num_new = 0
            self._pool.submit(self._update)

    def _update(self) -> None:
        states = indexed_states(self._store, self._spec)
        if len(states) > FEW_VIDEOS:  # fewer are searched without a table
            try:
                ClipTable(self._store, self._spec, centred=self._centred).update(states, self._on_video)
            except (BusyError, StoreError) as error:
                _log.warning("%s; the next search adds the videos", error)

    def _on_video(self, *_: int) -> None:
        if self._stopped.is_set():
            raise BusyError("the command has ended")

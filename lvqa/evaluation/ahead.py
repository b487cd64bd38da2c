"""Decode the next video in a thread while questions on the last one are answered."""

from __future__ import annotations

import logging
from pathlib import Path
from threading import Event, Thread

from lvqa.pipeline import LongVideoQA

_log = logging.getLogger(__name__)

STOP_SECONDS = 30.0
"""How long the thread may take to end: it decodes one batch at most. A decoder that hangs is left behind."""


class NextVideo:
    """The video that a worker will probably get next. An error is left for when it is opened."""

    def __init__(self, qa: LongVideoQA) -> None:
        """Decode as the pipeline will need it."""
        self._qa = qa
        self._thread: Thread | None = None
        self._stop = Event()

    def begin(self, path: Path) -> None:
        """Begin to decode a video, unless one is being decoded."""
        if self._thread is None:
            self._stop = Event()
            self._thread = Thread(target=self._work, args=(path, self._stop), name="lvqa-next-video", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """End the thread: what it has decoded by now is used, and the model's device has no other user."""
        if self._thread is not None:
            self._stop.set()
            self._thread.join(STOP_SECONDS)
            self._thread = None

    def _work(self, path: Path, stop: Event) -> None:
        qa = self._qa
        try:
            with qa.open(path) as session:
                if not qa.store.path_of(session.video.id, qa.spec.to_dict()).exists():
                    qa.indexers[0].decode_ahead(session, stop)
        except Exception as error:
            _log.debug("%s: not decoded ahead: %s", path, error)

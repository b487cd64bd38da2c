"""What an application holds while it runs: the videos, the queue of questions, and the model behind it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

from starlette.requests import Request

from lvqa.pipeline import LongVideoQA
from lvqa.server.jobs import Job, JobQueue
from lvqa.server.registry import VideoRegistry
from lvqa.server.settings import ServerSettings

if TYPE_CHECKING:
    from lvqa.indexing import Progress
    from lvqa.server.media import MediaCutter

T = TypeVar("T")
Load = Callable[["Progress"], LongVideoQA]
"""Loads the model, and makes the pipeline that reports progress so."""


class ServerState:
    """The parts of a running server. The model, the files and the media have a thread each."""

    def __init__(self, settings: ServerSettings, load: Load, media: MediaCutter) -> None:
        self.settings, self.media = settings, media
        self.registry = VideoRegistry(settings)
        self.queue = JobQueue("lvqa-model", max_waiting=settings.max_waiting)
        self._files = ThreadPoolExecutor(1, thread_name_prefix="lvqa-files")
        self._load = load
        self._qa: LongVideoQA | None = None
        self._current = threading.local()

    @property
    def qa(self) -> LongVideoQA:
        """The pipeline; it is there once `start` is through."""
        assert self._qa is not None
        return self._qa

    async def start(self) -> None:
        """Load the model, and look through the folders."""
        loop = asyncio.get_running_loop()
        scan = loop.run_in_executor(self._files, self.registry.scan)
        self._qa = await loop.run_in_executor(None, self._load, self._progress)
        await scan

    def close(self) -> None:
        """End all work."""
        self.queue.close()
        self.media.close()
        self._files.shutdown(wait=False, cancel_futures=True)

    async def in_files(self, work: Callable[[VideoRegistry], T]) -> T:
        """Do something with the registry in the thread of the files."""
        return await asyncio.get_running_loop().run_in_executor(self._files, work, self.registry)

    def submit(self, kind: str, work: Callable[[LongVideoQA, Job], dict[str, Any]], *, video_id: str | None) -> Job:
        """Queue work for the model; it reports progress to its job, and ends when the job is stopped."""

        def run(job: Job) -> dict[str, Any]:
            self._current.job = job
            try:
                return work(self.qa, job)
            finally:
                self._current.job = None

        return self.queue.submit(kind, run, video_id=video_id)

    def _progress(self, stage: str, num_done: int, total: int) -> None:
        job = getattr(self._current, "job", None)
        if job is not None:
            job.progress(stage, num_done, total)


def state_of(request: Request) -> ServerState:
    """Return the state of the application that a request came to."""
    state: ServerState = request.app.state.server
    return state

"""What an application holds while it runs: the videos, the queue of questions, and the model behind it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

from starlette.requests import Request

from lvqa.pipeline import LongVideoQA
from lvqa.server.errors import ApiError
from lvqa.server.jobs import Job, JobQueue
from lvqa.server.model import ModelFacts, Work, do_work
from lvqa.server.registry import VideoRegistry
from lvqa.server.settings import ServerSettings

if TYPE_CHECKING:
    from lvqa.server.cutter import MediaCutter
    from lvqa.server.replicas import Replicas

T = TypeVar("T")
Load = Callable[[], LongVideoQA]
"""Loads the model, and makes the pipeline."""


NO_MODEL = "no model is loaded here; lvqa serve answers questions"


class ServerState:
    """The parts of a running server. The model, the files and the media have a thread each."""

    def __init__(
        self, settings: ServerSettings, load: Load, media: MediaCutter, *, replicas: Replicas | None = None
    ) -> None:
        """Put the parts together.

        Args:
            settings: What is served, and to whom.
            load: Loads the model of this process.
            media: Cuts clips and frames.
            replicas: Processes that hold the model in place of this one.
        """
        self.settings, self.media = settings, media
        num_workers = max(1, settings.workers)
        self.registry = VideoRegistry(settings)
        self.questions = JobQueue("lvqa-questions", max_waiting=settings.max_waiting, num_workers=num_workers)
        """What is asked, one after the other for each process that holds the model."""
        self.indexing = JobQueue("lvqa-indexing", max_waiting=settings.max_waiting, num_workers=num_workers)
        """Videos that are indexed, one after the other; a question gets the model between two of their batches."""
        self._files = ThreadPoolExecutor(1, thread_name_prefix="lvqa-files")
        self._load, self._replicas = load, replicas
        self._qa: LongVideoQA | None = None
        self._model: ModelFacts | None = None

    @property
    def qa(self) -> LongVideoQA:
        """The pipeline of this process. ApiError if the server has no model."""
        if self._qa is None:
            raise ApiError(409, NO_MODEL)
        return self._qa

    @property
    def model(self) -> ModelFacts:
        """What is known of the model once `start` is through. ApiError if the server has none."""
        if self._model is None:
            raise ApiError(409, NO_MODEL)
        return self._model

    @property
    def spec(self) -> dict[str, Any]:
        """What tells the index that the pipeline would make of a video from all others; empty without a model."""
        return {} if self._model is None else self._model.spec

    async def start(self) -> None:
        """Load the model, if there is to be one, and look through the folders."""
        loop = asyncio.get_running_loop()
        scan = loop.run_in_executor(self._files, self.registry.scan)
        if self.settings.has_model:
            self._model = await loop.run_in_executor(None, self._start_model)
        await scan

    def _start_model(self) -> ModelFacts:
        if self._replicas is not None:
            return self._replicas.start()
        self._qa = self._load()
        return ModelFacts.of(self._qa)

    def close(self) -> None:
        """End all work."""
        self.questions.close()
        self.indexing.close()
        self.media.close()
        self._files.shutdown(wait=False, cancel_futures=True)

    async def in_files(self, work: Callable[[VideoRegistry], T]) -> T:
        """Do something with the registry in the thread of the files."""
        return await asyncio.get_running_loop().run_in_executor(self._files, work, self.registry)

    def submit(self, kind: str, work: Work, *, video_id: str | None) -> Job:
        """Queue work for the model; it tells its job how far it is, and ends when the job is stopped."""

        def run(job: Job) -> dict[str, Any]:
            if self._replicas is not None:
                return self._replicas.run(kind, work, job, video_id)
            return do_work(self.qa, work, job)

        queue = self.indexing if kind == "index" else self.questions
        return queue.submit(kind, run, video_id=video_id)

    def jobs(self) -> list[Job]:
        """Return the jobs that are known."""
        return [*self.indexing.jobs(), *self.questions.jobs()]

    def find_job(self, job_id: str) -> Job | None:
        """Return the job of an id, if it is known."""
        return self.indexing.find(job_id) or self.questions.find(job_id)


def state_of(request: Request) -> ServerState:
    """Return the state of the application that a request came to."""
    state: ServerState = request.app.state.server
    return state

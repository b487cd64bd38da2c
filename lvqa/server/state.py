"""What an application holds while it runs: the videos, the queue of questions, and the model behind it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

from starlette.requests import Request

from lvqa.output import selection_json
from lvqa.pipeline import LongVideoQA
from lvqa.records import FrameSelection, Ranking
from lvqa.server.errors import ApiError
from lvqa.server.jobs import Job, JobQueue
from lvqa.server.registry import VideoRegistry
from lvqa.server.settings import ServerSettings

if TYPE_CHECKING:
    from lvqa.server.media import MediaCutter

T = TypeVar("T")
Load = Callable[[], LongVideoQA]
"""Loads the model, and makes the pipeline."""
Work = Callable[[LongVideoQA], dict[str, Any]]
"""What the model does for a request: it gets a pipeline that reports to the request's job, and returns JSON."""


class ServerState:
    """The parts of a running server. The model, the files and the media have a thread each."""

    def __init__(self, settings: ServerSettings, load: Load, media: MediaCutter) -> None:
        self.settings, self.media = settings, media
        self.registry = VideoRegistry(settings)
        self.questions = JobQueue("lvqa-questions", max_waiting=settings.max_waiting)
        """What is asked, one after the other."""
        self.indexing = JobQueue("lvqa-indexing", max_waiting=settings.max_waiting)
        """Videos that are indexed, one after the other; a question gets the model between two of their batches."""
        self._files = ThreadPoolExecutor(1, thread_name_prefix="lvqa-files")
        self._load = load
        self._qa: LongVideoQA | None = None

    @property
    def qa(self) -> LongVideoQA:
        """The pipeline; it is there once `start` is through. ApiError if the server has no model."""
        if self._qa is None:
            raise ApiError(409, "no model is loaded here; lvqa serve answers questions")
        return self._qa

    @property
    def spec(self) -> dict[str, Any]:
        """What tells the index that the pipeline would make of a video from all others; empty without a model."""
        return {} if self._qa is None else self._qa.spec.to_dict()

    async def start(self) -> None:
        """Load the model, if there is to be one, and look through the folders."""
        loop = asyncio.get_running_loop()
        scan = loop.run_in_executor(self._files, self.registry.scan)
        if self.settings.has_model:
            self._qa = await loop.run_in_executor(None, self._load)
        await scan

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
            def on_selected(rankings: Sequence[Ranking | None], selections: Sequence[FrameSelection]) -> None:
                for ranking, selection in zip(rankings, selections, strict=True):
                    job.tell({"event": "frames", **selection_json(ranking, selection)})

            return work(self.qa.with_config(self.qa.config, progress=job.progress, on_selected=on_selected))

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

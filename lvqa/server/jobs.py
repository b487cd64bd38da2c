"""Work that takes long: it waits for its turn, tells how far it is, and can be stopped."""

from __future__ import annotations

import asyncio
import logging
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

from lvqa.concurrency import StoppedError, stop_when
from lvqa.server.errors import ApiError, describe, error_json

_log = logging.getLogger(__name__)

State = Literal["waiting", "running", "done", "failed", "stopped"]
Event = dict[str, Any]
"""What happened: "event" names it."""

MAX_ENDED_JOBS = 64
"""So many jobs of indexing that have ended can still be looked up; what was asked is forgotten with its answer."""
SECONDS_BETWEEN_PROGRESS = 0.1
KEEP_ALIVE_SECONDS = 10.0
"""A stream that has nothing to say sends an empty line this often, so that nobody takes it for dead."""


class Job:
    """A piece of work. Its state changes in the thread of the event loop alone."""

    def __init__(self, kind: str, video_id: str | None, position: int) -> None:
        self.id, self.kind, self.video_id = secrets.token_urlsafe(9), kind, video_id
        self._result_event = RESULTS[kind]  # here, where a kind that is missing fails its request at once
        self.state: State = "waiting"
        self.result: dict[str, Any] | None = None
        self.error: tuple[int, str] | None = None
        self._stop = threading.Event()
        self._loop = asyncio.get_running_loop()
        self._events: list[Event] = [{"event": "waiting", "job": self.id, "position": position}]
        self._progress: Event | None = None
        self._changed = asyncio.Event()
        self._last_progress = ("", 0.0)

    def to_json(self) -> dict[str, Any]:
        """Return the job as JSON."""
        known = {"job": self.id, "kind": self.kind, "video": self.video_id, "state": self.state}
        error = None if self.error is None else error_json(*self.error)["error"]
        return {**known, "progress": self._progress, "result": self.result, "error": error}

    @property
    def is_over(self) -> bool:
        """Whether it has ended, well or not."""
        return self.state in ("done", "failed", "stopped")

    # --- in the thread that works -----------------------------------------------------------------------------------

    @property
    def is_stopped(self) -> bool:
        """Whether it is to stop, or has."""
        return self._stop.is_set()

    def progress(self, stage: str, num_done: int, total: int) -> None:
        """Tell how far the work is."""
        now, (last_stage, last) = time.monotonic(), self._last_progress
        if stage != last_stage or num_done == total or now - last >= SECONDS_BETWEEN_PROGRESS:
            self._last_progress = (stage, now)
            self._call(self._set_progress, {"event": EVENTS.get(stage, stage), "done": num_done, "total": total})

    def tell(self, event: Event) -> None:
        """Tell that something has happened."""
        self._call(self._add, event)

    def run(self, work: Callable[[Job], dict[str, Any]]) -> None:
        """Do the work, unless nobody waits for it any more."""
        if self.is_stopped:
            return self._call(self._end, "stopped", None, None)
        self._call(self._set_state, "running")
        try:
            with stop_when(self._stop.is_set):
                self._call(self._end, "done", work(self), None)
        except StoppedError:
            self._call(self._end, "stopped", None, None)
        except Exception as error:
            self._call(self._end, "failed", None, describe(error))

    def _call(self, change: Callable[..., None], *args: Any) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(change, *args)

    # --- in the event loop ------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Have the work end soon."""
        self._stop.set()

    async def follow(self, silence_seconds: float = KEEP_ALIVE_SECONDS) -> AsyncIterator[Event | None]:
        """Yield what happens from the beginning to the end; None after so long a silence."""
        num_sent, progress = 0, None
        while True:
            changed = self._changed
            while num_sent < len(self._events):
                num_sent += 1
                yield self._events[num_sent - 1]
            if self._progress is not progress and not self.is_over:
                progress = self._progress
                yield progress
            if self.is_over and num_sent == len(self._events):
                return
            try:
                await asyncio.wait_for(changed.wait(), silence_seconds)
            except TimeoutError:
                yield None

    def _set_progress(self, event: Event) -> None:
        self._progress = event
        self._notify()

    def _set_state(self, state: State) -> None:
        self.state = state
        self._add({"event": state, "job": self.id})

    def _add(self, event: Event) -> None:
        self._events.append(event)
        self._notify()

    def _end(self, state: State, result: dict[str, Any] | None, error: tuple[int, str] | None) -> None:
        self.result, self.error = result, error
        if error is not None:
            self._events.append({"event": "error", **error_json(*error)})
        elif result is not None:
            self._events.append({"event": self._result_event, **result})
        self._set_state(state)

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


EVENTS = {"index": "indexing", "rerank": "ranking", "rerank library": "ranking"}
"""Stage of the pipeline -> the event that tells how far it is."""
RESULTS = {
    "ask": "answer",
    "search": "results",
    "index": "indexed",
    "chat": "reply",
    "embed": "vectors",
    "rerank": "scores",
}
"""Kind of a job -> the event that has its result."""


class JobQueue:
    """Does jobs in the order in which they came: one after the other, or as many at a time as there are workers."""

    def __init__(self, name: str, *, max_waiting: int, num_workers: int = 1) -> None:
        self._executor = ThreadPoolExecutor(num_workers, thread_name_prefix=name)
        self._max_waiting = max_waiting
        self._jobs: OrderedDict[str, Job] = OrderedDict()

    def submit(self, kind: str, work: Callable[[Job], dict[str, Any]], *, video_id: str | None = None) -> Job:
        """Add a job to the end of the queue.

        Args:
            kind: A key of RESULTS.
            work: Called with the job, in the queue's thread; returns JSON.
            video_id: The video that it is about.

        Raises:
            ApiError: Too many wait already.
        """
        num_waiting = sum(job.state == "waiting" for job in self._jobs.values())
        if num_waiting >= self._max_waiting:
            raise ApiError(429, f"{num_waiting} requests wait already; try again later", **{"retry-after": "2"})
        job = Job(kind, video_id, num_waiting)
        self._jobs[job.id] = job
        self._forget_ended()
        self._executor.submit(job.run, work)
        return job

    def _forget_ended(self) -> None:
        ended = [job for job in self._jobs.values() if job.is_over]
        kept = [job for job in ended if job.kind == "index"][-MAX_ENDED_JOBS:]
        for job in ended:
            if job not in kept:
                del self._jobs[job.id]

    def find(self, job_id: str) -> Job | None:
        """Return the job of an id, if it is known."""
        return self._jobs.get(job_id)

    def jobs(self) -> list[Job]:
        """Return the jobs that are known, the oldest first."""
        return list(self._jobs.values())

    def close(self) -> None:
        """Stop all jobs."""
        for job in self._jobs.values():
            job.stop()
        self._executor.shutdown(wait=False, cancel_futures=True)

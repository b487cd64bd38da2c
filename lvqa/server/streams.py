"""A job's answer to a request: all at once, or as server-sent events."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

from fastapi.sse import EventSourceResponse, format_sse_event
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from lvqa.server.errors import ApiError
from lvqa.server.jobs import Job

KEEP_ALIVE = b": still working\n\n"
SECONDS_BETWEEN_LOOKS = 0.5
"""How often it is looked whether the client still waits."""


async def respond(request: Request, job: Job, *, stream: bool) -> Response:
    """Return the job's result, or its events; a client that goes away stops the job."""
    if stream or "text/event-stream" in request.headers.get("accept", ""):
        return EventSourceResponse(events(job, stop_at_end=True))
    return JSONResponse(await result_of(request, job))


async def result_of(request: Request, job: Job) -> dict[str, object]:
    """Wait for a job's result while the client does.

    Raises:
        ApiError: The job has failed or was stopped.
    """
    over = asyncio.ensure_future(_wait(job))
    try:
        while not (await asyncio.wait([over], timeout=SECONDS_BETWEEN_LOOKS))[0]:
            if await request.is_disconnected():
                break
    finally:
        job.stop()
        over.cancel()
    if job.error is not None:
        raise ApiError(*job.error)
    if job.result is None:
        raise ApiError(499, "the request was stopped")
    return job.result


async def _wait(job: Job) -> None:
    async for _ in job.follow():
        pass


async def events(job: Job, *, stop_at_end: bool = False) -> AsyncIterator[bytes]:
    """Yield a job's events as they are sent. With `stop_at_end` the job ends when nobody reads them any more."""
    try:
        async for event in job.follow():
            if event is None:
                yield KEEP_ALIVE
            else:
                yield format_sse_event(data_str=json.dumps(event), event=str(event["event"]))
    finally:
        if stop_at_end:
            job.stop()

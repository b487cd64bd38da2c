"""Our own API: videos, indexing, questions, searches."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, Request
from fastapi.sse import EventSourceResponse
from starlette.responses import Response

import lvqa
from lvqa.config import to_dict
from lvqa.records import Video, shorten
from lvqa.server.asking import REMOTE_METHODS, REMOTE_SETTINGS, ask_work, index_work, search_work
from lvqa.server.attachments import UploadedFile, upload_name
from lvqa.server.errors import ApiError
from lvqa.server.guard import COOKIE, cookie_value, is_same_secret
from lvqa.server.jobs import Job
from lvqa.server.registry import VideoRegistry
from lvqa.server.remote import fetch
from lvqa.server.schemas import AddRequest, AskRequest, IndexRequest, LoginRequest, Query, SearchRequest
from lvqa.server.state import ServerState, state_of
from lvqa.server.streams import events, respond
from lvqa.settings_tree import flat

router = APIRouter(prefix="/api")

EVENTS: dict[int | str, dict[str, Any]] = {
    200: {"description": "Server-sent events.", "content": {"text/event-stream": {}}}
}
ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {"description": "The result, or with `stream` its events.", "content": {"text/event-stream": {}}}
}


@router.get("/status", tags=["server"])
async def status(request: Request) -> dict[str, Any]:
    """Return what runs here: the model, its settings, and what waits."""
    state = state_of(request)
    model, jobs = state.model, state.jobs()
    return {
        "lvqa": lvqa.__version__,
        "model": model.name,
        "model_revision": model.revision,
        "device": model.device_name,
        "method": model.config.method,
        "methods": list(REMOTE_METHODS),
        "frames": model.config.selection.frames,
        "settings": {name: value for name, value in flat(to_dict(model.config)).items() if name in REMOTE_SETTINGS},
        "folders": [str(path.absolute()) for path in state.settings.paths],
        "allow_urls": state.settings.allow_urls,
        "max_upload_mib": state.settings.max_upload_mib,
        "waiting": sum(job.state == "waiting" for job in jobs),
        "running": sum(job.state == "running" for job in jobs),
    }


@router.post("/login", tags=["server"], status_code=204)
async def login(request: Request, body: LoginRequest) -> Response:
    """Change the token into a cookie, for pages: a <video> sends no header."""
    settings = state_of(request).settings
    if settings.token is None:
        return Response(status_code=204)
    if not is_same_secret(body.token, settings.token):
        raise ApiError(401, "this is not the token that the server was started with")
    response = Response(status_code=204)
    is_secure = request.url.scheme == "https"
    value = cookie_value(settings.token)
    response.set_cookie(COOKIE, value, httponly=True, samesite="strict", secure=is_secure, path="/")
    return response


# --- videos ---------------------------------------------------------------------------------------------------------


@router.get("/videos", tags=["videos"])
async def list_videos(request: Request) -> dict[str, Any]:
    """Return all videos, and why files of the folders could not be read."""
    state = state_of(request)
    spec = state.spec

    def work(registry: VideoRegistry) -> dict[str, Any]:
        failures = [{"path": path, "error": error} for path, error in sorted(registry.failures.items())]
        return {"videos": registry.list(spec), "failures": failures}

    return await state.in_files(work)


@router.post("/videos", tags=["videos"], status_code=201)
async def add_video(request: Request, body: AddRequest) -> dict[str, Any]:
    """Add a video that lies in the served folders, or fetch one from a public address."""
    state = state_of(request)
    if (body.path is None) == (body.url is None):
        raise ApiError(400, "give either path or url")
    if body.path is not None:
        reference = body.path
        return await _describe(state, await state.in_files(lambda registry: registry.find(reference)))
    path = await fetch(body.url or "", state.settings)
    return await add_upload(state, path)


@router.put("/uploads/{name:path}", tags=["videos"], status_code=201)
async def upload(request: Request, name: str) -> dict[str, Any]:
    """Upload a video: its bytes are the body (`curl -T video.mp4 URL/api/uploads/`)."""
    state = state_of(request)
    file = UploadedFile(state.settings.uploads, upload_name(name), max_bytes=state.settings.max_upload_bytes)
    return await add_upload(state, await file.write(request.stream()))


async def add_upload(state: ServerState, path: Any) -> dict[str, Any]:
    """Add a file that was uploaded; one that is no video, or is there already, is deleted."""

    def work(registry: VideoRegistry) -> Video:
        video = None
        try:
            video = registry.add(path)
        finally:
            if video is None or video.path != path.resolve():
                path.unlink(missing_ok=True)
        return video

    return await _describe(state, await state.in_files(work))


@router.get("/videos/{video_id}", tags=["videos"])
async def get_video(request: Request, video_id: str) -> dict[str, Any]:
    """Return what is known of a video."""
    state = state_of(request)
    return await _describe(state, await state.in_files(lambda registry: registry.get(video_id)))


@router.delete("/videos/{video_id}", tags=["videos"], status_code=204)
async def delete_video(request: Request, video_id: str) -> Response:
    """Forget a video, its index too; its file is deleted only if it was uploaded here."""
    state = state_of(request)
    for job in state.jobs():
        if job.video_id == video_id:
            job.stop()
    await state.in_files(lambda registry: registry.remove(video_id))
    return Response(status_code=204)


async def _describe(state: ServerState, video: Video) -> dict[str, Any]:
    spec = state.spec
    return await state.in_files(lambda registry: registry.to_json(video, spec))


async def find_video(state: ServerState, query: Query) -> Video | None:
    """Return the video that a query names, the only one if it names none, or None for the library."""
    if query.library:
        if query.video is not None:
            raise ApiError(400, "give either video or library")
        return None
    reference = query.video
    if reference is not None:
        return await state.in_files(lambda registry: registry.find(reference))
    only = await state.in_files(lambda registry: registry.only())
    if only is None:
        raise ApiError(400, "video: say which one, by id or path; or library: true")
    return only


# --- what the model does --------------------------------------------------------------------------------------------


@router.post("/videos/{video_id}/index", tags=["index"], status_code=202)
async def start_index(request: Request, video_id: str, body: IndexRequest | None = None) -> dict[str, Any]:
    """Start to index a video. The job that is returned tells how far it is, at /api/jobs/{job}/events."""
    state = state_of(request)
    for job in state.jobs():
        if (job.kind, job.video_id) == ("index", video_id) and not job.is_over:
            return job.to_json()
    video = await state.in_files(lambda registry: registry.find(video_id))
    work = index_work(video, rebuild=body is not None and body.rebuild)
    return state.submit("index", work, video_id=video.id).to_json()


@router.get("/jobs", tags=["index"])
async def list_jobs(request: Request) -> dict[str, Any]:
    """Return what waits, runs, and was indexed lately."""
    jobs = state_of(request).jobs()
    return {"jobs": [{**job.to_json(), "result": None} for job in jobs]}


@router.get("/jobs/{job_id}", tags=["index"])
async def get_job(request: Request, job_id: str) -> dict[str, Any]:
    """Return the state of a job, with its result if it is done."""
    return _job(request, job_id).to_json()


@router.get("/jobs/{job_id}/events", tags=["index"], response_model=None, responses=EVENTS)
async def job_events(request: Request, job_id: str) -> Response:
    """Return the events of a job from its beginning, as they happen. Who stops reading does not stop the job."""
    return EventSourceResponse(events(_job(request, job_id)))


@router.delete("/jobs/{job_id}", tags=["index"])
async def stop_job(request: Request, job_id: str) -> dict[str, Any]:
    """Stop a job. What was finished before is kept."""
    job = _job(request, job_id)
    job.stop()
    await asyncio.sleep(0)
    return job.to_json()


def _job(request: Request, job_id: str) -> Job:
    job = state_of(request).find_job(job_id)
    if job is None:
        raise ApiError(404, f"there is no job {shorten(job_id)}, or it is forgotten")
    return job


@router.post("/ask", tags=["ask"], response_model=None, responses=ANSWERS)
async def ask(request: Request, body: AskRequest) -> Response:
    """Answer a question about a video or the library, with the evidence. A client that goes away stops the work."""
    state = state_of(request)
    video = await find_video(state, body)
    job = state.submit("ask", ask_work(body, video), video_id=None if video is None else video.id)
    return await respond(request, job, stream=body.stream)


@router.post("/search", tags=["ask"], response_model=None, responses=ANSWERS)
async def search(request: Request, body: SearchRequest) -> Response:
    """Find the clips that match a query best, in a video or in the library."""
    state = state_of(request)
    video = await find_video(state, body)
    job = state.submit("search", search_work(body, video), video_id=None if video is None else video.id)
    return await respond(request, job, stream=body.stream)

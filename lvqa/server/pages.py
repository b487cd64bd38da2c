"""The pages of a server, and what only pages need."""

from __future__ import annotations

import itertools
from typing import Annotated, Any

from fastapi import APIRouter, Request
from pydantic import Field
from starlette.responses import RedirectResponse, Response
from starlette.staticfiles import StaticFiles

from lvqa.records import shorten
from lvqa.report.answers import clock
from lvqa.server.errors import ApiError
from lvqa.server.media import check_times, file_name
from lvqa.server.schemas import Body, Reference
from lvqa.server.state import state_of
from lvqa.web import STATIC, answer_page, page
from lvqa.web.pages import MAX_FRAME_HEIGHT, pictures_of

router = APIRouter(include_in_schema=False)
api_router = APIRouter(prefix="/api", tags=["pages"])

LIBRARY, RUNS = ("/", "Library"), ("/runs", "Runs")
STATIC_PATH = "/static"
assets = StaticFiles(directory=STATIC)
"""The modules and the style of all pages."""
MAX_ANSWERS = 4


def is_public(path: str) -> bool:
    """Return whether a path is that of a page without its content, which anybody may read: it asks for the token."""
    return path in ("/", "/runs") or path.startswith((f"{STATIC_PATH}/", "/videos/", "/runs/"))


class LabelledAnswer(Body):
    """An answer as `POST /api/ask` returned it, and what it is called."""

    label: Annotated[str, Field(max_length=200)]
    answer: dict[str, Any]


class PageRequest(Body):
    """Answers to one question, to be made a page that needs no other file."""

    video: Reference
    answers: Annotated[list[LabelledAnswer], Field(min_length=1, max_length=MAX_ANSWERS)]


@router.get("/")
async def library_page(request: Request) -> Response:
    """Return the page of the library; a server without a model has runs alone."""
    if not state_of(request).settings.has_model:
        return RedirectResponse(RUNS[0])
    return _page(request, "Library", "library")


@router.get("/videos/{video_id}")
async def video_page(request: Request, video_id: str) -> Response:
    """Return the workbench of a video."""
    return _page(request, "Workbench", "workbench", video=video_id)


@router.get("/runs")
async def runs_page(request: Request) -> Response:
    """Return the page that lists all runs."""
    return _page(request, "Runs", "runs")


@router.get("/runs/{name}")
async def run_page(request: Request, name: str) -> Response:
    """Return the page of a run."""
    return _page(request, name, "run", run=name)


def _page(request: Request, title: str, name: str, **data: str) -> Response:
    navigation = (LIBRARY, RUNS) if state_of(request).settings.has_model else (RUNS,)
    return Response(page(title, name, data=data, navigation=navigation), media_type="text/html")


@api_router.post("/page", response_class=Response)
async def one_file(request: Request, body: PageRequest) -> Response:
    """Return answers as one HTML file, with the pictures of their frames."""
    state = state_of(request)
    video = await state.in_files(lambda registry: registry.get(body.video))
    answers = [entry.model_dump() for entry in body.answers]
    times_of_answers = [_times(entry["answer"]) for entry in answers]
    for times in times_of_answers:  # each answer may have that many
        check_times(video, times, "answers")
    pictures = await state.media.work(
        lambda: pictures_of(video, itertools.chain(*times_of_answers), max_height=MAX_FRAME_HEIGHT)
    )
    about: dict[str, Any] = {"id": video.id, "name": video.path.name, "path": video.path.name}
    about |= {"duration_seconds": video.duration_seconds}
    details = f"{video.path.name} · {clock(video.duration_seconds)} · {video.width}x{video.height}"
    name = file_name(f"{video.path.stem}.html")
    headers = {"content-disposition": f'attachment; filename="{name}"'}
    return Response(answer_page(about, answers, pictures, details=details), media_type="text/html", headers=headers)


def _times(answer: dict[str, Any]) -> list[float]:
    """Return the times of an answer's frames; ApiError if it is no answer."""
    try:
        times = [float(frame["time_seconds"]) for frame in answer["frames"]]
        str(answer["question"])
    except (KeyError, TypeError, ValueError) as error:
        raise ApiError(400, f"answers: not an answer of POST /api/ask: {shorten(error)}") from None
    return times

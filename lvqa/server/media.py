"""Frames and clips of videos as files that browsers show."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request
from starlette.responses import FileResponse, Response

from lvqa.image import picture_bytes
from lvqa.records import Video, shorten
from lvqa.report.answers import thumbnails
from lvqa.server.cutter import MAX_HEIGHT
from lvqa.server.errors import ApiError
from lvqa.server.schemas import MAX_FRAMES
from lvqa.server.state import ServerState, state_of
from lvqa.video import clip_bytes

THUMBNAIL_HEIGHT = 180
THUMBNAIL_AT = 0.1
"""The thumbnail shows the video at this part of its length: many begin with black frames."""
KEPT_SECONDS = "private, max-age=3600"
"""What a browser may keep: the id of a video is that of its content, so nothing can change."""

router = APIRouter(prefix="/api/videos/{video_id}", tags=["media"])


@router.get("/media", response_class=FileResponse)
async def media(request: Request, video_id: str) -> FileResponse:
    """Return the video's own file; ranges of bytes can be asked for, as players do."""
    video = await state_of(request).in_files(lambda registry: registry.get(video_id))
    headers = {"cache-control": "private, no-cache", "content-disposition": "inline"}
    return FileResponse(video.path, media_type=MEDIA_TYPES.get(video.path.suffix.lower()), headers=headers)


@router.get("/thumbnail", response_class=Response)
async def thumbnail(
    request: Request, video_id: str, height: Annotated[int, Query(ge=16, le=MAX_HEIGHT)] = THUMBNAIL_HEIGHT
) -> Response:
    """Return a small picture of the video as JPEG."""
    return await _frame(state_of(request), video_id, None, height, "jpg")


@router.get("/frame", response_class=Response)
async def frame(
    request: Request,
    video_id: str,
    time: Annotated[float, Query(ge=0, le=1e9, description="Seconds from the first frame.")],
    height: Annotated[int, Query(ge=16, le=MAX_HEIGHT)] = 480,
    form: Annotated[Literal["jpg", "png"], Query()] = "jpg",
) -> Response:
    """Return the frame that is on screen at a time, as it is shown."""
    return await _frame(state_of(request), video_id, time, height, form)


@router.get("/frames.zip", response_class=Response)
async def frames(
    request: Request,
    video_id: str,
    times: Annotated[str, Query(max_length=16384, description="Seconds from the first frame: 12.5,31,40.")],
) -> Response:
    """Return frames as PNG pictures in one ZIP file, each named by its time."""
    state = state_of(request)
    video = await state.in_files(lambda registry: registry.get(video_id))
    try:
        seconds = sorted({float(time) for time in times.split(",")})
    except ValueError:
        raise ApiError(400, f"times: numbers with commas between them, got {shorten(times)}") from None
    check_times(video, seconds, "times")
    content = await state.media.work(lambda: _archive(video, seconds))
    return Response(content, media_type="application/zip", headers={"cache-control": KEPT_SECONDS})


def check_times(video: Video, seconds: Sequence[float], field: str) -> None:
    """Raise ApiError, which names the field, unless these are times of a video, and not too many."""
    if len(seconds) > MAX_FRAMES or not all(0 <= time < video.duration_seconds for time in seconds):
        raise ApiError(400, f"{field}: up to {MAX_FRAMES} times, from 0 to before {video.duration_seconds:g} s")


def file_name(name: str) -> str:
    """Return a name of a file as a header may have it."""
    return name.encode("ascii", "replace").decode().replace('"', "_")


def _archive(video: Video, seconds: list[float]) -> bytes:
    """Return frames as PNG pictures in a ZIP file."""
    file = io.BytesIO()
    pixels = thumbnails(video, seconds, max_height=MAX_HEIGHT)
    with zipfile.ZipFile(file, "w") as archive:  # as they are: PNG is compressed
        for time, picture in zip(seconds, pixels, strict=True):
            archive.writestr(f"{video.path.stem}-{time:09.3f}.png", picture_bytes(picture, "png"))
    return file.getvalue()


@router.get("/clip", response_class=Response)
async def clip(
    request: Request,
    video_id: str,
    start: Annotated[float, Query(ge=0, le=1e9, description="Seconds from the first frame.")],
    end: Annotated[float, Query(ge=0, le=1e9, description="Seconds from the first frame.")],
    height: Annotated[int, Query(ge=16, le=MAX_HEIGHT)] = 480,
) -> Response:
    """Return the video from one time to another as MP4: H.264, and AAC if it has sound."""
    state = state_of(request)
    video = await state.in_files(lambda registry: registry.get(video_id))
    content = await state.media.cut(
        (video.id, start, end, height), lambda: clip_bytes(video, start, end, max_height=height)
    )
    name = file_name(f"{video.path.stem}-{start:g}-{end:g}.mp4")
    headers = {"cache-control": KEPT_SECONDS, "content-disposition": f'inline; filename="{name}"'}
    return Response(content, media_type="video/mp4", headers=headers)


async def _frame(state: ServerState, video_id: str, seconds: float | None, height: int, suffix: str) -> Response:
    video = await state.in_files(lambda registry: registry.get(video_id))
    time = THUMBNAIL_AT * video.duration_seconds if seconds is None else seconds
    content = await state.media.cut_frame(video, time, height, suffix)
    media_type = "image/png" if suffix == "png" else "image/jpeg"
    return Response(content, media_type=media_type, headers={"cache-control": KEPT_SECONDS})


MEDIA_TYPES = {".mp4": "video/mp4", ".m4v": "video/mp4", ".mov": "video/quicktime", ".webm": "video/webm"}
MEDIA_TYPES |= {".mkv": "video/x-matroska", ".ogv": "video/ogg", ".ts": "video/mp2t", ".avi": "video/x-msvideo"}
"""Suffix -> the type that browsers want; any other file is sent as what it is called."""

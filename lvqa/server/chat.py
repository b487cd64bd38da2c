"""OpenAI's form: `/v1/chat/completions`, `/v1/models`, `/v1/files`."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any

from fastapi import APIRouter, Form, Request, UploadFile
from fastapi.sse import EventSourceResponse, format_sse_event
from starlette.responses import JSONResponse, Response

from lvqa.records import Video, shorten
from lvqa.server.api import add_upload, find_video
from lvqa.server.asking import ask_work
from lvqa.server.attachments import UploadedFile, decode_data_url, upload_name
from lvqa.server.chat_schemas import ChatRequest, Part
from lvqa.server.conversation import address_of, read_conversation, reply_text, video_parts
from lvqa.server.direct_chat import direct_work
from lvqa.server.errors import ApiError, error_json
from lvqa.server.jobs import Job
from lvqa.server.remote import fetch
from lvqa.server.state import ServerState, state_of
from lvqa.server.streams import KEEP_ALIVE, result_of

router = APIRouter(prefix="/v1", tags=["OpenAI's form"])

PIPELINE = "lvqa"
"""The name of the model that finds its own evidence."""
FILE_PREFIX = "file-"
CHUNK_BYTES = 1 << 20


@router.get("/models")
async def list_models(request: Request) -> dict[str, Any]:
    """Return the models: the pipeline, and then its model under its own name, which sees exactly what is sent."""
    names = (PIPELINE, state_of(request).model.name)
    models = [{"id": name, "object": "model", "created": 0, "owned_by": "lvqa"} for name in names]
    return {"object": "list", "data": models}


@router.post("/chat/completions", response_model=None)
async def chat_completions(request: Request, body: ChatRequest) -> Response:
    """Answer the last message of a conversation about a video.

    The video is the last one in the messages, or `lvqa.video`, or the only one that is served; without any the best of
    the library. Evidence, times and scores are in the field `lvqa`, and in the text as links.
    """
    state = state_of(request)
    completion = _Completion(body, str(request.base_url).rstrip("/"))
    if body.model == state.model.name:
        videos = {id(part): await video_of(state, part) for part in video_parts(body)}
        job = state.submit("chat", direct_work(body, videos, state.registry.folders), video_id=None)
        return await completion.respond(request, job)
    if body.model != PIPELINE:
        raise ApiError(404, f"model {shorten(body.model)} is not served here; GET /v1/models lists all")
    conversation = read_conversation(body, state.registry.folders)
    question = conversation.request
    if conversation.video is not None:
        video: Video | None = await video_of(state, conversation.video)
    elif question.video is not None or question.library:
        video = await find_video(state, question)
    else:
        video = await state.in_files(lambda registry: registry.only())
    job = state.submit("ask", ask_work(question, video), video_id=None if video is None else video.id)
    return await completion.respond(request, job)


class _Completion:
    """What a reply looks like in OpenAI's form."""

    def __init__(self, request: ChatRequest, base_url: str) -> None:
        self._request, self._base_url = request, base_url
        self._id, self._created = f"chatcmpl-{secrets.token_hex(12)}", int(time.time())

    async def respond(self, request: Request, job: Job) -> Response:
        """Return the reply that a job makes, whole or as it comes."""
        if self._request.stream:
            return EventSourceResponse(self.chunks(job))
        return JSONResponse(self.whole(await result_of(request, job)))

    def whole(self, answer: dict[str, Any]) -> dict[str, Any]:
        """Return the whole reply as one object."""
        if "choice" in answer:
            return {**self._head("chat.completion"), "choices": [answer["choice"]], "usage": answer["usage"]}
        message = {"role": "assistant", "content": self._text(answer), "refusal": None}
        choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
        return {**self._head("chat.completion"), "choices": [choice], "lvqa": answer}

    async def chunks(self, job: Job) -> AsyncIterator[bytes]:
        """Yield the reply as it comes: what is being done, then the text, then the evidence."""
        try:
            yield self._chunk({"role": "assistant", "content": ""})
            async for event in job.follow():
                if event is None:
                    yield KEEP_ALIVE
                elif event["event"] == "answer":
                    answer = {key: value for key, value in event.items() if key != "event"}
                    yield self._chunk({"content": self._text(answer)})
                    yield self._chunk({}, finish_reason="stop", lvqa=answer)
                elif event["event"] == "reply":
                    for chunk in self._direct_chunks(event):
                        yield chunk
                elif event["event"] == "error":
                    yield format_sse_event(data_str=json.dumps({"error": event["error"]}))
                elif event["event"] == "stopped":
                    yield format_sse_event(data_str=json.dumps(error_json(499, "the request was stopped")))
                elif not job.is_over:
                    yield self._chunk({}, lvqa=event)
            yield format_sse_event(data_str="[DONE]")
        finally:
            if not job.is_over:
                job.stop()

    def _direct_chunks(self, reply: dict[str, Any]) -> Iterator[bytes]:
        choice = reply["choice"]
        yield self._chunk({"content": choice["message"]["content"]}, logprobs=choice["logprobs"])
        yield self._chunk({}, finish_reason=choice["finish_reason"])
        options = self._request.stream_options
        if options is not None and options.include_usage:
            content = {**self._head("chat.completion.chunk"), "choices": [], "usage": reply["usage"]}
            yield format_sse_event(data_str=json.dumps(content))

    def _chunk(
        self, delta: dict[str, Any], *, finish_reason: str | None = None, logprobs: object = None, **more: Any
    ) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish_reason, "logprobs": logprobs}
        return format_sse_event(
            data_str=json.dumps({**self._head("chat.completion.chunk"), "choices": [choice], **more})
        )

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self._id, "object": kind, "created": self._created, "model": self._request.model}

    def _text(self, answer: dict[str, Any]) -> str:
        is_text = self._request.answer_schema is None  # nothing stands beside an object
        return reply_text(answer, self._base_url, links=is_text and self._request.lvqa.links)


async def video_of(state: ServerState, part: Part) -> Video:
    """Return the video of a part: of the library, of the folders, sent along, or fetched."""
    if part.file is not None and part.file.file_id is not None:
        file_id = part.file.file_id.removeprefix(FILE_PREFIX)
        return await state.in_files(lambda registry: registry.get(file_id))
    address = part.file.file_data or "" if part.file is not None else address_of(part)
    if address.startswith("data:"):
        content, suffix = decode_data_url(address, "video")
        name = upload_name(part.file.filename if part.file is not None and part.file.filename else f"video{suffix}")
        return await _keep(state, name, _chunks_of(content))
    if address.startswith(("http://", "https://")):
        known = [word for word in address.partition("?")[0].split("/") if state.registry.knows(word)]
        if not known:
            path = await fetch(address, state.settings)
            return await _get(state, await add_upload(state, path))
        address = known[-1]
    return await state.in_files(lambda registry: registry.find(address))


async def _keep(state: ServerState, name: str, chunks: AsyncIterator[bytes]) -> Video:
    file = UploadedFile(state.settings.uploads, name, max_bytes=state.settings.max_upload_bytes)
    return await _get(state, await add_upload(state, await file.write(chunks)))


async def _get(state: ServerState, known: dict[str, Any]) -> Video:
    return await state.in_files(lambda registry: registry.get(str(known["id"])))


async def _chunks_of(content: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(content), CHUNK_BYTES):
        yield content[start : start + CHUNK_BYTES]


# --- files ----------------------------------------------------------------------------------------------------------


@router.post("/files")
async def create_file(
    request: Request, file: UploadFile, purpose: Annotated[str, Form()] = "user_data"
) -> dict[str, Any]:
    """Upload a video; its id can stand in a message, as `{"type": "file", "file": {"file_id": ...}}`."""

    async def chunks() -> AsyncIterator[bytes]:
        while chunk := await file.read(CHUNK_BYTES):
            yield chunk

    video = await _keep(state_of(request), upload_name(file.filename or ""), chunks())
    return _file_json(video, purpose)


@router.get("/files/{file_id}")
async def get_file(request: Request, file_id: str) -> dict[str, Any]:
    """Return what is known of a file."""
    video_id = file_id.removeprefix(FILE_PREFIX)
    return _file_json(await state_of(request).in_files(lambda registry: registry.get(video_id)), "user_data")


@router.delete("/files/{file_id}")
async def delete_file(request: Request, file_id: str) -> dict[str, Any]:
    """Delete a file that was uploaded, and all that is kept of it."""
    video_id = file_id.removeprefix(FILE_PREFIX)
    await state_of(request).in_files(lambda registry: registry.remove(video_id))
    return {"id": file_id, "object": "file", "deleted": True}


def _file_json(video: Video, purpose: str) -> dict[str, Any]:
    status = video.path.stat()
    return {
        "id": FILE_PREFIX + video.id,
        "object": "file",
        "bytes": status.st_size,
        "created_at": int(status.st_mtime),
        "filename": video.path.name,
        "purpose": purpose,
        "status": "processed",
    }

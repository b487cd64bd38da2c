"""What MCP clients find here: tools that list, index and search videos, answer questions about them, and show frames.

Over HTTP they are part of the application, at /mcp; over stdin and stdout they are a process of their own.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Annotated, Any

from fastapi import FastAPI
from mcp.server.mcpserver import Context, Image, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.transport_security import TransportSecuritySettings
from pydantic import Field

import lvqa
from lvqa.records import LETTERS, Video, clock_time
from lvqa.server.api import find_video
from lvqa.server.asking import ask_work, index_work, search_work
from lvqa.server.cutter import MAX_HEIGHT, MediaCutter
from lvqa.server.errors import ApiError, describe
from lvqa.server.jobs import Event
from lvqa.server.model import Work
from lvqa.server.schemas import MAX_CHARACTERS, MAX_FRAMES, AskRequest, Query, SearchRequest
from lvqa.server.settings import ServerSettings
from lvqa.server.state import Load, ServerState

MAX_PICTURES = 16
"""So many frames are shown at once."""
MAX_EVIDENCE = 8
"""So many of the best clips come with an answer: a model reads them all."""
LEFT_OUT = ("record", "clips", "settings", "versions", "counts", "seconds", "index", "history", "image", "voice")
"""What the JSON of an answer or of a search has, and a model does not need."""

INSTRUCTIONS = (
    "Questions about hours of video. Times are seconds from the first frame. A video is known by its id or its path; "
    "list_videos lists all. ask answers from the frames that it chooses and names the evidence; evidence_frames shows "
    "frames at any times. A video is indexed when it is first asked about, which takes minutes for hours of video."
)

Ready = Callable[[], Awaitable[ServerState]]
"""Returns the state when the model is loaded."""

Reference = Annotated[str, Field(min_length=1, max_length=4096, description="The video: its id, or its path.")]
OneOrAll = Annotated[
    str | None,
    Field(max_length=4096, description="The video: its id, or its path; without one, the best of all indexed videos."),
]


class VideoTools:
    """The tools. They do what the API does, with the same limits."""

    def __init__(self, ready: Ready) -> None:
        """Make the tools of a server, which may still be loading."""
        self._ready = ready

    async def list_videos(self) -> dict[str, Any]:
        """List the videos that can be asked about: id, path, length, size, and whether they are indexed."""
        with _tool_errors():
            state = await self._ready()
            spec = state.model.spec
            return {"videos": await state.in_files(lambda registry: registry.list(spec))}

    async def index_video(
        self,
        ctx: Context,
        video: Reference,
        rebuild: Annotated[bool, Field(description="Index it even if it is indexed.")] = False,
    ) -> dict[str, Any]:
        """Index a video, so that questions about it are answered quickly. Progress is reported."""
        with _tool_errors():
            state, target = await self._target(Query(video=video))
            assert target is not None
            return await _do(ctx, state, "index", index_work(target, rebuild=rebuild), target)

    async def search(
        self,
        ctx: Context,
        query: Annotated[str, Field(min_length=1, max_length=MAX_CHARACTERS, description="What is to be seen.")],
        video: OneOrAll = None,
        top: Annotated[int, Field(ge=1, le=50, description="How many clips to return, best first.")] = 5,
    ) -> dict[str, Any]:
        """Find the moments of a video, or of all indexed videos, that match a description best."""
        with _tool_errors():
            request = SearchRequest(query=query, video=video, library=video is None, top=top)
            state, target = await self._target(request)
            return await _do(ctx, state, "search", search_work(request, target), target)

    async def ask(
        self,
        ctx: Context,
        question: Annotated[str, Field(min_length=1, max_length=MAX_CHARACTERS, description="The question.")],
        video: OneOrAll = None,
        options: Annotated[
            list[str] | None, Field(max_length=len(LETTERS), description="2 to 20 possible answers, or none.")
        ] = None,
        frames: Annotated[
            int | None, Field(ge=1, le=MAX_FRAMES, description="How many frames the model may see; 16 by default.")
        ] = None,
        schema: Annotated[
            dict[str, Any] | None, Field(description="A JSON schema that the answer fits, which is then an object.")
        ] = None,
    ) -> dict[str, Any]:
        """Answer a question about a video, with the times of the frames that the model saw and of the best evidence."""
        with _tool_errors():
            target_and_form: dict[str, Any] = {"video": video, "library": video is None, "schema": schema}
            request = AskRequest(question=question, options=options or [], frames=frames, **target_and_form)
            state, target = await self._target(request)
            result = await _do(ctx, state, "ask", ask_work(request, target), target)
            return {**result, "evidence": result["evidence"][:MAX_EVIDENCE]}

    async def evidence_frames(
        self,
        video: Reference,
        times_seconds: Annotated[
            list[float], Field(min_length=1, max_length=MAX_PICTURES, description="Times, as ask and search name them.")
        ],
        height: Annotated[int, Field(ge=64, le=MAX_HEIGHT, description="The height of a picture in pixels.")] = 360,
    ) -> list[str | Image]:
        """Show the frames of a video that are on screen at these times, as pictures."""
        with _tool_errors():
            state, target = await self._target(Query(video=video))
            assert target is not None
            pictures: list[str | Image] = []
            for seconds in times_seconds:
                content = await state.media.cut_frame(target, seconds, height, "jpg")
                pictures += [f"{seconds:g} s ({clock_time(seconds)})", Image(data=content, format="jpeg")]
            return pictures

    async def _target(self, query: Query) -> tuple[ServerState, Video | None]:
        state = await self._ready()
        return state, await find_video(state, query)


@contextmanager
def _tool_errors() -> Iterator[None]:
    """Tell the client in one line what went wrong; of a bug no more than that there is one."""
    try:
        yield
    except Exception as error:
        raise ToolError(describe(error)[1]) from None


async def _do(ctx: Context, state: ServerState, kind: str, work: Work, video: Video | None) -> dict[str, Any]:
    """Have the model do something, report how far it is, and return the result. Who cancels the call stops the work."""
    job = state.submit(kind, work, video_id=None if video is None else video.id)
    progress = _Progress()
    try:
        async for event in job.follow():
            if event is not None and (step := progress.step(event)) is not None:
                await ctx.report_progress(step, None, _describe_progress(event))
    finally:
        job.stop()
    if job.result is None:
        raise ApiError(*(job.error or (409, "stopped: the server ends, or the video was removed")))
    return {key: value for key, value in job.result.items() if key not in LEFT_OUT}


class _Progress:
    """Counts stages, and parts of them: what MCP calls progress must rise, and a call has several stages."""

    def __init__(self) -> None:
        self._stage, self._num_stages, self._last = "", 0, 0.0

    def step(self, event: Event) -> float | None:
        """Return how far the work is after an event; None if it is no further."""
        if event["event"] not in ("waiting", "running", "indexing", "ranking", "answer"):
            return None
        if event["event"] != self._stage:
            self._stage, self._num_stages = event["event"], self._num_stages + 1
        step = self._num_stages + (event["done"] / (event["total"] + 1) if event.get("total") else 0.0)
        if step <= self._last:
            return None
        self._last = step
        return step


def _describe_progress(event: Event) -> str:
    return f"{event['event']} {event['done']} of {event['total']}" if "total" in event else str(event["event"])


def make_mcp(ready: Ready) -> MCPServer:
    """Return a server with all tools."""
    # The SDK sets up the root logger if nobody has; lvqa's own messages would then appear twice.
    logging.getLogger().addHandler(logging.NullHandler())
    server = MCPServer("lvqa", instructions=INSTRUCTIONS, version=lvqa.__version__, log_level="ERROR")
    tools = VideoTools(ready)
    for tool in (tools.list_videos, tools.index_video, tools.search, tools.ask):
        server.add_tool(tool)
    server.add_tool(tools.evidence_frames, structured_output=False)
    return server


@asynccontextmanager
async def mcp_over_http(app: FastAPI, state: ServerState) -> AsyncIterator[None]:
    """Answer MCP's streamable HTTP at /mcp inside the `with` block; the application's guard says who may call."""

    async def ready() -> ServerState:
        return state

    server = make_mcp(ready)
    unguarded = TransportSecuritySettings(enable_dns_rebinding_protection=False)
    routes = server.streamable_http_app(streamable_http_path="/mcp", transport_security=unguarded).routes
    app.router.routes.extend(routes)
    try:
        async with server.session_manager.run():
            yield
    finally:
        for route in routes:
            app.router.routes.remove(route)


def run_stdio(settings: ServerSettings, *, load: Load) -> None:
    """Answer MCP's messages on stdin with those on stdout, until stdin ends.

    The model is loaded meanwhile: a client that waited for it would take the server for dead. What can't be loaded is
    said by every tool.
    """
    asyncio.run(_serve_stdio(ServerState(settings, load, MediaCutter())))


async def _serve_stdio(state: ServerState) -> None:
    starting = asyncio.create_task(state.start())

    async def ready() -> ServerState:
        await asyncio.shield(starting)
        return state

    try:
        await make_mcp(ready).run_stdio_async()
    finally:
        starting.cancel()
        state.close()

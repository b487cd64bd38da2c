"""The application: its parts put together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

import lvqa
from lvqa.pipeline import LongVideoQA
from lvqa.server import api, chat, media, pages, retrieval, runs
from lvqa.server.cutter import MediaCutter
from lvqa.server.errors import add_handlers
from lvqa.server.guard import Guard
from lvqa.server.mcp import mcp_over_http
from lvqa.server.runs import Runs
from lvqa.server.settings import ServerSettings
from lvqa.server.state import Load, ServerState

if TYPE_CHECKING:
    from lvqa.server.replicas import Replicas

DESCRIPTION = """Questions about hours of video, answered by one model from the frames that it chose itself.

Errors are JSON: `{"error": {"message": ..., "type": ..., "code": ...}}`. Times are seconds from the first frame."""


def make_app(settings: ServerSettings, *, load: Load | None = None, replicas: Replicas | None = None) -> FastAPI:
    """Return the ASGI application of a server. The model is loaded as the application starts.

    Args:
        settings: What it serves, and to whom.
        load: Loads the model, in place of the one that the settings name.
        replicas: Processes that hold the model in place of this one.
    """

    def load_pipeline() -> LongVideoQA:
        return LongVideoQA.load(config=settings.config)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        state = ServerState(settings, load or load_pipeline, MediaCutter(), replicas=replicas)
        app.state.server, app.state.runs = state, Runs(settings.runs)
        try:
            await state.start()
            if not settings.has_model:
                await asyncio.to_thread(app.state.runs.read_ahead)
            async with mcp_over_http(app, state):
                yield
        finally:
            state.close()

    app = FastAPI(
        title="lvqa",
        version=lvqa.__version__,
        description=DESCRIPTION,
        lifespan=lifespan,
        openapi_url="/api/openapi.json",
        docs_url=None,  # their pages load scripts from elsewhere
        redoc_url=None,
    )
    for module in (api, chat, retrieval, media, runs):
        app.include_router(module.router)
    for router in (pages.api_router, pages.router):
        app.include_router(router)
    app.mount(pages.STATIC_PATH, pages.assets)
    add_handlers(app)
    app.add_middleware(Guard, settings=settings)
    if settings.origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(settings.origins),
            allow_methods=["*"],
            allow_headers=["authorization", "content-type"],
        )
    return app

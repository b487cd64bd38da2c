"""Run the application in this process until it is interrupted."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

import uvicorn

from lvqa.records import LvqaError
from lvqa.server.app import make_app
from lvqa.server.settings import ServerSettings
from lvqa.server.state import Load

if TYPE_CHECKING:
    from lvqa.server.replicas import Replicas

SHUTDOWN_SECONDS = 3
"""How long open connections may go on after an interrupt."""
MAX_CONNECTIONS = 512
"""More connections at a time are refused."""


class _Server(uvicorn.Server):
    """A server that says when it is ready."""

    def __init__(self, config: uvicorn.Config, on_ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and say so."""
        await super().startup(sockets)
        if self.started:
            self._on_ready()


def run_server(settings: ServerSettings, *, on_ready: Callable[[str], None]) -> None:
    """Serve until the process is interrupted.

    Args:
        settings: What is served, where, and to whom.
        on_ready: Called with the server's address when it answers.

    Raises:
        LvqaError: The address can't be listened at, or Ray has no room for the workers.
    """
    replicas = connect_replicas(settings)
    try:
        server, listener = make_server(settings, on_ready=on_ready, replicas=replicas)
        with listener:
            server.run(sockets=[listener])
    finally:
        if replicas is not None:
            replicas.close()


def connect_replicas(settings: ServerSettings) -> Replicas | None:
    """Return the processes on Ray that are to hold the model; None if this one does."""
    if not settings.workers:
        return None
    from lvqa.server.replicas import Replicas

    return Replicas(settings)


def make_server(
    settings: ServerSettings,
    *,
    on_ready: Callable[[str], None],
    load: Load | None = None,
    replicas: Replicas | None = None,
) -> tuple[uvicorn.Server, socket.socket]:
    """Return a server and the socket that it is to listen at; `load` and `replicas` are those of `make_app`."""
    listener = _listen(settings)
    host, port = listener.getsockname()[:2]
    shown_host = f"[{host}]" if ":" in host else host
    config = uvicorn.Config(
        make_app(settings, load=load, replicas=replicas),
        log_config=None,
        access_log=False,
        server_header=False,
        limit_concurrency=MAX_CONNECTIONS,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
        http="h11",
        ws="none",
        proxy_headers=False,
    )
    return _Server(config, lambda: on_ready(f"http://{shown_host}:{port}")), listener


def _listen(settings: ServerSettings) -> socket.socket:
    try:
        family, *_, address = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        where = f"{settings.host}:{settings.port}"
        raise LvqaError(f"cannot listen at {where}: {error.strerror or error}; --port takes another") from error
    return listener

"""What the tests of the server share: a server in a thread of this process, and plain HTTP without a client's help."""

from __future__ import annotations

import dataclasses
import http.client
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from pipelines import make_pipeline

from lvqa.config import load_config
from lvqa.models import Model
from lvqa.server.run import make_server
from lvqa.server.settings import ServerSettings


@contextmanager
def running_server(
    model: Model, store: Path, *paths: Path, overrides: tuple[str, ...] = (), **options
) -> Iterator[str]:
    """Run a server over a loaded model inside the `with` block; yields its address."""
    config = load_config(None, ("model.name=tiny", *overrides))
    config = dataclasses.replace(config, store=dataclasses.replace(config.store, folder=store))
    settings = ServerSettings(config=config, paths=paths, port=0, **options)
    ready, addresses = threading.Event(), []

    def on_ready(address: str) -> None:
        addresses.append(address)
        ready.set()

    server, listener = make_server(settings, on_ready=on_ready, load=lambda: make_pipeline(model, store, *overrides))
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    try:
        assert ready.wait(120), "the server is not ready"
        yield addresses[0]
    finally:
        server.should_exit = True
        thread.join(60)
        listener.close()
        assert not thread.is_alive()


def call(url: str, method: str, path: str, body: object = None, **headers: str) -> tuple[int, dict[str, str], bytes]:
    """Send a request as it is, and return status, headers and content; `host` replaces the real one."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=120)
    try:
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        if data is not None and not isinstance(body, bytes):
            names.setdefault("content-type", "application/json")
        connection.request(method, path, data, names)
        response = connection.getresponse()
        return response.status, {k.lower(): v for k, v in response.getheaders()}, response.read()
    finally:
        connection.close()


def call_json(url: str, method: str, path: str, body: object = None, **headers: str) -> tuple[int, dict]:
    """Send a request, and return status and JSON."""
    status, _, content = call(url, method, path, body, **headers)
    return status, json.loads(content or b"{}")


def events_of(content: bytes) -> list[dict]:
    """Return the server-sent events of a stream's content."""
    return [json.loads(line[6:]) for line in content.decode().splitlines() if line.startswith("data: {")]

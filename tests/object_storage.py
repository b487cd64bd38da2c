"""Places elsewhere for tests: a local S3 server from a package, and a web server that behaves and misbehaves."""

from __future__ import annotations

import contextlib
import shutil
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from lvqa.places import as_path

BUCKET = "videos"
ETAG = '"1"'
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "of-the-tests",
    "AWS_SECRET_ACCESS_KEY": "of-the-tests",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_REGION": "us-east-1",
    "NO_PROXY": "*",
}


@contextlib.contextmanager
def s3_server() -> Iterator[str]:
    """Run an S3 server with one empty bucket, and yield its address."""
    server_module = pytest.importorskip("moto.server", reason="needs moto, as in constraints.txt")
    from pyarrow.fs import S3FileSystem

    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        address = f"http://{host}:{port}"
        keys = {"access_key": "of-the-tests", "secret_key": "of-the-tests", "region": "us-east-1"}
        S3FileSystem(endpoint_override=address, allow_bucket_creation=True, **keys).create_dir(BUCKET)
        yield address
    finally:
        server.stop()


def use_place(monkeypatch: pytest.MonkeyPatch, home: Path, address: str = "") -> None:
    """Have this process, and those that it starts, ask this S3 server, with a home folder of their own."""
    for name, value in {**CREDENTIALS, "LVQA_HOME": str(home), "XDG_CACHE_HOME": str(home / "cache")}.items():
        monkeypatch.setenv(name, value)
    if address:
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)


def put(url: str, content: bytes | Path) -> Path:
    """Write an object; return its location."""
    path = as_path(url)
    path.write_bytes(content.read_bytes() if isinstance(content, Path) else content)
    return path


def copies(home: Path) -> list[Path]:
    """Return the local copies under a home folder, whole or not."""
    folder = home / "copies"
    return sorted(path for path in folder.iterdir() if path.is_file()) if folder.exists() else []


def forget_copies(home: Path) -> None:
    """Remove all local copies."""
    shutil.rmtree(home / "copies", ignore_errors=True)


class WebServer:
    """Serves one file under any path; words in the path say what goes wrong."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.requests: Counter[str] = Counter()
        """Method and path -> how many requests there were."""
        self.pause_seconds = 0.0
        """How long it rests in the middle of a file."""
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                outer.answer(self)

            def do_GET(self) -> None:
                outer.answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        """Answer a request."""
        path = request.path
        self.requests[f"{request.command} {path}"] += 1
        if "silent" in path:
            time.sleep(30)
        for status in (403, 404, 500):
            if str(status) in path:
                request.send_error(status)
                return
        request.send_response(200)
        request.send_header("Content-Type", "text/html" if "page" in path else "video/mp4")
        request.send_header("ETag", ETAG)
        request.send_header("Content-Length", str(len(self.content)))
        request.end_headers()
        if request.command == "GET":
            half = len(self.content) // 2
            with contextlib.suppress(OSError):
                request.wfile.write(self.content[:half])
                time.sleep(self.pause_seconds)
                is_cut = "cut" in path or ("once" in path and self.requests[f"GET {path}"] == 1)
                request.wfile.write(b"" if is_cut else self.content[half:])

    def close(self) -> None:
        """Stop."""
        self._server.shutdown()
        self._server.server_close()

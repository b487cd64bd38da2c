"""Ask a running `lvqa serve` as if its model were here: `LongVideoQA.connect(URL)`. It loads no model."""

from __future__ import annotations

import base64
import dataclasses
import http.client
import json
import mimetypes
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit

from lvqa.places import RemotePath, as_path
from lvqa.records import Answer, Candidate, IndexUse, LvqaError, Question, SearchResult, Video, shorten
from lvqa.schema import schema_text
from lvqa.validation import convert, option_texts, parse_json

T = TypeVar("T")
Progress = Callable[[str, int, int], None]

STAGES = {"indexing": "index", "ranking": "rerank"}
"""Event of the server -> the stage of work, as `LongVideoQA` calls it."""
SECONDS_OF_SILENCE = 60.0
"""The server says something at least every ten seconds."""
PORTS = {"http": 80, "https": 443}


class RemoteVideoQA:
    """Asks a server. A video is named by its id there, or by its path if the server can read it, too.

    Args of the methods are those of `LongVideoQA`.
    """

    def __init__(self, url: str, *, token: str | None = None, progress: Progress | None = None) -> None:
        """Name the server; nothing is sent yet.

        Args:
            url: Its address, "http://127.0.0.1:8765".
            token: What it was started with; by default LVQA_TOKEN of the environment.
            progress: Called as work goes on, as for `LongVideoQA`.

        Raises:
            LvqaError: The address is none.
        """
        parts = urlsplit(url)
        if parts.scheme not in PORTS or not parts.hostname:
            raise LvqaError(f"the address of a server is http://HOST:PORT or https://HOST:PORT, got {shorten(url)}")
        self.url, self._parts = url.rstrip("/"), parts
        self._token = token or os.environ.get("LVQA_TOKEN")
        self._progress = progress or (lambda *_: None)

    # --- as LongVideoQA ---------------------------------------------------------------------------------------------

    def ask(
        self,
        path: str | Path,
        question: str,
        *,
        options: Sequence[str] = (),
        image: str | Path | None = None,
        voice: str | Path | None = None,
        schema: Mapping[str, Any] | str | Path | None = None,
        frames: int | None = None,
        method: str | None = None,
    ) -> Answer:
        """Answer a question about a video, with the evidence."""
        query = Question(
            question,
            option_texts(options),
            image=_path(image),
            voice=_path(voice),
            schema=None if schema is None else schema_text(schema),
        )
        return self.answer(path, query, frames=frames, method=method)

    def answer(
        self, path: str | Path | Video, question: Question, *, frames: int | None = None, method: str | None = None
    ) -> Answer:
        """Answer one question."""
        return self.record_of(self.ask_json(path, question, frames=frames, method=method), Answer)

    def answers(
        self,
        path: str | Path | Video,
        questions: Sequence[Question],
        *,
        frames: int | None = None,
        method: str | None = None,
    ) -> list[Answer]:
        """Answer questions about a video, one after the other."""
        return [self.answer(path, question, frames=frames, method=method) for question in questions]

    def search(
        self, path: str | Path | Video, query: str | Question = "", *, image: str | Path | None = None, top: int = 5
    ) -> list[Candidate]:
        """Find the clips of a video that match a query best."""
        question = query if isinstance(query, Question) else Question(query, image=_path(image))
        return list(self.search_video(path, question, top=top).candidates)

    def search_video(self, path: str | Path | Video, question: Question, *, top: int = 5) -> SearchResult:
        """Search, and return what a reader must know of the result, too."""
        return self.record_of(self.search_json(path, question, top=top), SearchResult)

    def index(self, path: str | Path, *, rebuild: bool = False) -> IndexUse:
        """Build the video's index, or find it in the server's store."""
        return self.record_of(self.index_json(path, rebuild=rebuild), IndexUse)

    # --- as JSON ----------------------------------------------------------------------------------------------------

    def ask_json(
        self,
        path: str | Path | Video | None,
        question: Question,
        *,
        frames: int | None = None,
        method: str | None = None,
        condition: Any = None,
    ) -> dict[str, Any]:
        """Return an answer as JSON, with the keys of `lvqa ask --json`; without a path, of the library."""
        body = {
            **_where(path),
            "question": question.text,
            "options": list(question.options),
            "history": [{"question": text, "answer": reply} for text, reply in question.history],
            "image": _data_url(question.image),
            "voice": _data_url(question.voice),
            "schema": None if question.schema is None else json.loads(question.schema),
            "frames": frames,
            "method": method,
            **_library_options(path, condition=condition),
        }
        return self._work("/api/ask", body, "answer")

    def search_json(
        self, path: str | Path | Video | None, question: Question, *, top: int = 5, rerank: bool = True, **library: Any
    ) -> dict[str, Any]:
        """Return what a search finds, with the keys of `lvqa search --json`; without a path, in the library.

        Args:
            path: The video.
            question: What is searched for.
            top: How many clips to return.
            rerank: Whether the best by embedding are reranked.
            library: For the library, `condition`, `moments`, `exact`, `light` as `library.search_library` takes them.
        """
        query = {"query": question.text, "image": _data_url(question.image), "top": top, "rerank": rerank}
        return self._work("/api/search", {**_where(path), **query, **_library_options(path, **library)}, "results")

    def index_json(self, path: str | Path, *, rebuild: bool = False) -> dict[str, Any]:
        """Have a video indexed, wait for it, and return the result as JSON."""
        reference = str(_where(path)["video"])
        if reference.startswith("/"):
            reference = str(self.request("POST", "/api/videos", {"path": reference})["id"])
        job = self.request("POST", f"/api/videos/{quote(reference, safe='')}/index", {"rebuild": rebuild})
        return self._follow("GET", f"/api/jobs/{job['job']}/events", None, "indexed")

    def upload(self, path: str | Path) -> dict[str, Any]:
        """Send a video's file to the server, and return what it knows of it: its id, above all."""
        file = Path(path)
        try:
            with file.open("rb") as content:
                return self.request("PUT", f"/api/uploads/{quote(file.name, safe='')}", content)
        except OSError as error:
            raise LvqaError(f"cannot read {file}: {error.strerror or error}") from error

    def record_of(self, content: dict[str, Any], kind: type[T]) -> T:
        """Return the record that the server has sent with a result."""
        return convert(content["record"], kind, origin=self.url)

    # --- over the net -----------------------------------------------------------------------------------------------

    def request(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        """Send a request, and return the JSON of its answer.

        Raises:
            LvqaError: Nobody answers, or the server refuses.
        """
        with closing(self._connection()) as connection:
            response = self._send(connection, method, path, body)
            content = self._content_of(response)
        return content

    def _work(self, path: str, body: dict[str, Any], result: str) -> dict[str, Any]:
        return self._follow("POST", path, {**body, "stream": True, "record": True}, result)

    def _follow(self, method: str, path: str, body: dict[str, Any] | None, result: str) -> dict[str, Any]:
        """Send a request, pass on how far the work is, and return the event of this name."""
        with closing(self._connection()) as connection:
            response = self._send(connection, method, path, body)
            if response.status != 200:
                self._content_of(response)
            for event in self._events(response):
                name = event.pop("event")
                if name == result:
                    return event
                if name == "error":
                    raise LvqaError(str(event["error"]["message"]))
                if name == "stopped":
                    raise LvqaError(f"the server {self.url} was told to stop this work")
                if name in STAGES:
                    self._progress(STAGES[name], event["done"], event["total"])
        raise LvqaError(f"the server {self.url} ended before it answered")

    def _events(self, response: http.client.HTTPResponse) -> Iterator[dict[str, Any]]:
        try:
            for line in response:
                if line.startswith(b"data: "):
                    event = parse_json(line[len(b"data: ") :], origin=self.url)
                    if isinstance(event, dict) and "event" in event:
                        yield event
        except (OSError, http.client.HTTPException) as error:
            raise LvqaError(f"the server {self.url} is gone: {error or type(error).__name__}") from error

    def _connection(self) -> http.client.HTTPConnection:
        kind = http.client.HTTPSConnection if self._parts.scheme == "https" else http.client.HTTPConnection
        port = self._parts.port or PORTS[self._parts.scheme]
        return kind(self._parts.hostname or "", port, timeout=SECONDS_OF_SILENCE)

    def _send(
        self, connection: http.client.HTTPConnection, method: str, path: str, body: Any
    ) -> http.client.HTTPResponse:
        headers = {} if self._token is None else {"Authorization": f"Bearer {self._token}"}
        content = body if body is None or hasattr(body, "read") else json.dumps(body).encode()
        if isinstance(content, bytes):
            headers["Content-Type"] = "application/json"
        elif content is not None:
            headers["Content-Length"] = str(os.fstat(content.fileno()).st_size)
        try:
            connection.request(method, self._parts.path.rstrip("/") + path, content, headers)
            return connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            advice = "`lvqa serve` starts one"
            raise LvqaError(f"no server answers at {self.url} ({error or type(error).__name__}); {advice}") from error

    def _content_of(self, response: http.client.HTTPResponse) -> dict[str, Any]:
        """Return the JSON of an answer; LvqaError with the server's own line if it is a refusal."""
        content = parse_json(response.read() or b"{}", origin=self.url)
        if not isinstance(content, dict):
            raise LvqaError(f"{self.url} is no lvqa serve: it answers with {shorten(content)}")
        if response.status >= 400:
            error = content.get("error")
            message = error.get("message") if isinstance(error, dict) else None
            raise LvqaError(str(message or f"{self.url} answers with status {response.status}"))
        return content


def connect(url: str, *, token: str | None = None, progress: Progress | None = None) -> RemoteVideoQA:
    """Return what asks a running `lvqa serve` with the methods of `LongVideoQA`; the arguments are RemoteVideoQA's."""
    server = RemoteVideoQA(url, token=token, progress=progress)
    server.request("GET", "/api/status")
    return server


def _path(path: str | Path | None) -> Path | None:
    return None if path is None else Path(path)


def _where(path: str | Path | Video | None) -> dict[str, object]:
    """Return how a request names its video: by the absolute path of a file that is here, else as it is given."""
    if path is None:
        return {"library": True}
    if isinstance(path, Video):
        return {"video": str(path.path)}
    file = as_path(path).expanduser()
    if isinstance(file, RemotePath):
        return {"video": str(file)}
    return {"video": str(file.absolute() if file.exists() or isinstance(path, Path) else path)}


def _library_options(path: object, *, condition: Any = None, **others: Any) -> dict[str, Any]:
    """Return what is sent for the library alone; a condition is a dataclass, `library.LibraryFilter`."""
    if path is not None:
        return {}
    conditions = {} if condition is None else dataclasses.asdict(condition)
    folder = conditions.get("folder")
    return {"condition": {**conditions, "folder": None if folder is None else str(folder)}, **others}


def _data_url(path: Path | None) -> str | None:
    """Return a file as a data: URL."""
    if path is None:
        return None
    kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    try:
        return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"
    except OSError as error:
        raise LvqaError(f"cannot read {path}: {error.strerror or error}") from error

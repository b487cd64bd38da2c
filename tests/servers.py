"""What the tests of the server share: a server in a thread of this process, and plain HTTP without a client's help."""

from __future__ import annotations

import dataclasses
import http.client
import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from pipelines import make_pipeline

from lvqa.client import RemoteVideoQA
from lvqa.config import load_config
from lvqa.models import Model
from lvqa.pipeline import LongVideoQA
from lvqa.records import Answer, Question
from lvqa.server.run import connect_replicas, make_server
from lvqa.server.settings import ServerSettings

NUM_QUESTIONS, NUM_CLIENTS = 24, 8


@contextmanager
def running_server(
    model: Model, store: Path, *paths: Path, overrides: tuple[str, ...] = (), **options
) -> Iterator[str]:
    """Run a server over a loaded model inside the `with` block, or over replicas that load it; yields its address."""
    config = load_config(None, ("model.name=tiny", *overrides))
    config = dataclasses.replace(config, store=dataclasses.replace(config.store, folder=store))
    settings = ServerSettings(config=config, paths=paths, port=0, **options)
    ready, addresses = threading.Event(), []

    def on_ready(address: str) -> None:
        addresses.append(address)
        ready.set()

    replicas = connect_replicas(settings)
    server, listener = make_server(
        settings, on_ready=on_ready, load=lambda: make_pipeline(model, store, *overrides), replicas=replicas
    )
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    try:
        assert ready.wait(120), "the server is not ready"
        yield addresses[0]
    finally:
        server.should_exit = True
        thread.join(60)
        listener.close()
        if replicas is not None:
            replicas.close()
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


def many_questions(folder: Path, video: Path, qa: LongVideoQA) -> tuple[Path, list[Question], list[Answer]]:
    """Put a video into a new folder. Returns it, questions about the video, and a pipeline's answers."""
    folder.mkdir()
    shutil.copy(video, folder / "a.mp4")
    colours = ["red", "blue", "green", "orange", "white"]
    texts = [f"{i}: What colour is the {colours[i % 5]} thing on scene {i}?" for i in range(NUM_QUESTIONS)]
    questions = [Question(text, tuple(colours) if i % 2 else ()) for i, text in enumerate(texts)]
    return folder, questions, [qa.answer(folder / "a.mp4", question) for question in questions]


def ask_from_clients(
    url: str, video: str, questions: list[Question], on_answer: Callable[[int], None] = lambda num_answers: None
) -> tuple[dict[int, Answer], list[float]]:
    """Ask all questions from eight clients at once. Returns the answer of each, and how long each has waited."""
    answers, seconds = {}, []

    def client(first: int) -> None:
        for i in range(first, len(questions), NUM_CLIENTS):
            started = time.perf_counter()
            answers[i] = RemoteVideoQA(url).answer(video, questions[i])
            seconds.append(time.perf_counter() - started)
            on_answer(len(answers))

    threads = [threading.Thread(target=client, args=(i,)) for i in range(NUM_CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers, seconds


def check_answers(answers: dict[int, Answer], expected: list[Answer]) -> None:
    """Check that no answer is missing, and that all are the pipeline's."""
    assert len(answers) == NUM_QUESTIONS
    for i, answer in answers.items():
        assert (answer.text, answer.option, answer.frames) == (expected[i].text, expected[i].option, expected[i].frames)
        assert answer.option_scores == pytest.approx(expected[i].option_scores, abs=1e-5)

"""Judges of open answers: texts compared, and a model behind a URL, which is a real server on this machine."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import video_files
from click.testing import CliRunner

from lvqa.cli.main import lvqa_command
from lvqa.evaluation import is_correct, is_unjudged, load_run_config
from lvqa.evaluation.folder import open_run, read_run
from lvqa.evaluation.judges import (
    JudgeUnavailableError,
    ask_judge,
    judge_rows,
    normalised,
    read_verdict,
    with_judge,
)
from lvqa.evaluation.rows import Row, blank_row
from lvqa.evaluation.run import evaluate
from lvqa.evaluation.settings import JudgeModel
from lvqa.records import SYNTHETIC_TAG, LvqaError, Question
from lvqa.report import write_report

Reply = tuple[int, dict[str, str], bytes]


def chat(text: str | None) -> Reply:
    """The reply of a chat completion."""
    return 200, {}, json.dumps({"choices": [{"message": {"role": "assistant", "content": text}}]}).encode()


class JudgeServer:
    """A server that speaks OpenAI's chat completions; `reply` gets the request and how many came before it."""

    def __init__(self, reply: Callable[[dict[str, Any], int], Reply]) -> None:
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.reply = reply
        lock, server = threading.Lock(), self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with lock:
                    num_before = len(server.requests)
                    server.requests.append(request)
                    server.headers.append(dict(self.headers))
                    server.paths.append(self.path)
                status, headers, body = server.reply(request, num_before)
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def serve() -> Iterator[Callable[..., JudgeServer]]:
    servers: list[JudgeServer] = []

    def start(reply: Callable[[dict[str, Any], int], Reply] | None = None) -> JudgeServer:
        servers.append(JudgeServer(reply or (lambda request, _: chat(agrees(request)))))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def agrees(request: dict[str, Any]) -> str:
    """A judge that wants the expected text as a part of the answer."""
    lines = dict(line.split(": ", 1) for line in request["messages"][1]["content"].splitlines() if ": " in line)
    return "Yes." if lines["Expected answer"] in lines["Answer"] else "no"


def open_row(text: str = "a red ball", expected: str = "ball", *, number: int = 0, **changes: Any) -> Row:
    question = Question("What is seen?", id=f"q{number}", video_id="garden", answer=expected)
    row = blank_row("garden", question, "uniform", 4)
    return {**row, "text": text, **changes}


def no_wait(_: float) -> None:
    pass


# --- texts -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("judge", "text", "expected", "verdict"),
    [
        ("exact", " a ball\n", "a ball", True),
        ("exact", "A ball", "a ball", False),
        ("normalised", "The  ball!", "a Ball.", True),
        ("normalised", "\uff22\uff21\uff2c\uff2c", "ball", True),
        ("normalised", "„Straße“", "STRASSE", True),
        ("normalised", "well-known", "well known", True),
        ("normalised", "an apple", "a pear", False),
        ("normalised", "", "ball", False),
        ("normalised", "theory", "ory", False),
    ],
)
def test_texts_are_compared(judge, text, expected, verdict):
    row = with_judge(open_row(text, expected), judge)
    assert (row["judge"], row["judged_correct"], is_correct(row)) == (judge, verdict, verdict)


def test_articles_are_left_out_as_words_alone():
    assert normalised("The theatre, an anthem, a band") == "theatre anthem band"


def test_a_question_with_options_has_no_judge():
    row = {**open_row(), "options": ["a", "b"], "target": "A", "prediction": "A"}
    assert with_judge(row, "exact") == row and is_correct(row)


def test_an_answer_that_failed_is_wrong_and_not_judged():
    row = with_judge(open_row(error="out of memory"), "exact")
    assert (row["judge"], row["judged_correct"]) == ("exact", None) and not is_unjudged(row) and not is_correct(row)


# --- a model ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "verdict"),
    [
        ("yes", True),
        ("Yes.", True),
        ("**No**", False),
        ("<think>yes? no...</think>\nNo.", False),
        ("The answer is correct: yes", True),
        ("yes and no", None),
        ("maybe", None),
        ("", None),
        ("nothing", None),
    ],
)
def test_a_reply_is_yes_or_no_or_nothing(reply, verdict):
    assert read_verdict(reply) is verdict


def test_a_model_sees_question_expectation_and_answer_and_gets_the_key(serve, monkeypatch):
    monkeypatch.setenv("OWN_KEY", "secret\n")
    server = serve()
    judge = JudgeModel(url=server.url, model="judge-7b", key_variable="OWN_KEY", request={"seed": 3})
    assert ask_judge(judge, open_row()).is_correct is True
    assert ask_judge(judge, open_row("a box")).is_correct is False
    assert server.paths[0] == "/v1/chat/completions" and server.headers[0]["Authorization"] == "Bearer secret"
    assert server.requests[0].keys() == {"model", "messages", "seed"} and server.requests[0]["model"] == "judge-7b"
    system, user = (message["content"] for message in server.requests[0]["messages"])
    assert "yes or no" in system
    assert all(part in user for part in ("What is seen?", "Expected answer: ball", "Answer: a red ball"))


def test_no_key_is_sent_if_there_is_none(serve, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    server = serve()
    ask_judge(JudgeModel(url=f"{server.url}/chat/completions", model="m"), open_row())
    assert "Authorization" not in server.headers[0] and server.paths == ["/v1/chat/completions"]


@pytest.mark.parametrize("status", [429, 500, 503])
def test_what_may_pass_is_sent_again(serve, status):
    server = serve(lambda request, before: chat("yes") if before == 2 else (status, {"Retry-After": "7"}, b"later"))
    waits: list[float] = []
    assert ask_judge(JudgeModel(url=server.url, model="m"), open_row(), wait=waits.append).is_correct
    assert len(server.requests) == 3 and waits == [7.0, 7.0]


@pytest.mark.parametrize(("status", "num_requests"), [(503, 3), (401, 1), (404, 1)])
def test_a_judge_that_refuses_all_is_unavailable(serve, status, num_requests):
    server = serve(lambda *_: (status, {}, b'{"error": "no such key"}'))
    judge = JudgeModel(url=server.url, model="m", attempts=3)
    with pytest.raises(JudgeUnavailableError, match=rf"HTTP {status}: .*no such key") as caught:
        ask_judge(judge, open_row(), wait=no_wait)
    assert len(server.requests) == num_requests and ("OPENAI_API_KEY" in str(caught.value)) == (status == 401)


def test_an_error_that_is_about_the_question_stops_no_other(serve):
    server = serve(lambda request, before: (400, {}, b"too long") if before == 0 else chat("yes"))
    judge = JudgeModel(url=server.url, model="m", parallel=1)
    rows = list(judge_rows(judge, [open_row(number=i) for i in range(3)]))
    assert sorted((row["judged_correct"], row["judge_text"]) for row in rows if row["judged_correct"]) == [
        (True, "yes"),
        (True, "yes"),
    ]
    (refused,) = (row for row in rows if row["judged_correct"] is None)
    assert refused["judge_text"] == "HTTP 400: 'too long'"


def test_no_server_and_a_slow_one_are_unavailable(serve):
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    gone = JudgeModel(url=f"http://127.0.0.1:{port}/v1", model="m", attempts=2)
    with pytest.raises(JudgeUnavailableError, match="refused"):
        ask_judge(gone, open_row(), wait=no_wait)
    release = threading.Event()
    server = serve(lambda *_: (release.wait(5), chat("yes"))[1])
    try:
        with pytest.raises(JudgeUnavailableError, match="timed out"):
            ask_judge(JudgeModel(url=server.url, model="m", attempts=1, timeout_seconds=0.1), open_row())
    finally:
        release.set()


def test_a_key_that_is_no_header_is_one_line(serve, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sec\nret")
    with pytest.raises(JudgeUnavailableError, match="can't be asked"):
        ask_judge(JudgeModel(url=serve().url, model="m", attempts=1), open_row())


@pytest.mark.parametrize("body", [b"<html>", b"[]", b'{"choices": []}', b"\xff\xfe"])
def test_a_reply_that_is_no_completion_is_no_verdict(serve, body):
    server = serve(lambda *_: (200, {}, body))
    assert ask_judge(JudgeModel(url=server.url, model="m"), open_row()).is_correct is None


def test_the_key_goes_to_no_other_server(serve, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    thief = serve()
    server = serve(lambda *_: (307, {"Location": f"{thief.url}/chat/completions"}, b""))
    with pytest.raises(JudgeUnavailableError, match="HTTP 307"):
        ask_judge(JudgeModel(url=server.url, model="m"), open_row(), wait=no_wait)
    assert thief.requests == []


# --- in a run --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("judge", "message"),
    [
        ("fuzzy", "judge must be one of exact, normalised, or a mapping of keys to values, or null, got 'fuzzy'"),
        ("{url: ftp://x, model: m}", "judge.url must be an address that begins http:// or https://, got 'ftp"),
        ("{url: 'http://x'}", "benchmark.judge.model is missing"),
        ("{}", "benchmark.judge.url, benchmark.judge.model are missing"),
        ("{url: 'http://x', model: m, attempts: 0}", "benchmark.judge.attempts must be a whole number, 1 or more"),
        ("{url: 'http://x', model: m, tries: 2}", "unknown key 'benchmark.judge.tries'"),
    ],
)
def test_a_judge_that_is_none_is_refused(judge, message):
    with pytest.raises(LvqaError) as caught:
        load_run_config(None, [f"benchmark.judge={judge}"])
    assert message in str(caught.value)


def folder_of(tmp_path: Path, *questions: dict[str, object]) -> Path:
    """A folder with one short video and these questions."""
    folder = tmp_path / "own"
    (folder / "videos").mkdir(parents=True)
    video_files.write_video(folder / "videos" / "garden.mkv", 100, fps=5, metadata={"comment": SYNTHETIC_TAG})
    lines = [json.dumps({"video": "garden", "id": f"q{i}", **question}) for i, question in enumerate(questions)]
    (folder / "questions.jsonl").write_text("\n".join(lines))
    return folder


def settings(folder: Path, judge: str) -> list[str]:
    return [
        *("model={name: tiny, device: cpu}", "arms=[{method: uniform}, {method: blind}]", "frames=[2]"),
        f"store.folder={folder.parent / 'store'}",
        f"benchmark={{name: own, folder: {folder}, judge: {judge}}}",
    ]


def test_what_can_not_be_scored_is_named_in_one_message(tmp_path):
    folder = folder_of(tmp_path, {"question": "What?"}, {"question": "Who?", "options": ["a", "b"]})
    with pytest.raises(LvqaError) as caught:
        evaluate(load_run_config(None, settings(folder, "null")), tmp_path / "run")
    message = str(caught.value)
    assert (
        "2 of 2 questions have no answer, so nothing can be scored: q0, q1; 1 of 2 questions have no options" in message
    )
    assert "benchmark.judge" in message and not (tmp_path / "run").exists()


def test_a_key_that_is_named_must_be_there(tmp_path, monkeypatch):
    monkeypatch.delenv("NO_KEY", raising=False)
    folder = folder_of(tmp_path, {"question": "What?", "answer": "a ball"})
    config = load_run_config(None, settings(folder, "{url: 'http://x', model: m, key_variable: NO_KEY}"))
    with pytest.raises(LvqaError, match="NO_KEY, and the environment has no such variable"):
        evaluate(config, tmp_path / "run")


@pytest.mark.slow
def test_an_unreachable_judge_calls_no_answer_wrong_and_judges_when_the_run_goes_on(serve, tmp_path, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    questions = [{"question": f"What is at {i}?", "answer": "."} for i in range(3)]
    folder = folder_of(tmp_path, *questions, {"question": "Which?", "options": ["a", "b"], "answer": "A"})
    with socket.create_server(("127.0.0.1", 0)) as unused:
        gone = f"http://127.0.0.1:{unused.getsockname()[1]}/v1"
    path = tmp_path / "own.yaml"
    words = ["eval", str(path), "--folder", str(tmp_path / "run"), "--quiet"]
    for setting in settings(folder, f"{{url: '{gone}', model: judge-7b, attempts: 1}}"):
        words += ["-s", setting]
    path.write_text("{}")
    result = CliRunner().invoke(lvqa_command, words)
    assert result.exit_code == 3, result.output
    assert (
        "the judge judge-7b at http://127.0.0.1" in result.stderr
        and "6 open answers could not be judged" in result.stderr
    )
    run = read_run(tmp_path / "run")
    assert run.num_unjudged == 6 and run.num_failed == 0 and "Not judged yet, and left out: 6 open" in result.stdout
    assert {row["judge"] for row in run.rows} == {"judge-7b", None}

    server = serve(lambda request, before: chat("no" if before == 0 else "yes"))
    result = CliRunner().invoke(lvqa_command, [*words, "-s", f"benchmark.judge.url={server.url}"])
    assert result.exit_code == 0, result.output
    after = read_run(tmp_path / "run")
    verdicts = [row["judged_correct"] for row in after.rows if row["judge"]]
    assert sorted(verdicts) == [False, *[True] * 5] and len(server.requests) == 6
    changed = {"judged_correct", "judge_text"}
    assert [{k: row[k] for k in row if k not in changed} for row in after.rows] == [
        {k: row[k] for k in row if k not in changed} for row in run.rows
    ]

    report = write_report([tmp_path / "run"], csv=tmp_path / "run.csv")
    assert "| uniform, open (judge-7b) |" in report
    assert "Lines named open (judge-7b) are about open questions, whose answers that judge scored." in report
    assert "Answers to open questions were judged by judge-7b, and are counted apart." in report
    lines = [line.split(",") for line in (tmp_path / "run.csv").read_text().splitlines() if ",all," in line]
    assert len(lines) == 4


@pytest.mark.slow
def test_a_changed_judge_is_refused_by_name(tmp_path):
    folder = folder_of(tmp_path, {"question": "What?", "answer": "a ball"})
    with open_run(tmp_path / "run", load_run_config(None, settings(folder, "exact"))):
        pass
    with (
        pytest.raises(LvqaError, match=r"\(benchmark\.judge: 'exact', now 'normalised'\)"),
        open_run(tmp_path / "run", load_run_config(None, settings(folder, "normalised"))),
    ):
        pass

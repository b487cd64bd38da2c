"""`lvqa serve`, and the commands that have it do the work: as programs."""

import contextlib
import json
import re
import signal
import subprocess
import sys

import pytest
from click.testing import CliRunner
from processes import LVQA_AND_MODULES

from lvqa.cli.main import lvqa_command

QUESTION = "What colour is the ball?"


def lvqa(*words: object, **options) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "lvqa.cli", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=600, **options)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["serve", "--host", "0.0.0.0"], 1, "host '0.0.0.0' can be reached from other machines, which needs a token"),
        (["serve", "--token", "short"], 1, "the token has 5 characters"),
        (["serve", "nowhere"], 1, "nowhere: there is no such file or folder to serve"),
        (["ask", "--server", "http://127.0.0.1:9", "a.mp4", "x"], 1, "no server answers at http://127.0.0.1:9"),
        (["ask", "--server", "127.0.0.1", "a.mp4", "x"], 1, "the address of a server is http://HOST:PORT"),
        (["ask", "--server", "http://x", "--model", "tiny", "a.mp4", "x"], 2, "--server goes without --model"),
        (["search", "--server", "http://x", "-s", "a=1", "a.mp4", "x"], 2, "--server goes without -s"),
        (["index", "--upload", "a.mp4"], 2, "--upload goes with --server URL"),
    ],
)
def test_what_cannot_be_is_one_line(words, code, message, monkeypatch):
    monkeypatch.delenv("LVQA_TOKEN", raising=False)
    result = CliRunner().invoke(lvqa_command, words, prog_name="lvqa")
    assert result.exit_code == code and message in result.output, result.output


def test_without_the_extra_it_is_one_line(monkeypatch):
    monkeypatch.setattr("lvqa.cli.serve.PACKAGES", ("fastapi", "a_package_that_nobody_has"))
    result = CliRunner().invoke(lvqa_command, ["serve"], prog_name="lvqa")
    line = 'lvqa: lvqa serve needs a_package_that_nobody_has: pip install "lvqa[serve]"\n'
    assert (result.exit_code, result.output) == (1, line)


@pytest.mark.slow
def test_a_server_does_what_the_commands_do(tmp_path, synthetic_video):
    video, store = synthetic_video(seed=710), tmp_path / "store"
    command = [sys.executable, "-m", "lvqa.cli", "serve", video, "--port", "0", "--model", "tiny", "--store", store]
    server = subprocess.Popen(list(map(str, command)), stderr=subprocess.PIPE, text=True)
    with server, contextlib.ExitStack() as stack:
        stack.callback(server.kill)  # else a failure would wait for it
        url = next(match[1] for line in server.stderr if (match := re.search(r"ready at (\S+)", line)))
        indexed = lvqa("index", "--server", url, video)
        assert indexed.returncode == 0 and indexed.stdout == f"{video}: 4 clips, indexed\n"
        asking = ("ask", "--server", url, video, QUESTION, "--option", "red", "--option", "blue", "--json")
        command = [sys.executable, "-c", LVQA_AND_MODULES, *map(str, asking)]
        asked_there = subprocess.run(command, capture_output=True, text=True, timeout=600)
        assert not {"torch", "transformers", "av", "faiss"} & set(asked_there.stderr.split()), "no model is loaded here"
        options = ("--model", "tiny", "--store", store, "--option", "red", "--option", "blue", "--json")
        asked_here = CliRunner().invoke(lvqa_command, [*map(str, ("ask", video, QUESTION, *options))])
        assert asked_here.exit_code == 0, asked_here.output
        there, here = json.loads(asked_there.stdout), json.loads(asked_here.stdout)
        for changing in ("counts", "seconds"):
            del there[changing], here[changing]
        assert there.pop("index")["path"] == here.pop("index")["path"]
        assert there == here
        found_there = lvqa("search", "--server", url, video, "a ball").stdout
        search_here = ["search", str(video), "a ball", "--model", "tiny", "--store", str(store)]
        assert found_there == CliRunner().invoke(lvqa_command, search_here).stdout
        assert lvqa("ask", "--server", url, video, QUESTION).stdout.startswith("It is ")
        server.send_signal(signal.SIGINT)
        assert server.wait(60) == 130  # as every command after Ctrl-C

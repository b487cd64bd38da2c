"""The model in processes on Ray Serve: as many clients are answered as by one process, and none loses its question."""

import asyncio
import functools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner
from processes import descendants, wait_until
from servers import ask_from_clients, call, call_json, check_answers, events_of, many_questions, running_server

from lvqa.cli.main import lvqa_command
from lvqa.client import RemoteVideoQA
from lvqa.config import load_config
from lvqa.pipeline import LongVideoQA
from lvqa.server.errors import ApiError
from lvqa.server.jobs import Job
from lvqa.server.settings import ServerSettings

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Ray Serve

needs_serve = pytest.mark.skipif(
    subprocess.run([sys.executable, "-c", "import ray.serve"], capture_output=True, check=False).returncode != 0,
    reason='needs pip install "lvqa[serve-ray]"',
)


def replica_pids() -> list[int]:
    """Return the processes that hold the model."""
    return [pid for pid, command in descendants(os.getpid()).items() if "Replica" in command.split(".")[0]]


def ticks() -> dict[int, int]:
    """Return how long each replica has computed."""
    return {pid: int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11]) for pid in replica_pids()}


@pytest.fixture
def replicas(tmp_path):
    """Start two replicas without a server."""
    from lvqa.server.replicas import Replicas

    config = load_config(None, ("model.name=tiny", f"store.folder={tmp_path / 'store'}"))
    replicas = Replicas(ServerSettings(config=config, workers=2))
    try:
        replicas.start()
        yield replicas
    finally:
        replicas.close()


def run(replicas, work, video_id: str | None = None) -> dict:
    """Have a replica do something as the server does, and return its result."""

    async def submit() -> dict:
        return await asyncio.to_thread(replicas.run, "ask", work, Job("ask", video_id, 0), video_id)

    return asyncio.run(submit())


@needs_serve
@pytest.mark.slow
def test_a_video_stays_with_its_replica_and_a_request_is_sent_once_more_when_that_dies(replicas, tmp_path):
    def where(_: LongVideoQA) -> dict:
        return {"pid": os.getpid()}

    places = {}
    for video_id in ("a", "b", "c", "d"):
        places[video_id] = run(replicas, where, video_id)["pid"]
        time.sleep(2)  # until Serve knows who has it
    assert len(set(places.values())) == 2
    assert all(run(replicas, where, video_id)["pid"] == pid for _ in range(5) for video_id, pid in places.items())

    tries = tmp_path / "tries"

    def die(_: LongVideoQA, times: int) -> dict:
        with tries.open("a") as file:
            file.write("x")
        if len(tries.read_text()) <= times:
            os.kill(os.getpid(), signal.SIGKILL)
        return {"pid": os.getpid()}

    assert run(replicas, functools.partial(die, times=1))["pid"] in replica_pids()
    assert tries.read_text() == "xx"
    tries.unlink()
    with pytest.raises(ApiError, match="two workers were lost with this request"):
        run(replicas, functools.partial(die, times=9))
    assert tries.read_text() == "xx"


@needs_serve
@pytest.mark.slow
def test_no_question_is_lost_with_a_replica(tiny, make, tmp_path, synthetic_video):
    folder, questions, expected = many_questions(tmp_path / "served", synthetic_video(seed=710), make())
    killed = []

    def kill_one(num_answers: int) -> None:
        if num_answers >= 10 and not killed:
            times = ticks()
            killed.append(max(times, key=times.__getitem__))
            os.kill(killed[0], signal.SIGKILL)

    with running_server(tiny, tmp_path / "other", folder, workers=2) as url:
        assert len(replica_pids()) == 2
        video = call_json(url, "GET", "/api/videos")[1]["videos"][0]["id"]
        RemoteVideoQA(url).index(video)
        answers, _ = ask_from_clients(url, video, questions, kill_one)
        check_answers(answers, expected)
        wait_until(lambda: len(replica_pids()) == 2 and killed[0] not in replica_pids())
        body = {"video": video, "question": questions[0].text, "stream": True}
        names = [event["event"] for event in events_of(call(url, "POST", "/api/ask", body)[2])]
        assert names[0] == "waiting" and "frames" in names and names[-2:] == ["answer", "done"]
        assert call_json(url, "POST", "/api/ask", {"video": video, "question": ""})[0] == 400
        assert call(url, "GET", "/api/status", host="evil.example")[0] == 403
    assert not replica_pids()


@needs_serve
@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--workers", "9", "--ray-address", "127.0.0.1:1"], "no Ray answers at '127.0.0.1:1'"),
        (["--workers", "1", "--gpus-per-worker", "1"], "workers must be at most 0, each with a core and 1 GPUs"),
    ],
)
def test_replicas_that_cannot_be_are_refused_in_a_line(tmp_path, options, reason):
    result = CliRunner().invoke(lvqa_command, ["serve", "--model", "tiny", "--store", str(tmp_path), *options])
    assert result.exit_code == 1 and reason in result.stderr and len(result.stderr.splitlines()) == 1


def test_a_cluster_without_workers_is_refused():
    result = CliRunner().invoke(lvqa_command, ["serve", "--model", "tiny", "--ray-address", "127.0.0.1:1"])
    assert result.exit_code == 1 and "workers must be at least 1" in result.stderr


def test_workers_without_ray_serve_are_refused(monkeypatch):
    monkeypatch.setattr("lvqa.cli.serve.WORKER_PACKAGES", ("a_package_that_is_not_there",))
    result = CliRunner().invoke(lvqa_command, ["serve", "--model", "tiny", "--workers", "2"])
    assert result.exit_code == 1 and 'pip install "lvqa[serve,serve-ray]"' in result.stderr

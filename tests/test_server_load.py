"""Many clients at once: all are answered, in the order in which they came, as one alone would be."""

import asyncio
import statistics
import threading
import time

import pytest
from servers import ask_from_clients, call_json, check_answers, many_questions, running_server

from lvqa.client import RemoteVideoQA
from lvqa.concurrency import check_stop
from lvqa.server.errors import ApiError
from lvqa.server.jobs import JobQueue


def test_jobs_are_done_in_the_order_in_which_they_came():
    async def work() -> list[int]:
        queue, order = JobQueue("test", max_waiting=100), []
        jobs = [queue.submit("ask", lambda _, i=i: order.append(i) or {"i": i}) for i in range(20)]
        results = [[event async for event in job.follow() if event] for job in jobs]
        assert [events[-2]["i"] for events in results] == [*range(20)]
        assert {events[-1]["event"] for events in results} == {"done"}
        return order

    assert asyncio.run(work()) == [*range(20)]


def test_a_stopped_job_ends_and_the_next_one_runs():
    async def work() -> None:
        queue, is_running = JobQueue("test", max_waiting=1), threading.Event()

        def endless(_: object) -> dict:
            is_running.set()
            while True:
                check_stop()
                time.sleep(0.01)

        first = queue.submit("ask", endless)
        while not is_running.is_set():
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        waiting = queue.submit("ask", lambda _: {})
        with pytest.raises(ApiError, match="1 requests wait already"):
            queue.submit("ask", lambda _: {})
        waiting.stop()
        first.stop()
        assert [event["event"] async for event in first.follow() if event][-1] == "stopped"
        assert [event["event"] async for event in waiting.follow() if event] == ["waiting", "stopped"]
        last = queue.submit("ask", lambda _: {"x": 1})
        assert [event["event"] async for event in last.follow() if event] == ["waiting", "running", "answer", "done"]

    asyncio.run(work())


def test_a_bug_is_told_without_its_content(caplog):
    async def work() -> list[dict]:
        def broken(_: object) -> dict:
            raise KeyError("a secret question")

        job = JobQueue("test", max_waiting=1).submit("ask", broken)
        return [event async for event in job.follow() if event]

    events = asyncio.run(work())
    assert events[-2]["error"]["message"] == "internal error (KeyError); the server's log says where"
    assert "test_server_load.py" in caplog.text and "secret question" not in caplog.text


@pytest.mark.slow
def test_many_questions_from_eight_clients(tiny, make, tmp_path, synthetic_video, record_property):
    folder, questions, expected = many_questions(tmp_path / "served", synthetic_video(seed=710), make())
    with running_server(tiny, tmp_path / "other", folder) as url:
        video = call_json(url, "GET", "/api/videos")[1]["videos"][0]["id"]
        RemoteVideoQA(url).index(video)
        answers, seconds = ask_from_clients(url, video, questions)
    check_answers(answers, expected)
    record_property("seconds to an answer", (statistics.median(seconds), max(seconds)))

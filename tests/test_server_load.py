"""Many clients at once: all are answered, in the order in which they came, as one alone would be."""

import asyncio
import shutil
import statistics
import threading
import time

import pytest
from servers import call_json, running_server

from lvqa.client import RemoteVideoQA
from lvqa.concurrency import check_stop
from lvqa.records import Question
from lvqa.server.errors import ApiError
from lvqa.server.jobs import JobQueue

NUM_QUESTIONS, NUM_CLIENTS = 50, 8


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
def test_fifty_questions_from_eight_clients(tiny, make, tmp_path, synthetic_video, record_property):
    folder = tmp_path / "served"
    folder.mkdir()
    shutil.copy(synthetic_video(seed=710), folder / "a.mp4")
    colours = ["red", "blue", "green", "orange", "white"]
    texts = [f"{i}: What colour is the {colours[i % 5]} thing on scene {i}?" for i in range(NUM_QUESTIONS)]
    questions = [Question(text, tuple(colours) if i % 2 else ()) for i, text in enumerate(texts)]
    qa = make()
    expected = [qa.answer(folder / "a.mp4", question) for question in questions]
    with running_server(tiny, tmp_path / "other", folder) as url:
        video = call_json(url, "GET", "/api/videos")[1]["videos"][0]["id"]
        RemoteVideoQA(url).index(video)
        answers, seconds = {}, []

        def client(first: int) -> None:
            for i in range(first, NUM_QUESTIONS, NUM_CLIENTS):
                started = time.perf_counter()
                answers[i] = RemoteVideoQA(url).answer(video, questions[i])
                seconds.append(time.perf_counter() - started)

        threads = [threading.Thread(target=client, args=(i,)) for i in range(NUM_CLIENTS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(answers) == NUM_QUESTIONS
    for i, answer in answers.items():
        assert (answer.text, answer.option, answer.frames) == (expected[i].text, expected[i].option, expected[i].frames)
        assert answer.option_scores == pytest.approx(expected[i].option_scores, abs=1e-5)
    record_property("seconds to an answer", (statistics.median(seconds), max(seconds)))

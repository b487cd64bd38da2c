"""Threads that share a model: whose turn it is, whose work is counted, and work that nobody waits for any more."""

import dataclasses
import itertools
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import chain
from pathlib import Path

import pytest
from pipelines import make_pipeline

import lvqa.session
import lvqa.video.metadata
from lvqa.concurrency import FairLock, StoppedError, check_stop, stop_when
from lvqa.config import with_settings
from lvqa.costs import CostMeter
from lvqa.pipeline import LongVideoQA
from lvqa.records import Answer, Counts, Question

SEEDS = 11, 12
"""The seeds of the two videos."""


@pytest.fixture(scope="module")
def videos(synthetic_video) -> list[Path]:
    return [synthetic_video(minutes=1, seed=seed) for seed in SEEDS]


def questions(count: int) -> list[Question]:
    """Return different questions, every other one with options."""
    options = ("a red ball", "a blue box", "a green car", "nothing")
    return [Question(f"What is there at {i} seconds?", options if i % 2 else ()) for i in range(count)]


def in_threads(*tasks):
    """Do each task in a thread of its own, all at once, and return what they return, in their order."""
    start = threading.Barrier(len(tasks))

    def begin(task):
        start.wait()
        return task()

    with ThreadPoolExecutor(len(tasks)) as threads:
        return [future.result() for future in [threads.submit(begin, task) for task in tasks]]


def comparable(answer: Answer) -> dict[str, object]:
    """Return all of an answer that does not depend on the clock or the store."""
    fields = {field.name: getattr(answer, field.name) for field in dataclasses.fields(answer)}
    costs = {name: fields[name] and fields[name].counts for name in ("ranking_cost", "answer_cost")}
    index = answer.index and (answer.index.reused, answer.index.clips, answer.index.cost.counts)
    return {**fields, **costs, "index": index, "seconds": list(answer.seconds)}


# --- whose turn it is ------------------------------------------------------------------------------------------------


def test_a_lock_goes_to_threads_in_the_order_in_which_they_ask():
    lock, turns = FairLock(), []

    def take(i: int) -> None:
        with lock, lock:  # once more in the same thread
            turns.append(i)

    with lock:
        threads = [threading.Thread(target=take, args=(i,)) for i in range(20)]
        for thread in threads:
            thread.start()
            while thread.is_alive() and lock.num_waiting <= threads.index(thread):
                time.sleep(0.001)
    for thread in threads:
        thread.join()
    assert turns == list(range(20))


def test_a_lock_has_one_owner_at_a_time():
    lock, total = FairLock(), [0]

    def add() -> None:
        for _ in range(200):
            with lock:
                before = total[0]
                time.sleep(0)
                total[0] = before + 1

    in_threads(*[add] * 8)
    assert total == [1600]


def test_a_thread_that_stops_waiting_leaves_the_queue():
    lock, stop = FairLock(), threading.Event()

    def wait() -> str:
        with stop_when(stop.is_set):
            try:
                with lock:
                    return "got it"
            except StoppedError:
                return "stopped"

    with ThreadPoolExecutor(2) as pool:
        with lock:
            first = pool.submit(wait)
            while not lock.num_waiting:
                time.sleep(0.001)
            second = pool.submit(lambda: lock.__enter__() or lock.__exit__())
            stop.set()
            assert first.result(5) == "stopped"
        second.result(5)


def test_a_lock_is_handed_on_by_an_error():
    lock = FairLock()
    with pytest.raises(ZeroDivisionError), lock:
        raise ZeroDivisionError
    assert in_threads(lambda: lock.__enter__()) == [None]


# --- work that nobody waits for --------------------------------------------------------------------------------------


def test_stopping_reaches_the_thread_that_asked_for_it_alone():
    check_stop()
    with stop_when(lambda: True):
        in_threads(check_stop)
        with pytest.raises(StoppedError):
            check_stop()
        with pytest.raises(StoppedError), stop_when(lambda: False):
            check_stop()
    check_stop()


# --- questions on two videos at once ---------------------------------------------------------------------------------


def ask_all(qa: LongVideoQA, video: Path, texts: list[Question]) -> list[dict[str, object]]:
    return [comparable(qa.answer(video, question)) for question in texts]


def compare(tiny, tmp_path, videos, count: int, *settings: dict[str, object]) -> None:
    """Ask `count` questions about each video, one by one and in a thread for each video; all must be equal."""
    results = []
    for name, work in (("alone", lambda *tasks: [task() for task in tasks]), ("together", in_threads)):
        qa = make_pipeline(tiny, tmp_path / name, "selection.frames=4", "answer.max_new_tokens=4")
        each = [qa.with_config(with_settings(qa.config, of_video, where="a test")) for of_video in settings]
        results.append(work(*map(partial, [ask_all] * 2, each, videos, [questions(count)] * 2)))
    alone, together = results
    assert [len(answers) for answers in alone] == [count, count]
    for i, (one, other) in enumerate(zip(chain(*alone), chain(*together), strict=True)):
        assert {key: other[key] for key in one if one[key] != other[key]} == {}, f"answer {i}: {one}"


@pytest.mark.slow
def test_two_threads_get_what_they_would_get_alone(tiny, tmp_path, videos):
    compare(tiny, tmp_path, videos, 2, {}, {})


@pytest.mark.slow
def test_forty_questions_from_two_threads(tiny, tmp_path, videos):
    few = {"rerank.pool": 2, "selection.frames": 2}  # it is about many questions, and not about large ones
    compare(tiny, tmp_path, videos, 20, few, few)


@pytest.mark.slow
def test_retllm_reaches_into_no_other_threads_passes(tiny, tmp_path, videos):
    """Both ratios are so large that a pass of the other thread that is enhanced would be another one."""
    compare(tiny, tmp_path, videos, 10, {"rerank.name": "retllm", "rerank.options": {"ratio": 0.9}}, {})


@pytest.mark.slow
def test_many_threads_may_ask_about_any_video(tiny, tmp_path, videos):
    """Who pays for what they share depends on who comes first, and the answers and the sum of costs do not."""
    results = []
    for num_threads in (1, 4):
        qa = make_pipeline(tiny, tmp_path / str(num_threads))
        tasks = [(video, q) for video in videos for q in questions(10)]
        with ThreadPoolExecutor(num_threads) as pool:
            answers = list(pool.map(lambda task: qa.answer(*task), tasks))  # noqa: B023
        results.append([(a.text, a.option, a.frames, a.evidence, a.option_scores) for a in answers])
        results.append(sum((answer.counts for answer in answers), Counts()))
    assert results[2] == results[0]
    assert results[3].frames_decoded == results[1].frames_decoded == 120


def test_work_is_counted_for_the_thread_that_it_was_done_for(tiny):
    before = dataclasses.replace(tiny.counts)

    def read(length: int) -> Counts:
        tiny.next_token_logits([("Is it red?",)] * length, ["Yes", "No"])
        return tiny.counts

    one, three = in_threads(partial(read, 1), partial(read, 3))
    assert three.tokens_prefilled == 3 * one.tokens_prefilled > 0
    assert tiny.counts == before


# --- videos that are open --------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_several_videos_stay_open(make, videos):
    qa = make()
    first = [qa.search(video, "a red ball") for video in videos]
    meter = CostMeter(qa.model.counts)
    assert [qa.search(video, "a red ball") for video in videos] == first
    assert meter.counts == Counts()


@pytest.mark.slow
def test_videos_that_nobody_uses_are_closed_as_memory_ends(make, videos):
    qa = make("model.memory_mib=3")  # each of them takes 1.7 million bytes
    with qa.open(videos[0]) as session:
        tokens = weakref.ref(session.tokens)
        qa.search(videos[0], "a red ball")
    del session
    in_threads(lambda: qa.search(videos[1], "a red ball"))
    assert tokens() is None


@pytest.mark.slow
def test_a_video_in_use_stays_open(make, videos):
    qa = make("model.memory_mib=1")
    with qa.open(videos[0]) as session:
        qa.search(videos[0], "a red ball")
        in_threads(lambda: qa.search(videos[1], "a red ball"))
        with qa.open(videos[0]) as again:
            assert again is session
            assert again.nbytes > 1 << 18


@pytest.mark.slow
def test_too_many_idle_videos_are_closed(make, videos, monkeypatch):
    monkeypatch.setattr(lvqa.session, "MAX_IDLE_VIDEOS", 1)
    qa = make()
    opened = []
    for video in (*videos, *videos):
        with qa.open(video) as session:
            opened.append(weakref.ref(session))
    del session
    assert [session() is None for session in opened] == [True, True, True, False]


@pytest.mark.slow
def test_a_video_is_opened_once_though_two_threads_ask_for_it(make, videos, monkeypatch):
    made, read = [], []
    make_session = lvqa.session.VideoSession.__init__
    read_file = lvqa.video.metadata._read_file

    def count_session(*args, **kwargs):
        made.append(args)
        time.sleep(0.05)
        make_session(*args, **kwargs)

    def count_reading(path):
        read.append(path)
        time.sleep(0.05)
        return read_file(path)

    monkeypatch.setattr(lvqa.session.VideoSession, "__init__", count_session)
    monkeypatch.setattr(lvqa.video.metadata, "_read_file", count_reading)
    lvqa.video.metadata.read_metadata.cache_clear()
    qa = make()

    def grid_size() -> int:
        with qa.open(videos[0]) as session:
            return session.grid.num_frames

    assert in_threads(*[grid_size] * 4) == [60] * 4
    assert (len(made), len(read)) == (1, 1)


# --- a question that is dropped --------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_dropped_question_ends_at_once_and_leaves_nothing_half_done(tiny, tmp_path, videos):
    """Stop at many points of its way, from the first to the last."""
    question, total = questions(2)[1], itertools.count()
    with stop_when(lambda: next(total) < 0):
        expected = make_pipeline(tiny, tmp_path / "whole").answer(videos[0], question)
    last = next(total) - 1
    assert last > 10
    for num_checks in (0, 1, 2, *range(3, last, last // 5), last):
        qa, checks = make_pipeline(tiny, tmp_path / str(num_checks)), itertools.count()
        with pytest.raises(StoppedError), stop_when(lambda: next(checks) >= num_checks):  # noqa: B023
            qa.answer(videos[0], question)
        assert next(checks) == num_checks + 1, "it goes on after it was to stop"
        (again,) = in_threads(lambda: qa.answer(videos[0], question))  # noqa: B023
        assert (again.text, again.frames, again.evidence) == (expected.text, expected.frames, expected.evidence)
        assert again.option_scores == expected.option_scores


@pytest.mark.slow
def test_a_question_may_be_dropped_while_another_one_is_answered(make, videos):
    qa, question, stop = make(), questions(2)[1], threading.Event()

    def ask() -> str:
        with stop_when(stop.is_set):
            return qa.answer(videos[0], question).text

    with ThreadPoolExecutor(1) as pool, qa.open(videos[0]):
        waiting = pool.submit(ask)
        stop.set()
        with pytest.raises(StoppedError):
            waiting.result(10)
    assert qa.answer(videos[0], question).text

"""Workers with Ray and without: what they hand back, what their accidents cost, and that none stays behind.

All processes are real. Those that index have the embedded model.
"""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import ray
import video_files
import worker_tasks
from click.testing import CliRunner

from lvqa.cli.main import lvqa_command
from lvqa.config import load_config
from lvqa.index import Store
from lvqa.library import index_videos
from lvqa.pipeline import CLIPS_AT_ONCE, LongVideoQA, segments
from lvqa.records import LvqaError
from lvqa.synthetic.videos import make_videos
from lvqa.workers import Outcome, Pool
from lvqa.workers.ray_backend import start_ray

WITHOUT_RAY, OVER_RAY = 0, 2
LINUX = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="looks at processes in /proc")


@pytest.fixture(scope="module")
def joined() -> Iterator[None]:
    """A Ray of two cores for the whole module, which each pool finds joined."""
    start_ray(2)
    yield
    ray.shutdown()


@pytest.fixture(params=[WITHOUT_RAY, OVER_RAY], ids=["without-ray", "over-ray"])
def workers(request) -> int:
    if request.param:
        request.getfixturevalue("joined")
    return request.param


@pytest.fixture
def outcomes(workers):
    def outcomes(*items: worker_tasks.Chore, make=worker_tasks.make, **options) -> dict[worker_tasks.Chore, Outcome]:
        with Pool(make, workers=workers, **options) as pool:
            return {outcome.item: outcome for outcome in pool.run(items)}

    return outcomes


SQUARES = [("square", number) for number in range(4)]


def are_done(outcomes: dict[worker_tasks.Chore, Outcome]) -> bool:
    return all(outcomes[chore] == Outcome(chore, chore[1] ** 2, None) for chore in SQUARES)


def processes(parent: int | None = None) -> dict[int, str]:
    """Process id -> command line of all that descend from the parent, this process by default."""
    parents, commands = {}, {}
    for folder in Path("/proc").iterdir():
        try:
            pid, stat = int(folder.name), (folder / "stat").read_text()
            commands[pid] = (folder / "cmdline").read_text().replace("\0", " ")
        except (ValueError, OSError):
            continue
        state, its_parent = stat.rpartition(")")[2].split()[:2]
        if state != "Z":
            parents[pid] = int(its_parent)
    family = {parent or os.getpid()}
    while grown := {pid for pid, its_parent in parents.items() if its_parent in family} - family:
        family |= grown
    return {pid: commands[pid] for pid in family - {parent or os.getpid()}}


def children() -> set[int]:
    """The processes that hold a handler."""
    return {pid for pid, command in processes().items() if "spawn_main" in command}


def is_alive(pid: int) -> bool:
    """Until its last thread has ended, and it can be waited for."""
    folder = Path(f"/proc/{pid}")
    try:
        state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
        return state != "Z" or len([*(folder / "task").iterdir()]) > 1
    except OSError:
        return False


def wait_until(condition, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it does not come about"
        time.sleep(0.02)


# --- before this process has joined a Ray ----------------------------------------------------------------------------


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nowhere", "ray://127.0.0.1:1", "127.0.0.1:99999", ":", ""])
def test_an_address_where_no_ray_answers_is_named_at_once(address):
    started = time.monotonic()
    with (
        pytest.raises(LvqaError, match=f"no Ray answers at {address!r} .*host:port"),
        Pool(worker_tasks.make, workers=1, address=address),
    ):
        pass
    assert time.monotonic() - started < 8
    assert not ray.is_initialized()


# --- a good day ------------------------------------------------------------------------------------------------------


def test_every_item_comes_back_once_with_its_value(workers):
    items = [("square", number) for number in range(20)]
    with Pool(worker_tasks.make, workers=workers) as pool:
        done = list(pool.run(items))
        assert list(pool.run([])) == []
    assert sorted(outcome.item for outcome in done) == items
    assert all(outcome == Outcome(outcome.item, outcome.item[1] ** 2, None) for outcome in done)


def test_items_are_drawn_as_workers_get_free(workers):
    drawn = []

    def items():
        for chore in SQUARES * 3:
            drawn.append(chore)
            yield chore

    with Pool(worker_tasks.make, workers=workers) as pool:
        for done, _ in enumerate(pool.run(items()), 1):
            assert len(drawn) - done < max(1, workers)
    assert len(drawn) == 12


def test_a_handler_is_made_once_a_worker_and_serves_all_runs(workers, tmp_path):
    with Pool(partial(worker_tasks.make_counted, tmp_path), workers=workers) as pool:
        pids = [outcome.value for _ in range(3) for outcome in pool.run([("pid",)] * 4)]
    # One may have done all the work before the other was there.
    assert 1 <= len(set(pids)) <= len(list(tmp_path.iterdir())) <= max(1, workers)
    assert os.getpid() not in pids


def test_a_run_that_is_left_does_not_spoil_the_next(workers):
    with Pool(worker_tasks.make, workers=workers) as pool:
        for _ in pool.run([("square", 30), ("square", 31), ("sleep", 0.2)]):
            break
        assert are_done({outcome.item: outcome for outcome in pool.run(SQUARES)})


def test_each_worker_has_its_share_of_the_cores(joined, monkeypatch):
    chore = ("environment", "OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "RAY_USAGE_STATS_ENABLED")
    for given, expected in ((None, str(ray.cluster_resources()["CPU"] // 2)[0]), ("3", "3")):
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        if given:
            monkeypatch.setenv("OMP_NUM_THREADS", given)
        with Pool(worker_tasks.make, workers=2) as pool:
            assert [outcome.value for outcome in pool.run([chore])] == [[expected, "", "0"]]


def test_without_ray_a_worker_has_all_of_them(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    with Pool(worker_tasks.make, workers=0) as pool:
        assert [outcome.value for outcome in pool.run([("environment", "OMP_NUM_THREADS")])] == [["7"]]


# --- accidents -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("chore", "error"),
    [
        (("refuse", "film.mp4: no\nfilm"), "film.mp4: no film"),
        (("stumble",), "ZeroDivisionError: a bug in two lines (worker_tasks.py:"),
        (("unpicklable",), "Can't pickle"),
    ],
    ids=lambda part: part[0] if isinstance(part, tuple) else None,
)
def test_what_a_handler_raises_is_its_items_error_and_not_tried_again(outcomes, tmp_path, chore, error):
    tried = ("leave_a_mark", tmp_path, *chore)
    done = outcomes(tried, *SQUARES)
    assert done[tried].value is None
    assert error in done[tried].error
    assert "\n" not in done[tried].error
    assert len(list(tmp_path.iterdir())) == 1
    assert are_done(done)


@pytest.mark.parametrize(
    ("chore", "error"),
    [
        (("crash",), "its process was killed by SIGSEGV (2 tries)"),
        (("leave", 4), "its process ended with exit code 4 (2 tries)"),
        (("sleep", 1000), "its process gave nothing for 1 s (2 tries)"),
    ],
    ids=lambda part: part[0] if isinstance(part, tuple) else None,
)
def test_an_item_that_ends_its_process_fails_alone_and_soon(outcomes, tmp_path, chore, error):
    tried = ("leave_a_mark", tmp_path, *chore)
    started = time.monotonic()
    done = outcomes(*SQUARES[:2], tried, *SQUARES[2:], stall_seconds=1)
    assert done[tried] == Outcome(tried, None, error)
    assert are_done(done)
    assert len(list(tmp_path.iterdir())) == 2
    assert time.monotonic() - started < 60


def test_how_often_an_item_is_tried_is_as_asked(outcomes, tmp_path):
    tried = ("leave_a_mark", tmp_path, "crash")
    assert outcomes(tried, retries=0)[tried].error == "its process was killed by SIGSEGV (1 try)"
    assert len(list(tmp_path.iterdir())) == 1


def test_an_item_whose_process_dies_by_chance_is_done_by_another(outcomes, tmp_path):
    unlucky = ("die_the_first_time", tmp_path / "died")
    done = outcomes(unlucky, *SQUARES)
    assert done[unlucky] == Outcome(unlucky, "done", None)
    assert are_done(done)


@LINUX
def test_a_worker_that_is_killed_while_idle_costs_no_try(workers):
    with Pool(worker_tasks.make, workers=workers, retries=0) as pool:
        assert [outcome.error for outcome in pool.run([("square", 1)])] == [None]
        idle = children()
        for pid in idle:
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not any(map(is_alive, idle)))
        assert are_done({outcome.item: outcome for outcome in pool.run(SQUARES)})


@LINUX
def test_an_actor_of_ray_that_is_killed_is_replaced(joined, tmp_path):
    slow = ("sleep", 1, tmp_path / "pid")
    killed = []
    with Pool(worker_tasks.make, workers=2) as pool:

        def items():
            yield slow
            wait_until((tmp_path / "pid").exists)
            child = int((tmp_path / "pid").read_text())
            actor = int(Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[1])
            assert "ray::" in processes()[actor]
            os.kill(actor, signal.SIGKILL)
            killed.append(child)
            yield from SQUARES

        done = {outcome.item: outcome for outcome in pool.run(items())}
    assert done[slow] == Outcome(slow, "slept", None)
    assert are_done(done)
    wait_until(lambda: not is_alive(killed[0]))  # it would go on computing for no one


# --- what ends a run -------------------------------------------------------------------------------------------------


def test_a_handler_that_cannot_be_made_ends_the_run(outcomes):
    with pytest.raises(LvqaError, match=r"^model 'nobody' is unknown$"):
        outcomes(*SQUARES, make=worker_tasks.make_refusing)
    with pytest.raises(RuntimeError, match=r"(?s)could not be made.*Traceback.*no such key"):
        outcomes(*SQUARES, make=worker_tasks.make_broken)
    with pytest.raises(LvqaError, match="a worker could not be made: its process ended with exit code 7"):
        outcomes(*SQUARES, make=worker_tasks.make_dying)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"workers": -1}, "workers must be 0 .* got -1"),
        ({"workers": 0, "address": "10.0.0.1:6379"}, "workers must be 1 or more .* got 0"),
        ({"workers": 1, "gpus_per_worker": -0.5}, "gpus_per_worker must be .* got -0.5"),
        ({"workers": 1, "gpus_per_worker": 1.5}, "gpus_per_worker must be a share of one GPU, .* got 1.5"),
        ({"workers": 1, "retries": -1}, "retries must be 0 or more, got -1"),
        ({"workers": 1, "stall_seconds": 0}, "stall_seconds must be more than 0, .* got 0"),
    ],
)
def test_numbers_that_are_not_allowed_are_named(options, error):
    with pytest.raises(LvqaError, match=error):
        Pool(worker_tasks.make, **options)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"workers": 3}, "workers must be at most 2, each with a core and 0 GPUs of Ray's 2 and 0; got 3"),
        ({"workers": 1, "gpus_per_worker": 0.5}, "workers must be at most 0, .* 0.5 GPUs of Ray's 2 and 0; got 1"),
        ({"workers": 1, "gpus_per_worker": 2}, "workers must be at most 0, .* 2 GPUs"),
    ],
)
def test_what_ray_has_no_room_for_is_refused_at_once(joined, options, error):
    with pytest.raises(LvqaError, match=error), Pool(worker_tasks.make, **options):
        pass
    assert ray.is_initialized()


# --- nothing stays behind --------------------------------------------------------------------------------------------


@LINUX
def test_a_pool_that_closes_leaves_no_process(workers):
    before = children()
    with Pool(worker_tasks.make, workers=workers) as pool:
        for _ in pool.run([("square", 1), ("sleep", 1000), ("sleep", 1000)]):
            assert children() - before
            break
    assert children() == before


SLEEPER = """
import sys
from pathlib import Path
import worker_tasks
from lvqa.workers import Pool

if __name__ == "__main__":
    folder, workers = Path(sys.argv[1]), int(sys.argv[2])
    try:
        with Pool(worker_tasks.make, workers=workers) as pool:
            list(pool.run([("sleep", 1000, folder / str(number)) for number in range(2)]))
    except KeyboardInterrupt:
        sys.exit(130)
"""


@LINUX
@pytest.mark.parametrize(
    ("workers", "number", "code"),
    [
        (WITHOUT_RAY, signal.SIGINT, 130),
        (WITHOUT_RAY, signal.SIGTERM, 143),
        (WITHOUT_RAY, signal.SIGKILL, -9),
        (OVER_RAY, signal.SIGINT, 130),
        (OVER_RAY, signal.SIGTERM, 143),
    ],
)
def test_a_signal_leaves_no_process(tmp_path, workers, number, code):
    script = tmp_path / "sleeper.py"
    script.write_text(SLEEPER)
    marks = tmp_path / "marks"
    marks.mkdir()
    path = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[1])])
    running = subprocess.Popen(
        [sys.executable, str(script), str(marks), str(workers)],
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    wait_until(lambda: len(list(marks.iterdir())) == max(1, workers), 60)
    family = processes(running.pid)
    assert len(family) > workers
    # Ctrl-C reaches every process of the terminal's group.
    (os.killpg if number == signal.SIGINT else os.kill)(running.pid, number)
    out, err = running.communicate(timeout=30)
    assert (running.returncode, out, err) == (code, "", "")
    wait_until(lambda: not any(map(is_alive, family)), 10)


# --- indexing --------------------------------------------------------------------------------------------------------

SETTINGS = ["model.name=tiny", "model.device=cpu", "video.frames_per_second=2", "video.clip_seconds=1"]
"""A clip a second, so that a minute is two segments."""


@pytest.fixture(scope="module")
def library(tmp_path_factory) -> list[Path]:
    """Two made films of a minute."""
    return make_videos(tmp_path_factory.mktemp("films"), num_videos=2, minutes=1, num_questions=1, seed=11)


def config_with(store: Path):
    config = load_config(None, SETTINGS)
    return dataclasses.replace(config, store=dataclasses.replace(config.store, folder=store))


def contents(store: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Store(store).paths()}


@pytest.fixture(scope="module")
def expected(library, tmp_path_factory) -> dict[str, bytes]:
    """The indexes of the films as this process makes them."""
    store = tmp_path_factory.mktemp("expected")
    qa = LongVideoQA.load(config=config_with(store))
    assert [qa.index(path).clips for path in library] == [60, 60]
    return contents(store)


def test_segments_cover_all_clips_in_whole_batches():
    for num_clips in (1, 15, 16, 17, 32, 33, 225, 512, 513, 10_000):
        parts = [list(range(num_clips))[part] for part in segments(num_clips)]
        assert np.concatenate(parts).tolist() == list(range(num_clips))
        assert all(part[0] % CLIPS_AT_ONCE == 0 for part in parts)
        assert len(parts) <= 16
    assert len(segments(60)) == 2
    assert len(segments(225)) == 8
    assert segments(0) == []


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_the_index_is_the_same_whoever_makes_it(request, library, expected, tmp_path, workers):
    if workers:
        request.getfixturevalue("joined")
    told: list[tuple[str, int, int]] = []
    done = list(index_videos(library, config_with(tmp_path), workers=workers, progress=lambda *at: told.append(at)))
    assert contents(tmp_path) == expected
    assert sorted(indexed.path for indexed in done) == library
    assert all((indexed.error, indexed.use.reused, indexed.use.clips) == (None, False, 60) for indexed in done)
    assert told[:2] == [("plan", 1, 2), ("plan", 2, 2)]
    assert [at for _, at, _ in told[2:]] == sorted(at for _, at, _ in told[2:])
    assert told[-1] == ("index", 120, 120)


@LINUX
def test_workers_killed_while_indexing_cost_nothing(joined, library, expected, tmp_path):
    killed: set[int] = set()

    def kill(stage: str, done: int, total: int) -> None:
        if stage == "index" and not killed:
            killed.update(children())
            for pid in killed:
                os.kill(pid, signal.SIGKILL)

    done = list(index_videos(library, config_with(tmp_path), workers=2, progress=kill))
    assert len(killed) == 2
    assert [indexed.error for indexed in done] == [None, None]
    assert contents(tmp_path) == expected


def test_a_film_that_kills_its_process_costs_itself(library, expected, tmp_path, monkeypatch):
    monkeypatch.setattr("lvqa.library._make_indexer", worker_tasks.make_indexer_that_crashes)
    crashing, copy = tmp_path / "crash.mp4", tmp_path / "copy.mp4"
    video_files.write_video(tmp_path / "whole.mp4", 100, fps=2).rename(crashing)
    copy.write_bytes(library[0].read_bytes())
    started = time.monotonic()
    done = list(index_videos([crashing, *library, copy], config_with(tmp_path / "store"), workers=0))
    assert time.monotonic() - started < 60
    told = {indexed.path: indexed.error or indexed.use.reused for indexed in done}
    assert told == {
        crashing: f"{crashing}: its process was killed by SIGSEGV (2 tries)",
        **dict.fromkeys(library, False),
        copy: True,  # the same film under another name is made once
    }
    assert contents(tmp_path / "store") == expected


@pytest.mark.parametrize("workers", [WITHOUT_RAY, OVER_RAY])
def test_of_ten_videos_seven_are_done_and_three_are_named(request, tmp_path, workers):
    if workers:
        request.getfixturevalue("joined")
    folder = tmp_path / "films"
    folder.mkdir()
    good = [video_files.write_video(folder / f"{number}.mkv", 20 + number, fps=5) for number in range(7)]
    (folder / "corrupt.mp4").write_bytes(os.urandom(5000))
    video_files.write_sound(folder / "sound.mp4")
    words = ["index", folder, folder / "missing.mp4", "--workers", workers, "--store", tmp_path / "store"]
    words += ["--model", "tiny", "--device", "cpu", "--json"]
    result = CliRunner().invoke(lvqa_command, [*map(str, words), "--quiet"])
    assert result.exit_code == 3, result.output
    told = {Path(line["path"]): line["error"] for line in map(json.loads, result.stdout.splitlines())}
    assert {path for path, error in told.items() if error is None} == set(good)
    bad = {"corrupt.mp4": "not readable", "sound.mp4": "no video stream", "missing.mp4": "No such file"}
    assert {path.name for path, error in told.items() if error is not None} == set(bad)
    assert all(reason in told[folder / name] for name, reason in bad.items())
    assert len(contents(tmp_path / "store")) == 7
    lines = result.stderr.splitlines()
    assert len(lines) == 3
    assert all(any(name in line for line in lines) for name in bad)

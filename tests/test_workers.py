"""Workers with Ray and without: what they return, what a death or a bug costs, and that no process stays behind.

All processes are real.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import ray
import worker_tasks
from processes import PATIENCE_SECONDS, descendants, is_alive, needs_proc, parent_of, wait_until, worker_children

from lvqa.records import LvqaError
from lvqa.workers import Outcome, Pool
from lvqa.workers.ray_cluster import start_ray

pytestmark = pytest.mark.usefixtures("spawned_workers")
WITHOUT_RAY, WITH_RAY = 0, 2
BACKENDS = [
    pytest.param(WITHOUT_RAY, id="without-ray"),
    pytest.param(WITH_RAY, id="with-ray", marks=pytest.mark.slow),  # Ray alone takes seconds to start
]


@pytest.fixture(scope="module")
def local_ray() -> Iterator[None]:
    """A Ray of two cores for the whole module, which this process has joined before any pool."""
    start_ray(2)
    yield
    ray.shutdown()


@pytest.fixture(params=BACKENDS)
def workers(request) -> int:
    if request.param:
        request.getfixturevalue("local_ray")
    return request.param


@pytest.fixture
def run_tasks(workers):
    def run_tasks(*tasks: worker_tasks.Task, make=worker_tasks.make, **options) -> dict[worker_tasks.Task, Outcome]:
        with Pool(make, workers=workers, **options) as pool:
            return {outcome.item: outcome for outcome in pool.run(tasks)}

    return run_tasks


SQUARES = [("square", i) for i in range(4)]


def are_squares_correct(outcomes: dict[worker_tasks.Task, Outcome]) -> bool:
    return all(outcomes[task] == Outcome(task, task[1] ** 2, None) for task in SQUARES)


# --- before this process has joined a Ray ----------------------------------------------------------------------------


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nowhere", "ray://127.0.0.1:1", "127.0.0.1:99999", ":", ""])
def test_address_without_ray_is_an_error_at_once(address, monkeypatch):
    monkeypatch.setattr(ray, "init", lambda **_: pytest.fail("Ray itself tries for minutes"))
    with (
        pytest.raises(LvqaError, match=f"no Ray answers at {address!r} .*host:port"),
        Pool(worker_tasks.make, workers=1, address=address),
    ):
        pass
    assert not ray.is_initialized()


# --- items that complete ---------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_every_item_is_returned_once_with_its_value(workers):
    items = [("square", i) for i in range(20)]
    with Pool(worker_tasks.make, workers=workers) as pool:
        outcomes = list(pool.run(items))
        assert list(pool.run([])) == []
    assert sorted(outcome.item for outcome in outcomes) == items
    assert all(outcome == Outcome(outcome.item, outcome.item[1] ** 2, None) for outcome in outcomes)


def test_items_are_taken_only_when_a_worker_is_free(workers):
    taken = []

    def items():
        for task in SQUARES * 3:
            taken.append(task)
            yield task

    with Pool(worker_tasks.make, workers=workers) as pool:
        for num_done, _ in enumerate(pool.run(items()), 1):
            assert len(taken) - num_done < max(1, workers)
    assert len(taken) == 12


@pytest.mark.slow
def test_each_worker_makes_one_handler_for_all_runs(workers, tmp_path):
    with Pool(partial(worker_tasks.make_counted, tmp_path), workers=workers) as pool:
        pids = [outcome.value for _ in range(3) for outcome in pool.run([("pid",)] * 4)]
    # One may have done all the work before the other had started.
    assert 1 <= len(set(pids)) <= len(list(tmp_path.iterdir())) <= max(1, workers)
    assert os.getpid() not in pids


@pytest.mark.slow
def test_an_abandoned_run_does_not_spoil_the_next(workers):
    with Pool(worker_tasks.make, workers=workers) as pool:
        for _ in pool.run([("square", 30), ("square", 31), ("sleep", 0.2)]):
            break
        assert are_squares_correct({outcome.item: outcome for outcome in pool.run(SQUARES)})


@pytest.mark.slow
def test_each_actor_has_its_share_of_the_cores(local_ray, monkeypatch):
    task = ("environment", "OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "RAY_USAGE_STATS_ENABLED")
    for given, expected in ((None, str(ray.cluster_resources()["CPU"] // 2)[0]), ("3", "3")):
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        if given:
            monkeypatch.setenv("OMP_NUM_THREADS", given)
        with Pool(worker_tasks.make, workers=2) as pool:
            assert [outcome.value for outcome in pool.run([task])] == [[expected, "", "0"]]


def test_without_ray_the_worker_has_all_cores(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    with Pool(worker_tasks.make, workers=0) as pool:
        assert [outcome.value for outcome in pool.run([("environment", "OMP_NUM_THREADS")])] == [["7"]]


# --- items that fail -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "error"),
    [
        (("raise_user_error", "video.mp4: no\nvideo"), "video.mp4: no video"),
        (("raise_bug",), "ZeroDivisionError: a bug in two lines (worker_tasks.py:"),
        (("return_unpicklable",), "Can't pickle"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else None,
)
@pytest.mark.slow
def test_what_a_handler_raises_is_its_items_error_and_not_tried_again(run_tasks, tmp_path, task, error):
    failing = ("record_try", tmp_path, *task)
    outcomes = run_tasks(failing, *SQUARES)
    assert outcomes[failing].value is None
    assert error in outcomes[failing].error
    assert outcomes[failing].is_unforeseen == (task[0] != "raise_user_error")
    assert "\n" not in outcomes[failing].error
    assert len(list(tmp_path.iterdir())) == 1
    assert are_squares_correct(outcomes)


@pytest.mark.parametrize(
    ("task", "error"),
    [
        (("crash",), "its process was killed by SIGSEGV (2 tries)"),
        (("exit_process", 4), "its process ended with exit code 4 (2 tries)"),
        (("sleep", 1000), "its process gave no result for 1 s (2 tries)"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else None,
)
@pytest.mark.slow
def test_an_item_that_ends_its_process_fails_alone_and_soon(run_tasks, tmp_path, task, error):
    failing = ("record_try", tmp_path, *task)
    started = time.monotonic()
    outcomes = run_tasks(*SQUARES[:2], failing, *SQUARES[2:], stall_seconds=1)
    assert outcomes[failing] == Outcome(failing, None, error)
    assert are_squares_correct(outcomes)
    assert len(list(tmp_path.iterdir())) == 2
    assert time.monotonic() - started < PATIENCE_SECONDS


@pytest.mark.slow
def test_an_item_whose_process_dies_by_chance_completes_in_another(run_tasks, tmp_path):
    unlucky = ("die_once", tmp_path / "died")
    outcomes = run_tasks(unlucky, *SQUARES)
    assert outcomes[unlucky] == Outcome(unlucky, "completed", None)
    assert are_squares_correct(outcomes)


@pytest.mark.slow
@needs_proc
def test_a_worker_that_is_killed_while_idle_costs_no_try(workers):
    with Pool(worker_tasks.make, workers=workers) as pool:
        assert [outcome.error for outcome in pool.run([("square", 1)])] == [None]
        idle = worker_children()
        for pid in idle:
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not any(map(is_alive, idle)))
        assert are_squares_correct({outcome.item: outcome for outcome in pool.run(SQUARES)})


@pytest.mark.slow
@needs_proc
def test_a_killed_actor_is_replaced(local_ray, tmp_path):
    sleeping = ("sleep", 1, tmp_path / "pid")
    killed = []
    with Pool(worker_tasks.make, workers=2) as pool:

        def items():
            yield sleeping
            wait_until((tmp_path / "pid").exists)
            child = int((tmp_path / "pid").read_text())
            actor = parent_of(child)
            assert "ray::" in descendants()[actor]
            os.kill(actor, signal.SIGKILL)
            killed.append(child)
            yield from SQUARES

        outcomes = {outcome.item: outcome for outcome in pool.run(items())}
    assert outcomes[sleeping] == Outcome(sleeping, "slept", None)
    assert are_squares_correct(outcomes)
    wait_until(lambda: not is_alive(killed[0]))  # otherwise it would go on computing for no one


# --- several quick items in a call of Ray ----------------------------------------------------------------------------


class Counted(Iterator[worker_tasks.Task]):
    """Tasks that say how many are left, as those of a list do."""

    def __init__(self, tasks: list[worker_tasks.Task]) -> None:
        self._tasks, self.num_taken = tasks, 0

    def __length_hint__(self) -> int:
        return len(self._tasks) - self.num_taken

    def __next__(self) -> worker_tasks.Task:
        if not self.__length_hint__():
            raise StopIteration
        self.num_taken += 1
        return self._tasks[self.num_taken - 1]


@pytest.mark.slow
def test_quick_items_come_several_in_a_call_and_others_one_by_one(local_ray):
    def most_taken(tasks: list[worker_tasks.Task]) -> int:
        """Return how many items were out at once."""
        source = Counted(tasks)
        num_out = [source.num_taken - i for i, _ in enumerate(pool.run(source))]
        assert len(num_out) == len(tasks)
        return max(num_out)

    with Pool(worker_tasks.make, workers=2) as pool:
        assert most_taken([("square", i) for i in range(400)]) > 4
        assert most_taken([("sleep", 0.3)] * 8) <= 4  # half of the share of each, as the last ones were quick
        assert most_taken([("sleep", 0.3)] * 8) == 2


def quick(folder: Path, number: int) -> list[worker_tasks.Task]:
    """Return tasks that note each try by a file in the folder, which is made."""
    folder.mkdir()
    return [("record_try", folder, "square", i) for i in range(number)]


@pytest.mark.slow
def test_what_fails_among_quick_items_fails_alone(local_ray, tmp_path):
    tasks = quick(tmp_path / "tries", 400)
    odd = {("crash",): "SIGSEGV (2 tries)", ("raise_user_error", "no"): "no", ("sleep", 0.5): None}
    odd |= {("die_once", tmp_path / "died"): None, ("raise_bug",): "ZeroDivisionError: a bug"}
    for i, task in enumerate(odd):
        tasks.insert(60 * (i + 1), task)
    with Pool(worker_tasks.make, workers=2) as pool:
        outcomes = list(pool.run(tasks))
    assert sorted(map(repr, tasks)) == sorted(repr(outcome.item) for outcome in outcomes)
    errors = {outcome.item: outcome.error for outcome in outcomes if outcome.error}
    assert errors.keys() == {task for task, error in odd.items() if error}
    assert all(odd[task] in error for task, error in errors.items())
    assert len(list((tmp_path / "tries").iterdir())) == 400


@pytest.mark.slow
@needs_proc
def test_a_worker_that_is_lost_with_several_items_counts_against_none_that_did_not_end_it(local_ray, tmp_path):
    """The items are tried one by one then, so it is known which one ends its worker each time."""
    (tmp_path / "kills").mkdir()
    killing = ("record_try", tmp_path / "kills", "kill_worker")
    tasks = quick(tmp_path / "tries", 200)
    tasks.insert(60, killing)
    with Pool(worker_tasks.make, workers=2) as pool:
        outcomes = list(pool.run(tasks))
    assert sorted(map(repr, tasks)) == sorted(repr(outcome.item) for outcome in outcomes)
    (failed,) = (outcome for outcome in outcomes if outcome.error)
    assert failed.item == killing and failed.by_place and "its process has ended (3 losses)" in failed.error
    assert len(list((tmp_path / "kills").iterdir())) in (3, 4)
    assert all(outcome.value == outcome.item[-1] ** 2 for outcome in outcomes if outcome is not failed)


# --- what ends a run -------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_handler_that_cannot_be_made_ends_the_run(run_tasks):
    with pytest.raises(LvqaError, match=r"^model 'nobody' is unknown$"):
        run_tasks(*SQUARES, make=worker_tasks.make_refusing)
    with pytest.raises(RuntimeError, match=r"(?s)a worker could not start:.*Traceback.*no such key"):
        run_tasks(*SQUARES, make=worker_tasks.make_broken)
    with pytest.raises(LvqaError, match="a worker could not start: its process ended with exit code 7"):
        run_tasks(*SQUARES, make=worker_tasks.make_dying)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"workers": -1}, "workers must be 0 .* got -1"),
        ({"workers": 0, "address": "10.0.0.1:6379"}, "workers must be 1 or more .* got 0"),
        ({"workers": 1, "gpus_per_worker": -0.5}, "gpus_per_worker must be .* got -0.5"),
        ({"workers": 1, "gpus_per_worker": 1.5}, "gpus_per_worker must be a share of one GPU, .* got 1.5"),
        ({"workers": 1, "gpus_per_worker": float("inf")}, "gpus_per_worker must be a share of one GPU, .* got inf"),
        ({"workers": 1, "stall_seconds": 0}, "stall_seconds must be more than 0, got 0"),
    ],
)
def test_numbers_that_are_not_allowed_are_named(options, error):
    with pytest.raises(LvqaError, match=error):
        Pool(worker_tasks.make, **options)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"workers": 3}, r"workers must be at most 2, each with a core and 0 GPUs \(.* 2\); got 3; --workers max"),
        ({"workers": 1, "gpus_per_worker": 0.5}, r"workers must be at most 0, .* 0.5 GPUs \(.* 0\); got 1"),
        ({"workers": 1, "gpus_per_worker": 2}, r"workers must be at most 0, .* 2 GPUs \(.* 0\); got 1"),
        ({"workers": "max", "gpus_per_worker": 1}, r"workers must be at most 0, .* 1 GPUs \(.* 0\); got max"),
    ],
)
def test_more_workers_than_ray_has_room_for_are_refused_at_once(local_ray, options, error):
    with pytest.raises(LvqaError, match=error), Pool(worker_tasks.make, **options):
        pass
    assert ray.is_initialized()


# --- nothing stays behind --------------------------------------------------------------------------------------------


@needs_proc
@pytest.mark.slow
def test_a_pool_that_closes_leaves_no_process(workers):
    before = worker_children()
    with Pool(worker_tasks.make, workers=workers) as pool:
        for _ in pool.run([("square", 1), ("sleep", 1000), ("sleep", 1000)]):
            assert worker_children() - before
            break
    assert worker_children() == before


SLEEPING_SCRIPT = """
import sys
from pathlib import Path
import worker_tasks
from lvqa.workers import Pool

if __name__ == "__main__":
    folder, workers = Path(sys.argv[1]), int(sys.argv[2])
    try:
        with Pool(worker_tasks.make, workers=workers) as pool:
            list(pool.run([("sleep", 1000, folder / str(i)) for i in range(2)]))
    except KeyboardInterrupt:
        sys.exit(130)
"""


@needs_proc
@pytest.mark.parametrize(
    ("workers", "signum", "code"),
    [
        (WITHOUT_RAY, signal.SIGINT, 130),
        (WITHOUT_RAY, signal.SIGTERM, 143),
        (WITHOUT_RAY, signal.SIGKILL, -9),
        pytest.param(WITH_RAY, signal.SIGINT, 130, marks=pytest.mark.slow),
        pytest.param(WITH_RAY, signal.SIGTERM, 143, marks=pytest.mark.slow),
    ],
)
def test_a_signal_leaves_no_process(tmp_path, workers, signum, code):
    script = tmp_path / "sleeping.py"
    script.write_text(SLEEPING_SCRIPT)
    markers = tmp_path / "markers"
    markers.mkdir()
    import_paths = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[1])])
    running = subprocess.Popen(
        [sys.executable, str(script), str(markers), str(workers)],
        env={**os.environ, "PYTHONPATH": import_paths},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    wait_until(lambda: len(list(markers.iterdir())) == max(1, workers))
    family = descendants(running.pid)
    assert len(family) > workers
    # Ctrl-C reaches every process of the terminal's group.
    (os.killpg if signum == signal.SIGINT else os.kill)(running.pid, signum)
    out, err = running.communicate(timeout=PATIENCE_SECONDS)
    assert (running.returncode, out, err) == (code, "", "")
    wait_until(lambda: not any(map(is_alive, family)))

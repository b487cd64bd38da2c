"""Workers on several Ray nodes: what a node, a worker or a process may do, no item pays for.

All nodes and processes are real; see cluster.py.
"""

import contextlib
import json
import os
import pickle
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import worker_tasks
from cluster import Cluster, ClusterNode, needs_mounts, running_cluster, send
from processes import PATIENCE_SECONDS, needs_proc, wait_until

pytestmark = [pytest.mark.slow, needs_proc]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory) -> Iterator[Cluster]:
    """A head without workers, and two nodes of two."""
    for cluster in running_cluster(tmp_path_factory.mktemp("cluster")):
        cluster.add("n1", 2)
        cluster.add("n2", 2)
        yield cluster


class Driver:
    """A process that runs tasks on the cluster."""

    def __init__(self, cluster: Cluster, folder: Path, tasks: list[worker_tasks.Task], **options: Any) -> None:
        path = folder / "tasks"
        options = {"make": worker_tasks.make, "workers": "max", "address": cluster.address, **options}
        path.write_bytes(pickle.dumps((tasks, options)))
        script = Path(__file__).with_name("cluster_driver.py")
        self.out, self.err = folder / "out", folder / "err"
        with self.out.open("wb") as out, self.err.open("wb") as err:
            command = [sys.executable, str(script), str(path)]
            self.process = subprocess.Popen(command, env=cluster.environment(), stdout=out, stderr=err)

    def lines(self) -> list[dict[str, Any]]:
        """Return the outcomes so far."""
        return [json.loads(line) for line in self.out.read_text().splitlines()]

    def outcomes(self, code: int = 0) -> list[dict[str, Any]]:
        """Wait for the end, and return the outcomes in the order of the tasks."""
        assert self.process.wait(PATIENCE_SECONDS) == code, self.err.read_text()
        return sorted((line for line in self.lines() if "task" in line), key=lambda line: line["task"])

    @property
    def messages(self) -> str:
        return self.err.read_text()


class Flag:
    """What tasks wait for, so that nothing depends on which worker has started first."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "workers" / "flag"
        self._path.parent.mkdir()

    def tasks(self, number: int) -> list[worker_tasks.Task]:
        """Return tasks that end after the flag is raised."""
        return [("sleep_after", self._path, i) for i in range(number)]

    def wait_for_workers(self, **expected: int) -> None:
        """Wait until so many workers of each node have a task, or more."""

        def are_there() -> bool:
            names = [path.name.partition("-")[0] for path in self._path.parent.iterdir()]
            return all(names.count(name) >= number for name, number in expected.items())

        wait_until(are_there)

    def raise_it(self) -> None:
        self._path.touch()


@pytest.fixture
def flag(tmp_path) -> Flag:
    return Flag(tmp_path)


@pytest.fixture
def run_tasks(cluster, tmp_path):
    def run_tasks(*tasks: worker_tasks.Task, **options: Any) -> tuple[list[dict[str, Any]], str]:
        driver = Driver(cluster, tmp_path, list(tasks), **options)
        return driver.outcomes(), driver.messages

    return run_tasks


def test_only_what_fails_on_two_nodes_has_failed_and_a_missing_file_is_the_places(run_tasks):
    outcomes, messages = run_tasks(
        *[("fail_on", name, "bad", i) for name in ("n1", "n2") for i in range(2)],
        *[("lack_file_on", name, f"{name}.mp4") for name in ("n1", "n2")],
        *[("raise_user_error", "bad video"), ("raise_bug",), ("read_missing", "a.mp4")],
    )
    *once, both, bug, missing = outcomes
    assert [(line["value"], line["error"]) for line in once] == [
        (n, None) for n in ("n2", "n2", "n1", "n1", "n2", "n1")
    ]
    assert [(line["error"][:9], line["by_place"]) for line in (both, bug)] == [
        ("bad video", False),
        ("ZeroDivis", False),
    ]
    assert missing["error"].startswith("a.mp4: No such file") and missing["by_place"]
    assert any(f"node {name}: bad video; it is tried again" in messages for name in ("n1", "n2"))


def test_a_node_that_fails_at_everything_is_left_out_by_name(run_tasks, tmp_path):
    """Although failing is faster than working, it costs no item anything."""
    outcomes, messages = run_tasks(
        *[("fail_first_on", "n2", tmp_path / "tried", "nothing works", i) for i in range(40)]
    )
    assert [line["value"] for line in outcomes] == ["n1"] * 40
    assert re.search(r"node n2 is left out: \d+ tries have failed one after the other; the last: nothing", messages)


@pytest.mark.parametrize(
    ("options", "name", "reason"),
    [
        ({"make": partial(worker_tasks.make_failing_on, "n2")}, "n2", "the model can't be loaded"),
        ({"probe": partial(worker_tasks.probe_of, "n1")}, "n1", "torch is 1, expected 2"),
        (
            {"make": partial(worker_tasks.Identified, "n1"), "identity": "commit a"},
            "n1",
            "the model is commit b there, and commit a where the run was begun",
        ),
    ],
    ids=["make", "probe", "identity"],
)
def test_a_node_that_differs_or_cannot_start_is_left_out_by_name(cluster, tmp_path, flag, options, name, reason):
    driver = Driver(cluster, tmp_path, flag.tasks(6), **options)
    wait_until(lambda: f"node {name} is left out: {reason}" in driver.messages)
    flag.raise_it()
    outcomes = driver.outcomes()
    assert [line["value"] for line in outcomes] == ["slept"] * 6
    assert {line["node"] for line in outcomes} == {"n1", "n2"} - {name}


def test_each_worker_has_its_share_of_its_own_nodes_cores(run_tasks, cluster):
    outcomes, messages = run_tasks(("environment", "OMP_NUM_THREADS"), workers=1)
    assert outcomes[0]["value"] == [str(min(2, len(os.sched_getaffinity(0))))] and "1 of 1 worker started" in messages


@pytest.mark.parametrize("is_live", [True, False], ids=["live", "ended"])
def test_auto_is_the_cluster_that_ray_has_noted_on_this_machine(cluster, tmp_path, monkeypatch, is_live):
    noted = tmp_path / "ray" / "ray_current_cluster"
    noted.parent.mkdir()
    noted.write_text(cluster.address if is_live else "127.0.0.1:1")
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    driver = Driver(cluster, tmp_path, [("node",)], workers=1, address="auto")
    if is_live:
        assert driver.outcomes()[0]["value"] in {"n1", "n2"}
    else:
        driver.outcomes(code=1)
        assert f"no Ray answers at '127.0.0.1:1', the auto of {noted} (" in driver.messages.splitlines()[-1]


@contextlib.contextmanager
def third_node(cluster: Cluster) -> Iterator[ClusterNode]:
    node = cluster.add("n3", 2)
    try:
        yield node
    finally:
        if node.process.poll() is None:
            node.signal(signal.SIGCONT)
            node.kill()


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGSTOP], ids=["lost", "frozen"])
def test_a_lost_node_costs_no_item_and_the_others_go_on(cluster, tmp_path, flag, signum):
    """There is no room elsewhere: the run goes on with the workers that are left."""
    with third_node(cluster) as node:
        driver = Driver(cluster, tmp_path, flag.tasks(40), stall_seconds=5)
        flag.wait_for_workers(n1=1, n2=1, n3=2)
        node.signal(signum)
        flag.raise_it()
        outcomes = driver.outcomes()
    assert [line["error"] for line in outcomes] == [None] * 40
    assert {line["node"] for line in outcomes} == {"n1", "n2"}
    assert "node n3: " in driver.messages


def test_killed_and_stopped_workers_cost_no_item(cluster, tmp_path, flag):
    driver = Driver(cluster, tmp_path, flag.tasks(60), stall_seconds=5)
    flag.wait_for_workers(n1=2, n2=2)
    for name, actor_signal, child_signal in (
        ("n1", signal.SIGKILL, signal.SIGSTOP),
        ("n2", signal.SIGSTOP, signal.SIGKILL),
    ):
        node = cluster.nodes[name]
        first, second = node.actors()
        (child,) = node.children(second)
        send(child, child_signal)
        send(first, actor_signal)
    flag.raise_it()
    outcomes = driver.outcomes()
    assert [line["error"] for line in outcomes] == [None] * 60
    for text in ("a worker is lost: its process has ended", "was stopped for", "it gave no sign for"):
        assert text in driver.messages
    wait_until(lambda: not cluster.nodes["n1"].actors() + cluster.nodes["n2"].actors())


@needs_mounts
def test_a_full_disk_is_the_nodes(cluster, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    cluster.add("n3", 2, setup=f"mount -t tmpfs -o size=1m none {disk}")
    try:
        outcomes = Driver(cluster, tmp_path, [("fill_disk", disk, i) for i in range(20)]).outcomes()
    finally:
        cluster.nodes["n3"].kill()
    assert [line["error"] for line in outcomes] == [None] * 20 and "n3" not in {line["value"] for line in outcomes}


def test_a_lost_head_ends_the_driver_in_one_line(tmp_path):
    for cluster in running_cluster(tmp_path / "cluster"):
        cluster.add("n1", 1)
        driver = Driver(cluster, tmp_path, [("sleep", 0.3 + i / 1000) for i in range(1000)])
        wait_until(driver.lines)
        send(cluster.nodes["n1"].actors()[0], signal.SIGKILL)  # for the loss of a worker Ray asks the head
        cluster.head.kill()
        driver.outcomes(code=1)
        assert driver.messages.splitlines()[-1].startswith("the head of the cluster at ")
        assert "Traceback" not in driver.messages

"""Disturb runs on a cluster of several Ray nodes on this machine: `python scripts/disturb_cluster.py [NAME ...]`.

Each disturbance is done to a run of 240 rows on 6 synthetic videos of 10 minutes; the rows must be those of an
undisturbed run without Ray, at the end or when the run goes on. `python scripts/disturb_cluster.py random` does 30
disturbances, drawn from a seed, one after the other to one run. It needs Linux; some disturbances need to mount.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from cluster import Cluster, running_cluster, send  # noqa: E402
from cluster_runs import Driver, benchmark, expected_results, results_of, rows_by_node, without_module  # noqa: E402
from processes import descendants, wait_until  # noqa: E402

from lvqa.records import LvqaError  # noqa: E402


class Rehearsal:
    """A benchmark, its expected rows, and the runs on it."""

    def __init__(self, folder: Path, *, videos: int, minutes: float, questions: int) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.settings = benchmark(folder, videos=videos, minutes=minutes, questions=questions)
        self.num_rows = videos * questions * 2
        self.expected = expected_results(self.settings, folder / "undisturbed")

    def run(self, name: str, cluster: Cluster, workers: object, *options: object) -> Driver:
        """Start a run on the cluster."""
        folder = self.folder / name
        return Driver(self.settings, folder, "--workers", workers, *options, cluster=cluster)

    def check(self, driver: Driver, *, code: int = 0) -> None:
        """Wait for the end, and compare the rows."""
        actual = driver.wait(900)
        print(driver.output)
        assert actual == code, f"exit code {actual}"
        assert results_of(driver.folder) == self.expected, "the rows differ"
        print("rows by node:", rows_by_node(driver.folder))


Disturbance = Callable[[Rehearsal, Path], None]


@contextlib.contextmanager
def cluster_of(folder: Path, **cores: int) -> Iterator[Cluster]:
    """Run a cluster with these nodes, and leave nothing of it."""
    with contextlib.contextmanager(running_cluster)(folder) as cluster:
        for name, number in cores.items():
            cluster.add(name, number)
        yield cluster


def node_killed_room_elsewhere(rehearsal: Rehearsal, folder: Path) -> None:
    with cluster_of(folder, n1=2, n2=2, n3=2) as cluster:
        driver = rehearsal.run("room-elsewhere", cluster, 4)
        driver.wait_for_rows(60)
        cluster.nodes["n1"].kill()
        rehearsal.check(driver)


def node_killed_no_room(rehearsal: Rehearsal, folder: Path) -> None:
    with cluster_of(folder, n1=2, n2=2) as cluster:
        driver = rehearsal.run("no-room", cluster, 4)
        driver.wait_for_rows(60)
        cluster.nodes["n1"].kill()
        rehearsal.check(driver)


def node_terminated(rehearsal: Rehearsal, folder: Path) -> None:
    with cluster_of(folder, n1=2, n2=2) as cluster:
        driver = rehearsal.run("terminated", cluster, 4)
        driver.wait_for_rows(60)
        send(cluster.nodes["n1"].process.pid, signal.SIGTERM)
        rehearsal.check(driver)


def node_without_videos(rehearsal: Rehearsal, folder: Path) -> None:
    with cluster_of(folder, n1=1, n2=1) as cluster:
        videos = rehearsal.folder / "benchmark" / "videos"
        cluster.add("bad", 2, setup=f"mount -t tmpfs none {videos}")
        driver = rehearsal.run("no-videos", cluster, "max")
        rehearsal.check(driver)
        assert "node bad is left out" in driver.output and str(videos) in driver.output


def node_without_lvqa(rehearsal: Rehearsal, folder: Path) -> None:
    with cluster_of(folder, n1=1, n2=1) as cluster:
        cluster.add("bad", 2, python_path=str(without_module(folder / "site", "lvqa")))
        driver = rehearsal.run("no-lvqa", cluster, "max")
        rehearsal.check(driver)
        assert "node bad is left out" in driver.output and "lvqa" in driver.output


def node_without_package(rehearsal: Rehearsal, folder: Path) -> None:
    """`make` fails on one node."""
    with cluster_of(folder, n1=1, n2=1) as cluster:
        site = without_module(folder / "site", "transformers")
        cluster.add("bad", 2, python_path=f"{site}:{ROOT}:{ROOT / 'tests'}")
        driver = rehearsal.run("no-package", cluster, "max")
        rehearsal.check(driver)
        assert "node bad is left out" in driver.output and "transformers" in driver.output


def node_with_other_lvqa(rehearsal: Rehearsal, folder: Path) -> None:
    with cluster_of(folder, n1=1, n2=1) as cluster:
        shutil.copytree(ROOT / "lvqa", folder / "other" / "lvqa")
        prompts = folder / "other" / "lvqa" / "prompts.py"
        prompts.write_text(prompts.read_text() + "\n# altered\n")
        cluster.add("bad", 2, setup=f"mount --bind {folder / 'other' / 'lvqa'} {ROOT / 'lvqa'}")
        driver = rehearsal.run("other-lvqa", cluster, "max")
        rehearsal.check(driver)
        assert "node bad is left out: lvqa's code is" in driver.output


def memory_monitor(rehearsal: Rehearsal, folder: Path) -> None:
    """Ray ends actors on one node, because it takes the memory to be full."""
    with cluster_of(folder, n1=1, n2=1) as cluster:
        environment = {"RAY_memory_usage_threshold": "0.01", "RAY_memory_monitor_refresh_ms": "200"}
        cluster.add("bad", 2, environment=environment)
        driver = rehearsal.run("memory", cluster, "max")
        rehearsal.check(driver)
        assert "memory" in driver.output


def store_full(rehearsal: Rehearsal, folder: Path) -> None:
    """The disk of the store fills up on one node."""
    store = folder / "store"
    store.mkdir(parents=True)
    with cluster_of(folder / "cluster", n1=1, n2=1) as cluster:
        fill = f"(sleep 30; dd if=/dev/zero of={store}/fill bs=1M) 2>/dev/null & true"
        cluster.add("bad", 2, setup=f"mount -t tmpfs -o size=300m none {store}; {fill}")
        driver = rehearsal.run("store-full", cluster, "max", "--store", store)
        rehearsal.check(driver)


def ray_folder_full(rehearsal: Rehearsal, folder: Path) -> None:
    """The disk of Ray's own files fills up on one node while it works, and is full on another as its workers start."""
    with cluster_of(folder, n1=1) as cluster:
        for name, seconds in (("late", 60), ("early", 15)):
            fill = f"(sleep {seconds}; dd if=/dev/zero of={cluster.ray_folder}/fill bs=1M) 2>/dev/null & true"
            cluster.add(name, 1, setup=f"mount -t tmpfs -o size=100m none {cluster.ray_folder}; {fill}")
        time.sleep(15)
        driver = rehearsal.run("ray-full", cluster, "max")
        rehearsal.check(driver)


def head_killed(rehearsal: Rehearsal, folder: Path) -> None:
    with cluster_of(folder, n1=2, n2=2) as cluster:
        driver = rehearsal.run("head", cluster, 4)
        driver.wait_for_rows(60)
        cluster.head.kill()
        check_lost_head(driver)
    with cluster_of(folder / "again", n1=2, n2=2) as cluster:
        rehearsal.check(rehearsal.run("head", cluster, 4))


def head_frozen(rehearsal: Rehearsal, folder: Path) -> None:
    """The head accepts connections and never answers, while a worker is lost, for which Ray asks it."""
    with cluster_of(folder, n1=2, n2=2) as cluster:
        driver = rehearsal.run("head-frozen", cluster, 4)
        driver.wait_for_rows(60)
        cluster.head.signal(signal.SIGSTOP)
        send(cluster.nodes["n1"].actors()[0], signal.SIGKILL)
        check_lost_head(driver)
    with cluster_of(folder / "again", n1=2, n2=2) as cluster:
        rehearsal.check(rehearsal.run("head-frozen", cluster, 4))


def check_lost_head(driver: Driver) -> None:
    """Check that the driver ends in one line that says how to go on."""
    assert driver.wait(150) == 1, driver.output
    assert "goes on from there" in driver.output.splitlines()[-1], driver.output
    print(driver.output)


def actor_stopped(rehearsal: Rehearsal, folder: Path) -> None:
    with cluster_of(folder, n1=2, n2=2) as cluster:
        driver = rehearsal.run("actor-stopped", cluster, 4, "-s", "stall_seconds=15")
        driver.wait_for_rows(60)
        send(cluster.nodes["n1"].actors()[0], signal.SIGSTOP)
        rehearsal.check(driver)


def child_stopped(rehearsal: Rehearsal, folder: Path) -> None:
    with cluster_of(folder, n1=2, n2=2) as cluster:
        driver = rehearsal.run("child-stopped", cluster, 4, "-s", "stall_seconds=15")
        driver.wait_for_rows(60)
        send(cluster.nodes["n1"].children()[0], signal.SIGSTOP)
        rehearsal.check(driver)


def node_frozen(rehearsal: Rehearsal, folder: Path) -> None:
    with cluster_of(folder, n1=2, n2=2) as cluster:
        driver = rehearsal.run("node-frozen", cluster, 4)
        driver.wait_for_rows(60)
        cluster.nodes["n1"].signal(signal.SIGSTOP)
        rehearsal.check(driver)


DISTURBANCES: dict[str, Disturbance] = {
    function.__name__: function
    for function in (
        *(node_killed_room_elsewhere, node_killed_no_room, node_terminated, node_without_videos, node_without_lvqa),
        *(node_without_package, node_with_other_lvqa, memory_monitor, store_full, ray_folder_full, head_killed),
        *(head_frozen, actor_stopped, child_stopped, node_frozen),
    )
}


# --- random disturbances of one run ---------------------------------------------------------------------------------


class Storm:
    """One run that is disturbed again and again."""

    def __init__(self, rehearsal: Rehearsal, folder: Path, seed: int) -> None:
        self.rehearsal, self.folder, self.rng = rehearsal, folder, random.Random(seed)
        self.num_nodes = 0
        self.cluster = Cluster(folder)
        self.add_node()
        self.add_node()
        self.driver = self.start()

    def start(self) -> Driver:
        return self.rehearsal.run("storm", self.cluster, "max", "-s", "stall_seconds=15")

    def add_node(self) -> None:
        self.num_nodes += 1
        self.cluster.add(f"n{self.num_nodes}", 2)

    def nodes(self) -> list[str]:
        return [name for name, node in self.cluster.nodes.items() if node.process.poll() is None]

    def kill_actor(self) -> None:
        self._signal("actors", signal.SIGKILL)

    def stop_actor(self) -> None:
        self._signal("actors", signal.SIGSTOP)

    def kill_child(self) -> None:
        self._signal("children", signal.SIGKILL)

    def stop_child(self) -> None:
        self._signal("children", signal.SIGSTOP)

    def terminate_child(self) -> None:
        self._signal("children", signal.SIGTERM)

    def kill_node(self) -> None:
        self.cluster.nodes[self.rng.choice(self.nodes())].kill()
        self.add_node()

    def terminate_node(self) -> None:
        node = self.cluster.nodes[self.rng.choice(self.nodes())]
        send(node.process.pid, signal.SIGTERM)
        wait_until(lambda: node.process.poll() is not None, 60)
        self.add_node()

    def freeze_node(self) -> None:
        node = self.cluster.nodes[self.rng.choice(self.nodes())]
        node.signal(signal.SIGSTOP)
        time.sleep(5)
        node.signal(signal.SIGCONT)

    def kill_driver(self) -> None:
        self.driver.kill()
        self.driver = self.start()

    def terminate_driver(self) -> None:
        send(self.driver.process.pid, signal.SIGTERM)
        self.driver.wait(60)
        self.driver = self.start()

    def fill_disk(self) -> None:
        """Take all room in the store, a disk of its own, for some seconds."""
        filler = self.rehearsal.folder / "store" / "filler"
        try:
            with filler.open("wb") as file:
                while True:
                    file.write(bytes(1 << 20))
        except OSError:
            time.sleep(5)
        filler.unlink()

    def _signal(self, kind: str, signum: int) -> None:
        pids = [pid for name in self.nodes() for pid in getattr(self.cluster.nodes[name], kind)()]
        if pids:
            send(self.rng.choice(pids), signum)


STORM = ("kill_actor", "stop_actor", "kill_child", "stop_child", "terminate_child", "kill_node", "terminate_node")
STORM += ("freeze_node", "kill_driver", "terminate_driver", "fill_disk")
UNSHARED = "LVQA_DISTURB_UNSHARED"
STORE_SIZE = "600m"


def random_disturbances(rehearsal: Rehearsal, folder: Path, seed: int, number: int) -> None:
    """Disturb one run so many times."""
    folder.mkdir(parents=True)
    storm = Storm(rehearsal, folder, seed)
    every = max(1, rehearsal.num_rows // (number + 2))
    try:
        for i in range(number):
            target = min(rehearsal.num_rows - 2, max(storm.driver.num_rows(), (i + 1) * every))
            storm.driver.wait_for_rows(target)
            if storm.driver.process.poll() is not None:
                print(f"the driver has ended with {storm.driver.process.poll()}; it goes on", flush=True)
                storm.driver = storm.start()
            name = storm.rng.choice(STORM)
            print(f"{i + 1}: {name} at {storm.driver.num_rows()} rows", flush=True)
            getattr(storm, name)()
        while storm.driver.wait(900) != 0:
            print("once more", flush=True)
            storm.driver = storm.start()
        rehearsal.check(storm.driver)
    finally:
        if storm.driver.process.poll() is None:
            storm.driver.kill()
        storm.cluster.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "names", nargs="*", default=[*DISTURBANCES, "random"], help=", ".join([*DISTURBANCES, "random"])
    )
    parser.add_argument("--folder", type=Path, default=Path("runs/disturb_cluster").absolute(), help="for all files")
    parser.add_argument("--videos", type=int, default=6)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--questions", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1, help="the seed of the random disturbances")
    parser.add_argument("--number", type=int, default=30, help="how many random disturbances there are")
    arguments = parser.parse_args()
    folder = arguments.folder.absolute()
    if UNSHARED not in os.environ:  # mounts are for this process and its children alone
        os.environ[UNSHARED] = "1"
        os.execvp("unshare", ["unshare", "-m", sys.executable, *sys.argv])
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "store").mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={STORE_SIZE}", "none", str(folder / "store")]
    subprocess.run(mount, check=True)
    before = set(Path("/dev/shm").iterdir())
    rehearsal = Rehearsal(folder, videos=arguments.videos, minutes=arguments.minutes, questions=arguments.questions)
    failed = []
    for name in arguments.names:
        started = time.monotonic()
        print(f"=== {name}", flush=True)
        try:
            if name == "random":
                random_disturbances(rehearsal, folder / "cluster-random", arguments.seed, arguments.number)
            else:
                DISTURBANCES[name](rehearsal, folder / f"cluster-{name}")
        except (AssertionError, LvqaError) as error:
            failed.append(name)
            print(f"FAILED {name}: {error}", flush=True)
        print(f"=== {name}: {time.monotonic() - started:.0f} s", flush=True)
    left = set(Path("/dev/shm").iterdir()) - before
    print(f"left in /dev/shm: {sorted(map(str, left)) or 'nothing'}; processes left: {len(descendants()) or 'none'}")
    print(f"failed: {', '.join(failed) or 'none'} of {len(arguments.names)}")
    raise SystemExit(bool(failed))


if __name__ == "__main__":
    main()

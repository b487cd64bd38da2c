"""A cluster of several Ray nodes on this machine: each with its own home, working folder, PATH and mounts.

A node is a `ray start --block` in a session of its own, so that it can be killed or stopped as a machine would be.
Where the kernel allows, it has a mount namespace, in which folders can be hidden and disks made small.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest
from processes import descendants, is_alive, wait_until

STORE_BYTES = 80_000_000
DRIVERS_OWN = {"OMP_NUM_THREADS", "RAY_ADDRESS", "RAY_AUTH_TOKEN"}
ROOT = Path(__file__).parents[1]
CAN_MOUNT = (
    shutil.which("unshare") is not None
    and subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode == 0
)
needs_mounts = pytest.mark.skipif(not CAN_MOUNT, reason="may not make a mount namespace")


class ClusterNode:
    """One node, and all processes that it has started."""

    def __init__(self, process: subprocess.Popen[bytes], home: Path) -> None:
        self.process, self.home = process, home

    def pids(self) -> set[int]:
        """Return the node's processes."""
        return {self.process.pid, *descendants(self.process.pid)}

    def actors(self) -> list[int]:
        """Return the processes of its actors."""
        return [pid for pid, command in descendants(self.process.pid).items() if "ray::_Actor" in command]

    def children(self, actor: int | None = None) -> list[int]:
        """Return the processes that compute, of one actor or of all."""
        family = descendants(actor or self.process.pid)
        return [pid for pid, command in family.items() if "spawn_main" in command]

    def signal(self, signum: int) -> None:
        """Send a signal to all its processes at once, as when the machine is lost or frozen."""
        for pid in self.pids():
            send(pid, signum)

    def kill(self) -> None:
        """Lose the node."""
        pids = self.pids()
        for pid in pids:
            send(pid, signal.SIGKILL)
        self.process.wait()
        wait_until(lambda: not any(map(is_alive, pids)))


class Cluster:
    """A head without workers, and nodes that can be added and lost."""

    def __init__(self, folder: Path, *, head_cores: int = 0) -> None:
        self.folder = folder
        # The paths of sockets must be short.
        self.ray_folder = Path(tempfile.mkdtemp(prefix="lr", dir="/tmp"))
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.nodes: dict[str, ClusterNode] = {}
        options = ["--head", "--port", str(self.port), "--include-dashboard=false"]
        self.head = self._start("head", head_cores, [*options, "--temp-dir", str(self.ray_folder)])
        wait_until(lambda: answers(self.port))
        time.sleep(2)

    def add(self, name: str, cores: int, **options: object) -> ClusterNode:
        """Start a node, and wait until it has joined, since two that start at once are in each other's way."""
        node = self._start(name, cores, ["--address", self.address], **options)  # type: ignore[arg-type]
        log = self.folder / f"{name}.log"
        wait_until(lambda: b"runtime started" in log.read_bytes() or node.process.poll() is not None)
        assert node.process.poll() is None, log.read_text()
        self.nodes[name] = node
        return node

    def _start(
        self,
        name: str,
        cores: int,
        arguments: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
        setup: str = "",
        python_path: str = f"{ROOT}{os.pathsep}{ROOT / 'tests'}",
    ) -> ClusterNode:
        """Start Ray's processes of a node.

        Args:
            name: The node's name.
            cores: How many cores it has, by its own account.
            arguments: More arguments of `ray start`.
            environment: Variables of the node.
            setup: A shell command that is run first, in the node's mount namespace: "mount -t tmpfs none /a/folder".
            python_path: Where the node finds lvqa.
        """
        home = self.folder / f"home-{name}"
        (home / "work").mkdir(parents=True, exist_ok=True)
        own = {
            "HOME": str(home),
            "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
            "PYTHONPATH": python_path,
            "RAY_AUTH_MODE": "disabled",
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_raylet_start_wait_time_s": "600",  # where the machine is busy
            **(environment or {}),
        }
        command = [str(Path(sys.executable).parent / "ray"), "start", *arguments, "--block", "--disable-usage-stats"]
        command += ["--node-name", name, "--num-cpus", str(cores), "--object-store-memory", str(STORE_BYTES)]
        command += ["--node-ip-address", "127.0.0.1"]
        if setup:
            command = ["unshare", "-m", "bash", "-ec", f'{setup}; exec "$@"', "node", *command]
        with (self.folder / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                command, env=own, cwd=home / "work", stdout=log, stderr=log, start_new_session=True
            )
        return ClusterNode(process, home)

    def stop(self) -> None:
        """End all that is left."""
        for node in [*self.nodes.values(), self.head]:
            if node.process.poll() is None:
                node.signal(signal.SIGCONT)
                node.kill()
        shutil.rmtree(self.ray_folder, ignore_errors=True)

    def environment(self) -> dict[str, str]:
        """Return the variables of a driver."""
        own = {"RAY_AUTH_MODE": "disabled", "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
        return {**{name: os.environ[name] for name in os.environ if name not in DRIVERS_OWN}, **own}


def send(pid: int, signum: int) -> None:
    """Send a signal to a process that may have ended."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signum)


def free_port() -> int:
    """Return a port that nothing listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def answers(port: int) -> bool:
    """Return whether something listens on the port."""
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


def running_cluster(folder: Path, **options: int) -> Iterator[Cluster]:
    """Yield a cluster, and leave nothing of it."""
    folder.mkdir(parents=True, exist_ok=True)
    cluster = Cluster(folder, **options)
    try:
        yield cluster
    finally:
        cluster.stop()

"""The nodes of a cluster: how many workers each has room for, what must be equal on all, and which are left out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

STRIKES = 3
"""A node is left out when so many tries for each of its workers have failed one after the other."""


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """What a probe says about the machine where it is called."""

    equal: dict[str, str] = field(default_factory=dict)
    """What must be as it is where the run was started: name -> value."""
    notes: dict[str, Any] = field(default_factory=dict)
    """What is noted about the node, as JSON holds it."""
    warnings: tuple[str, ...] = ()
    """What is not as it should be, and costs no answer."""

    def difference(self, expected: NodeFacts) -> str | None:
        """Return a line on what is not as expected, or None."""
        differences = [
            f"{name} is {self.equal.get(name, 'missing')}, expected {value}"
            for name, value in expected.equal.items()
            if self.equal.get(name) != value
        ]
        return "; ".join(differences) or None


Probe = Callable[[], NodeFacts]
"""A function of a module, or a partial of one. It says what a machine is like, or raises LvqaError if it can't work."""


@dataclass(slots=True, eq=False)
class Node:
    """A machine of the cluster."""

    id: str
    name: str
    num_cores: int
    num_gpus: float
    is_alive: bool = True
    strikes: int = 0
    """How many tries have failed here, one after the other."""
    last_failure: str = ""
    """Why the last of them failed."""
    bench_reason: str | None = None
    """Why the node is left out, if it is."""

    @property
    def is_usable(self) -> bool:
        """Whether workers may be started here."""
        return self.is_alive and self.bench_reason is None

    def num_rooms(self, gpus_per_worker: float) -> int:
        """Return how many workers the node can have, each with a core and its share of a GPU."""
        if not gpus_per_worker:
            return self.num_cores
        if gpus_per_worker > 1:
            return min(self.num_cores, int(self.num_gpus // gpus_per_worker))
        return min(self.num_cores, int(self.num_gpus * int(1 / gpus_per_worker)))


class Nodes:
    """All nodes that the cluster has had, by their ids."""

    def __init__(self, gpus_per_worker: float) -> None:
        self._gpus_per_worker = gpus_per_worker
        self.by_id: dict[str, Node] = {}

    def update(self, entries: Iterable[Mapping[str, Any]]) -> None:
        """Take over what `ray.nodes()` returns."""
        for entry in entries:
            resources = entry["Resources"]
            node = self.by_id.get(entry["NodeID"])
            if node is None and entry["Alive"]:
                node = Node(
                    entry["NodeID"],
                    self._name_of(entry),
                    int(resources.get("CPU", 0)),
                    resources.get("GPU", 0),
                )
                self.by_id[node.id] = node
            elif node is not None:
                node.is_alive = bool(entry["Alive"])

    @property
    def usable(self) -> list[Node]:
        """The nodes where workers may be started."""
        return [node for node in self.by_id.values() if node.is_usable]

    @property
    def num_rooms(self) -> int:
        """How many workers the usable nodes can have."""
        return sum(node.num_rooms(self._gpus_per_worker) for node in self.usable)

    def plan(self, num_workers: int | None) -> dict[str, int]:
        """Spread workers evenly over the usable nodes.

        Args:
            num_workers: How many there should be; None: as many as there is room for.

        Returns:
            Node id -> how many workers it has.
        """
        rooms = {node.id: node.num_rooms(self._gpus_per_worker) for node in self.usable}
        plan = dict.fromkeys(rooms, 0)
        for _ in range(sum(rooms.values()) if num_workers is None else num_workers):
            free = [node_id for node_id in plan if plan[node_id] < rooms[node_id]]
            if not free:
                break
            plan[min(free, key=plan.__getitem__)] += 1
        return plan

    def num_threads(self, num_workers: int) -> int:
        """Return how many threads each worker has if all have as many: the smallest share of a node's cores."""
        plan = self.plan(num_workers)
        return min(max(1, self.by_id[node_id].num_cores // num) for node_id, num in plan.items() if num)

    def describe_rooms(self) -> str:
        """Return "n1 2, n2 4": the rooms of each usable node."""
        return ", ".join(f"{node.name} {node.num_rooms(self._gpus_per_worker)}" for node in self.usable)

    def _name_of(self, entry: Mapping[str, Any]) -> str:
        """Return the name that the node was started with, else its host's; two nodes never share one."""
        name, address = entry["NodeName"], entry["NodeManagerAddress"]
        name = entry["NodeManagerHostname"] if name in ("", address) else name
        if any(node.name == name and node.is_alive for node in self.by_id.values()):
            name = f"{name}-{entry['NodeID'][:6]}"
        return str(name)

"""Workers on Ray: which nodes have workers, which worker has which item, and what the loss of one costs.

All decisions are made here and none by Ray: an actor has one life on one node, and Ray neither restarts it nor repeats
a call. A worker that is lost is replaced where there is room; its item goes to whoever is free.
"""

from __future__ import annotations

import logging
import os
import pickle
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from lvqa.records import LvqaError
from lvqa.workers.failures import BLAMING, Attempts, Blame, Failure, one_line
from lvqa.workers.log_folder import LogFolder
from lvqa.workers.nodes import STRIKES, Node, NodeFacts, Nodes, Probe
from lvqa.workers.queue import Queue, Result
from lvqa.workers.ray_cluster import ClusterError, ClusterLostError, RayCluster
from lvqa.workers.ray_worker import NODE_IS_GONE, PING_SECONDS, ActorSpec, RayWorker, describe_workers, reason_of_loss
from lvqa.workers.worker import Reply, StartLostError, WorkerSpec

_log = logging.getLogger(__name__)

TICK_SECONDS = 1.0
"""How often nodes and workers are looked at."""
MAX_ITEMS_IN_CALL = 16
"""So many quick items are given to a worker at once."""
SILENCE_SECONDS = 60.0
"""How long a worker may give no sign before it counts as lost. It only supervises, so it is never busy."""
ROOM_SECONDS = 60.0
"""How long a worker may wait for room on its node before others stop counting on it."""
STOP_TIMEOUT_SECONDS = 10.0
"""How long the actors may take to end their children before they are killed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RayOptions:
    """Where the workers are, and how they are watched; see `Pool`."""

    workers: int | None
    """None takes as many as there is room for."""
    address: str | None
    gpus_per_worker: float
    runtime_env: Mapping[str, Any] | None
    probe: Probe | None
    identity: str | None
    item_seconds: Callable[[Any], float]


class RayBackend:
    """The backend of a pool with workers on Ray."""

    def __init__(self, spec: WorkerSpec, options: RayOptions, logs: LogFolder, on_wait: Callable[[str], None]) -> None:
        self._spec, self._options, self._logs, self._on_wait = spec, options, logs, on_wait
        self._num_threads = os.environ.get("OMP_NUM_THREADS")  # read before Ray sets its own
        self._silence_seconds = min(SILENCE_SECONDS, max(2 * PING_SECONDS, spec.stall_seconds))
        self._patience_seconds = max(ROOM_SECONDS, spec.stall_seconds)
        self._workers: list[RayWorker] = []
        self._calls: dict[Any, RayWorker] = {}
        self._idle: list[RayWorker] = []
        self._results: deque[Result] = deque()
        self._queue = Queue(())
        self._identity = (options.identity, "where the run was begun") if options.identity else None
        self._start_errors: dict[str, Exception] = {}
        self._expected: NodeFacts | None = None
        self._num_ready = self._next_tick = self._worked_at = 0.0
        self.node_facts: dict[str, NodeFacts] = {}
        """Node -> what its probe said."""
        self._nodes = Nodes(options.gpus_per_worker)
        self._cluster = RayCluster(options.address, num_workers=options.workers, runtime_env=options.runtime_env)
        try:
            self._nodes.update(self._cluster.nodes())
            self._require_rooms()
            if options.probe is not None:
                self._expected = options.probe()
            self._hire()
        except BaseException:
            self.stop()
            raise

    def results(self, items: Iterable[Any]) -> Iterator[Result]:
        """Yield the result of each item, in the order in which they are completed."""
        import ray

        self._queue = Queue(items)
        for worker in self._workers:
            worker.attempts = []  # of a run that was left
        self._worked_at = time.monotonic()
        while True:
            self._hand_out()
            yield from self._drain()
            if not any(worker.attempts for worker in self._calls.values()) and self._queue.is_empty():
                return
            if self._calls:
                completed, _ = ray.wait(list(self._calls), timeout=TICK_SECONDS)
            else:
                completed = []
                time.sleep(TICK_SECONDS / 4)
            for call in completed:
                self._complete(call)
            if time.monotonic() >= self._next_tick:
                self._tick()
            yield from self._drain()

    def stop(self) -> None:
        """End the children, then the actors, then Ray if this backend has started or joined it."""
        self._cluster.close(self._stop_actors)

    # --- items -------------------------------------------------------------------------------------------------------

    def _hand_out(self) -> None:
        """Give each idle worker an item, or several quick ones; the one that has just become idle comes first."""
        if not self._idle:
            return
        at_work = self._nodes_at_work()
        for worker in reversed(self._idle[:]):
            share = self._queue.num_new() // (2 * len(self._workers)) if worker.is_quick else 1
            worker.attempts = self._queue.take(worker.node.id, at_work, max(1, min(share, MAX_ITEMS_IN_CALL)))
            if worker.attempts:
                self._idle.remove(worker)
                items = [attempts.item for attempts in worker.attempts]
                self._call(worker, "handle", [*map(pickle.dumps, items)], [*map(self._options.item_seconds, items)])

    def _nodes_at_work(self) -> set[str]:
        """Return the nodes that have a worker, or will have one soon."""
        soon = time.monotonic() - ROOM_SECONDS
        return {worker.node.id for worker in self._workers if worker.is_alive or worker.created_at > soon}

    def _drain(self) -> Iterator[Result]:
        while self._results:
            yield self._results.popleft()

    def _fail(self, attempts: Attempts[Any], node: Node, failure: Failure) -> None:
        """Note a failed try; then the item is tried again, or has failed."""
        attempts.failures.append((node.id, failure))
        self._logs.note_failure(node.name, failure.reason, failure.details)
        self._strike(node, failure.reason)
        final = attempts.verdict(self._nodes_at_work())
        if final is None:
            if failure.blame in (Blame.ITEM, Blame.PLACE) and node.strikes <= STRIKES:
                _log.warning("node %s: %s; it is tried again", node.name, failure.reason)
            self._queue.put_back([attempts])
            return
        if not final.is_places:  # the nodes are not to blame
            for node_id in attempts.nodes_of(*BLAMING):
                self._nodes.by_id[node_id].strikes -= 1
        self._results.append(Result(attempts.item, b"", final, node.name))

    # --- workers -----------------------------------------------------------------------------------------------------

    def _hire(self) -> None:
        """Ask for the workers that are lacking, where there is room."""
        plan = self._nodes.plan(self._options.workers)
        lacking = dict(plan)
        for worker in self._workers:
            lacking[worker.node.id] = lacking.get(worker.node.id, 0) - 1
        for node_id, number in lacking.items():
            for _ in range(number):
                node = self._nodes.by_id[node_id]
                spec = self._actor_spec(node, plan[node_id])
                worker = self._cluster.ask(partial(RayWorker.create, node, spec, self._options.gpus_per_worker))
                self._workers.append(worker)
                self._call(worker, "probe")

    def _actor_spec(self, node: Node, num_sharing: int) -> ActorSpec:
        environment = {} if self._options.gpus_per_worker else {"CUDA_VISIBLE_DEVICES": ""}
        return ActorSpec(
            worker=self._spec,
            probe=pickle.dumps(self._options.probe),
            environment=environment,
            import_paths=sys.path,
            num_threads=self._num_threads,
            num_cores=node.num_cores,
            num_sharing=num_sharing,
        )

    def _call(self, worker: RayWorker, method: str, *arguments: Any) -> None:
        import ray

        worker.call = method
        try:
            self._calls[getattr(worker.actor, method).remote(*arguments)] = worker
        except (ray.exceptions.RayError, ConnectionError) as error:
            self._lose(worker, error)

    def _complete(self, call: Any) -> None:
        """Take over what a call has returned."""
        import ray

        worker = self._calls.pop(call)
        try:
            reply = ray.get(call)
        except ray.exceptions.RayTaskError as error:
            self._refuse(worker, error.cause if isinstance(error.cause, Exception) else error)
        except (ray.exceptions.RayError, ConnectionError) as error:
            self._lose(worker, error)
        else:
            worker.is_alive = True
            getattr(self, f"_after_{worker.call}")(worker, reply)

    def _after_probe(self, worker: RayWorker, facts: NodeFacts | None) -> None:
        name = worker.node.name
        if facts is not None:
            if name not in self.node_facts:
                for warning in facts.warnings:
                    _log.warning("node %s: %s", name, warning)
            self.node_facts[name] = facts
            difference = facts.difference(self._expected) if self._expected else None
            if difference:
                self._bench(worker.node, LvqaError(difference))
                return
        self._call(worker, "start")

    def _after_start(self, worker: RayWorker, reply: tuple[str | None, bytes]) -> None:
        identity, log = reply
        name = worker.node.name
        self._logs.append(f"worker-{name}.log", log)
        if identity is not None:
            first, where = self._identity = self._identity or (identity, f"on {name}")
            if identity != first:
                self._bench(worker.node, LvqaError(f"the model is {identity} there, and {first} {where}"))
                return
        worker.is_ready = True
        self._idle.append(worker)
        self._tell_starts()
        for node in self._nodes.usable:
            self._judge(node)

    def _after_handle(self, worker: RayWorker, results: tuple[list[Reply], bytes]) -> None:
        replies, log = results
        self._logs.append(f"worker-{worker.node.name}.log", log)
        batch, worker.attempts = worker.attempts, []
        worker.is_quick, last_failure = replies[-1].is_quick, replies[-1].failure
        if last_failure is not None and last_failure.blame in (Blame.CRASH, Blame.LOST):
            self._call(worker, "start")  # it has lost its child
            if batch:
                _log.warning("node %s: %s; a new one is started", worker.node.name, last_failure.reason)
        else:
            self._idle.append(worker)
        self._queue.put_back(batch[len(replies) :])
        for attempts, reply in zip(batch, replies, strict=False):
            if reply.failure is None:
                worker.node.strikes = 0
                self._results.append(Result(attempts.item, reply.value, None, worker.node.name))
            else:
                self._fail(attempts, worker.node, reply.failure)

    def _lose(self, worker: RayWorker, error: Exception) -> None:
        """A worker has died or can't be reached: its items go to others. It counts as a loss of one that was alone."""
        self._cluster.require_head()
        reason = reason_of_loss(error, has_begun=worker.is_alive)
        batch = self._dismiss(worker)
        self._logs.note_failure(worker.node.name, f"worker lost: {reason}", str(error))
        if reason in NODE_IS_GONE and worker.node.is_alive:
            worker.node.is_alive = False  # until the cluster says otherwise
            _log.warning("node %s: %s", worker.node.name, reason)
        elif worker.node.is_usable:
            _log.warning("node %s: a worker is lost: %s", worker.node.name, reason)
        if len(batch) == 1:
            failure = Failure(f"its worker on {worker.node.name} was lost: {reason}", Blame.LOST)
            self._fail(batch[0], worker.node, failure)
        else:
            self._queue.put_back(batch)
            self._strike(worker.node, reason)
        if "No module named" in reason:
            self._bench(worker.node, LvqaError(reason))
        self._next_tick = 0.0

    def _refuse(self, worker: RayWorker, error: Exception) -> None:
        """A worker could not make its handler, or its node is not as it should be: the node is left out."""
        if isinstance(error, StartLostError):
            self._lose(worker, error)
            return
        self._queue.put_back(self._dismiss(worker))
        self._logs.note_failure(worker.node.name, "a worker could not start", str(error))
        self._bench(worker.node, error)

    def _dismiss(self, worker: RayWorker) -> list[Attempts[Any]]:
        """End a worker and forget it. Returns the items that it had."""
        self._cluster.ask(worker.kill)
        if worker in self._workers:
            self._workers.remove(worker)
        if worker in self._idle:
            self._idle.remove(worker)
        self._calls = {call: other for call, other in self._calls.items() if other is not worker}
        batch, worker.attempts = worker.attempts, []
        return batch

    # --- nodes -------------------------------------------------------------------------------------------------------

    def _strike(self, node: Node, reason: str) -> None:
        """Note a failure on a node."""
        node.strikes, node.last_failure = node.strikes + 1, reason
        self._judge(node)

    def _judge(self, node: Node) -> None:
        """Leave a node out if all tries fail there, and another node does better."""
        here = [worker for worker in self._workers if worker.node is node]
        others_work = any(worker.is_ready and worker.node is not node for worker in self._workers)
        has_started = any(worker.is_ready for worker in here)
        if node.is_usable and node.strikes >= STRIKES * max(1, len(here)) and (others_work or not has_started):
            many = f"{node.strikes} tries have failed one after the other"
            self._bench(node, LvqaError(f"{many}; the last: {node.last_failure}"))

    def _bench(self, node: Node, error: Exception) -> None:
        """Leave a node out: its workers end, and their items go to others."""
        if node.bench_reason is not None:
            return
        node.bench_reason = one_line(error).rpartition("a worker could not start: ")[2]
        self._start_errors[node.name] = error
        if len(self._nodes.by_id) > 1:
            _log.warning("node %s is left out: %s", node.name, node.bench_reason[-300:])
        for worker in [worker for worker in self._workers if worker.node is node]:
            self._queue.put_back(self._dismiss(worker))
        self._next_tick = 0.0

    def _tick(self) -> None:
        """Look at the nodes and the workers, replace what is lost, and say how it goes."""
        self._next_tick = time.monotonic() + TICK_SECONDS
        self._nodes.update(self._cluster.nodes())
        self._look_for_silence()
        self._hire()
        self._on_wait(self._describe_workers())
        if any(worker.is_alive for worker in self._workers):
            self._worked_at = time.monotonic()
        elif not self._nodes.usable and self._start_errors and all(n.bench_reason for n in self._nodes.by_id.values()):
            self._raise_no_node()
        elif time.monotonic() - self._worked_at > self._patience_seconds:
            raise ClusterLostError(f"no node has had room for a worker for {self._patience_seconds:g} s")

    def _look_for_silence(self) -> None:
        for worker in [worker for worker in self._workers if worker.is_alive]:
            if (error := worker.look_for_sign(self._silence_seconds)) is not None:
                self._lose(worker, error)

    def _raise_no_node(self) -> None:
        reasons = {node.bench_reason for node in self._nodes.by_id.values()}
        if len(reasons) == 1:
            raise next(iter(self._start_errors.values()))
        lines = "; ".join(f"{node.name}: {node.bench_reason}" for node in self._nodes.by_id.values())
        raise LvqaError(f"no node can work: {lines}")

    def _require_rooms(self) -> None:
        """Raise LvqaError if there is no room for the workers: those without would wait for ever."""
        workers, rooms = self._options.workers, self._nodes.num_rooms
        each = f"each with a core and {self._options.gpus_per_worker:g} GPUs"
        if rooms < (workers or 1):
            by_node = self._nodes.describe_rooms() or "there is none"
            advice = "; --workers max takes all, and more when nodes join" if rooms else ""
            raise ClusterError(f"workers must be at most {rooms}, {each} ({by_node}); got {workers or 'max'}{advice}")
        num_gpus = sum(node.num_gpus for node in self._nodes.usable)
        if num_gpus and not self._options.gpus_per_worker:
            _log.warning("Ray has %g GPUs, but with gpus_per_worker 0 the workers compute on CPUs", num_gpus)

    def _describe_workers(self) -> str:
        return describe_workers(self._workers, self._options.workers or self._nodes.num_rooms)

    def _tell_starts(self) -> None:
        """Say how many workers there are when the first one has started, and when all have."""
        num_ready = sum(worker.is_ready for worker in self._workers)
        target = self._options.workers or self._nodes.num_rooms
        if num_ready > self._num_ready and (num_ready == target or not self._num_ready):
            _log.info("%s", self._describe_workers().replace(":", " started:", 1))
        self._num_ready = max(num_ready, self._num_ready)

    def _stop_actors(self) -> None:
        import ray

        stopping = [worker.actor.stop.remote() for worker in self._workers if worker.is_alive]
        if stopping:
            ray.wait(stopping, num_returns=len(stopping), timeout=STOP_TIMEOUT_SECONDS)
        for worker in self._workers:
            self._cluster.ask(worker.kill)

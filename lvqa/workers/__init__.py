"""Run a handler over items in processes that may die: in one child of this process, or in actors of Ray.

The handler always runs in a spawned child process that does nothing else (torch and faiss hang in a forked one). A
`Worker` supervises one child: it notices a death or a stall, reports how the child ended (which Ray does not), and
starts another child. The supervision is the same with Ray and without. Without Ray the `Worker` lives in this process;
with Ray it lives in an actor on the child's machine. Ray places the actors and carries the items; what the end of an
actor means is decided by `RayBackend`, and whether an item is tried again by `Attempts`.

Why actors and not Ray Data: on 5 minutes of 720p in segments of a minute, on one core, one process took 11.2 s, actors
16.5 s, and Ray Data 21.2 s with its first row after 17 s; and Ray Data retries a row that kills its process for ever. A
worker has one item at a time, and the next is taken from `items` only when a worker is free: nothing piles up, and a
death costs only the item that caused it.
"""

from lvqa.workers.failures import is_of_the_place
from lvqa.workers.nodes import NodeFacts, Probe
from lvqa.workers.pool import STALL_SECONDS, Outcome, Pool, Prepare
from lvqa.workers.ray_cluster import ClusterError, ClusterLostError
from lvqa.workers.worker import report_progress

__all__ = [
    "STALL_SECONDS",
    "ClusterError",
    "ClusterLostError",
    "NodeFacts",
    "Outcome",
    "Pool",
    "Prepare",
    "Probe",
    "is_of_the_place",
    "report_progress",
]

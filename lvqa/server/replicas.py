"""The model in several processes on Ray Serve: it starts them, finds the one that has a video open, replaces the lost.

This process answers all requests as ever; only what the model does goes to a replica.
"""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import ray
from ray import serve

from lvqa.concurrency import check_stop
from lvqa.config import Config
from lvqa.pipeline import LongVideoQA
from lvqa.records import LvqaError
from lvqa.server.errors import ApiError
from lvqa.server.jobs import Event, Job, JobQueue
from lvqa.server.model import ModelFacts, Work, do_work
from lvqa.server.settings import ServerSettings
from lvqa.workers.nodes import Nodes
from lvqa.workers.ray_cluster import ClusterError, RayCluster

_log = logging.getLogger(__name__)

MAX_REQUESTS = 2
"""What a replica does at a time: a question, and a video that is indexed meanwhile."""
MAX_KNOWN_VIDEOS = 64
"""Of so many videos Serve remembers which replica has had them."""
SECONDS_BETWEEN_SIGNS = 0.5
"""How often a replica gives a sign, so that a question which nobody waits for ends."""
HEALTH_SECONDS = 2.0
"""How often Serve looks whether a replica lives."""
STOP_SECONDS = 5.0
"""How long a replica may take to end."""


class Replica:
    """One process that holds the model. Ray Serve makes it and calls it."""

    def __init__(self, config: Config, *, has_gpu: bool) -> None:
        logging.getLogger("ray.serve").setLevel(logging.WARNING)
        if not has_gpu:
            os.environ["CUDA_VISIBLE_DEVICES"] = ""
        self._qa = LongVideoQA.load(config=config)
        self._queues = {
            is_index: JobQueue(f"lvqa-replica-{is_index}", max_waiting=MAX_REQUESTS) for is_index in (False, True)
        }

    def facts(self) -> ModelFacts:
        """Return what is known of the model."""
        return ModelFacts.of(self._qa)

    @serve.multiplexed(max_num_models_per_replica=MAX_KNOWN_VIDEOS)  # type: ignore[untyped-decorator]
    async def open(self, video_id: str) -> str:
        """Tell Serve that this replica has the video from now on; the pipeline itself keeps it open."""
        return video_id

    async def work(self, kind: str, work: Work) -> AsyncIterator[Event | None]:
        """Do something with the model. Yields what happens, None as a sign of life, and the end."""
        if video_id := serve.get_multiplexed_model_id():
            await self.open(video_id)
        job = self._queues[kind == "index"].submit(kind, lambda job: do_work(self._qa, work, job))
        try:
            async for event in job.follow(SECONDS_BETWEEN_SIGNS):
                if event is None or event["event"] == "frames" or "total" in event:
                    yield event
            yield {"event": "end", "result": job.result, "error": job.error}
        finally:
            job.stop()


class Replicas:
    """The replicas of a server, on the Ray that it has joined or started."""

    def __init__(self, settings: ServerSettings) -> None:
        """Join Ray, and check that there is room.

        Raises:
            LvqaError: There is no such cluster, or not so much room.
        """
        self._settings = settings
        self._handle: Any = None
        self._name = f"lvqa-{settings.host}-{settings.port}"
        self._num_threads = os.environ.get("OMP_NUM_THREADS")  # read before Ray sets its own
        self._cluster = RayCluster(settings.ray_address, num_workers=settings.workers, runtime_env=None)
        try:
            self._require_room()
        except BaseException:
            self.close()
            raise

    def _require_room(self) -> None:
        share = self._settings.gpus_per_worker
        nodes = Nodes(share)
        nodes.update(self._cluster.nodes())
        if self._settings.workers > nodes.num_rooms:
            each = f"each with a core and {share:g} GPUs ({nodes.describe_rooms() or 'there is none'})"
            raise ClusterError(f"workers must be at most {nodes.num_rooms}, {each}; got {self._settings.workers}")
        if self._num_threads is None:  # Ray would give each one thread
            self._num_threads = str(nodes.num_threads(self._settings.workers))

    def start(self) -> ModelFacts:
        """Start the replicas, and wait until all have the model.

        Raises:
            LvqaError: One could not start.
        """
        share = self._settings.gpus_per_worker
        logging.getLogger("ray.serve").setLevel(logging.ERROR)
        serve.start(proxy_location="Disabled")  # this process answers requests
        deployment = serve.deployment(
            num_replicas=self._settings.workers,
            max_ongoing_requests=MAX_REQUESTS,
            ray_actor_options={
                "num_cpus": 1,
                "num_gpus": share,
                "runtime_env": {"env_vars": {"OMP_NUM_THREADS": self._num_threads}},
            },
            health_check_period_s=HEALTH_SECONDS,
            graceful_shutdown_timeout_s=STOP_SECONDS,
        )(Replica)
        application = deployment.bind(self._settings.config, has_gpu=share > 0)
        try:
            self._handle = serve.run(application, name=self._name, route_prefix=None)
            facts: ModelFacts = self._handle.facts.remote().result()
        except (RuntimeError, ray.exceptions.RayError) as error:
            raise LvqaError(f"the model can't be loaded on Ray: {_last_line(error)}") from error
        return facts

    def run(self, kind: str, work: Work, job: Job, video_id: str | None) -> dict[str, Any]:
        """Have a replica do something, one that has the video open if there is one; tell the job how far it is.

        Raises:
            ApiError: The work has failed, or two replicas were lost with it.
            StoppedError: The job was stopped.
        """
        for is_last in (False, True):
            try:
                return self._run_once(kind, work, job, video_id)
            except ray.exceptions.RayTaskError:
                raise
            except (ray.exceptions.RayError, serve.exceptions.RayServeException) as error:
                if is_last:
                    raise ApiError(503, "two workers were lost with this request; ask again later") from error
                _log.warning("a worker is lost (%s); its request is sent to another one", type(error).__name__)
        raise AssertionError

    def _run_once(self, kind: str, work: Work, job: Job, video_id: str | None) -> dict[str, Any]:
        handle = self._handle.options(stream=True, multiplexed_model_id=video_id or "")
        response = handle.work.remote(kind, work)
        try:
            for event in response:
                check_stop()
                match event:
                    case {"event": "end", "result": result, "error": error}:
                        if error is not None:
                            raise ApiError(*error)
                        return dict(result)
                    case {"event": name, "done": num_done, "total": total}:
                        job.progress(name, num_done, total)
                    case {"event": _}:
                        job.tell(event)
        finally:
            response.cancel()
        raise ApiError(503, "a worker has ended without a result; ask again")

    def close(self) -> None:
        """End the replicas, and leave Ray."""

        def stop_actors() -> None:
            with suppress(Exception):  # there is no Serve, or it is gone
                serve.delete(self._name)

        self._cluster.close(stop_actors)


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    named = [line for line in lines if "Error: " in line]
    return (named or lines or [type(error).__name__])[-1].rpartition("Error: ")[2][:300]

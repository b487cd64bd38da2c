"""The model behind a server, wherever it runs: what is known of it, and what it does for a request."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from lvqa.config import Config
from lvqa.output import selection_json
from lvqa.pipeline import LongVideoQA
from lvqa.records import FrameSelection, Ranking
from lvqa.server.jobs import Job

Work = Callable[[LongVideoQA], dict[str, Any]]
"""What the model does for a request: it gets a pipeline that reports to the request's job, and returns JSON."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """What requests want to know of the model."""

    name: str
    revision: str | None
    device_name: str
    config: Config
    """The settings of its pipeline."""
    spec: dict[str, Any]
    """What tells the index that the pipeline would make of a video from all others."""

    @classmethod
    def of(cls, qa: LongVideoQA) -> ModelFacts:
        """Return the facts of a pipeline."""
        return cls(
            name=qa.model.name,
            revision=qa.model.revision,
            device_name=qa.device_name,
            config=qa.config,
            spec=qa.spec.to_dict(),
        )


def do_work(qa: LongVideoQA, work: Work, job: Job) -> dict[str, Any]:
    """Do what a request wants with a pipeline that tells the request's job how far it is."""

    def on_selected(rankings: Sequence[Ranking | None], selections: Sequence[FrameSelection]) -> None:
        for ranking, selection in zip(rankings, selections, strict=True):
            job.tell({"event": "frames", **selection_json(ranking, selection)})

    return work(qa.with_config(qa.config, progress=job.progress, on_selected=on_selected))

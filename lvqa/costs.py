"""Measure what a call costs: the model's counters and the wall time, stage by stage."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from contextlib import contextmanager

from lvqa.concurrency import check_stop
from lvqa.records import Cost, Counts


class CostMeter:
    """Measures the stages of one call, and all of it, in the thread that the call runs in."""

    def __init__(self, counts: Counts) -> None:
        """Begin to measure.

        Args:
            counts: The model's counters of this thread, which the work adds to.
        """
        self.seconds: dict[str, float] = {}
        """Wall time by stage, in the order of the stages."""
        self.model_counts = counts
        self._before = dataclasses.replace(counts)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time that the work inside takes to the stage of this name. Raises StoppedError if it is to stop."""
        check_stop()
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started

    @property
    def counts(self) -> Counts:
        """What the model has counted since the meter was made."""
        return self.model_counts - self._before

    @property
    def cost(self) -> Cost:
        """All of it: the counters, and the time of all stages."""
        return Cost(self.counts, sum(self.seconds.values()))


def split_cost(cost: Cost, num_parts: int) -> list[Cost]:
    """Share out evenly what several questions cost together; the parts add up to the whole."""

    def parts(total: int) -> list[int]:
        return [total * (i + 1) // num_parts - total * i // num_parts for i in range(num_parts)]

    counts = zip(*(parts(getattr(cost.counts, field.name)) for field in dataclasses.fields(Counts)), strict=True)
    return [Cost(Counts(*own), cost.seconds / num_parts) for own in counts]

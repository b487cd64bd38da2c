"""What a run is: a benchmark, the arms that are compared on it, and where the work is done."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lvqa.config import Config, SelectionConfig, flat, load_config, to_dict, with_settings
from lvqa.validation import in_yaml, require

BLIND = "blind"
"""The method that shows no frames, and so has no budget."""
NO_BUDGET = 0
"""What stands for the budget of such an arm."""
NO_SETTINGS = ("method", "selection.frames", "model.name", "model.device", "model.dtype", "store.folder")
"""What an arm's settings can't change: it has keys of its own for the first two, and the model is loaded once."""
OF_A_RUN = ("model", "store", "seed", "benchmark", "workers", "ray_address", "gpus_per_worker", "allow_missing")
"""What runs that are joined must have in common."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SyntheticVideos:
    """Films to make where they are lacking, as `lvqa make-videos` does."""

    films: int = 12
    """How many."""
    minutes: float = 60.0
    """How long each."""
    questions: int = 20
    """How many about each."""
    seed: int = 900_000
    """The first film's; from 900000 on they are held out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkConfig:
    """What is asked about which videos."""

    name: str = "lvbench"
    """A name in benchmarks.BENCHMARKS."""
    folder: Path | None = None
    """Where its files and `videos/` lie."""
    videos: int | None = None
    """Only the first so many; null: all."""
    limit: int | None = None
    """Only the first so many questions about each; null: all."""
    make: SyntheticVideos | None = None
    """Made films instead of a published benchmark: made into the folder before the run."""

    def __post_init__(self) -> None:
        require(self.videos is None or self.videos >= 1, "videos", self.videos, "1 or more, or null")
        require(self.limit is None or self.limit >= 1, "limit", self.limit, "1 or more, or null")


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmConfig:
    """One way to choose frames and answer, at several budgets."""

    name: str | None = None
    """What tables call it; null: its method and settings."""
    method: str | None = None
    """How frames are chosen: a name in selection.SELECTORS, a Python file with a selector of your own, or a control:
    oracle, blind; null: the run's `method`."""
    frames: tuple[int, ...] | None = None
    """Its budgets; null: the run's."""
    settings: dict[str, Any] = field(default_factory=dict)
    """What differs from the run's settings, {rerank.name: none}."""
    baseline: str | None = None
    """The arm that a report measures it against; null: the run's `baseline`."""

    def __post_init__(self) -> None:
        if self.frames is not None:
            _require_budgets(self.frames)
            require(self.method != BLIND, "frames", list(self.frames), f"left out, method {BLIND} shows none")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunConfig(Config):
    """All settings of a run: those of every answer, and these."""

    benchmark: BenchmarkConfig = field(default_factory=BenchmarkConfig)
    arms: tuple[ArmConfig, ...] = (ArmConfig(method="uniform"), ArmConfig(method="freeret"))
    """What is compared."""
    baseline: str | None = None
    """The arm that a report measures the others against if they name none; null: one of uniform frames."""
    frames: tuple[int, ...] = (16, 32, 64)
    """The budgets of every arm that names none."""
    workers: int = 0
    """0: one process on this machine; else so many Ray actors."""
    ray_address: str | None = None
    """The cluster's; null: Ray on this machine."""
    gpus_per_worker: float = 0.0
    """GPUs that each Ray actor has for itself."""
    allow_missing: bool = False
    """Go on without the videos whose files are missing."""

    def __post_init__(self) -> None:
        Config.__post_init__(self)  # zero-argument super() does not work in a dataclass with slots
        _require_budgets(self.frames)
        require(len(self.arms) > 0, "arms", [], "one or more")
        require(self.workers >= 0, "workers", self.workers, "0 or more")
        require(self.gpus_per_worker >= 0, "gpus_per_worker", self.gpus_per_worker, "0 or more")
        names = [arm.name for arm in arms_of(self)]
        twice = [name for name in names if names.count(name) > 1]
        require(not twice, "the name of an arm", twice[0] if twice else "", "its own (give it a `name`)")
        for baseline in (self.baseline, *(arm.baseline for arm in self.arms)):
            known = baseline is None or baseline in names
            require(known, "baseline", baseline, f"null or an arm: {', '.join(names)}")


@dataclass(frozen=True, slots=True)
class Arm:
    """An arm with all that it needs."""

    name: str
    method: str
    budgets: tuple[int, ...]
    config: Config
    """The settings of its answers, but for the method: arms that differ in nothing else have the same."""
    baseline: str | None
    """The arm that it is measured against; None: one of uniform frames."""

    @property
    def complete(self) -> Config:
        """The settings with the method, which the options of the selection are for."""
        return dataclasses.replace(self.config, method=self.method)

    @property
    def before_selection(self) -> Config:
        """The settings but for those of the selection: arms that share these share rankings and tokens."""
        return dataclasses.replace(self.config, selection=SelectionConfig())


def load_run_config(path: Path | None = None, overrides: Sequence[str] = ()) -> RunConfig:
    """The defaults, changed by the file, then by each override ("arms=[{method: uniform}]") in turn."""
    return load_config(path, overrides, kind=RunConfig)


def joined(configs: Mapping[str, RunConfig]) -> RunConfig:
    """The arms of several runs as one run, which does once what they have in common; the mapping names the runs.

    Arm "50" of run "pool" becomes "pool: 50", with the settings that it had there, and is measured against the baseline
    that it had there. ConfigError where the runs differ in more than their arms and the settings of answers.
    """
    (first, run), *others = configs.items()
    shared = dataclasses.replace(RunConfig(), **{key: getattr(run, key) for key in OF_A_RUN})
    wanted = flat(to_dict(run))
    for name, other in others:
        given = flat(to_dict(other))
        for key in (key for key in {**wanted, **given} if key.partition(".")[0] in OF_A_RUN):
            told = f"{in_yaml(wanted.get(key))} as in {first}, with which it is one run"
            require(given.get(key) == wanted.get(key), f"{key} of {name}", given.get(key), told)
    base = flat(to_dict(arms_of(shared)[0].config))
    arms = []
    for name, config in configs.items():
        for arm in arms_of(config):
            own = {key: value for key, value in flat(to_dict(arm.config)).items() if base.get(key, ...) != value}
            arms.append(
                ArmConfig(
                    name=f"{name}: {arm.name}",
                    method=arm.method,
                    frames=None if arm.budgets == (NO_BUDGET,) else arm.budgets,
                    settings={key: value for key, value in own.items() if key not in NO_SETTINGS},
                    baseline=arm.baseline and f"{name}: {arm.baseline}",
                )
            )
    return dataclasses.replace(shared, arms=tuple(arms))


def arms_of(config: RunConfig) -> tuple[Arm, ...]:
    """The arms in their order. Raises ConfigError for a setting that is not known or not allowed."""
    shared = Config(**{key.name: getattr(config, key.name) for key in dataclasses.fields(Config)})
    return tuple(_arm(arm, config, shared) for arm in config.arms)


def _arm(arm: ArmConfig, config: RunConfig, shared: Config) -> Arm:
    method = arm.method or config.method
    name = arm.name or " ".join([method, *(f"{key}={value}" for key, value in arm.settings.items())])
    budgets = (NO_BUDGET,) if method == BLIND else arm.frames or config.frames
    own = with_settings(shared, arm.settings, where=f"settings of arm {name!r}")
    for key in NO_SETTINGS:
        get = operator.attrgetter(key)
        require(get(own) == get(shared), f"settings of arm {name!r}", key, f"without {', '.join(NO_SETTINGS)}")
    return Arm(name, method, budgets, own, arm.baseline or config.baseline)


def _require_budgets(frames: tuple[int, ...]) -> None:
    fine = len(frames) > 0 and min(frames) >= 1 and len(set(frames)) == len(frames)
    require(fine, "frames", list(frames), "one or more different numbers, 1 or more")

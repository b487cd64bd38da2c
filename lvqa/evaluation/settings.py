"""The settings of a run: a benchmark, the arms that are compared on it, and where the work is done."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, Literal

from msgspec import Meta

from lvqa.batches import QUESTIONS_AT_ONCE
from lvqa.config import Config, ModelConfig, Section, SelectionConfig, load_config, to_dict, with_settings
from lvqa.datasets import join_names
from lvqa.protocols import OWN, AnswerFormat, find_format
from lvqa.records import LvqaError
from lvqa.settings_tree import flat
from lvqa.validation import (
    FiniteFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Text,
    check_fields,
    in_yaml,
    require,
)
from lvqa.workers import STALL_SECONDS

BLIND = "blind"
"""The method that shows the model no frames, and so has no budget."""
NO_BUDGET = 0
"""What stands for the budget of such an arm."""
LOADED_SETTINGS = tuple(f"model.{setting.name}" for setting in fields(ModelConfig) if setting.name != "max_pixels")
"""What the model is loaded with."""
FIXED_SETTINGS = ("method", "selection.frames", *LOADED_SETTINGS, "store.folder")
"""What an arm's settings can't change: it has keys of its own for the first two, and the model is loaded once."""
RUN_SETTINGS = (
    *("model", "store", "seed", "benchmark", "workers", "ray_address", "gpus_per_worker", "runtime_env"),
    *("stall_seconds", "questions_at_once", "allow_missing"),
)
"""What runs must have in common to be joined."""

Budgets = Annotated[tuple[PositiveInt, ...], Meta(min_length=1)]


@dataclass(frozen=True, slots=True, kw_only=True)
class SyntheticVideos(Section):
    """Synthetic videos to make where they are lacking, as `lvqa make-videos` does."""

    videos: int = 12
    """How many videos are made."""
    minutes: FiniteFloat = 60.0
    """How long each video is."""
    questions: int = 20
    """How many questions each video has."""
    seed: int = 900_000
    """The seed of the first video; from 900000 on they are held out."""
    take_seconds: tuple[FiniteFloat, FiniteFloat] | None = None
    """The shortest and the longest scene; null: 8 to 40."""
    lookalikes: FiniteFloat = 1.0
    """How many times as likely a scene has the video's favourite place and things."""


DEFAULT_KEY_VARIABLE = "OPENAI_API_KEY"


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeModel(Section):
    """A model that judges open answers, behind a URL that speaks OpenAI's chat completions."""

    url: Annotated[str, Meta(pattern="^https?://[^/]", description="an address that begins http:// or https://")]
    """The address of the API, mostly with /v1 at its end."""
    model: Text
    """The model's name there."""
    key_variable: Text | None = DEFAULT_KEY_VARIABLE
    """The environment variable with the API key; without one, no key is sent."""
    timeout_seconds: PositiveFloat = 60.0
    """A request that gets no bytes for so long has failed."""
    attempts: PositiveInt = 4
    """A request that fails is sent so many times in all."""
    parallel: PositiveInt = 8
    """So many requests are sent at the same time."""
    request: dict[str, Any] = field(default_factory=lambda: {"temperature": 0})
    """More fields of the request."""


Judge = Literal["exact", "normalised"] | JudgeModel


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkConfig(Section):
    """Which questions about which videos."""

    name: Text = "lvbench"
    """A name in datasets.DATASETS."""
    folder: Path | None = None
    """The folder with the dataset's files and `videos/`."""
    protocol: Text = OWN
    """How questions are asked and replies are read and counted: a name in protocols.PROTOCOLS."""
    subtitles: bool | None = None
    """Show the model the subtitles that the benchmark publishes; null: if the protocol does so unasked."""
    videos: PositiveInt | None = None
    """Only the first so many videos; null takes all."""
    limit: PositiveInt | None = None
    """Only the first so many questions about each video; null takes all."""
    judge: Judge | None = None
    """Who says whether the answer to an open question is correct: exact compares texts; normalised does not look at
    case, punctuation, articles and spaces; {url, model} asks a model. Null refuses open questions."""
    make: SyntheticVideos | None = None
    """Synthetic videos instead of a published dataset, made into the folder before the run."""

    @property
    def answer_format(self) -> AnswerFormat | None:
        """How the protocol asks; None for lvqa's own way. LvqaError if the benchmark has no such protocol."""
        return find_format(self.protocol, self.name)

    @property
    def shows_subtitles(self) -> bool:
        """Whether the model is shown subtitles."""
        if self.subtitles is not None:
            return self.subtitles
        return self.answer_format is not None and self.answer_format.wants_subtitles

    def check(self) -> None:
        """Raise LvqaError for a protocol that the benchmark does not have, or that can't be told to show subtitles."""
        answer_format = self.answer_format
        if self.shows_subtitles and answer_format is not None and not answer_format.shows_subtitles:
            raise LvqaError(f"benchmark.subtitles must be false: {self.protocol} shows no subtitles of {self.name}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmConfig(Section):
    """One way to select frames and answer, at several budgets."""

    name: Text | None = None
    """What tables call the arm; null takes its method and settings."""
    method: Text | None = None
    """How frames are chosen: a name in selection.SELECTORS, a Python file with a selector of your own, or a control:
    oracle, blind; null takes the run's `method`."""
    frames: Budgets | None = None
    """The arm's budgets; null takes the run's."""
    settings: dict[str, Any] = field(default_factory=dict)
    """What differs from the run's settings, {rerank.name: none}."""
    baseline: Text | None = None
    """The arm that a report measures this one against; null takes the run's `baseline`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkConfig(Config):
    """All settings of work that many processes may share: those of every answer, and these."""

    workers: NonNegativeInt | Literal["max"] = 0
    """With 0 one process on this machine does the work, else so many Ray actors; max takes as many as the cluster has
    room for, and more when nodes join."""
    ray_address: Text | None = None
    """The address of the cluster: host:port, auto, or ray://host:port; null takes RAY_ADDRESS, and without it starts
    Ray on this machine."""
    gpus_per_worker: Annotated[float, Meta(ge=0)] = 0.0
    """This share of a GPU, or so many whole ones, are reserved for each Ray actor."""
    runtime_env: Path | None = None
    """A YAML file with a runtime_env of Ray: what the workers need that the nodes do not have."""
    stall_seconds: PositiveFloat = STALL_SECONDS
    """A worker that gives no sign of progress for so long, and a second for each 125 kB of its video, is replaced."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunConfig(WorkConfig):
    """All settings of a run: those of every answer, and these."""

    benchmark: BenchmarkConfig = field(default_factory=BenchmarkConfig)
    arms: Annotated[tuple[ArmConfig, ...], Meta(min_length=1)] = (
        ArmConfig(method="uniform"),
        ArmConfig(method="freeret"),
    )
    """The arms that are compared."""
    baseline: Text | None = None
    """The arm that a report measures the others against if they name none; null takes one of uniform frames."""
    frames: Budgets = (16, 32, 64)
    """The budgets of every arm that names none."""
    questions_at_once: PositiveInt = QUESTIONS_AT_ONCE
    """So many questions about a video are asked together at most; of a run that is killed so many are lost. More share
    more of the work, and need more memory; fewer are spread over many workers more evenly."""
    allow_missing: bool = False
    """Go on without the videos whose files are missing."""

    def __post_init__(self) -> None:
        check_fields(self)
        _require_different("frames", self.frames)
        for i, arm in enumerate(self.arms):
            if arm.frames is not None:
                name = f"arms[{i}].frames"
                _require_different(name, arm.frames)
                require(arm.method != BLIND, name, list(arm.frames), f"left out, method {BLIND} takes no frames")
        baselines = (self.baseline, *(arm.baseline for arm in self.arms))
        check_arm_names([arm.name for arm in resolve_arms(self)], baselines)


@dataclass(frozen=True, slots=True)
class Arm:
    """An arm with its settings resolved."""

    name: str
    method: str
    budgets: tuple[int, ...]
    config: Config
    """The settings of its answers, but for the method: arms that differ in nothing else have the same."""
    baseline: str | None
    """The arm that this one is measured against; None stands for one of uniform frames."""

    @property
    def complete(self) -> Config:
        """The settings with the method, which the options of the selection are for."""
        return dataclasses.replace(self.config, method=self.method)

    @property
    def before_selection(self) -> Config:
        """The settings but for those of the selection: arms that share these share rankings and tokens."""
        return dataclasses.replace(self.config, selection=SelectionConfig())


def settings_of(config: RunConfig) -> dict[str, str]:
    """Return every setting by its dotted key, as YAML writes its value: {"video.clip_seconds": "16.0"}."""
    return {key: in_yaml(value) for key, value in flat(to_dict(config)).items()}


def load_run_config(path: Path | None = None, overrides: Sequence[str] = (), *, accept_old: bool = False) -> RunConfig:
    """Return the defaults, changed by the file, then by each override ("arms=[{method: uniform}]") in turn.

    With `accept_old` the file may have keys of lvqa 0.1. See `load_config`.
    """
    return load_config(path, overrides, kind=RunConfig, accept_old=accept_old)


def join_runs(configs: Mapping[str, RunConfig]) -> RunConfig:
    """Return the arms of several runs as one run, which does once what they have in common.

    Arm "50" of run "pool" becomes "pool: 50", with the settings that it had there, and is measured against the baseline
    that it had there.

    Args:
        configs: The runs by their names.

    Raises:
        LvqaError: The runs differ in more than their arms and the settings of answers.
    """
    (first, run), *others = configs.items()
    shared = dataclasses.replace(RunConfig(), **{key: getattr(run, key) for key in RUN_SETTINGS})
    expected = flat(to_dict(run))
    for name, other in others:
        actual = flat(to_dict(other))
        for key in (key for key in {**expected, **actual} if key.partition(".")[0] in RUN_SETTINGS):
            allowed = f"{in_yaml(expected.get(key))} as in {first}, with which it is one run"
            require(actual.get(key) == expected.get(key), f"{key} of {name}", actual.get(key), allowed)
    base = flat(to_dict(resolve_arms(shared)[0].config))
    arms = []
    for name, config in configs.items():
        for arm in resolve_arms(config):
            own = {key: value for key, value in flat(to_dict(arm.config)).items() if base.get(key, ...) != value}
            arms.append(
                ArmConfig(
                    name=f"{name}: {arm.name}",
                    method=arm.method,
                    frames=None if arm.budgets == (NO_BUDGET,) else arm.budgets,
                    settings={key: value for key, value in own.items() if key not in FIXED_SETTINGS},
                    baseline=arm.baseline and f"{name}: {arm.baseline}",
                )
            )
    return dataclasses.replace(shared, arms=tuple(arms))


def resolve_arms(config: RunConfig) -> tuple[Arm, ...]:
    """Return the arms in their order, or raise LvqaError for a setting of one that is not known or not allowed."""
    shared = answer_settings(config)
    return tuple(_arm(arm, config, shared) for arm in config.arms)


def _arm(arm: ArmConfig, config: RunConfig, shared: Config) -> Arm:
    method = arm.method or config.method
    name = arm.name or " ".join([method, *(f"{key}={value}" for key, value in arm.settings.items())])
    budgets = (NO_BUDGET,) if method == BLIND else arm.frames or config.frames
    own = settings_of_arm(shared, arm.settings, name, FIXED_SETTINGS)
    return Arm(name, method, budgets, own, arm.baseline or config.baseline)


def settings_of_arm(shared: Config, settings: Mapping[str, Any], name: str, fixed: Sequence[str]) -> Config:
    """Return the run's settings with those of an arm; LvqaError for one that is fixed, or not known."""
    own = with_settings(shared, settings, where=f"settings of arm {name!r}")
    for key in fixed:
        get = operator.attrgetter(key)
        require(get(own) == get(shared), f"settings of arm {name!r}", key, f"without {', '.join(fixed)}")
    return own


def answer_settings(config: Config) -> Config:
    """Return the settings of every answer, without those of a run."""
    return Config(**{key.name: getattr(config, key.name) for key in dataclasses.fields(Config)})


def check_arm_names(names: Sequence[str], baselines: Sequence[str | None]) -> None:
    """Raise LvqaError unless each arm has a name of its own, and each baseline is an arm or None."""
    twice = [name for name in names if names.count(name) > 1]
    require(not twice, "the name of an arm", twice[0] if twice else "", "its own (give it a `name`)")
    for baseline in baselines:
        known = baseline is None or baseline in names
        require(known, "baseline", baseline, f"null or an arm: {join_names(names)}")


def _require_different(name: str, frames: tuple[int, ...]) -> None:
    require(len({*frames}) == len(frames), name, list(frames), "different numbers")

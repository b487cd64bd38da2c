"""The settings of `lvqa retrieve`: a dataset, the arms that are compared on it, and where the work is done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta

from lvqa.config import Config, Section, load_config, to_dict
from lvqa.datasets import join_names
from lvqa.evaluation.changes import CHANGEABLE_SETTINGS
from lvqa.evaluation.settings import LOADED_SETTINGS, WorkConfig, answer_settings, check_arm_names, settings_of_arm
from lvqa.settings_tree import flat
from lvqa.validation import NonNegativeInt, PositiveInt, Text, check_fields, in_yaml

FIXED_SETTINGS = (*LOADED_SETTINGS, "store.folder")
"""What an arm's settings can't change: the model is loaded once."""
GROWING_SETTINGS = ("arms",)
"""Settings that may get more when a run goes on, and not less."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SyntheticSets(Section):
    """Synthetic sets to make where they are lacking: texts, pictures and clips of the embedded model's world."""

    queries: PositiveInt = 24
    """How many queries each set has."""
    seed: NonNegativeInt = 900_400
    """The seed of the sets; from 900000 on they are held out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetConfig(Section):
    """Which queries, among which candidates."""

    name: Text = "mmeb"
    """A name in datasets.retrieval.RETRIEVAL_DATASETS."""
    folder: Path | None = None
    """The folder with the dataset's files."""
    sets: Annotated[tuple[Text, ...], Meta(min_length=1)] | None = None
    """Only these sets of the dataset; null takes all."""
    queries: PositiveInt | None = None
    """Only the first so many queries of each set; null takes all."""
    instructions: bool = False
    """Put the dataset's own instructions before the texts, as VLM2Vec does; FreeRet's prompts have none."""
    make: SyntheticSets | None = None
    """Synthetic sets instead of a published dataset, made into the folder before the run; `name` is own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrieveArmConfig(Section):
    """One way to embed and rerank."""

    name: Text | None = None
    """What tables call the arm; null takes its settings."""
    settings: dict[str, Any] = field(default_factory=dict)
    """What differs from the run's settings, {rerank.pool: 0}."""
    baseline: Text | None = None
    """The arm that this one is measured against; null takes the run's `baseline`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrieveConfig(WorkConfig):
    """All settings of a run of `lvqa retrieve`: those of every answer, and these."""

    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    arms: Annotated[tuple[RetrieveArmConfig, ...], Meta(min_length=1)] = (
        RetrieveArmConfig(name="embedding alone", settings={"rerank.pool": 0}),
        RetrieveArmConfig(name="FreeRet"),
    )
    """The arms that are compared."""
    baseline: Text | None = None
    """The arm that the others are measured against if they name none; null takes the first."""

    def __post_init__(self) -> None:
        check_fields(self)
        baselines = (self.baseline, *(arm.baseline for arm in self.arms))
        check_arm_names([arm.name for arm in resolve_arms(self)], baselines)


@dataclass(frozen=True, slots=True)
class RetrieveArm:
    """An arm with its settings resolved."""

    name: str
    config: Config
    baseline: str
    """The arm that this one is measured against; itself for the run's baseline."""


def resolve_arms(config: RetrieveConfig) -> tuple[RetrieveArm, ...]:
    """Return the arms in their order, or raise LvqaError for a setting of one that is not known or not allowed."""
    shared, names = answer_settings(config), [_name(arm) for arm in config.arms]
    return tuple(
        RetrieveArm(
            name,
            settings_of_arm(shared, arm.settings, name, FIXED_SETTINGS),
            arm.baseline or config.baseline or names[0],
        )
        for arm, name in zip(config.arms, names, strict=True)
    )


def _name(arm: RetrieveArmConfig) -> str:
    return arm.name or " ".join(f"{key}={value}" for key, value in arm.settings.items()) or "FreeRet"


def load_retrieve_config(path: Path | None = None, overrides: Sequence[str] = ()) -> RetrieveConfig:
    """Return the defaults, changed by the file, then by each override in turn. See `load_config`."""
    return load_config(path, overrides, kind=RetrieveConfig)


def settings_changes(before: RetrieveConfig, now: RetrieveConfig) -> list[str]:
    """Return what differs in the settings of a run and may not, each with its key; what was added is not among it."""
    old, new = flat(to_dict(before)), flat(to_dict(now))
    changes = _changes(old, new, but=GROWING_SETTINGS)
    old_arms, new_arms = ({arm.name: arm for arm in resolve_arms(config)} for config in (before, now))
    gone = [name for name in old_arms if name not in new_arms]
    changes += [f"arms: {join_names([*old_arms])}, now without {join_names(gone)}"] if gone else []
    for name in (name for name in old_arms if name in new_arms and not changes):
        own = (flat(to_dict(arms[name].config)) for arms in (old_arms, new_arms))
        changes += [f"arm {name}: {change}" for change in _changes(*own, but=())]
    return changes


CHANGEABLE = (*CHANGEABLE_SETTINGS, "dataset.queries", "dataset.sets", "baseline")
"""Settings that may differ when a run goes on: they change no ranking, or how many."""


def _changes(old: dict[str, Any], new: dict[str, Any], *, but: Sequence[str]) -> list[str]:
    differing = [key for key in {**old, **new} if old.get(key) != new.get(key) and key not in but]
    fixed = [key for key in differing if not any(key == free or key.startswith(f"{free}.") for free in CHANGEABLE)]
    return [f"{key}: {in_yaml(old.get(key))}, now {in_yaml(new.get(key))}" for key in fixed]

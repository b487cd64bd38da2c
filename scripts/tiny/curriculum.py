"""The stages of the training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One stage of the training: it trains the vision tower alone, or the language model alone."""

    name: str
    steps: int
    learning_rate: float
    mix: Mapping[str, float] | None = None
    """The tasks and their shares of the tokens; None trains the vision tower."""
    rows: int = 48
    """How many rows of samples a step of the language model has."""
    row_tokens: int = 1024
    """The length of a row, which holds several samples. A longer sample is left out."""
    pairs: int = 96
    """How many frame pairs a step of the vision tower has."""
    num_things: int | None = None
    """How many things the scenes for the vision tower have; None samples one to three."""


DRILLS = {"match drill": 0.04, "scene drill": 0.28}
PRODUCT = {
    "answer": 0.30,
    "temporal": 0.14,
    "most": 0.04,
    "rerank": 0.14,
    "clip word": 0.02,
    "query word": 0.02,
    "caption": 0.02,
}

CURRICULUM = (
    Stage(name="see", steps=3000, learning_rate=1.5e-3, num_things=1),
    Stage(name="see several", steps=4000, learning_rate=1.2e-3),
    Stage(name="match", steps=350, learning_rate=2e-3, mix={"match drill": 0.75, "caption": 0.25}),
    Stage(name="scenes", steps=550, learning_rate=2e-3, mix={"match drill": 0.15, "scene drill": 0.85}),
    Stage(name="all tasks", steps=3900, learning_rate=2e-3, mix={**DRILLS, **PRODUCT}),
)
"""The whole training. README.md in this folder says what each stage is for and what it reached."""

SAMPLE_TOKENS = {
    "match drill": 114,
    "scene drill": 202,
    "answer": 430,
    "temporal": 430,
    "most": 330,
    "rerank": 150,
    "clip word": 120,
    "query word": 76,
    "caption": 70,
}
"""The approximate length of a sample of each task, from which the shares of the tokens follow."""

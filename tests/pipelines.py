"""What the tests of the main path share: the synthetic video that they use, and fresh pipelines over one model."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from lvqa.config import load_config
from lvqa.models import Model
from lvqa.pipeline import LongVideoQA

SEED, MINUTES = 11, 1
FRAMES_IN_VIDEO = 60 * MINUTES
"""How many frames the default grid of one a second has."""


def make_pipeline(model: Model, store: Path, *overrides: str, **options) -> LongVideoQA:
    """Make a pipeline over a loaded model and the store in a folder, as a new process would."""
    config = load_config(None, overrides)
    config = dataclasses.replace(config, store=dataclasses.replace(config.store, folder=store))
    return LongVideoQA(model, config, **options)

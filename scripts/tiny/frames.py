"""Frame pairs of random scenes, which the vision tower is trained on, and of the takes that samples are about.

All of it follows from random seeds, so that any process can make it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
from torch.utils.data import Dataset

from lvqa.synthetic.drawing import draw
from lvqa.synthetic.script import Take
from lvqa.synthetic.world import ATTRIBUTES, HEIGHT, WIDTH, Scene, nearest_things
from tiny.samples import COLUMNS, ROWS, TOKENS_PER_PAIR
from tiny.takes import random_takes


@dataclass(frozen=True, slots=True)
class TakeSet:
    """A set of takes that samples are about, in shards that are rendered one at a time."""

    seed: int
    num_shards: int
    takes_per_shard: int = 64
    moments: int = 3
    """How many pairs are rendered of every scene, besides a single frame shown twice."""

    def takes(self, shard: int) -> list[Take]:
        """Return the takes of a shard, the same ones in every process."""
        return random_takes(np.random.default_rng([self.seed, 1, shard]), self.takes_per_shard)


class LabelledPairs(NamedTuple):
    """Frame pairs of scenes, and what the vision tower is to recognise in them."""

    pixels: np.ndarray  # (..., 2, 84, 112, 3) uint8
    labels: np.ndarray  # (..., attributes, 12) uint8
    """The index in ATTRIBUTES of the value for each visual token: that of the scene, or of the nearest thing."""


class TakeFrames(Dataset[np.ndarray]):
    """The frame pairs of each shard's scenes: (scenes, moments + 1, 2, 84, 112, 3) uint8."""

    def __init__(self, take_set: TakeSet) -> None:
        self.take_set = take_set

    def __len__(self) -> int:
        return self.take_set.num_shards

    def __getitem__(self, shard: int) -> np.ndarray:
        scenes = [shot.scene for take in self.take_set.takes(shard) for shot in take.shots]
        rng = np.random.default_rng([self.take_set.seed, 2, shard])
        steps = [1.0] * self.take_set.moments + [0.0]
        return np.stack([render_pairs(rng, scenes, step_seconds=step).pixels for step in steps], 1)


def render_pairs(rng: np.random.Generator, scenes: Sequence[Scene], *, step_seconds: float) -> LabelledPairs:
    """Render a pair of frames of each scene at a random moment.

    Args:
        rng: The source of randomness.
        scenes: What to render.
        step_seconds: The time between the two frames of a pair; 0 shows one frame twice.
    """
    pixels = np.empty((len(scenes), 2, 28 * ROWS, 28 * COLUMNS, 3), np.uint8)
    labels = np.empty((len(scenes), len(ATTRIBUTES), TOKENS_PER_PAIR), np.uint8)
    starts = rng.uniform(0, 30, len(scenes))
    for pair, pair_labels, scene, seconds in zip(pixels, labels, scenes, starts.tolist(), strict=True):
        for frame, moment in zip(pair, (seconds, seconds + step_seconds), strict=True):
            frame[:] = _degrade(rng, draw(scene, moment))
        nearest = nearest_things(scene, seconds + step_seconds / 2, ROWS, COLUMNS)
        for row, (attribute, values) in zip(pair_labels, ATTRIBUTES.items(), strict=True):
            row[:] = np.array([values.index(subject.value(attribute)) for subject in scene.subjects])[nearest]
    return LabelledPairs(pixels, labels)


def _degrade(rng: np.random.Generator, frame: np.ndarray) -> np.ndarray:
    """Return a frame at the model's size, (84, 112, 3), in most cases with artefacts like those of a video codec."""
    if rng.random() < 0.6:
        # JPEG at half the size takes a quarter of the time.
        frame = cv2.resize(frame, (WIDTH // 2, HEIGHT // 2), interpolation=cv2.INTER_AREA)
        encoded = cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(50, 96))])[1]
        frame = np.asarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR))
    interpolation = cv2.INTER_AREA if rng.random() < 0.5 else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(frame, (28 * COLUMNS, 28 * ROWS), interpolation=interpolation))

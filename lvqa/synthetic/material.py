"""What the embedded model is taught with: scenes and takes that are filmed, and packed lessons about the takes.

All of it follows from numbers alone, so that any process can make it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
from torch.utils.data import Dataset

from lvqa.synthetic.build import build_tokenizer, token_id
from lvqa.synthetic.lessons import COLUMNS, ROWS, Lesson, Teacher
from lvqa.synthetic.script import FRAMES_PER_SECOND, TAKE_SECONDS, Take, random_take
from lvqa.synthetic.world import ATTRIBUTES, HEIGHT, WIDTH, Scene, draw, nearest_things, random_scene

TOKENS_PER_PAIR = ROWS * COLUMNS

# --- what is filmed ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Shoot:
    """How much is filmed of takes that lessons can be about."""

    seed: int
    reels: int
    takes_per_reel: int = 64
    moments: int = 3
    """Of every scene; and one more, that is a single frame shown twice."""

    def takes(self, reel: int) -> list[Take]:
        """The same in every process."""
        return random_takes(np.random.default_rng([self.seed, 1, reel]), self.takes_per_reel)


def random_takes(rng: np.random.Generator, num: int) -> list[Take]:
    """Takes of 8 to 40 seconds, as films have them, but evenly drawn."""
    ends = (rng.uniform(*TAKE_SECONDS, num) * FRAMES_PER_SECOND).round() / FRAMES_PER_SECOND
    return [random_take(rng, 0.0, end) for end in ends.tolist()]


class Footage(NamedTuple):
    """Moments of scenes, as the vision tower sees them, and what it is to say of them."""

    pixels: np.ndarray  # (..., 2, 84, 112, 3) uint8
    labels: np.ndarray  # (..., attributes, 12) uint8
    """The place in ATTRIBUTES of the value that a token is to name: the scene's, or that of the nearest thing."""


class Reels(Dataset[np.ndarray]):
    """The pixels of each reel's scenes: (scenes, moments + 1, 2, 84, 112, 3) uint8."""

    def __init__(self, shoot: Shoot) -> None:
        self.shoot = shoot

    def __len__(self) -> int:
        return self.shoot.reels

    def __getitem__(self, reel: int) -> np.ndarray:
        scenes = [shot.scene for take in self.shoot.takes(reel) for shot in take.shots]
        rng = np.random.default_rng([self.shoot.seed, 2, reel])
        steps = [1.0] * self.shoot.moments + [0.0]
        return np.stack([film(rng, scenes, step_seconds=step).pixels for step in steps], 1)


def film(rng: np.random.Generator, scenes: Sequence[Scene], *, step_seconds: float) -> Footage:
    """A pair of frames of each scene, at a random moment."""
    pixels = np.empty((len(scenes), 2, 28 * ROWS, 28 * COLUMNS, 3), np.uint8)
    labels = np.empty((len(scenes), len(ATTRIBUTES), TOKENS_PER_PAIR), np.uint8)
    first = rng.uniform(0, 30, len(scenes))
    for row, names, scene, seconds in zip(pixels, labels, scenes, first.tolist(), strict=True):
        for frame, moment in zip(row, (seconds, seconds + step_seconds), strict=True):
            frame[:] = _as_decoded(rng, draw(scene, moment))
        nearest = nearest_things(scene, seconds + step_seconds / 2, ROWS, COLUMNS)
        for name, (attribute, values) in zip(names, ATTRIBUTES.items(), strict=True):
            name[:] = np.array([values.index(subject.value(attribute)) for subject in scene.subjects])[nearest]
    return Footage(pixels, labels)


def _as_decoded(rng: np.random.Generator, frame: np.ndarray) -> np.ndarray:
    """A drawn frame at the model's size, often marred as by a film's compression."""
    if rng.random() < 0.6:
        # At half the size, which takes a quarter of the time.
        frame = cv2.resize(frame, (WIDTH // 2, HEIGHT // 2), interpolation=cv2.INTER_AREA)
        encoded = cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(50, 96))])[1]
        frame = np.asarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR))
    scaling = cv2.INTER_AREA if rng.random() < 0.5 else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(frame, (28 * COLUMNS, 28 * ROWS), interpolation=scaling))


# --- what is asked about it -------------------------------------------------------------------------------------------

LESSON_TOKENS = {
    "match drill": 114,
    "scene drill": 202,
    "answer": 430,
    "course": 430,
    "most": 330,
    "rerank": 150,
    "clip word": 120,
    "query word": 76,
    "caption": 70,
}
"""Rough length of a lesson by task, so that a mix can be told in shares of all tokens."""


class Batch(NamedTuple):
    """Rows of lessons, each of which sees itself alone. What is left of a row is one more, without targets."""

    ids: np.ndarray  # (rows, row_tokens)
    positions: np.ndarray  # (3, rows, row_tokens)
    lesson: np.ndarray  # (rows, row_tokens) number of the lesson in its row
    scene: np.ndarray  # (rows, row_tokens) that a visual token shows; -1 for text
    moment: np.ndarray  # (rows, row_tokens) at which of its filmed moments
    cell: np.ndarray  # (rows, row_tokens) which of the pair's 12 tokens it is
    target_places: np.ndarray  # (targets,) index into rows * row_tokens
    target_tokens: np.ndarray  # (targets, 24) padded with -1
    tasks: tuple[str, ...]
    """Of each target; there may be more targets than tasks, without tokens."""


MOST_TOKENS = 24
"""That are right in one place."""


def pack(
    lessons: Sequence[Lesson], rng: np.random.Generator, shape: tuple[int, int], *, moments: int, visual_token: int
) -> Batch:
    """The longest lessons first, each into the first row that has room; what finds none is left out."""
    rows, row_tokens = shape
    targets = rows * row_tokens // 3  # more than there are in any mix
    batch = Batch(
        ids=np.zeros(shape, np.int64),
        positions=np.zeros((3, *shape), np.int64),
        lesson=np.full(shape, len(lessons)),
        scene=np.full(shape, -1),
        moment=np.full(shape, -1),
        cell=np.full(shape, -1),
        target_places=np.zeros(targets, np.int64),
        target_tokens=np.full((targets, MOST_TOKENS), -1),
        tasks=(),
    )
    used, tasks = [0] * rows, list[str]()
    for number, lesson in enumerate(sorted(lessons, key=lambda lesson: -len(lesson.ids))):
        size = len(lesson.ids)
        row = next((row for row in range(rows) if used[row] + size <= row_tokens), None)
        if row is None:
            continue
        here = slice(used[row], used[row] + size)
        batch.ids[row, here] = lesson.ids
        batch.positions[:, row, here] = np.array(lesson.positions).T
        batch.lesson[row, here] = number
        visual = used[row] + np.flatnonzero(np.array(lesson.ids) == visual_token)
        pairs = np.array(lesson.pairs, np.int64)
        shown = np.where(pairs < 0, moments, rng.integers(moments, size=len(pairs)))
        batch.scene[row, visual] = np.where(pairs < 0, ~pairs, pairs).repeat(TOKENS_PER_PAIR)
        batch.moment[row, visual] = shown.repeat(TOKENS_PER_PAIR)
        batch.cell[row, visual] = np.tile(np.arange(TOKENS_PER_PAIR), len(pairs))
        for target in lesson.targets[: targets - len(tasks)]:
            batch.target_places[len(tasks)] = row * row_tokens + used[row] + target.position
            batch.target_tokens[len(tasks), : len(target.tokens)] = target.tokens[:MOST_TOKENS]
            tasks.append(target.task)
        used[row] += size
    return batch._replace(tasks=tuple(tasks))


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One part of the training."""

    name: str
    steps: int
    learning_rate: float
    mix: Mapping[str, float] | None = None
    """Tasks and their shares of the tokens; None trains the vision tower alone."""
    rows: int = 48
    """A step."""
    row_tokens: int = 1024
    """Lessons stand one after the other in rows of this length; longer ones are not told."""
    pairs: int = 96
    """A step of the vision tower."""
    num_things: int | None = None
    """In the scenes that the vision tower is shown; None: one to three."""


class Material(Dataset[Footage | Batch]):
    """What a step is about, by (stage, step): it depends on nothing else, so that a resumed run sees the same."""

    def __init__(self, shoot: Shoot, stages: Sequence[Stage]) -> None:
        self.shoot, self.stages = shoot, stages
        self._teacher: Teacher | None = None
        self._visual_token = 0

    def __getitem__(self, place: tuple[int, int]) -> Footage | Batch:
        stage = self.stages[place[0]]
        if stage.mix is not None:
            return self.lessons(stage.mix, (stage.rows, stage.row_tokens), place)
        return self.scenes(stage.num_things, stage.pairs, place)

    def scenes(self, num_things: int | None, pairs: int, key: Sequence[int]) -> Footage:
        """So many pairs, each of a scene of its own."""
        rng = np.random.default_rng([self.shoot.seed, 3, *key])
        return film(rng, [random_scene(rng, num_things) for _ in range(pairs)], step_seconds=1.0)

    def lessons(self, mix: Mapping[str, float], shape: tuple[int, int], key: Sequence[int]) -> Batch:
        """Lessons by their shares in the mix, as many as so many rows of so many tokens hold."""
        if self._teacher is None:  # in the process that needs it
            tokenizer = build_tokenizer()
            takes = [take for reel in range(self.shoot.reels) for take in self.shoot.takes(reel)]
            self._teacher = Teacher(tokenizer, takes, seed=self.shoot.seed)
            self._visual_token = token_id(tokenizer, "<|video_pad|>")
        teacher = self._teacher
        teacher.rng = rng = np.random.default_rng([self.shoot.seed, 3, *key])
        chances = np.array([share / LESSON_TOKENS[task] for task, share in mix.items()])
        lessons: list[Lesson] = []
        drawn = 0
        while drawn < math.prod(shape):
            lesson = teacher.tasks[str(rng.choice(list(mix), p=chances / chances.sum()))]()
            if len(lesson.ids) <= shape[1]:
                lessons.append(lesson)
                drawn += len(lesson.ids)
        return pack(lessons, rng, shape, moments=self.shoot.moments, visual_token=self._visual_token)

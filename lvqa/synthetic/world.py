"""The synthetic world: scenes of one to three things in a place, beside a sign.

A thing has a colour, a shape, a size and a motion; the place and the sign, a number or a word, belong to the whole
scene. Nothing here knows of videos, questions or models; `drawing.py` turns a scene into pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

HEIGHT, WIDTH = 240, 320
"""The size of a frame in pixels."""

NUMBERS = tuple("0123456789")
THING_ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "colour": ("red", "orange", "yellow", "green", "blue", "purple", "white", "black"),
    "shape": ("ball", "star", "heart", "cross", "car", "fish", "house", "boat"),
    "size": ("big", "small"),
    "motion": ("left", "right", "up", "down", "still", "spinning"),
}
SCENE_ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "sign": (*NUMBERS, "open", "taxi", "bank", "zoo", "hotel", "sale"),
    "place": ("sea", "forest", "desert", "city", "space", "snow", "farm", "beach"),
}
ATTRIBUTES = {**THING_ATTRIBUTES, **SCENE_ATTRIBUTES}
"""Each attribute that varies, with its values; each value is one word."""

_DIRECTIONS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1), "still": (0, 0), "spinning": (0, 0)}
_RADII = {
    1: {"big": (48, 58), "small": (27, 33)},
    2: {"big": (42, 50), "small": (25, 31)},
    3: {"big": (39, 43), "small": (24, 28)},
}
"""The range of a thing's radius in pixels, by the number of things in the scene and the size."""


@dataclass(frozen=True, slots=True)
class Thing:
    """One thing, with its attributes and with where and how fast it moves."""

    colour: str
    shape: str
    size: str
    motion: str
    x: float
    """The horizontal position of its centre when the scene starts, in pixels."""
    y: float
    """The vertical position of its centre when the scene starts, in pixels."""
    radius: float
    """Half its size in pixels."""
    speed: float
    """Its speed in pixels a second."""

    def centre_at(self, seconds: float) -> tuple[float, float]:
        """Return the (x, y) of its centre. The world wraps around: what leaves on one side enters on the other."""
        dx, dy = _DIRECTIONS[self.motion]
        return (self.x + dx * self.speed * seconds) % WIDTH, (self.y + dy * self.speed * seconds) % HEIGHT


@dataclass(frozen=True, slots=True)
class Scene:
    """Some things, a place and a sign, which stay the same for a while."""

    things: tuple[Thing, ...]
    sign: str
    place: str
    sign_right: bool
    """Whether the sign hangs at the right."""
    backdrop: int
    """The random seed of the place's details."""

    @property
    def subjects(self) -> tuple[Subject, ...]:
        """The scene's things, each as something to ask about."""
        return tuple(Subject(self, thing) for thing in self.things)


@dataclass(frozen=True, slots=True)
class Subject:
    """A thing together with its scene: what a question can be about."""

    scene: Scene
    thing: Thing

    def value(self, attribute: str) -> str:
        """Return the word for one of ATTRIBUTES."""
        return str(getattr(self.thing if attribute in THING_ATTRIBUTES else self.scene, attribute))

    def matches(self, description: Mapping[str, str]) -> bool:
        """Return whether every attribute of the description has the value that the description gives."""
        return all(self.value(attribute) == value for attribute, value in description.items())


def random_things(rng: np.random.Generator, num_things: int) -> tuple[Thing, ...]:
    """Sample things with uniform attributes: no two share a colour or a shape, and each has a row of its own."""
    colours, shapes = (rng.permutation(THING_ATTRIBUTES[a])[:num_things].tolist() for a in ("colour", "shape"))
    rows, columns = rng.permutation(num_things), rng.permutation(num_things)
    things = []
    for i in range(num_things):
        size, motion = (str(rng.choice(THING_ATTRIBUTES[attribute])) for attribute in ("size", "motion"))
        things.append(
            Thing(
                colours[i],
                shapes[i],
                size,
                motion,
                x=float(WIDTH * (columns[i] + 0.5) / num_things + rng.uniform(-20, 20)),
                y=float(30 + (HEIGHT - 30) * (rows[i] + 0.5) / num_things + rng.uniform(-12, 12)),
                radius=float(rng.uniform(*_RADII[num_things][size])),
                speed=float(rng.uniform(15, 33)),
            )
        )
    return tuple(things)


def random_scene(rng: np.random.Generator, num_things: int | None = None) -> Scene:
    """Sample a scene whose attributes are uniform and independent.

    Args:
        rng: The source of randomness.
        num_things: How many things the scene has, 1 to 3. None samples it: half of the scenes have one thing.
    """
    return Scene(
        things=random_things(rng, num_things or int(rng.choice([1, 2, 3], p=[0.5, 0.35, 0.15]))),
        sign=str(rng.choice(SCENE_ATTRIBUTES["sign"])),
        place=str(rng.choice(SCENE_ATTRIBUTES["place"])),
        sign_right=bool(rng.integers(2)),
        backdrop=int(rng.integers(64)),
    )


def nearest_things(scene: Scene, seconds: float, rows: int, columns: int) -> np.ndarray:
    """Find the thing that is nearest to each cell of the frame.

    Args:
        scene: A scene with at least one thing.
        seconds: The time since the scene started.
        rows: How many rows of cells the frame is divided into.
        columns: How many columns of cells the frame is divided into.

    Returns:
        (rows * columns,) indices into `scene.things`.
    """
    y, x = np.mgrid[0.5:rows, 0.5:columns]
    distances = []
    for thing in scene.things:
        centre_x, centre_y = thing.centre_at(seconds)
        dx, dy = np.abs(x * WIDTH / columns - centre_x), np.abs(y * HEIGHT / rows - centre_y)
        distances.append(np.hypot(np.minimum(dx, WIDTH - dx), np.minimum(dy, HEIGHT - dy)) - thing.radius)
    return np.asarray(np.argmin(distances, axis=0).ravel())

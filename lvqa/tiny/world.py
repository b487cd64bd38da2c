"""The made world: scenes of one thing with five attributes, drawn as a film would show them.

A scene has a shape in a colour, a motion, a number on a sign, and a place behind. `draw` gives the frame at a moment;
nothing here knows of films, questions or models.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

HEIGHT, WIDTH = 240, 320
"""Size of a drawn frame in pixels."""

ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "colour": ("red", "orange", "yellow", "green", "blue", "purple", "white", "black"),
    "shape": ("ball", "star", "heart", "cross", "car", "fish", "house", "boat"),
    "motion": ("left", "right", "up", "down", "still"),
    "number": tuple("0123456789"),
    "place": ("sea", "forest", "desert", "city", "space", "snow"),
}
"""What may vary between scenes: attribute -> its values, each one word."""

_COLOURS = {
    "red": (222, 35, 35),
    "orange": (255, 140, 20),
    "yellow": (250, 226, 40),
    "green": (40, 165, 60),
    "blue": (40, 80, 225),
    "purple": (140, 50, 175),
    "white": (246, 246, 246),
    "black": (26, 26, 26),
}
_DIRECTIONS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1), "still": (0, 0)}
_SUBPIXEL_BITS = 4


@dataclass(frozen=True, slots=True)
class Scene:
    """One shot: what is seen, and how it is staged."""

    colour: str
    shape: str
    motion: str
    number: str
    place: str
    x: float
    """Where the thing's centre is at the scene's start, pixels."""
    y: float
    radius: float
    """Half the thing's size, pixels."""
    speed: float
    """Pixels a second."""
    sign_right: bool
    """Whether the sign with the number hangs at the right."""
    backdrop: int
    """Seed of the place's details."""

    def value(self, attribute: str) -> str:
        """The word for one of ATTRIBUTES."""
        return str(getattr(self, attribute))

    @property
    def words(self) -> tuple[str, ...]:
        """The five words, in the order of ATTRIBUTES."""
        return tuple(self.value(attribute) for attribute in ATTRIBUTES)


def random_scene(rng: np.random.Generator) -> Scene:
    """A scene with every attribute drawn evenly and independently."""
    return Scene(
        **{attribute: str(rng.choice(values)) for attribute, values in ATTRIBUTES.items()},
        x=float(rng.uniform(80, WIDTH - 80)),
        y=float(rng.uniform(95, 165)),
        radius=float(rng.uniform(48, 60)),
        speed=float(rng.uniform(25, 33)),
        sign_right=bool(rng.integers(2)),
        backdrop=int(rng.integers(64)),
    )


def draw(scene: Scene, seconds: float) -> np.ndarray:
    """The frame `seconds` after the scene began: (240, 320, 3) uint8, RGB."""
    frame = _backdrop(scene.place, scene.backdrop).copy()
    dx, dy = _DIRECTIONS[scene.motion]
    x, y = scene.x + dx * scene.speed * seconds, scene.y + dy * scene.speed * seconds
    # The world wraps around, so the thing is in sight all the time: what leaves on one side enters on the other.
    for wrapped_x in (x % WIDTH - WIDTH, x % WIDTH):
        for wrapped_y in (y % HEIGHT - HEIGHT, y % HEIGHT):
            _THINGS[scene.shape](frame, wrapped_x, wrapped_y, scene.radius, _COLOURS[scene.colour])
    _sign(frame, scene)
    return frame


def _sign(frame: np.ndarray, scene: Scene) -> None:
    left = WIDTH - 58 if scene.sign_right else 8
    cv2.rectangle(frame, (left, 8), (left + 50, 72), (250, 250, 250), -1)
    cv2.rectangle(frame, (left, 8), (left + 50, 72), (20, 20, 20), 3)
    cv2.putText(frame, scene.number, (left + 7, 62), cv2.FONT_HERSHEY_SIMPLEX, 1.85, (10, 10, 10), 6, cv2.LINE_AA)


# --- places -----------------------------------------------------------------------------------------------------


@lru_cache(maxsize=512)
def _backdrop(place: str, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    frame = np.empty((HEIGHT, WIDTH, 3), np.uint8)
    _PLACES[place](frame, rng)
    grain = rng.normal(0, 3, frame.shape)
    return np.clip(frame + grain, 0, 255).astype(np.uint8)


def _gradient(frame: np.ndarray, top: tuple[int, int, int], bottom: tuple[int, int, int], start: int = 0) -> None:
    weight = np.linspace(0, 1, HEIGHT - start)[:, None, None]
    frame[start:] = np.asarray(top) * (1 - weight) + np.asarray(bottom) * weight


def _sea(frame: np.ndarray, rng: np.random.Generator) -> None:
    _gradient(frame, (150, 205, 240), (190, 225, 245))
    _gradient(frame, (30, 130, 175), (10, 70, 120), start=int(rng.integers(75, 100)))
    for _ in range(26):
        x, y = int(rng.integers(WIDTH)), int(rng.integers(105, HEIGHT))
        cv2.ellipse(frame, (x, y), (14, 4), 0, 180, 360, (120, 195, 220), 2, cv2.LINE_AA)


def _forest(frame: np.ndarray, rng: np.random.Generator) -> None:
    _gradient(frame, (150, 190, 150), (70, 120, 60))
    for x in sorted(rng.integers(-10, WIDTH, 13).tolist()):
        base, height = int(rng.integers(150, 235)), int(rng.integers(90, 150))
        shade = int(rng.integers(0, 35))
        cv2.rectangle(frame, (x - 4, base - 10), (x + 4, base + 14), (85, 60, 35), -1)
        crown = np.array([[x - 26, base], [x + 26, base], [x, base - height]])
        cv2.fillPoly(frame, [crown], (20 + shade, 75 + shade, 30 + shade), cv2.LINE_AA)


def _desert(frame: np.ndarray, rng: np.random.Generator) -> None:
    _gradient(frame, (250, 215, 160), (255, 235, 195))
    for level in (110, 150, 190):
        xs = np.arange(0, WIDTH + 8, 8)
        ys = level + 16 * np.sin(xs / rng.uniform(35, 60) + rng.uniform(0, 6))
        shape = np.concatenate([np.stack([xs, ys], 1), [[WIDTH + 8, HEIGHT], [0, HEIGHT]]]).astype(np.int32)
        cv2.fillPoly(frame, [shape], (225 - level // 5, 180 - level // 5, 115 - level // 5), cv2.LINE_AA)


def _city(frame: np.ndarray, rng: np.random.Generator) -> None:
    _gradient(frame, (165, 170, 180), (205, 205, 205))
    for left in range(-6, WIDTH, 40):
        top, grey = int(rng.integers(45, 140)), int(rng.integers(70, 125))
        cv2.rectangle(frame, (left, top), (left + 36, 212), (grey, grey, grey + 8), -1)
        for x in range(left + 5, left + 32, 10):
            for y in range(top + 6, 205, 14):
                lit = (250, 235, 150) if rng.random() < 0.4 else (55, 60, 70)
                cv2.rectangle(frame, (x, y), (x + 5, y + 7), lit, -1)
    cv2.rectangle(frame, (0, 212), (WIDTH, HEIGHT), (75, 75, 78), -1)


def _space(frame: np.ndarray, rng: np.random.Generator) -> None:
    _gradient(frame, (8, 8, 30), (30, 15, 60))
    for _ in range(70):
        x, y = int(rng.integers(WIDTH)), int(rng.integers(HEIGHT))
        cv2.circle(frame, (x, y), int(rng.integers(1, 3)), (235, 235, 255), -1, cv2.LINE_AA)
    x = int(rng.integers(30, WIDTH - 30))
    cv2.circle(frame, (x, 205), 30, (110, 100, 140), -1, cv2.LINE_AA)
    cv2.ellipse(frame, (x, 205), (52, 10), -15, 0, 360, (170, 160, 190), 2, cv2.LINE_AA)


def _snow(frame: np.ndarray, rng: np.random.Generator) -> None:
    _gradient(frame, (185, 205, 225), (215, 225, 235))
    for x in rng.integers(-20, WIDTH + 20, 4).tolist():
        top = int(rng.integers(40, 95))
        cv2.fillPoly(frame, [np.array([[x - 95, 190], [x + 95, 190], [x, top]])], (150, 165, 185), cv2.LINE_AA)
        cv2.fillPoly(
            frame, [np.array([[x - 26, top + 33], [x + 26, top + 33], [x, top]])], (250, 250, 252), cv2.LINE_AA
        )
    cv2.rectangle(frame, (0, 180), (WIDTH, HEIGHT), (240, 244, 250), -1)
    for _ in range(60):
        cv2.circle(frame, (int(rng.integers(WIDTH)), int(rng.integers(HEIGHT))), 2, (255, 255, 255), -1, cv2.LINE_AA)


_PLACES: dict[str, Callable[[np.ndarray, np.random.Generator], None]] = {
    "sea": _sea,
    "forest": _forest,
    "desert": _desert,
    "city": _city,
    "space": _space,
    "snow": _snow,
}


# --- things -----------------------------------------------------------------------------------------------------

Colour = tuple[int, int, int]


def _outline(colour: Colour) -> Colour:
    # Black things get a light rim and all others a dark one, so that each stands out in every place.
    return (225, 225, 225) if colour == _COLOURS["black"] else (25, 25, 25)


def _polygon(frame: np.ndarray, x: float, y: float, radius: float, points: np.ndarray, colour: Colour) -> None:
    corners = np.round((np.asarray(points) * radius + (x, y)) * 2**_SUBPIXEL_BITS).astype(np.int32)
    cv2.fillPoly(frame, [corners], colour, cv2.LINE_AA, _SUBPIXEL_BITS)
    cv2.polylines(frame, [corners], True, _outline(colour), 3, cv2.LINE_AA, _SUBPIXEL_BITS)


def _disc(frame: np.ndarray, x: float, y: float, radius: float, fill: Colour, rim: Colour | None = None) -> None:
    centre = (round(x * 2**_SUBPIXEL_BITS), round(y * 2**_SUBPIXEL_BITS))
    size = round(radius * 2**_SUBPIXEL_BITS)
    cv2.circle(frame, centre, size, fill, -1, cv2.LINE_AA, _SUBPIXEL_BITS)
    if rim is not None:
        cv2.circle(frame, centre, size, rim, 3, cv2.LINE_AA, _SUBPIXEL_BITS)


def _ball(frame: np.ndarray, x: float, y: float, radius: float, colour: Colour) -> None:
    _disc(frame, x, y, 0.85 * radius, colour, _outline(colour))


def _star(frame: np.ndarray, x: float, y: float, radius: float, colour: Colour) -> None:
    angles = np.arange(10) * np.pi / 5 - np.pi / 2
    lengths = np.where(np.arange(10) % 2 == 0, 1.05, 0.42)
    _polygon(frame, x, y, radius, np.stack([np.cos(angles) * lengths, np.sin(angles) * lengths], 1), colour)


def _heart(frame: np.ndarray, x: float, y: float, radius: float, colour: Colour) -> None:
    t = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    xs = 16 * np.sin(t) ** 3
    ys = -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t))
    _polygon(frame, x, y, radius, np.stack([xs, ys], 1) / 17, colour)


def _cross(frame: np.ndarray, x: float, y: float, radius: float, colour: Colour) -> None:
    a, b = 0.32, 0.95
    corners = [
        (-a, -b),
        (a, -b),
        (a, -a),
        (b, -a),
        (b, a),
        (a, a),
        (a, b),
        (-a, b),
        (-a, a),
        (-b, a),
        (-b, -a),
        (-a, -a),
    ]
    _polygon(frame, x, y, radius, np.array(corners), colour)


def _car(frame: np.ndarray, x: float, y: float, radius: float, colour: Colour) -> None:
    body = [
        (-1.1, 0.35),
        (-1.1, -0.1),
        (-0.65, -0.15),
        (-0.4, -0.6),
        (0.4, -0.6),
        (0.65, -0.15),
        (1.1, -0.1),
        (1.1, 0.35),
    ]
    _polygon(frame, x, y, radius, np.array(body), colour)
    for wheel in (-0.6, 0.6):
        _disc(frame, x + wheel * radius, y + 0.4 * radius, 0.28 * radius, (40, 40, 40), (210, 210, 210))


def _fish(frame: np.ndarray, x: float, y: float, radius: float, colour: Colour) -> None:
    t = np.linspace(0, 2 * np.pi, 28, endpoint=False)
    body = np.stack([0.75 * np.cos(t) - 0.25, 0.5 * np.sin(t)], 1)
    _polygon(frame, x, y, radius, np.array([(0.35, 0.0), (1.05, -0.55), (1.05, 0.55)]), colour)
    _polygon(frame, x, y, radius, body, colour)
    _disc(frame, x - 0.6 * radius, y - 0.12 * radius, 0.1 * radius, (255, 255, 255), (20, 20, 20))


def _house(frame: np.ndarray, x: float, y: float, radius: float, colour: Colour) -> None:
    _polygon(frame, x, y, radius, np.array([(-0.75, 0.9), (-0.75, -0.1), (0.75, -0.1), (0.75, 0.9)]), colour)
    _polygon(frame, x, y, radius, np.array([(-1.0, -0.1), (0.0, -0.95), (1.0, -0.1)]), colour)
    _polygon(frame, x, y, radius, np.array([(-0.2, 0.9), (-0.2, 0.3), (0.2, 0.3), (0.2, 0.9)]), (120, 90, 60))


def _boat(frame: np.ndarray, x: float, y: float, radius: float, colour: Colour) -> None:
    _polygon(frame, x, y, radius, np.array([(-1.05, 0.35), (1.05, 0.35), (0.65, 0.85), (-0.65, 0.85)]), colour)
    _polygon(frame, x, y, radius, np.array([(0.05, -1.0), (0.05, 0.22), (0.85, 0.22)]), colour)
    _polygon(frame, x, y, radius, np.array([(-0.08, -0.8), (-0.08, 0.22), (-0.65, 0.22)]), (235, 235, 220))


_THINGS: dict[str, Callable[[np.ndarray, float, float, float, Colour], None]] = {
    "ball": _ball,
    "star": _star,
    "heart": _heart,
    "cross": _cross,
    "car": _car,
    "fish": _fish,
    "house": _house,
    "boat": _boat,
}

"""The made world: one to three things in a place, beside a sign, drawn as a film would show them.

A thing has a colour, a shape, a size and a motion; the place and the sign, a number or a word, are the whole scene's.
`draw` gives the frame at a moment; nothing here knows of films, questions or models.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

HEIGHT, WIDTH = 240, 320
"""Size of a drawn frame in pixels."""

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
"""What may vary: attribute -> its values, each one word."""

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
_DIRECTIONS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1), "still": (0, 0), "spinning": (0, 0)}
_DEGREES_A_SECOND = 65.0
_RADII = {
    1: {"big": (48, 58), "small": (27, 33)},
    2: {"big": (42, 50), "small": (25, 31)},
    3: {"big": (39, 43), "small": (24, 28)},
}
_SUBPIXEL_BITS = 4


@dataclass(frozen=True, slots=True)
class Thing:
    """What is seen, and how it is staged."""

    colour: str
    shape: str
    size: str
    motion: str
    x: float
    """Where its centre is at the scene's start, pixels."""
    y: float
    radius: float
    """Half its size, pixels."""
    speed: float
    """Pixels a second."""

    def at(self, seconds: float) -> tuple[float, float]:
        """Where its centre is. The world wraps around: what leaves on one side enters on the other."""
        dx, dy = _DIRECTIONS[self.motion]
        return (self.x + dx * self.speed * seconds) % WIDTH, (self.y + dy * self.speed * seconds) % HEIGHT


@dataclass(frozen=True, slots=True)
class Scene:
    """What stays as it is for a while: some things, a place, a sign."""

    things: tuple[Thing, ...]
    sign: str
    place: str
    sign_right: bool
    """Whether the sign hangs at the right."""
    backdrop: int
    """Seed of the place's details."""

    @property
    def subjects(self) -> tuple[Subject, ...]:
        """Its things, as they can be asked about."""
        return tuple(Subject(self, thing) for thing in self.things)


@dataclass(frozen=True, slots=True)
class Subject:
    """A thing in its scene."""

    scene: Scene
    thing: Thing

    def value(self, attribute: str) -> str:
        """The word for one of ATTRIBUTES."""
        return str(getattr(self.thing if attribute in THING_ATTRIBUTES else self.scene, attribute))

    def fits(self, said: Mapping[str, str]) -> bool:
        """Whether all that is said of a thing holds for it."""
        return all(self.value(attribute) == value for attribute, value in said.items())


def random_things(rng: np.random.Generator, num_things: int) -> tuple[Thing, ...]:
    """So many things with every attribute drawn evenly: no two of one colour or shape, each in a row of its own."""
    colours, shapes = (rng.permutation(THING_ATTRIBUTES[a])[:num_things].tolist() for a in ("colour", "shape"))
    rows, columns = rng.permutation(num_things), rng.permutation(num_things)
    things = []
    for place in range(num_things):
        size, motion = (str(rng.choice(THING_ATTRIBUTES[attribute])) for attribute in ("size", "motion"))
        things.append(
            Thing(
                colours[place],
                shapes[place],
                size,
                motion,
                x=float(WIDTH * (columns[place] + 0.5) / num_things + rng.uniform(-20, 20)),
                y=float(30 + (HEIGHT - 30) * (rows[place] + 0.5) / num_things + rng.uniform(-12, 12)),
                radius=float(rng.uniform(*_RADII[num_things][size])),
                speed=float(rng.uniform(15, 33)),
            )
        )
    return tuple(things)


def random_scene(rng: np.random.Generator, num_things: int | None = None) -> Scene:
    """A scene with every attribute drawn evenly and independently; half have one thing, the others two or three."""
    return Scene(
        things=random_things(rng, num_things or int(rng.choice([1, 2, 3], p=[0.5, 0.35, 0.15]))),
        sign=str(rng.choice(SCENE_ATTRIBUTES["sign"])),
        place=str(rng.choice(SCENE_ATTRIBUTES["place"])),
        sign_right=bool(rng.integers(2)),
        backdrop=int(rng.integers(64)),
    )


def draw(scene: Scene, seconds: float) -> np.ndarray:
    """The frame `seconds` after the scene began: (240, 320, 3) uint8, RGB."""
    frame = _backdrop(scene.place, scene.backdrop).copy()
    for thing in scene.things:
        draw_thing(frame, thing, seconds)
    _sign(frame, scene)
    return frame


def draw_thing(frame: np.ndarray, thing: Thing, seconds: float, *, wraps: bool = True) -> None:
    """Add the thing to a frame where it is by then, on both sides of the edge that it crosses if it wraps."""
    x, y = thing.at(seconds) if wraps else (thing.x, thing.y)
    turn = _DEGREES_A_SECOND * seconds if thing.motion == "spinning" else 0.0
    for wrapped_x in (x - WIDTH, x, x + WIDTH) if wraps else (x,):
        for wrapped_y in (y - HEIGHT, y, y + HEIGHT) if wraps else (y,):
            if -70 < wrapped_x < WIDTH + 70 and -70 < wrapped_y < HEIGHT + 70:
                pen = _Pen(frame, wrapped_x, wrapped_y, thing.radius, turn)
                _THINGS[thing.shape](pen, _COLOURS[thing.colour])


def nearest_things(scene: Scene, seconds: float, rows: int, columns: int) -> np.ndarray:
    """(rows * columns,) the place in `things` of the thing nearest to each cell of the frame."""
    y, x = np.mgrid[0.5:rows, 0.5:columns]
    distances = []
    for thing in scene.things:
        at_x, at_y = thing.at(seconds)
        dx, dy = np.abs(x * WIDTH / columns - at_x), np.abs(y * HEIGHT / rows - at_y)
        distances.append(np.hypot(np.minimum(dx, WIDTH - dx), np.minimum(dy, HEIGHT - dy)) - thing.radius)
    return np.asarray(np.argmin(distances, axis=0).ravel())


def _sign(frame: np.ndarray, scene: Scene) -> None:
    is_number = scene.sign in NUMBERS
    width, height, scale = (50, 64, 1.85) if is_number else (118, 50, 1.25)
    left = WIDTH - 8 - width if scene.sign_right else 8
    cv2.rectangle(frame, (left, 8), (left + width, 8 + height), (250, 250, 250), -1)
    cv2.rectangle(frame, (left, 8), (left + width, 8 + height), (20, 20, 20), 3)
    thickness = 6 if is_number else 4
    (text_width, text_height), _ = cv2.getTextSize(scene.sign, cv2.FONT_HERSHEY_SIMPLEX, scale, thickness)
    corner = (left + (width - text_width) // 2, 8 + (height + text_height) // 2)
    cv2.putText(frame, scene.sign, corner, cv2.FONT_HERSHEY_SIMPLEX, scale, (10, 10, 10), thickness, cv2.LINE_AA)


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


def _farm(frame: np.ndarray, rng: np.random.Generator) -> None:
    _gradient(frame, (175, 215, 250), (215, 235, 250))
    frame[120:] = (120, 170, 70)
    for stripe in range(128, HEIGHT, 18):
        cv2.line(frame, (0, stripe), (WIDTH, stripe + 6), (100, 150, 55), 4, cv2.LINE_AA)
    x = int(rng.integers(20, WIDTH - 110))
    cv2.rectangle(frame, (x, 70), (x + 80, 130), (150, 45, 40), -1)
    cv2.fillPoly(frame, [np.array([[x - 8, 72], [x + 88, 72], [x + 40, 36]])], (95, 60, 50), cv2.LINE_AA)
    cv2.rectangle(frame, (x + 28, 92), (x + 52, 130), (235, 225, 210), -1)
    for post in range(int(rng.integers(0, 24)), WIDTH, 32):
        cv2.rectangle(frame, (post, 132), (post + 5, 168), (225, 215, 195), -1)
    cv2.rectangle(frame, (0, 142), (WIDTH, 147), (225, 215, 195), -1)


def _beach(frame: np.ndarray, rng: np.random.Generator) -> None:
    _gradient(frame, (120, 200, 250), (190, 230, 250))
    _gradient(frame, (60, 190, 200), (90, 210, 210), start=90)
    xs = np.arange(0, WIDTH + 8, 8)
    shore = 140 + 9 * np.sin(xs / 45 + rng.uniform(0, 6))
    sand = np.concatenate([np.stack([xs, shore], 1), [[WIDTH + 8, HEIGHT], [0, HEIGHT]]]).astype(np.int32)
    cv2.fillPoly(frame, [sand], (240, 220, 165), cv2.LINE_AA)
    cv2.polylines(frame, [sand[:-2]], False, (250, 250, 250), 4, cv2.LINE_AA)
    for x in rng.integers(20, WIDTH - 20, 2).tolist():
        cv2.line(frame, (x, 215), (x + 12, 110), (130, 95, 60), 7, cv2.LINE_AA)
        for angle in range(0, 360, 60):
            cv2.ellipse(frame, (x + 12, 108), (30, 7), angle + 15, 0, 180, (50, 140, 60), -1, cv2.LINE_AA)


_PLACES: dict[str, Callable[[np.ndarray, np.random.Generator], None]] = {
    "sea": _sea,
    "forest": _forest,
    "desert": _desert,
    "city": _city,
    "space": _space,
    "snow": _snow,
    "farm": _farm,
    "beach": _beach,
}


# --- things -----------------------------------------------------------------------------------------------------

Colour = tuple[int, int, int]


def _outline(colour: Colour) -> Colour:
    # Black things get a light rim and all others a dark one, so that each stands out in every place.
    return (225, 225, 225) if colour == _COLOURS["black"] else (25, 25, 25)


@dataclass(frozen=True, slots=True)
class _Pen:
    """Draws in the thing's own measure: its centre is (0, 0) and its radius 1."""

    frame: np.ndarray
    x: float
    y: float
    radius: float
    turn: float
    """Degrees, clockwise."""

    def polygon(self, points: Sequence[tuple[float, float]] | np.ndarray, colour: Colour) -> None:
        """Filled, with an outline."""
        corners = self._pixels(np.asarray(points, dtype=float))
        cv2.fillPoly(self.frame, [corners], colour, cv2.LINE_AA, _SUBPIXEL_BITS)
        cv2.polylines(self.frame, [corners], True, _outline(colour), 3, cv2.LINE_AA, _SUBPIXEL_BITS)

    def disc(self, x: float, y: float, radius: float, fill: Colour, rim: Colour | None = None) -> None:
        """A circle about (x, y)."""
        ((centre_x, centre_y),) = self._pixels(np.array([(x, y)])).tolist()
        size = round(radius * self.radius * 2**_SUBPIXEL_BITS)
        cv2.circle(self.frame, (centre_x, centre_y), size, fill, -1, cv2.LINE_AA, _SUBPIXEL_BITS)
        if rim is not None:
            cv2.circle(self.frame, (centre_x, centre_y), size, rim, 3, cv2.LINE_AA, _SUBPIXEL_BITS)

    def _pixels(self, points: np.ndarray) -> np.ndarray:
        cos, sin = math.cos(math.radians(self.turn)), math.sin(math.radians(self.turn))
        turned = points @ np.array([(cos, sin), (-sin, cos)])
        return np.asarray(np.round((turned * self.radius + (self.x, self.y)) * 2**_SUBPIXEL_BITS).astype(np.int32))


def _ball(pen: _Pen, colour: Colour) -> None:
    pen.disc(0, 0, 0.85, colour, _outline(colour))
    pen.polygon(
        [(-0.12, -0.8), (0.12, -0.8), (0.12, 0.8), (-0.12, 0.8)], _outline(colour)
    )  # so that it is seen to spin


def _star(pen: _Pen, colour: Colour) -> None:
    angles = np.arange(10) * np.pi / 5 - np.pi / 2
    lengths = np.where(np.arange(10) % 2 == 0, 1.05, 0.42)
    pen.polygon(np.stack([np.cos(angles) * lengths, np.sin(angles) * lengths], 1), colour)


def _heart(pen: _Pen, colour: Colour) -> None:
    t = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    xs = 16 * np.sin(t) ** 3
    ys = -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t))
    pen.polygon(np.stack([xs, ys], 1) / 17, colour)


def _cross(pen: _Pen, colour: Colour) -> None:
    a, b = 0.32, 0.95
    right = [(a, -b), (a, -a), (b, -a), (b, a), (a, a), (a, b)]
    pen.polygon([*right, *((-x, -y) for x, y in right)], colour)


def _car(pen: _Pen, colour: Colour) -> None:
    left = [(-1.1, 0.35), (-1.1, -0.1), (-0.65, -0.15), (-0.4, -0.6)]
    pen.polygon([*left, *((-x, y) for x, y in reversed(left))], colour)
    for wheel in (-0.6, 0.6):
        pen.disc(wheel, 0.4, 0.28, (40, 40, 40), (210, 210, 210))


def _fish(pen: _Pen, colour: Colour) -> None:
    t = np.linspace(0, 2 * np.pi, 28, endpoint=False)
    pen.polygon([(0.35, 0.0), (1.05, -0.55), (1.05, 0.55)], colour)
    pen.polygon(np.stack([0.75 * np.cos(t) - 0.25, 0.5 * np.sin(t)], 1), colour)
    pen.disc(-0.6, -0.12, 0.1, (255, 255, 255), (20, 20, 20))


def _house(pen: _Pen, colour: Colour) -> None:
    pen.polygon([(-0.75, 0.9), (-0.75, -0.1), (0.75, -0.1), (0.75, 0.9)], colour)
    pen.polygon([(-1.0, -0.1), (0.0, -0.95), (1.0, -0.1)], colour)
    pen.polygon([(-0.2, 0.9), (-0.2, 0.3), (0.2, 0.3), (0.2, 0.9)], (120, 90, 60))


def _boat(pen: _Pen, colour: Colour) -> None:
    pen.polygon([(-1.05, 0.35), (1.05, 0.35), (0.65, 0.85), (-0.65, 0.85)], colour)
    pen.polygon([(0.05, -1.0), (0.05, 0.22), (0.85, 0.22)], colour)
    pen.polygon([(-0.08, -0.8), (-0.08, 0.22), (-0.65, 0.22)], (235, 235, 220))


_THINGS: dict[str, Callable[[_Pen, Colour], None]] = {
    "ball": _ball,
    "star": _star,
    "heart": _heart,
    "cross": _cross,
    "car": _car,
    "fish": _fish,
    "house": _house,
    "boat": _boat,
}

"""Draw a scene of the synthetic world: its place, its things, its sign."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from lvqa.synthetic.world import HEIGHT, NUMBERS, WIDTH, Scene, Thing

Colour = tuple[int, int, int]
"""Red, green and blue, 0 to 255 each."""

_COLOURS: dict[str, Colour] = {
    "red": (222, 35, 35),
    "orange": (255, 140, 20),
    "yellow": (250, 226, 40),
    "green": (40, 165, 60),
    "blue": (40, 80, 225),
    "purple": (140, 50, 175),
    "white": (246, 246, 246),
    "black": (26, 26, 26),
}
_DEGREES_PER_SECOND = 65.0
"""How fast a spinning thing turns."""
_MARGIN = 70
"""How far outside the frame, in pixels, the centre of a thing may be while some of it is visible."""
_SUBPIXEL_BITS = 4


def draw(scene: Scene, seconds: float) -> np.ndarray:
    """Draw one frame of a scene.

    Args:
        scene: What the frame shows.
        seconds: The time since the scene started.

    Returns:
        (240, 320, 3) uint8, RGB.
    """
    frame = _backdrop(scene.place, scene.backdrop).copy()
    for thing in scene.things:
        draw_thing(frame, thing, seconds)
    _draw_sign(frame, scene)
    return frame


def draw_thing(frame: np.ndarray, thing: Thing, seconds: float, *, wraps: bool = True) -> None:
    """Draw a thing into a frame.

    Args:
        frame: (240, 320, 3) uint8, RGB; it is changed in place.
        thing: What to draw.
        seconds: The time since the scene started.
        wraps: Whether a thing that crosses an edge appears on the opposite side, too. If not, the thing does not move.
    """
    x, y = thing.centre_at(seconds) if wraps else (thing.x, thing.y)
    degrees = _DEGREES_PER_SECOND * seconds if thing.motion == "spinning" else 0.0
    for wrapped_x in (x - WIDTH, x, x + WIDTH) if wraps else (x,):
        for wrapped_y in (y - HEIGHT, y, y + HEIGHT) if wraps else (y,):
            if -_MARGIN < wrapped_x < WIDTH + _MARGIN and -_MARGIN < wrapped_y < HEIGHT + _MARGIN:
                pen = _Pen(frame, wrapped_x, wrapped_y, thing.radius, degrees)
                _SHAPES[thing.shape](pen, _COLOURS[thing.colour])


def _draw_sign(frame: np.ndarray, scene: Scene) -> None:
    """Draw the sign in an upper corner."""
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
    """Draw a place with some grain, (240, 320, 3) uint8. The caller must not change it."""
    rng = np.random.default_rng(seed)
    frame = np.empty((HEIGHT, WIDTH, 3), np.uint8)
    _PLACES[place](frame, rng)
    grain = rng.normal(0, 3, frame.shape)
    return np.clip(frame + grain, 0, 255).astype(np.uint8)


def _gradient(frame: np.ndarray, top: Colour, bottom: Colour, start: int = 0) -> None:
    """Fill the rows from `start` on with a vertical gradient."""
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


def _outline(colour: Colour) -> Colour:
    """Return a light colour for black things and a dark one for all others, so that each is visible in every place."""
    return (225, 225, 225) if colour == _COLOURS["black"] else (25, 25, 25)


@dataclass(frozen=True, slots=True)
class _Pen:
    """A pen in a thing's own coordinates: the centre is (0, 0) and the radius 1."""

    frame: np.ndarray
    x: float
    y: float
    radius: float
    degrees: float
    """How far the thing is turned clockwise."""

    def polygon(self, points: Sequence[tuple[float, float]] | np.ndarray, colour: Colour) -> None:
        """Draw a filled polygon with an outline."""
        corners = self._pixels(np.asarray(points, dtype=float))
        cv2.fillPoly(self.frame, [corners], colour, cv2.LINE_AA, _SUBPIXEL_BITS)
        cv2.polylines(self.frame, [corners], True, _outline(colour), 3, cv2.LINE_AA, _SUBPIXEL_BITS)

    def disc(self, x: float, y: float, radius: float, fill: Colour, rim: Colour | None = None) -> None:
        """Draw a filled circle about (x, y), with a rim if one is given."""
        ((centre_x, centre_y),) = self._pixels(np.array([(x, y)])).tolist()
        size = round(radius * self.radius * 2**_SUBPIXEL_BITS)
        cv2.circle(self.frame, (centre_x, centre_y), size, fill, -1, cv2.LINE_AA, _SUBPIXEL_BITS)
        if rim is not None:
            cv2.circle(self.frame, (centre_x, centre_y), size, rim, 3, cv2.LINE_AA, _SUBPIXEL_BITS)

    def _pixels(self, points: np.ndarray) -> np.ndarray:
        """Return (points, 2) int32 pixel coordinates with _SUBPIXEL_BITS fractional bits."""
        cos, sin = math.cos(math.radians(self.degrees)), math.sin(math.radians(self.degrees))
        rotated = points @ np.array([(cos, sin), (-sin, cos)])
        return np.asarray(np.round((rotated * self.radius + (self.x, self.y)) * 2**_SUBPIXEL_BITS).astype(np.int32))


def _ball(pen: _Pen, colour: Colour) -> None:
    pen.disc(0, 0, 0.85, colour, _outline(colour))
    # The bar makes a ball's spinning visible.
    pen.polygon([(-0.12, -0.8), (0.12, -0.8), (0.12, 0.8), (-0.12, 0.8)], _outline(colour))


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


_SHAPES: dict[str, Callable[[_Pen, Colour], None]] = {
    "ball": _ball,
    "star": _star,
    "heart": _heart,
    "cross": _cross,
    "car": _car,
    "fish": _fish,
    "house": _house,
    "boat": _boat,
}

"""The script of a synthetic video: takes without a cut, each of one scene or of two with an event between them.

`write_script` samples a script from a seed, and `iter_frames` renders it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import cv2
import numpy as np

from lvqa.synthetic.drawing import draw, draw_thing
from lvqa.synthetic.language import name
from lvqa.synthetic.world import (
    ATTRIBUTES,
    NUMBERS,
    WIDTH,
    Scene,
    Subject,
    Thing,
    random_scene,
    random_things,
)

FRAMES_PER_SECOND = 8
TAKE_SECONDS = (8.0, 40.0)
"""The shortest and the longest take."""
MIN_SHOT_SECONDS = 6.0
"""A take with an event is at least twice as long; the event comes near the middle."""

EVENTS = ("turns", "stops", "leaves", "enters", "hits", "counts")
"""What can happen in a take: a thing changes its colour, stops, leaves, enters, or collides with another one, or the
number on the sign goes up by one."""
_PASSING_SECONDS = 1.25
"""How long a thing that leaves or enters is on its way."""
_PASSING_SPEED = 190.0
"""The speed of a thing that leaves or enters, in pixels a second."""
_BURST_SECONDS = 0.5
"""How long the flash of a collision is visible."""
_APPROACH_SECONDS = 5.0
"""How long two things move towards each other before they collide."""
_APPROACH_PIXELS = 75.0
"""How far each of them moves in this time."""


@dataclass(frozen=True, slots=True)
class Shot:
    """A scene, and when the video shows it."""

    scene: Scene
    start_seconds: float
    end_seconds: float


@dataclass(frozen=True, slots=True)
class Event:
    """What happens to a thing between two shots."""

    kind: str
    """One of EVENTS."""
    phrase: str
    """The event as an answer, such as "it turns blue"."""
    thing: Thing
    """The thing as it is before the event or, if it enters, after it."""


@dataclass(frozen=True, slots=True)
class Take:
    """A stretch of video without a cut: one shot, or two with an event between them."""

    shots: tuple[Shot, ...]
    event: Event | None = None

    @property
    def start_seconds(self) -> float:
        return self.shots[0].start_seconds

    @property
    def end_seconds(self) -> float:
        return self.shots[-1].end_seconds

    @property
    def subjects(self) -> tuple[Subject, ...]:
        """All things of the first shot, then all things of the second."""
        return tuple(subject for shot in self.shots for subject in shot.scene.subjects)


@dataclass(frozen=True, slots=True)
class Variety:
    """How a video differs from the usual ones, which the embedded model was taught."""

    take_seconds: tuple[float, float] = TAKE_SECONDS
    """The shortest and the longest take, in whole eighths of a second (frames)."""
    lookalikes: float = 1.0
    """How many times as likely it is that a scene has the video's favourite place and things, up to always: so much
    more of the video looks like what a question is about."""

    @property
    def suffix(self) -> str:
        """What tells the video's name from that of a usual one with the same seed: "-3s", "-2x", or ""."""
        shortest, longest = self.take_seconds
        takes = f"{shortest:g}s" if shortest == longest else f"{shortest:g}to{longest:g}s"
        parts = (takes if self.take_seconds != TAKE_SECONDS else "", f"{self.lookalikes:g}x")
        return "".join(f"-{part}" for part in parts if part not in ("", "1x"))


USUAL = Variety()


@dataclass(frozen=True, slots=True)
class VideoScript:
    """All that is true of a synthetic video."""

    seed: int
    takes: tuple[Take, ...]
    variety: Variety = USUAL

    @property
    def duration_seconds(self) -> float:
        return self.takes[-1].end_seconds

    @property
    def key(self) -> str:
        """The video's name in the files of a dataset."""
        return f"film{self.seed:06d}{self.variety.suffix}"


def write_script(seed: int, minutes: float, variety: Variety = USUAL) -> VideoScript:
    """Sample the script of a video. It depends on the arguments alone, and each cut and event lies on a frame.

    Args:
        seed: The random seed. Seeds from `questions.HELD_OUT_SEEDS` on are for evaluation.
        minutes: The duration of the video.
        variety: What is unusual about the video.
    """
    rng = np.random.default_rng([seed, 1])
    style = Style.sample(rng, variety.lookalikes)
    takes: list[Take] = []
    start, duration = 0.0, minutes * 60
    while start < duration:
        end = start + _whole_frames(rng.uniform(*variety.take_seconds))
        # If what remains is too short for a take, the last take is longer.
        end = duration if duration - end < variety.take_seconds[0] else end
        takes.append(random_take(rng, start, end, style))
        start = end
    return VideoScript(seed, tuple(takes), variety)


@dataclass(frozen=True, slots=True)
class Style:
    """What a video prefers to show: a cast of things that come back, and a place."""

    cast: tuple[Thing, ...]
    """Nine things; the first one is seen more often than the others."""
    place: str
    lookalikes: float = 1.0
    """As in Variety."""

    @classmethod
    def sample(cls, rng: np.random.Generator, lookalikes: float = 1.0) -> Style:
        """Sample a cast and a place."""
        cast = tuple(thing for _ in range(3) for thing in random_things(rng, 3))
        return cls(cast, str(rng.choice(ATTRIBUTES["place"])), lookalikes)

    def apply(self, rng: np.random.Generator, scene: Scene) -> Scene:
        """Return the scene, in three of ten cases in the preferred place, in six of ten with one of the cast."""
        if rng.random() < 0.3 * self.lookalikes:
            scene = replace(scene, place=self.place)
        member = self.cast[0 if rng.random() < 0.4 * self.lookalikes else int(rng.integers(len(self.cast)))]
        first, *others = scene.things
        fits = all(member.colour != other.colour and member.shape != other.shape for other in others)
        if rng.random() < 0.6 * self.lookalikes and fits:
            scene = replace(scene, things=(replace(first, colour=member.colour, shape=member.shape), *others))
        return scene


def random_take(rng: np.random.Generator, start: float, end: float, style: Style | None = None) -> Take:
    """Sample a take. In half of those that are long enough, something happens.

    Args:
        rng: The source of randomness.
        start: When the take starts, in seconds.
        end: When the take ends, in seconds.
        style: What the video prefers to show; None samples every scene uniformly.
    """

    def scene() -> Scene:
        return random_scene(rng) if style is None else style.apply(rng, random_scene(rng))

    if end - start < 2 * MIN_SHOT_SECONDS or rng.random() < 0.5:
        return Take((Shot(scene(), start, end),))
    kind = str(rng.choice(EVENTS))
    # Two things that collide must not have met before, on the way around the frame.
    middle = start + _whole_frames(_APPROACH_SECONDS if kind == "hits" else (end - start) * rng.uniform(0.42, 0.58))
    outcome = None
    while outcome is None:
        outcome = random_event(rng, scene(), kind, middle - start)
    before, after, event = outcome
    return Take((Shot(before, start, middle), Shot(after, middle, end)), event)


def random_event(
    rng: np.random.Generator, scene: Scene, kind: str, seconds: float
) -> tuple[Scene, Scene, Event] | None:
    """Let an event happen to a random thing of a scene.

    Args:
        rng: The source of randomness.
        scene: The scene at its start.
        kind: One of EVENTS.
        seconds: When the event happens, from the start of the scene.

    Returns:
        The scene before the event, the scene after it, and the event; None if it can't happen in this scene.
    """
    index = int(rng.integers(len(scene.things)))
    thing, after = scene.things[index], _advance(scene, seconds)
    if kind == "turns":
        free = [c for c in ATTRIBUTES["colour"] if all(c != other.colour for other in scene.things)]
        recoloured = replace(after.things[index], colour=str(rng.choice(free)))
        return scene, _replace_things(after, {index: recoloured}), Event(kind, f"it turns {recoloured.colour}", thing)
    if kind == "stops" and thing.motion not in ("still", "spinning"):
        stopped = replace(after.things[index], motion="still")
        return scene, _replace_things(after, {index: stopped}), Event(kind, "it stops", thing)
    if kind == "counts" and scene.sign in NUMBERS[:-1]:
        sign = NUMBERS[NUMBERS.index(scene.sign) + 1]
        return scene, replace(after, sign=sign), Event(kind, "the number goes up", thing)
    if len(scene.things) == 1:
        return None
    if kind == "leaves":
        return scene, _remove_thing(after, index), Event(kind, "it leaves", thing)
    if kind == "enters":
        return _remove_thing(scene, index), after, Event(kind, "it enters", after.things[index])
    return _collision(rng, scene, index, seconds) if kind == "hits" else None


def _collision(rng: np.random.Generator, scene: Scene, index: int, seconds: float) -> tuple[Scene, Scene, Event]:
    """Let two things at one height come from both sides, touch, and move off, one up and one down."""
    other = int(rng.choice([i for i in range(len(scene.things)) if i != index]))
    y, x = float(rng.uniform(100, 180)), float(rng.uniform(130, WIDTH - 130))
    before, after = {}, {}
    for i, direction, new_motion in ((index, 1, "up"), (other, -1, "down")):
        thing = replace(scene.things[i], y=y, speed=_APPROACH_PIXELS / seconds)
        touch_x = x - direction * thing.radius
        start_x = (touch_x - direction * _APPROACH_PIXELS) % WIDTH
        before[i] = replace(thing, motion="right" if direction == 1 else "left", x=start_x)
        after[i] = replace(thing, motion=new_motion, x=touch_x)
    event = Event("hits", f"it hits {name(scene.things[other])}", before[index])
    return _replace_things(scene, before), _replace_things(_advance(scene, seconds), after), event


def _advance(scene: Scene, seconds: float) -> Scene:
    """Return the scene as one that starts so many seconds later."""
    moved = (replace(thing, x=x, y=y) for thing in scene.things for x, y in (thing.centre_at(seconds),))
    return replace(scene, things=tuple(moved))


def _replace_things(scene: Scene, things: dict[int, Thing]) -> Scene:
    """Return the scene with other things at these indices."""
    return replace(scene, things=tuple(things.get(i, thing) for i, thing in enumerate(scene.things)))


def _remove_thing(scene: Scene, index: int) -> Scene:
    """Return the scene without the thing at this index."""
    return replace(scene, things=scene.things[:index] + scene.things[index + 1 :])


def _whole_frames(seconds: float) -> float:
    """Round a time to the nearest frame."""
    return round(seconds * FRAMES_PER_SECOND) / FRAMES_PER_SECOND


def iter_frames(script: VideoScript) -> Iterator[np.ndarray]:
    """Render every frame of the video in order, (240, 320, 3) uint8 RGB, FRAMES_PER_SECOND for each second."""
    for take in script.takes:
        start, end = (round(seconds * FRAMES_PER_SECOND) for seconds in (take.start_seconds, take.end_seconds))
        for i in range(start, end):
            yield frame_at(take, i / FRAMES_PER_SECOND)


def frame_at(take: Take, seconds: float) -> np.ndarray:
    """Render the frame at a time of the video that lies in the take, (240, 320, 3) uint8 RGB."""
    shot = take.shots[-1] if seconds >= take.shots[-1].start_seconds else take.shots[0]
    since = seconds - shot.start_seconds
    event = take.event if shot is not take.shots[0] else None
    if event is not None and event.kind == "enters" and since < _PASSING_SECONDS:
        others = tuple(thing for thing in shot.scene.things if thing != event.thing)
        frame = draw(replace(shot.scene, things=others), since)
        _draw_passing(frame, event.thing, since, _PASSING_SECONDS - since)
        return frame
    frame = draw(shot.scene, since)
    if event is not None and event.kind == "leaves" and since < _PASSING_SECONDS:
        first = take.shots[0]
        scene = _advance(first.scene, shot.start_seconds - first.start_seconds)
        _draw_passing(frame, scene.things[first.scene.things.index(event.thing)], 0.0, since)
    if event is not None and event.kind == "hits" and since < _BURST_SECONDS:
        _draw_burst(frame, shot.scene, event)
    return frame


def _draw_passing(frame: np.ndarray, thing: Thing, since: float, seconds_away: float) -> None:
    """Draw a thing that is so many seconds away from where it would be, towards the nearer side."""
    x, y = thing.centre_at(since)
    direction = 1 if x > WIDTH / 2 else -1
    passing = replace(thing, x=x + direction * _PASSING_SPEED * seconds_away, y=y, motion="still")
    draw_thing(frame, passing, 0.0, wraps=False)


def _draw_burst(frame: np.ndarray, scene: Scene, event: Event) -> None:
    """Draw the flash of a collision where the two things touch."""
    thing = next(t for t in scene.things if t.colour == event.thing.colour)
    centre = np.array([thing.x + thing.radius, thing.y])
    angles = np.arange(16) * np.pi / 8
    lengths = np.where(np.arange(16) % 2 == 0, 34, 14)[:, None]
    spikes = centre + np.stack([np.cos(angles), np.sin(angles)], 1) * lengths
    cv2.fillPoly(frame, [np.round(spikes).astype(np.int32)], (255, 240, 120), cv2.LINE_AA)

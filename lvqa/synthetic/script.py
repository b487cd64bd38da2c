"""What a made film shows when: takes without a cut, each of one scene or of two with an event between them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import cv2
import numpy as np

from lvqa.synthetic.language import name
from lvqa.synthetic.world import (
    ATTRIBUTES,
    NUMBERS,
    WIDTH,
    Scene,
    Subject,
    Thing,
    draw,
    draw_thing,
    random_scene,
    random_things,
)

FRAMES_PER_SECOND = 8
TAKE_SECONDS = (8.0, 40.0)
LEAST_SHOT_SECONDS = 6.0
"""Twice as long at least is a take with an event; it comes near the middle."""

EVENTS = ("turns", "stops", "leaves", "enters", "hits", "counts")
"""What may happen in a take: a thing gets another colour, stands still, goes, comes, bounces off another; the number on
the sign goes up by one."""
_PASSING_SECONDS, _PASSING_SPEED = 1.25, 190.0
"""How a thing comes and goes, in pixels a second."""
_BURST_SECONDS = 0.5
_APPROACH_SECONDS, _APPROACH_PIXELS = 5.0, 75.0
"""Of each of two things that are to collide."""


@dataclass(frozen=True, slots=True)
class Shot:
    """A scene's place in a film."""

    scene: Scene
    start_seconds: float
    end_seconds: float


@dataclass(frozen=True, slots=True)
class Event:
    """What happens to a thing between two shots."""

    kind: str
    """One of EVENTS."""
    said: str
    """As an answer: "it turns blue"."""
    thing: Thing
    """Whom it happens to: as it is before, or if it was not there, after."""


@dataclass(frozen=True, slots=True)
class Take:
    """What is filmed without a cut: one shot, or two with an event between them."""

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
        """All things, in each of the shots."""
        return tuple(subject for shot in self.shots for subject in shot.scene.subjects)


@dataclass(frozen=True, slots=True)
class Film:
    """A film's script: what is true of it."""

    seed: int
    takes: tuple[Take, ...]

    @property
    def duration_seconds(self) -> float:
        return self.takes[-1].end_seconds

    @property
    def key(self) -> str:
        """Its name in a benchmark's files."""
        return f"film{self.seed:06d}"


def write_script(seed: int, minutes: float) -> Film:
    """A film of takes of 8 to 40 seconds, the same for the same seed. Every cut and every event lies on a frame."""
    rng = np.random.default_rng([seed, 1])
    style = Style.drawn(rng)
    takes: list[Take] = []
    start, duration = 0.0, minutes * 60
    while start < duration:
        end = start + _whole_frames(rng.uniform(*TAKE_SECONDS))
        # A rest too short for a take of its own goes to the last one.
        end = duration if duration - end < TAKE_SECONDS[0] else end
        takes.append(random_take(rng, start, end, style))
        start = end
    return Film(seed, tuple(takes))


@dataclass(frozen=True, slots=True)
class Style:
    """What a film likes to show: a cast that is seen again and again, and a place."""

    cast: tuple[Thing, ...]
    place: str

    @classmethod
    def drawn(cls, rng: np.random.Generator) -> Style:
        """A star, seen more often than the others, and eight others."""
        return cls(
            tuple(thing for _ in range(3) for thing in random_things(rng, 3)), str(rng.choice(ATTRIBUTES["place"]))
        )

    def applied(self, rng: np.random.Generator, scene: Scene) -> Scene:
        """The scene, in the film's place in three of ten, and with one of the cast in six of ten."""
        if rng.random() < 0.3:
            scene = replace(scene, place=self.place)
        member = self.cast[0 if rng.random() < 0.4 else int(rng.integers(len(self.cast)))]
        others = scene.things[1:]
        if rng.random() < 0.6 and all(member.colour != o.colour and member.shape != o.shape for o in others):
            scene = replace(scene, things=(replace(scene.things[0], colour=member.colour, shape=member.shape), *others))
        return scene


def random_take(rng: np.random.Generator, start: float, end: float, style: Style | None = None) -> Take:
    """A random scene, in which something happens once in two times if there is time for it."""

    def scene() -> Scene:
        return random_scene(rng) if style is None else style.applied(rng, random_scene(rng))

    if end - start < 2 * LEAST_SHOT_SECONDS or rng.random() < 0.5:
        return Take((Shot(scene(), start, end),))
    kind = str(rng.choice(EVENTS))
    # What comes to a collision must not have met before, on the way around the frame.
    middle = start + _whole_frames(_APPROACH_SECONDS if kind == "hits" else (end - start) * rng.uniform(0.42, 0.58))
    happened = None
    while happened is None:
        happened = random_event(rng, scene(), kind, middle - start)
    before, after, event = happened
    return Take((Shot(before, start, middle), Shot(after, middle, end)), event)


def random_event(
    rng: np.random.Generator, scene: Scene, kind: str, seconds: float
) -> tuple[Scene, Scene, Event] | None:
    """The scene before an event of this kind after so many seconds, the scene after it, and the event.

    None if it can't happen in this scene.
    """
    number = int(rng.integers(len(scene.things)))
    thing, after = scene.things[number], _later(scene, seconds)
    if kind == "turns":
        free = [c for c in ATTRIBUTES["colour"] if all(c != other.colour for other in scene.things)]
        turned = replace(after.things[number], colour=str(rng.choice(free)))
        return scene, _with(after, {number: turned}), Event(kind, f"it turns {turned.colour}", thing)
    if kind == "stops" and thing.motion not in ("still", "spinning"):
        stopped = replace(after.things[number], motion="still")
        return scene, _with(after, {number: stopped}), Event(kind, "it stops", thing)
    if kind == "counts" and scene.sign in NUMBERS[:-1]:
        sign = NUMBERS[NUMBERS.index(scene.sign) + 1]
        return scene, replace(after, sign=sign), Event(kind, "the number goes up", thing)
    if len(scene.things) == 1:
        return None
    if kind == "leaves":
        return scene, _without(after, number), Event(kind, "it leaves", thing)
    if kind == "enters":
        return _without(scene, number), after, Event(kind, "it enters", after.things[number])
    return _collision(rng, scene, number, seconds) if kind == "hits" else None


def _collision(rng: np.random.Generator, scene: Scene, number: int, seconds: float) -> tuple[Scene, Scene, Event]:
    """Two things on one height come from both sides, touch, and go up and down."""
    other = int(rng.choice([i for i in range(len(scene.things)) if i != number]))
    y, x = float(rng.uniform(100, 180)), float(rng.uniform(130, WIDTH - 130))
    before, after = {}, {}
    for place, way, then in ((number, 1, "up"), (other, -1, "down")):
        thing = replace(scene.things[place], y=y, speed=_APPROACH_PIXELS / seconds)
        at_touch = x - way * thing.radius
        comes_from = (at_touch - way * _APPROACH_PIXELS) % WIDTH
        before[place] = replace(thing, motion="right" if way == 1 else "left", x=comes_from)
        after[place] = replace(thing, motion=then, x=at_touch)
    event = Event("hits", f"it hits {name(scene.things[other])}", before[number])
    return _with(scene, before), _with(_later(scene, seconds), after), event


def _later(scene: Scene, seconds: float) -> Scene:
    """The scene as one that begins so much later."""
    moved = (replace(thing, x=x, y=y) for thing in scene.things for x, y in (thing.at(seconds),))
    return replace(scene, things=tuple(moved))


def _with(scene: Scene, things: dict[int, Thing]) -> Scene:
    return replace(scene, things=tuple(things.get(place, thing) for place, thing in enumerate(scene.things)))


def _without(scene: Scene, number: int) -> Scene:
    return replace(scene, things=scene.things[:number] + scene.things[number + 1 :])


def _whole_frames(seconds: float) -> float:
    return round(seconds * FRAMES_PER_SECOND) / FRAMES_PER_SECOND


def frames_of(film: Film) -> Iterator[np.ndarray]:
    """Every frame, (240, 320, 3) uint8, 8 a second."""
    for take in film.takes:
        first, last = (round(seconds * FRAMES_PER_SECOND) for seconds in (take.start_seconds, take.end_seconds))
        for frame in range(first, last):
            yield frame_at(take, frame / FRAMES_PER_SECOND)


def frame_at(take: Take, seconds: float) -> np.ndarray:
    """What is seen at a time of the film that lies in the take."""
    shot = take.shots[-1] if seconds >= take.shots[-1].start_seconds else take.shots[0]
    since = seconds - shot.start_seconds
    event = take.event if shot is not take.shots[0] else None
    if event is not None and event.kind == "enters" and since < _PASSING_SECONDS:
        others = tuple(thing for thing in shot.scene.things if thing != event.thing)
        frame = draw(replace(shot.scene, things=others), since)
        _pass_by(frame, event.thing, since, _PASSING_SECONDS - since)
        return frame
    frame = draw(shot.scene, since)
    if event is not None and event.kind == "leaves" and since < _PASSING_SECONDS:
        _pass_by(
            frame,
            _later(take.shots[0].scene, shot.start_seconds - take.shots[0].start_seconds).things[_number(take)],
            0.0,
            since,
        )
    if event is not None and event.kind == "hits" and since < _BURST_SECONDS:
        _burst(frame, shot.scene, event)
    return frame


def _number(take: Take) -> int:
    assert take.event is not None
    return take.shots[0].scene.things.index(take.event.thing)


def _pass_by(frame: np.ndarray, thing: Thing, since: float, seconds_inside: float) -> None:
    """Add a thing that is so many seconds away from its place, towards the nearer side."""
    x, y = thing.at(since)
    way = 1 if x > WIDTH / 2 else -1
    draw_thing(
        frame, replace(thing, x=x + way * _PASSING_SPEED * seconds_inside, y=y, motion="still"), 0.0, wraps=False
    )


def _burst(frame: np.ndarray, scene: Scene, event: Event) -> None:
    thing = next(t for t in scene.things if t.colour == event.thing.colour)
    centre = np.array([thing.x + thing.radius, thing.y])
    angles = np.arange(16) * np.pi / 8
    lengths = np.where(np.arange(16) % 2 == 0, 34, 14)[:, None]
    spikes = centre + np.stack([np.cos(angles), np.sin(angles)], 1) * lengths
    cv2.fillPoly(frame, [np.round(spikes).astype(np.int32)], (255, 240, 120), cv2.LINE_AA)

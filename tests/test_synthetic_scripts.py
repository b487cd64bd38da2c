"""Scripts of synthetic videos: takes, events, and the frames that show them."""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
import sys
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from synthetic_truth import events_of, short_name, twenty_scripts

from lvqa.synthetic.drawing import draw
from lvqa.synthetic.questions import ask_about
from lvqa.synthetic.script import EVENTS, Shot, Take, Variety, VideoScript, frame_at, write_script
from lvqa.synthetic.world import WIDTH

PASSING = 1.25
"""Seconds after an event in which something may still leave or enter."""


@pytest.fixture(scope="module")
def scripts() -> list[VideoScript]:
    return twenty_scripts()


def test_a_script_depends_on_its_seed_alone():
    assert write_script(3, 20) == write_script(3, 20)
    assert ask_about(write_script(3, 20), 8) == ask_about(write_script(3, 20), 8)
    others = [write_script(seed, 20) for seed in (4, 5, 900_003)]
    assert all(write_script(3, 20).takes[0].shots[0].scene != script.takes[0].shots[0].scene for script in others)
    assert len({script.key for script in others}) == 3


@pytest.mark.slow
def test_scripts_and_questions_are_the_same_in_every_process():
    program = "from lvqa.synthetic.videos import *; s = write_script(3, 20); print(s, ask_about(s, 20))"
    outputs = [
        subprocess.run(
            [sys.executable, "-c", program], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in "12"
    ]
    assert outputs[0] == outputs[1] and outputs[0]


@pytest.mark.parametrize("minutes", [1, 2.5, 20, 60, 180])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_takes_fill_the_video_and_cuts_and_events_lie_on_frames(seed, minutes):
    script = write_script(seed, minutes)
    assert script.takes[0].start_seconds == 0 and script.duration_seconds == minutes * 60
    for take, following in pairwise(script.takes):
        assert 8 <= take.end_seconds - take.start_seconds <= 40
        assert take.end_seconds == following.start_seconds
        assert take.shots[-1].scene != following.shots[0].scene
    assert 8 <= script.takes[-1].end_seconds - script.takes[-1].start_seconds < 48  # it takes what is left over
    for take in script.takes:
        assert len(take.shots) == (1 if take.event is None else 2)
        assert all(shot.start_seconds * 8 == int(shot.start_seconds * 8) for shot in take.shots)
        for shot, following in pairwise(take.shots):
            assert shot.end_seconds == following.start_seconds
            assert min(s.end_seconds - s.start_seconds for s in take.shots) >= 5


@pytest.mark.parametrize(("takes", "name"), [((3, 3), "film000704-3s"), ((120, 120), "film000704-120s")])
def test_takes_are_as_long_as_they_are_wanted(takes, name):
    script = write_script(704, 20, Variety(takes))
    lengths = [take.end_seconds - take.start_seconds for take in script.takes]
    assert set(lengths) == {takes[0]} and sum(lengths) == 1200
    assert script.key == name and write_script(704, 20, Variety((2.5, 9))).key == "film000704-2.5to9s"
    questions = ask_about(script, 12)
    assert len({question.text for question in questions}) == 12
    assert all(question.evidence_seconds[1] <= 1200 for question in questions)


def test_lookalikes_make_more_scenes_alike_and_are_in_the_name():
    def most_common(lookalikes):
        script = write_script(704, 60, Variety(lookalikes=lookalikes))
        scenes = [take.shots[0].scene for take in script.takes]
        return max(Counter(scene.place for scene in scenes).values()) / len(scenes)

    assert most_common(0) < 0.25 < most_common(1) < 0.5 < most_common(2)
    assert write_script(704, 20, Variety(lookalikes=2)).key == "film000704-2x"
    assert write_script(704, 20, Variety()) == write_script(704, 20)


@pytest.mark.slow
def test_things_of_a_scene_differ_in_colour_and_shape(scripts):
    scenes = [shot.scene for script in scripts for take in script.takes for shot in take.shots]
    assert {len(scene.things) for scene in scenes} == {1, 2, 3}
    for scene in scenes:
        for attribute in ("colour", "shape"):
            assert len({getattr(thing, attribute) for thing in scene.things}) == len(scene.things)
        assert all(thing.radius > 37 if thing.size == "big" else thing.radius < 34 for thing in scene.things)


# --- events -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_shots_of_a_take_differ_by_its_event(scripts):
    kinds: Counter[str] = Counter()
    for take in (take for script in scripts for take in script.takes):
        if take.event is None:
            assert events_of(take) == []
            continue
        kinds[take.event.kind] += 1
        assert (take.event.phrase, take.event.thing) in events_of(take)
        assert {re.sub("the .* goes|it ", "", phrase).split()[0] for phrase, _ in events_of(take)} == {
            "up" if take.event.kind == "counts" else take.event.kind
        }
        assert_nothing_else_changes(take)
    assert set(kinds) == set(EVENTS) and min(kinds.values()) > 50


def assert_nothing_else_changes(take: Take) -> None:
    (first, last), kind = take.shots, take.event.kind
    before, after = first.scene, last.scene
    assert (before.place, before.sign_right, before.backdrop) == (after.place, after.sign_right, after.backdrop)
    if kind == "counts":
        assert int(after.sign) == int(before.sign) + 1
    else:
        assert after.sign == before.sign
    changed = {"turns": ("colour",), "stops": ("motion",), "hits": ("motion",)}.get(kind, ())
    seconds = first.end_seconds - first.start_seconds
    for thing in before.things:
        for same in (other for other in after.things if other.shape == thing.shape):
            moved = dataclasses.replace(thing, x=same.x, y=same.y)
            if kind == "hits" or take.event.thing is thing:
                moved = dataclasses.replace(moved, **{name: getattr(same, name) for name in changed})
            assert moved == same
            assert np.allclose(thing.centre_at(seconds), (same.x, same.y))


def test_things_that_collide_touch(scripts):
    hits = [take for script in scripts for take in script.takes if take.event and take.event.kind == "hits"]
    for take in hits:
        seconds = take.shots[0].end_seconds - take.shots[0].start_seconds
        one = take.event.thing
        (other,) = (t for t in take.shots[0].scene.things if take.event.phrase == f"it hits {short_name(t)}")
        (left, y), (right, other_y) = one.centre_at(seconds), other.centre_at(seconds)
        assert right - left == pytest.approx(one.radius + other.radius) and y == pytest.approx(other_y)
        assert one.radius < left + 10 and right + other.radius < WIDTH + 10
        assert (one.motion, other.motion) == ("right", "left")


# --- frames -----------------------------------------------------------------------------------------------------------


def takes_with(script: VideoScript, kind: str) -> list[tuple[Take, float]]:
    """Return the takes with this kind of event, and the time of the event."""
    takes = [take for take in script.takes if take.event and take.event.kind == kind]
    return [(take, take.shots[1].start_seconds) for take in takes]


def draw_shot(shot: Shot, seconds: float, *, without: str = "") -> np.ndarray:
    """Draw a time of the video by the shot, without the thing of a shape."""
    things = tuple(thing for thing in shot.scene.things if thing.shape != without)
    return draw(dataclasses.replace(shot.scene, things=things), seconds - shot.start_seconds)


@pytest.mark.parametrize("kind", EVENTS)
def test_events_are_visible(scripts, kind):
    for take, at in takes_with(scripts[0], kind):
        before, after = take.shots
        assert np.array_equal(frame_at(take, at - 1 / 8), draw_shot(before, at - 1 / 8))
        assert np.array_equal(frame_at(take, at + PASSING), draw_shot(after, at + PASSING))
        if kind not in ("leaves", "enters", "hits"):
            assert np.array_equal(frame_at(take, at), draw_shot(after, at))


@pytest.mark.parametrize("kind", ["leaves", "enters"])
def test_things_leave_and_enter_over_the_nearer_side(scripts, kind):
    for take, at in takes_with(scripts[0], kind):
        _, after = take.shots
        x, _ = take.event.thing.centre_at(0 if kind == "enters" else at - take.start_seconds)
        positions = []
        for eighth in range(10):
            seconds = at + eighth / 8
            background = draw_shot(after, seconds, without=take.event.thing.shape)
            changed = (frame_at(take, seconds) != background).any(axis=(0, 2))
            positions.append(float(np.flatnonzero(changed).mean()) if changed.any() else None)
        outwards = [p for p in (positions if kind == "leaves" else positions[::-1]) if p is not None]
        assert positions[0 if kind == "leaves" else -1] is not None
        assert positions[-1 if kind == "leaves" else 0] is None
        assert all((b > a) if x > WIDTH / 2 else (b < a) for a, b in pairwise(outwards[1:])), (x, outwards)


def test_a_collision_flashes_where_the_things_touch(scripts):
    for take, at in takes_with(scripts[0], "hits"):
        one = take.event.thing
        x, y = one.centre_at(at - take.start_seconds)
        flash = frame_at(take, at)[round(y), round(x + one.radius)]
        assert flash.tolist() == [255, 240, 120]
        assert np.array_equal(frame_at(take, at + 0.5), draw_shot(take.shots[1], at + 0.5))

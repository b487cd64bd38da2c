"""How the synthetic world is drawn."""

from __future__ import annotations

import dataclasses
from itertools import product

import cv2
import numpy as np
import pytest
from synthetic_truth import mean_difference

from lvqa.synthetic.drawing import draw, draw_thing
from lvqa.synthetic.world import ATTRIBUTES, HEIGHT, WIDTH, Thing, nearest_things, random_scene

ROWS, COLUMNS = 3, 4
"""The grid of the embedded model's visual tokens."""


def make_thing(**values) -> Thing:
    thing = Thing("red", "car", "big", "still", x=160.0, y=120.0, radius=50.0, speed=30.0)
    return dataclasses.replace(thing, **values)


def draw_on_black(thing: Thing, seconds: float) -> np.ndarray:
    frame = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    draw_thing(frame, thing, seconds)
    return frame


def test_things_move_in_their_direction():
    directions = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1), "still": (0, 0)}
    for shape, (motion, (dx, dy)) in product(ATTRIBUTES["shape"], directions.items()):
        thing = make_thing(shape=shape, motion=motion)
        start = draw_on_black(thing, 0)
        for seconds in (0.5, 3.0):
            moved = np.roll(start, (round(30 * seconds) * dy, round(30 * seconds) * dx), axis=(0, 1))
            assert mean_difference(draw_on_black(thing, seconds), moved) < 0.02  # smooth edges may be rounded otherwise


def test_things_spin_clockwise_in_place():
    for shape in ATTRIBUTES["shape"]:
        thing = make_thing(shape=shape, motion="spinning")
        start, quarter = (draw_on_black(thing, seconds)[20:221, 60:261] for seconds in (0, 90 / 65))
        assert mean_difference(quarter, np.rot90(start, -1)) < 3
        assert min(mean_difference(start, draw_on_black(thing, s)[20:221, 60:261]) for s in (0.3, 0.7, 1.0)) > 1


def test_what_leaves_on_one_side_enters_on_the_other():
    thing = make_thing(motion="right", x=310.0)
    columns = draw_on_black(thing, 0).any(axis=(0, 2))
    assert columns[:30].all() and columns[270:].all() and not columns[60:240].any()


def test_every_pair_of_values_looks_different():
    scene = dataclasses.replace(random_scene(np.random.default_rng(1)), things=(make_thing(),))
    changes_by_attribute = {
        **{name: [{name: value} for value in ATTRIBUTES[name]] for name in ("colour", "shape", "motion")},
        "size": [{"radius": radius} for radius in (58, 48, 33, 27)],
    }
    for name, changes in changes_by_attribute.items():
        scenes = [dataclasses.replace(scene, things=(make_thing(**change),)) for change in changes]
        assert_all_differ([draw(one, 1.0) for one in scenes], name)
    for name in ("sign", "place"):
        assert_all_differ([draw(dataclasses.replace(scene, **{name: value}), 0) for value in ATTRIBUTES[name]], name)


def assert_all_differ(frames: list[np.ndarray], name: str) -> None:
    assert all(mean_difference(one, two) > 0.15 for i, one in enumerate(frames) for two in frames[:i]), name


@pytest.mark.slow
def test_the_nearest_thing_is_the_one_whose_pixels_are_nearest():
    """In a world that wraps around. The rule knows a thing's radius but not its shape, so close calls may be wrong."""
    rng = np.random.default_rng(2)
    excess = []
    for _ in range(150):
        scene, seconds = random_scene(rng, int(rng.integers(2, 4))), float(rng.uniform(0, 30))
        distances = np.stack([distances_to(draw_on_black(thing, seconds)) for thing in scene.things])
        nearest = nearest_things(scene, seconds, ROWS, COLUMNS)
        assert nearest.shape == (ROWS * COLUMNS,)
        excess.append(distances[nearest, np.arange(ROWS * COLUMNS)] - distances.min(0))
    assert np.max(excess) < 30 and np.mean(np.array(excess) > 10) < 0.015


def distances_to(frame: np.ndarray) -> np.ndarray:
    """Return (12,) distances from the middle of each cell to the nearest painted pixel, around the edges, too."""
    blank = np.tile(~frame.any(axis=2), (3, 3)).astype(np.uint8)
    distance = cv2.distanceTransform(blank, cv2.DIST_L2, 5)[HEIGHT : 2 * HEIGHT, WIDTH : 2 * WIDTH]
    return distance[HEIGHT // ROWS // 2 :: HEIGHT // ROWS, WIDTH // COLUMNS // 2 :: WIDTH // COLUMNS].ravel()

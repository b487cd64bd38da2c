"""Synthetic retrieval sets: the four tasks of MMEB with texts, pictures and clips of the synthetic world on both sides.

They lie in the layout of sets of one's own: a folder a set, with `queries.jsonl` and `candidates.jsonl`. Each query is
about a scene of its own, so that queries are independent samples.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from lvqa.records import LvqaError
from lvqa.synthetic.drawing import draw
from lvqa.synthetic.language import caption, describe, name, num_wordings, sentence, wording
from lvqa.synthetic.script import Shot, Take, VideoScript
from lvqa.synthetic.videos import write_video
from lvqa.synthetic.world import ATTRIBUTES, HEIGHT, WIDTH, Scene, Thing, random_scene

TAKE_SECONDS = 8.0
"""How long a clip is."""
PICTURE_SECONDS = 2.0
"""The moment of a scene that its picture shows."""
CHOICES = 8
"""Among so many clips of one video a moment is searched, and among so many parts of pictures a thing."""
FORMAT = 1
"""Raise this number when the same seed gives other sets."""

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class _World:
    """The scenes of all sets, with the names of their files from a set's folder."""

    rng: np.random.Generator
    single: tuple[Scene, ...]
    """Scenes of one thing."""
    several: tuple[Scene, ...]
    """Scenes of one to three things."""
    similar: tuple[Scene, ...]
    """The same scenes, each with another value of one attribute: candidates that are nearly right."""
    crowded: tuple[Scene, ...]
    """Scenes of three things."""

    def picture(self, kind: str, index: int) -> Row:
        return {"image": f"../pictures/{kind}{index}.png"}

    def clip(self, kind: str, index: int) -> Row:
        start = index * TAKE_SECONDS
        return {"video": f"../videos/{kind}.mp4", "start": start, "end": start + TAKE_SECONDS}


@dataclass(frozen=True, slots=True)
class _Set:
    query: str
    """What the prompts call a query."""
    candidate: str
    category: str
    make: Callable[[_World], tuple[list[Row], list[Row]]]
    """Returns the queries and the candidates."""


def make_sets(folder: Path, *, queries: int, seed: int) -> None:
    """Write the sets into a folder. What is there of the same seed and size stays.

    Args:
        folder: Where they go; it is created if it is missing.
        queries: How many queries each set has.
        seed: The random seed.

    Raises:
        LvqaError: The folder can't be written, or holds sets that are not synthetic ones of this seed and size.
    """
    stamp, mark = json.dumps({"synthetic sets": FORMAT, "queries": queries, "seed": seed}), folder / "made.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if mark.exists() and mark.read_text() == stamp:
            return
        if any(folder.iterdir()):
            raise LvqaError(
                f"{folder} holds something else than the synthetic sets of this seed and size; take another"
            )
        _write(folder, _world(queries, seed))
        mark.write_text(stamp)
    except OSError as error:
        raise LvqaError(f"cannot write synthetic sets into {folder}: {error.strerror or error}") from error


def _world(number: int, seed: int) -> _World:
    rng = np.random.default_rng([seed, 7])
    single, several, crowded = (
        tuple(random_scene(rng, num_things) for _ in range(number)) for num_things in (1, None, 3)
    )
    similar = tuple(_altered(rng, scene) for scene in several)
    return _World(rng, single, several, similar, crowded)


def _altered(rng: np.random.Generator, scene: Scene) -> Scene:
    """Return a scene with another colour or shape of one thing, or another sign or place: what a picture shows too."""
    attribute = str(rng.choice(["colour", "shape", "sign", "place"]))
    if attribute in ("sign", "place"):
        others = [value for value in ATTRIBUTES[attribute] if value != getattr(scene, attribute)]
        changes: dict[str, Any] = {attribute: str(rng.choice(others))}
        return replace(scene, **changes)
    index = int(rng.integers(len(scene.things)))
    used = [getattr(thing, attribute) for thing in scene.things]
    things = list(scene.things)
    changes = {attribute: str(rng.choice([value for value in ATTRIBUTES[attribute] if value not in used]))}
    things[index] = replace(things[index], **changes)
    return replace(scene, things=tuple(things))


def _write(folder: Path, world: _World) -> None:
    from lvqa.image import save_picture

    for place in ("pictures", "videos"):
        (folder / place).mkdir()
    for kind in ("single", "several", "similar", "crowded"):
        scenes: tuple[Scene, ...] = getattr(world, kind)
        for i, scene in enumerate(scenes):
            save_picture(folder / "pictures" / f"{kind}{i}.png", draw(scene, PICTURE_SECONDS))
            if kind == "crowded":
                for k, thing in enumerate(scene.things):
                    save_picture(folder / "pictures" / f"part{i}-{k}.png", _part(scene, thing))
        if kind != "crowded":
            write_video(_script(scenes), folder / "videos" / f"{kind}.mp4")
    for set_name, one in SETS.items():
        queries, candidates = one.make(world)
        (folder / set_name).mkdir()
        for file, rows in (("queries", queries), ("candidates", candidates)):
            lines = "".join(json.dumps(row) + "\n" for row in rows)
            (folder / set_name / f"{file}.jsonl").write_text(lines)
        about = {"query": one.query, "candidate": one.candidate, "category": one.category}
        (folder / set_name / "set.json").write_text(json.dumps(about))


def _script(scenes: Sequence[Scene]) -> VideoScript:
    """Return a video that shows the scenes one after the other."""
    starts = [i * TAKE_SECONDS for i in range(len(scenes))]
    shots = (Shot(scene, start, start + TAKE_SECONDS) for scene, start in zip(scenes, starts, strict=True))
    return VideoScript(0, tuple(Take((shot,)) for shot in shots))


def _part(scene: Scene, thing: Thing) -> np.ndarray:
    """Return the part of a scene's picture that shows a thing, with a quarter of its size around it."""
    x, y = thing.centre_at(PICTURE_SECONDS)
    half = thing.radius * 1.25
    rows = np.arange(round(y - half), round(y + half)) % HEIGHT
    columns = np.arange(round(x - half), round(x + half)) % WIDTH
    return np.ascontiguousarray(draw(scene, PICTURE_SECONDS)[np.ix_(rows, columns)])


def _values(kind: str) -> list[Row]:
    """Return all values of an attribute as candidates."""
    return [{"id": value, "text": sentence(kind, value)} for value in ATTRIBUTES[kind]]


def _numbered(rows: Sequence[Row]) -> list[Row]:
    return [{"id": str(i), **row} for i, row in enumerate(rows)]


def _classes(kind: str, medium: str) -> Callable[[_World], tuple[list[Row], list[Row]]]:
    """Return the maker of a classification: of a picture or a clip, by an attribute."""

    def make(world: _World) -> tuple[list[Row], list[Row]]:
        queries = [
            {**getattr(world, medium)("single", i), "positives": [scene.subjects[0].value(kind)]}
            for i, scene in enumerate(world.single)
        ]
        return _numbered(queries), _values(kind)

    return make


def _questions(kinds: Sequence[str], medium: str) -> Callable[[_World], tuple[list[Row], list[Row]]]:
    """Return the maker of questions on a picture or a clip; the answers are the values of what is asked for."""

    def make(world: _World) -> tuple[list[Row], list[Row]]:
        queries = []
        for i, scene in enumerate(world.several):
            kind, thing = kinds[i % len(kinds)], scene.things[int(world.rng.integers(len(scene.things)))]
            known = {"shape": thing.shape} if kind == "colour" else {"colour": thing.colour, "shape": thing.shape}
            index = int(world.rng.integers(num_wordings(kind, held_out=True)))
            text = wording(kind, index, thing=describe(known))
            value = next(s for s in scene.subjects if s.thing is thing).value(kind)
            row = {**getattr(world, medium)("several", i), "text": text, "positives": [f"{kind} {value}"]}
            queries.append({**row, "candidates": [f"{kind} {other}" for other in ATTRIBUTES[kind]]})
        candidates = [{**row, "id": f"{kind} {row['id']}"} for kind in kinds for row in _values(kind)]
        return _numbered(queries), candidates

    return make


def _pairs(query: str, candidate: str) -> Callable[[_World], tuple[list[Row], list[Row]]]:
    """Return the maker of a retrieval of scenes by scenes, each shown as a "caption", a "picture" or a "clip".

    Half of the candidates are the scenes of the queries, the others are similar to these.
    """

    def as_form(form: str, world: _World, kind: str, index: int) -> Row:
        scenes: tuple[Scene, ...] = getattr(world, kind)
        return {"text": caption(scenes[index])} if form == "caption" else getattr(world, form)(kind, index)

    def make(world: _World) -> tuple[list[Row], list[Row]]:
        numbers = range(len(world.several))
        queries = [{**as_form(query, world, "several", i), "positives": [str(i)]} for i in numbers]
        candidates = [as_form(candidate, world, kind, i) for kind in ("several", "similar") for i in numbers]
        return _numbered(queries), _numbered(candidates)

    return make


def _moments(world: _World) -> tuple[list[Row], list[Row]]:
    """Return what is searched among neighbouring clips of one video: the moment in which a thing is seen."""
    number, queries = len(world.single), []
    for i, scene in enumerate(world.single):
        first = max(0, min(i - CHOICES // 2, number - CHOICES))
        near = range(first, min(number, first + CHOICES))
        text = wording("when", i % num_wordings("when", held_out=True), thing=_telling(world, scene, near))
        queries.append({"text": text, "positives": [str(i)], "candidates": [str(k) for k in near]})
    return _numbered(queries), _numbered([world.clip("single", i) for i in range(number)])


def _telling(world: _World, scene: Scene, near: Sequence[int]) -> str:
    """Return a description of a scene's thing that no other scene nearby has."""
    thing, others = scene.subjects[0], [world.single[k].subjects[0] for k in near if world.single[k] is not scene]
    description: dict[str, str] = {}
    for attribute in ("colour", "shape", "motion", "place", "size", "sign"):
        description[attribute] = thing.value(attribute)
        if len(description) > 1 and not any(other.matches(description) for other in others):
            break
    return describe(description)


def _parts(world: _World) -> tuple[list[Row], list[Row]]:
    """Return what is searched among parts of pictures: the one of a thing that a phrase names in a picture."""
    parts = {f"{i}-{k}": scene.things[k] for i, scene in enumerate(world.crowded) for k in range(len(scene.things))}
    queries = []
    for i, scene in enumerate(world.crowded):
        k = int(world.rng.integers(len(scene.things)))
        own = [f"{i}-{j}" for j in range(len(scene.things))]
        strange = [id for id, thing in parts.items() if id not in own and name(thing) != name(scene.things[k])]
        others = world.rng.choice(strange, size=min(len(strange), CHOICES - len(own)), replace=False).tolist()
        row = {**world.picture("crowded", i), "text": name(scene.things[k]), "positives": [f"{i}-{k}"]}
        queries.append({**row, "candidates": [*own, *others]})
    return _numbered(queries), [{"id": id, "image": f"../pictures/part{id}.png"} for id in parts]


SETS: dict[str, _Set] = {
    "place_of_image": _Set("image", "place", "classification", _classes("place", "picture")),
    "shape_of_image": _Set("image", "shape", "classification", _classes("shape", "picture")),
    "motion_of_clip": _Set("video clip", "motion", "classification", _classes("motion", "clip")),
    "image_question": _Set(
        "image and question", "answer", "question answering", _questions(("colour", "sign", "place"), "picture")
    ),
    "clip_question": _Set(
        "video clip and question", "answer", "question answering", _questions(("colour", "motion", "sign"), "clip")
    ),
    "text_to_image": _Set("caption", "image", "retrieval", _pairs("caption", "picture")),
    "image_to_text": _Set("image", "caption", "retrieval", _pairs("picture", "caption")),
    "text_to_clip": _Set("caption", "video clip", "retrieval", _pairs("caption", "clip")),
    "clip_to_text": _Set("video clip", "caption", "retrieval", _pairs("clip", "caption")),
    "image_to_clip": _Set("image", "video clip", "retrieval", _pairs("picture", "clip")),
    "moment": _Set("question", "video clip", "grounding", _moments),
    "part_of_image": _Set("image and phrase", "image", "grounding", _parts),
}
"""Name of a set -> what it is."""

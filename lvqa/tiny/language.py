"""What is said about the made world: phrases, captions and questions in a small English."""

from __future__ import annotations

from collections.abc import Collection, Iterable

import numpy as np

from lvqa.tiny.world import ATTRIBUTES, Scene

WORDINGS: dict[str, tuple[str, ...]] = {
    "colour": ("What colour is {thing}?", "Which colour does {thing} have?", "{Thing} is shown. In what colour?"),
    "shape": ("What is {thing}?", "What kind of thing is {thing}?", "Which shape does {thing} have?"),
    "motion": ("How does {thing} move?", "Which way does {thing} go?", "What is the motion of {thing}?"),
    "number": ("What number is shown with {thing}?", "Which number is on the sign beside {thing}?",
               "What does the sign say while {thing} is seen?"),
    "place": ("Where is {thing}?", "In what place is {thing}?", "What is behind {thing}?"),
}  # fmt: skip
"""Attribute asked for -> ways to ask; {thing} is a phrase made by `describe`."""

LABELS = {
    "colour": "entity recognition",
    "shape": "entity recognition",
    "motion": "event understanding",
    "number": "key information retrieval",
    "place": "entity recognition",
}
"""Attribute asked for -> LVBench's name of the ability."""


def describe(scene: Scene, attributes: Iterable[str]) -> str:
    """A phrase with the named attributes only: "the red thing that moves left in the desert"."""
    given = set(attributes)
    words = ["the"]
    if "colour" in given:
        words.append(scene.colour)
    words.append(scene.shape if "shape" in given else "thing")
    if "motion" in given:
        words.append("that stands still" if scene.motion == "still" else f"that moves {scene.motion}")
    if "place" in given:
        words.append(f"in the {scene.place}")
    if "number" in given:
        words.append(f"with the number {scene.number}")
    return " ".join(words)


def question(scene: Scene, asked: str, given: Iterable[str], wording: int) -> str:
    """A question about one attribute of the scene that has the given ones."""
    thing = describe(scene, given)
    return WORDINGS[asked][wording].format(thing=thing, Thing=thing[0].upper() + thing[1:])


def caption(scene: Scene) -> str:
    """The whole scene in one sentence."""
    thing = describe(scene, set(ATTRIBUTES) - {"motion"})
    verb = "stands still" if scene.motion == "still" else f"moves {scene.motion}"
    return f"{thing[0].upper()}{thing[1:]} {verb}."


def draw_question(rng: np.random.Generator, scene: Scene, num_given: int) -> tuple[str, str, tuple[str, ...]]:
    """A random question about the scene: its text, the attribute asked for, and the attributes given."""
    asked = str(rng.choice(list(ATTRIBUTES)))
    others = [attribute for attribute in ATTRIBUTES if attribute != asked]
    given = tuple(rng.choice(others, num_given, replace=False).tolist())
    return question(scene, asked, given, int(rng.integers(len(WORDINGS[asked])))), asked, given


def draw_options(
    rng: np.random.Generator, right: str, attribute: str, *, preferably: Collection[str] = ()
) -> tuple[tuple[str, ...], int]:
    """Four different values of the attribute in random order, and the place of the right one.

    The wrong ones are taken from `preferably` as far as they reach.
    """
    wrong = [value for value in ATTRIBUTES[attribute] if value != right]
    liked = rng.permutation([value for value in wrong if value in preferably])[:3].tolist()
    others = [value for value in wrong if value not in preferably]
    values = [right, *liked, *rng.choice(others, 3 - len(liked), replace=False).tolist()]
    order = rng.permutation(4)
    return tuple(values[i] for i in order), int(np.flatnonzero(order == 0)[0])

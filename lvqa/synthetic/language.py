"""The small English of the synthetic world: phrases, questions, captions and answers."""

from __future__ import annotations

from collections.abc import Mapping

from lvqa.synthetic.world import NUMBERS, THING_ATTRIBUTES, Scene, Thing

PREPOSITIONS = {"beach": "on the beach", "farm": "on the farm", "space": "in space", "sea": "at sea"}
"""The phrase for each place whose phrase is not "in the ..."."""

WORDINGS: dict[str, tuple[str, ...]] = {
    "colour": ("What colour is {thing}?", "Which colour does {thing} have?", "{Thing} is shown. In what colour?",
               "Name the colour of {thing}."),
    "shape": ("What is {thing}?", "What kind of thing is {thing}?", "Which shape does {thing} have?",
              "Name {thing}."),
    "motion": ("How does {thing} move?", "Which way does {thing} go?", "What is the motion of {thing}?",
               "What does {thing} do?"),
    "sign": ("What is on the sign beside {thing}?", "What does the sign say while {thing} is seen?",
             "What is shown on the sign with {thing}?", "Read the sign beside {thing}."),
    "place": ("Where is {thing}?", "In what place is {thing}?", "What is behind {thing}?",
              "Name the place of {thing}."),
    "beside": ("What else is seen with {thing}?", "What is beside {thing}?", "What is next to {thing}?"),
    "event": ("What happens to {thing}?", "What changes while {thing} is seen?", "What becomes of {thing}?"),
    "when": ("When is {thing} seen?", "At what time does {thing} appear?", "When does the film show {thing}?"),
    "after": ("{What} comes right after {thing}?", "{What} is shown after {thing}?", "{What} follows {thing}?"),
    "most": ("{What} is seen most in the film?", "{What} does the film show most?",
             "{What} is seen for the longest time?"),
}  # fmt: skip
"""The ways to ask each kind of question. {thing} is a phrase made by `describe`, {what} a phrase like "which place".
The last wording of each kind is held out: no training sample has it."""

MOMENT_ATTRIBUTES = ("colour", "shape", "motion", "sign", "place")
"""The attributes that a question about one moment can ask for: those with enough values for four options."""

CAPTION_PROMPTS = ("Describe the video clip in one sentence.", "What is seen?", "Describe what you see.")
"""The ways to ask for a caption."""


def wording(kind: str, index: int, *, thing: str = "", what: str = "") -> str:
    """Return one of the WORDINGS of a kind of question, with its gaps filled."""
    return WORDINGS[kind][index].format(thing=thing, Thing=_capital(thing), what=what, What=_capital(what))


def num_wordings(kind: str, *, held_out: bool) -> int:
    """Return how many WORDINGS of this kind can be used, with the held-out one or without it."""
    return len(WORDINGS[kind]) - (0 if held_out else 1)


def describe(description: Mapping[str, str]) -> str:
    """Return the phrase for a thing, such as "the small red thing that moves left in the desert with the word taxi".

    Args:
        description: The values of some of the world's ATTRIBUTES.
    """
    words = ["the", *(description[a] for a in ("size", "colour") if a in description)]
    words.append(description.get("shape", "thing"))
    if "motion" in description:
        motion = description["motion"]
        words.append({"still": "that stands still", "spinning": "that spins"}.get(motion, f"that moves {motion}"))
    if "place" in description:
        words.append(PREPOSITIONS.get(description["place"], f"in the {description['place']}"))
    if "sign" in description:
        sign = description["sign"]
        words.append(f"with the {'number' if sign in NUMBERS else 'word'} {sign}")
    return " ".join(words)


def name(thing: Thing) -> str:
    """Return a thing's colour and shape, such as "the red ball"."""
    return describe({"colour": thing.colour, "shape": thing.shape})


def caption(scene: Scene) -> str:
    """Return the whole scene as a sentence.

    An example: "The big red ball moves left and the small blue car spins at sea with the number 7." The things are in
    the order of the shapes in THING_ATTRIBUTES, so that a scene has one caption only.
    """
    clauses = []
    for thing in sorted(scene.things, key=lambda thing: THING_ATTRIBUTES["shape"].index(thing.shape)):
        verb = {"still": "stands still", "spinning": "spins"}.get(thing.motion, f"moves {thing.motion}")
        clauses.append(f"{describe({'size': thing.size, 'colour': thing.colour, 'shape': thing.shape})} {verb}")
    rest = describe({"place": scene.place, "sign": scene.sign}).removeprefix("the thing ")
    return _capital(f"{' and '.join(clauses)} {rest}.")


def sentence(kind: str, value: str) -> str:
    """Return the answer to a question as a short sentence.

    Args:
        kind: The question's key in WORDINGS.
        value: The answer as an option of the question gives it.
    """
    if kind == "shape":
        return f"It is a {value}."
    if kind == "motion":
        return {"still": "It stands still.", "spinning": "It spins."}.get(value, f"It moves {value}.")
    if kind == "sign":
        return f"The sign says {value}."
    if kind == "place":
        return f"It is {PREPOSITIONS.get(value, f'in the {value}')}."
    if kind == "event":
        return _capital(f"{value}.")
    if kind == "when":
        return f"At {value}."
    return f"It is {value}."


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]

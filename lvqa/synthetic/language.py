"""What is said about the made world: phrases, captions and answers in a small English."""

from __future__ import annotations

from collections.abc import Mapping

from lvqa.synthetic.world import NUMBERS, THING_ATTRIBUTES, Scene, Thing

PREPOSITIONS = {"beach": "on the beach", "farm": "on the farm", "space": "in space", "sea": "at sea"}
"""Place -> how it is said where a thing is, unless it is "in the ..."."""

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
"""What is asked for -> ways to ask; {thing} is a phrase made by `describe`, {what} "which place". The last of each is
held out: no lesson has it."""

ASKED_ONE_MOMENT = ("colour", "shape", "motion", "sign", "place")
"""Attributes with enough values for four options."""


CAPTION_PROMPTS = ("Describe the video clip in one sentence.", "What is seen?", "Describe what you see.")
"""How the model can be asked for a caption."""


def wording(asked: str, number: int, *, thing: str = "", what: str = "") -> str:
    """One of the WORDINGS, filled in."""
    return WORDINGS[asked][number].format(thing=thing, Thing=_capital(thing), what=what, What=_capital(what))


def num_wordings(asked: str, *, held_out: bool) -> int:
    """How many there are to draw from."""
    return len(WORDINGS[asked]) - (0 if held_out else 1)


def describe(said: Mapping[str, str]) -> str:
    """A phrase from what is said of a thing: "the small red thing that moves left in the desert with the word taxi"."""
    words = ["the", *(said[a] for a in ("size", "colour") if a in said), said.get("shape", "thing")]
    if "motion" in said:
        words.append(
            {"still": "that stands still", "spinning": "that spins"}.get(said["motion"], f"that moves {said['motion']}")
        )
    if "place" in said:
        words.append(PREPOSITIONS.get(said["place"], f"in the {said['place']}"))
    if "sign" in said:
        words.append(f"with the {'number' if said['sign'] in NUMBERS else 'word'} {said['sign']}")
    return " ".join(words)


def name(thing: Thing) -> str:
    """Colour and shape: "the red ball"."""
    return describe({"colour": thing.colour, "shape": thing.shape})


def caption(scene: Scene) -> str:
    """The whole scene in one sentence: "The big red ball moves left and the small blue car spins at sea ...".

    Its things come in the order of THING_ATTRIBUTES' shapes, so that there is one caption of a scene.
    """
    seen = []
    for thing in sorted(scene.things, key=lambda thing: THING_ATTRIBUTES["shape"].index(thing.shape)):
        verb = {"still": "stands still", "spinning": "spins"}.get(thing.motion, f"moves {thing.motion}")
        seen.append(f"{describe({'size': thing.size, 'colour': thing.colour, 'shape': thing.shape})} {verb}")
    rest = describe({"place": scene.place, "sign": scene.sign}).removeprefix("the thing ")
    return _capital(f"{' and '.join(seen)} {rest}.")


def sentence(asked: str, value: str) -> str:
    """The answer as a short sentence; `value` is what a question with options would offer."""
    if asked == "shape":
        return f"It is a {value}."
    if asked == "motion":
        return {"still": "It stands still.", "spinning": "It spins."}.get(value, f"It moves {value}.")
    if asked == "sign":
        return f"The sign says {value}."
    if asked == "place":
        return f"It is {PREPOSITIONS.get(value, f'in the {value}')}."
    if asked == "event":
        return _capital(f"{value}.")
    if asked == "when":
        return f"At {value}."
    return f"It is {value}."


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]

"""What a question asks and what is true of a synthetic video, found here without the code that writes questions."""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from lvqa.records import Question
from lvqa.synthetic.script import Shot, Take, VideoScript, write_script
from lvqa.synthetic.world import ATTRIBUTES, Thing

# --- what a text says -------------------------------------------------------------------------------------------------

COLOUR = r"red|orange|yellow|green|blue|purple|white|black"
SHAPE = r"ball|star|heart|cross|car|fish|house|boat"
MOTION = r"moves left|moves right|moves up|moves down|stands still|spins"
PLACE = r"in the forest|in the desert|in the city|in the snow|in space|at sea|on the farm|on the beach"
SIGN = r"number \d|word open|word taxi|word bank|word zoo|word hotel|word sale"
THING = (
    rf"[Tt]he(?: (?P<size>big|small))?(?: (?P<colour>{COLOUR}))? (?:thing|(?P<shape>{SHAPE}))"
    rf"(?: that (?P<motion>{MOTION}))?(?: (?P<place>{PLACE}))?(?: with the (?P<sign>{SIGN}))?"
)
WHAT = r"Which (?P<what>colour|kind of thing|place|sign)"
WORDINGS = {
    "colour": ("What colour is ~?", "Which colour does ~ have?", "~ is shown. In what colour?",
               "Name the colour of ~."),
    "shape": ("What is ~?", "What kind of thing is ~?", "Which shape does ~ have?", "Name ~."),
    "motion": ("How does ~ move?", "Which way does ~ go?", "What is the motion of ~?", "What does ~ do?"),
    "sign": ("What is on the sign beside ~?", "What does the sign say while ~ is seen?",
             "What is shown on the sign with ~?", "Read the sign beside ~."),
    "place": ("Where is ~?", "In what place is ~?", "What is behind ~?", "Name the place of ~."),
    "beside": ("What else is seen with ~?", "What is beside ~?", "What is next to ~?"),
    "event": ("What happens to ~?", "What changes while ~ is seen?", "What becomes of ~?"),
    "when": ("When is ~ seen?", "At what time does ~ appear?", "When does the film show ~?"),
    "after": ("# comes right after ~?", "# is shown after ~?", "# follows ~?"),
    "most": ("# is seen most in the film?", "# does the film show most?", "# is seen for the longest time?"),
}  # fmt: skip
"""~ is a thing, # the attribute that the question asks for; the last of each is for held-out videos alone."""
MOMENT = ("colour", "shape", "motion", "sign", "place")
"""What a single frame, or two, can tell."""
SENTENCES = (
    *(r"It is a (\w+)\.", r"It moves (\w+)\.", r"It stands (still)\.", r"It (spins)\.", r"The sign says (\w+)\."),
    *(rf"It is ({PLACE})\.", r"At (\d+:\d\d)\.", r"It is (the \w+ \w+)\.", r"It is (\w+)\."),
    *(r"(It (?:turns \w+|stops|leaves|enters|hits the \w+ \w+))\.", r"(The number goes up)\."),
)
"""The forms in which a sentence gives an option."""


class ParsedQuestion(NamedTuple):
    """What a question asks for."""

    wording_kind: str
    """A key of WORDINGS."""
    wording: int
    description: dict[str, str]
    """The attributes of the thing that it is about."""
    attribute: str
    """The attribute that it asks for, or ""."""
    at: float | None
    """The time in seconds, if the question names one."""

    @property
    def kind(self) -> str:
        """The kind of question, as the question writer calls it."""
        if self.at is not None:
            return "at"
        return "attribute" if self.wording_kind in MOMENT else self.wording_kind


def parse_question(text: str) -> ParsedQuestion:
    """Parse a question; exactly one wording fits it."""
    readings = []
    for kind, wordings in WORDINGS.items():
        for index, words in enumerate(wordings):
            stem = re.escape(words[:-1]).replace(r"\~", "~").replace("~", THING).replace(r"\#", WHAT)
            end = re.escape(words[-1])
            time = r" at (?P<at>\d\d+:[0-5]\d)\?"
            if match := re.fullmatch(rf"{stem}(?:{end}|{time})" if kind in MOMENT else f"{stem}{end}", text):
                readings.append((kind, index, match))
    ((kind, index, match),) = readings
    at, what = (match.groupdict().get(name) for name in ("at", "what"))
    attribute = kind if kind in MOMENT else {"kind of thing": "shape"}.get(what, what) or ""
    return ParsedQuestion(kind, index, description_of(match), attribute, None if at is None else parse_clock(at))


def description_of(match: re.Match[str]) -> dict[str, str]:
    """Return the value of each attribute that a match of THING names."""
    groups = match.groupdict().items()
    return {attribute: last_word(words) for attribute, words in groups if attribute in ATTRIBUTES and words}


def last_word(words: str) -> str:
    return "spinning" if words == "spins" else words.split()[-1]


def option_in(sentence: str) -> str:
    """Return the option that a sentence gives."""
    option = next(match[1] for form in SENTENCES if (match := re.fullmatch(form, sentence)))
    if re.fullmatch(f"{PLACE}|spins", option):
        return last_word(option)
    return option[0].lower() + option[1:]


def parse_clock(clock: str) -> float:
    minutes, seconds = clock.split(":")
    return 60.0 * int(minutes) + int(seconds)


def clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes:02d}:{rest:02d}"


# --- what is true of a video ------------------------------------------------------------------------------------------


@functools.cache
def twenty_scripts() -> list[VideoScript]:
    """Twenty hours of script."""
    return [write_script(seed, 60) for seed in range(20)]


class ThingInShot(NamedTuple):
    """A thing in a shot."""

    shot: Shot
    thing: Thing

    def value(self, attribute: str) -> str:
        return getattr(self.shot.scene if attribute in ("sign", "place") else self.thing, attribute)

    def matches(self, description: dict[str, str]) -> bool:
        return all(self.value(attribute) == value for attribute, value in description.items())


def things_in(shots: Sequence[Shot]) -> list[ThingInShot]:
    return [ThingInShot(shot, thing) for shot in shots for thing in shot.scene.things]


def short_name(thing: Thing) -> str:
    return f"the {thing.colour} {thing.shape}"


def values(things: Sequence[ThingInShot], attribute: str) -> set[str]:
    return {thing.value(attribute) for thing in things}


def identify(script: VideoScript, description: dict[str, str]) -> tuple[Take, list[ThingInShot]]:
    """Return the one take that has a thing of this description, and where it has it."""
    by_take = ((take, [one for one in things_in(take.shots) if one.matches(description)]) for take in script.takes)
    ((take, things),) = ((take, things) for take, things in by_take if things)
    return take, things


def events_of(take: Take) -> list[tuple[str, Thing]]:
    """Return what happens in a take, and to which thing, by what differs between its shots."""
    before, after = ({thing.shape: thing for thing in shot.scene.things} for shot in (take.shots[0], take.shots[-1]))
    both = [(before[shape], after[shape]) for shape in before if shape in after]
    events = [("it leaves", before[shape]) for shape in before.keys() - after]
    events += [("it enters", after[shape]) for shape in after.keys() - before]
    events += [(f"it turns {new.colour}", old) for old, new in both if old.colour != new.colour]
    events += [("it stops", old) for old, new in both if old.motion != new.motion == "still"]
    turned = [old for old, new in both if {old.motion, new.motion} & {"left", "right"} and new.motion in ("up", "down")]
    events += [(f"it hits {short_name(other)}", one) for one in turned for other in turned if other is not one]
    if take.shots[0].scene.sign != take.shots[-1].scene.sign:
        events += [("the number goes up", thing) for thing in before.values()]
    return events


def seconds_by_value(script: VideoScript, attribute: str) -> Counter[str]:
    seconds: Counter[str] = Counter()
    for take in script.takes:
        for shot in take.shots:
            for value in values(things_in([shot]), attribute):
                seconds[value] += shot.end_seconds - shot.start_seconds
    return seconds


class Truth(NamedTuple):
    """What is true of a question."""

    answers: set[str]
    span: tuple[float, float]
    """The evidence, in seconds."""
    options: set[str]
    """What the question may offer as options."""
    tags: tuple[str, ...]


def span_of(things: Sequence[ThingInShot]) -> tuple[float, float]:
    return min(thing.shot.start_seconds for thing in things), max(thing.shot.end_seconds for thing in things)


def truth(script: VideoScript, question: ParsedQuestion) -> Truth:
    """Find the answer to a question in the script."""
    attribute = question.attribute
    ability = {"motion": "event understanding", "sign": "key information retrieval"}
    tags: tuple[str, ...] = (ability.get(attribute, "entity recognition"),)
    options = set(seconds_by_value(script, attribute)) if attribute else set()
    if question.kind == "at":
        (shot,) = (s for take in script.takes for s in take.shots if s.start_seconds <= question.at < s.end_seconds)
        things = [thing for thing in things_in([shot]) if thing.matches(question.description)]
        return Truth(values(things, attribute), span_of(things), options, (*tags, "temporal grounding"))
    if question.kind == "most":
        (most, seconds), (_, next_seconds) = seconds_by_value(script, attribute).most_common(2)
        assert seconds >= 1.4 * next_seconds
        return Truth({most}, (0, script.duration_seconds), options, ("summarization",))
    take, things = identify(script, question.description)
    span = span_of(things)
    if question.kind == "attribute":
        return Truth(values(things, attribute), span, options, tags)
    if question.kind == "after":
        (following,) = (other.shots[0] for other in script.takes if other.start_seconds == take.end_seconds)
        tags = ("reasoning", *tags) if attribute == "sign" else ("reasoning",)
        answers = values(things_in([following]), attribute)
        assert not answers & values(things_in(take.shots), attribute)
        return Truth(answers, (span[0], following.end_seconds), options, tags)
    if question.kind == "when":
        starts = {other.start_seconds for other in script.takes}
        far = {clock(start) for start in starts if abs(start - span[0]) > 60}
        return Truth({clock(span[0])}, span, far, ("temporal grounding",))
    if question.kind == "beside":
        own = {short_name(thing.thing) for thing in things}
        neighbours = {short_name(thing) for one in things for thing in one.shot.scene.things} - own
        names = {short_name(one.thing) for take in script.takes for one in things_in(take.shots)}
        return Truth(neighbours, span, names - own, tags)
    first = take.shots[0]
    answers = {event for event, thing in events_of(take) if ThingInShot(first, thing).matches(question.description)}
    return Truth(answers, (take.start_seconds, take.end_seconds), set(), ("event understanding",))


def correct_option(question: Question) -> str:
    return question.options["ABCD".index(question.answer)]


def mean_difference(one: np.ndarray, two: np.ndarray) -> float:
    return float(np.abs(one.astype(float) - two.astype(float)).mean())

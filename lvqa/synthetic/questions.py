"""Questions about a made film, of LVBench's six types. Every answer is checked against the script."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lvqa.records import LETTERS, LvqaError, Question
from lvqa.synthetic.language import ASKED_ONE_MOMENT, describe, name, num_wordings, wording
from lvqa.synthetic.script import Film, Take
from lvqa.synthetic.world import ATTRIBUTES, THING_ATTRIBUTES, Subject

HELD_OUT_SEEDS = 900_000
"""Films of this seed and above are for evaluation alone: nothing is trained or tuned on them, and only they are asked
about in held-out wordings, too."""
LEAD = 1.4
"""How much longer than all others must be seen what is seen most."""
TRIES = 40
MOST_MISSES = 300
"""So many draws in a row without a new question, and the film has none left."""

ENTITY, EVENT, KEY, GROUNDING, REASONING, SUMMARY = (
    *("entity recognition", "event understanding", "key information retrieval"),
    *("temporal grounding", "reasoning", "summarization"),
)
"""LVBench's names of the abilities."""
OF_ATTRIBUTE = {"colour": ENTITY, "shape": ENTITY, "motion": EVENT, "sign": KEY, "place": ENTITY}
"""The ability that reading an attribute takes."""
WHAT = {"colour": "which colour", "shape": "which kind of thing", "place": "which place", "sign": "which sign"}
"""How an attribute is asked for where no thing is named."""


@dataclass(frozen=True, slots=True)
class Draft:
    """A question before its options are drawn."""

    text: str
    right: str
    wrong: tuple[str, ...]
    """At least three, all different."""
    tags: tuple[str, ...]
    evidence_seconds: tuple[float, float]
    asked: str
    """A key of language.WORDINGS."""
    said: Mapping[str, str]
    """What singles a thing out; empty if nothing does."""


class Asker:
    """Draws questions about a film."""

    def __init__(self, film: Film, rng: np.random.Generator) -> None:
        self.film, self.rng = film, rng
        self.about = film.takes
        """The takes that may be asked about."""
        self.kinds: dict[str, tuple[float, Callable[[], Draft | None]]] = {
            "attribute": (0.60, self._attribute),
            "beside": (0.05, self._beside),
            "event": (0.07, self._event),
            "at": (0.08, self._at_time),
            "when": (0.06, self._when),
            "after": (0.09, self._after),
            "most": (0.05, self._most),
        }

    def draft(self) -> Draft | None:
        """A question of a random kind, or None if none of this kind is found in some tries."""
        kinds = list(self.kinds)
        kind = str(self.rng.choice(kinds, p=[self.kinds[kind][0] for kind in kinds]))
        drafts = (self.kinds[kind][1]() for _ in range(TRIES))
        return next((draft for draft in drafts if draft is not None and len(draft.wrong) >= 3), None)

    # --- about one moment -------------------------------------------------------------------------------------------

    def _attribute(self) -> Draft | None:
        asked = str(self.rng.choice(ASKED_ONE_MOMENT, p=[0.2, 0.2, 0.25, 0.25, 0.1]))
        found = self._singled_out(but_not=asked)
        values = {subject.value(asked) for subject in found.subjects} if found else set()
        if not found or len(values) != 1:
            return None
        return self._draft(asked, found.said, values.pop(), self._seconds_of[asked], (OF_ATTRIBUTE[asked],), found.span)

    def _beside(self) -> Draft | None:
        found = self._singled_out()
        if not found:
            return None
        own = {name(subject.thing) for subject in found.subjects}
        beside = {name(thing) for subject in found.subjects for thing in subject.scene.things} - own
        if len(beside) != 1:
            return None
        others = [other for other in self._names if other not in own]
        return self._draft("beside", found.said, beside.pop(), others, (ENTITY,), found.span)

    def _event(self) -> Draft | None:
        take = self._take()
        event = take.event
        if event is None:
            return None
        said = {"colour": event.thing.colour, "shape": event.thing.shape, "place": take.shots[0].scene.place}
        if event.kind != "counts":
            said["sign"] = take.shots[0].scene.sign
        if any(fitting(other, said) for other in self.film.takes if other is not take):
            return None
        colours = [colour for colour in ATTRIBUTES["colour"] if colour != event.thing.colour]
        might = [f"it turns {self.rng.choice(colours)}", f"it hits {self.rng.choice(self._names)}"]
        might += ["it stops", "it leaves", "it enters", "the number goes up"]
        wrong = [other for other in might if other.split()[1] != event.said.split()[1]]
        return self._draft("event", said, event.said, wrong, (EVENT,), (take.start_seconds, take.end_seconds))

    # --- about times and the course of the film -----------------------------------------------------------------------

    def _at_time(self) -> Draft | None:
        take = self._take()
        shot = take.shots[int(self.rng.integers(len(take.shots)))]
        seconds = self.rng.uniform(shot.start_seconds + 1, shot.end_seconds - 1)
        asked = str(self.rng.choice(ASKED_ONE_MOMENT))
        subjects = shot.scene.subjects
        subject = subjects[int(self.rng.integers(len(subjects)))]
        said = {}
        if len(subjects) > 1 and asked in THING_ATTRIBUTES:
            given = "shape" if asked != "shape" else "colour"
            said = {given: subject.value(given)}
        span = (shot.start_seconds, shot.end_seconds)
        tags = (OF_ATTRIBUTE[asked], GROUNDING)
        return self._draft(asked, said, subject.value(asked), self._seconds_of[asked], tags, span, at=clock(seconds))

    def _when(self) -> Draft | None:
        found = self._singled_out()
        if not found:
            return None
        start, _ = found.span
        others = [clock(take.start_seconds) for take in self.film.takes if abs(take.start_seconds - start) > 60]
        return self._draft("when", found.said, clock(start), others, (GROUNDING,), found.span)

    def _after(self) -> Draft | None:
        found = self._singled_out()
        following = [
            take.shots[0] for take in self.film.takes if found and take.start_seconds == found.take.end_seconds
        ]
        if not found or not following or found.span[1] != found.take.end_seconds:
            return None
        asked = str(self.rng.choice(list(WHAT)))
        values = {subject.value(asked) for subject in following[0].scene.subjects}
        if len(values) != 1 or values & {subject.value(asked) for subject in found.take.subjects}:
            return None
        tags = (REASONING, KEY) if asked == "sign" else (REASONING,)
        span = (found.span[0], following[0].end_seconds)
        return self._draft("after", found.said, values.pop(), self._seconds_of[asked], tags, span, what=WHAT[asked])

    def _most(self) -> Draft | None:
        asked = str(self.rng.choice(["place", "shape", "colour"]))
        ranked = sorted(self._seconds_of[asked].items(), key=lambda item: -item[1])
        if len(ranked) < 2 or ranked[0][1] < LEAD * ranked[1][1]:
            return None
        span = (0.0, self.film.duration_seconds)
        return self._draft("most", {}, ranked[0][0], self._seconds_of[asked], (SUMMARY,), span, what=WHAT[asked])

    # --- parts ------------------------------------------------------------------------------------------------------

    def _take(self) -> Take:
        return self.about[int(self.rng.integers(len(self.about)))]

    def _singled_out(self, but_not: str = "") -> _Found | None:
        """By three or four attributes; None if another take has a thing that fits, too."""
        take = self._take()
        subject = take.subjects[int(self.rng.integers(len(take.subjects)))]
        free = [attribute for attribute in ATTRIBUTES if attribute != but_not]
        attributes = self.rng.permutation(free)[: int(self.rng.choice([3, 4], p=[0.4, 0.6]))].tolist()
        said = {attribute: subject.value(attribute) for attribute in attributes}
        if any(fitting(other, said) for other in self.film.takes if other is not take):
            return None
        shots = [shot for shot in take.shots if any(subject.fits(said) for subject in shot.scene.subjects)]
        return _Found(take, said, fitting(take, said), (shots[0].start_seconds, shots[-1].end_seconds))

    def _draft(
        self,
        asked: str,
        said: Mapping[str, str],
        right: str,
        might: Iterable[str],
        tags: tuple[str, ...],
        span: tuple[float, float],
        *,
        what: str = "",
        at: str = "",
    ) -> Draft:
        number = int(self.rng.integers(num_wordings(asked, held_out=self.film.seed >= HELD_OUT_SEEDS)))
        text = wording(asked, number, thing=describe(said), what=what)
        if at:
            text = f"{text.rstrip('?.')} at {at}?"
        return Draft(
            text, right, tuple(dict.fromkeys(other for other in might if other != right)), tags, span, asked, said
        )

    @cached_property
    def _names(self) -> list[str]:
        """All things of the film, by colour and shape."""
        return sorted({name(subject.thing) for take in self.film.takes for subject in take.subjects})

    @cached_property
    def _seconds_of(self) -> dict[str, dict[str, float]]:
        """Attribute -> value -> for how long it is seen."""
        seconds: dict[str, dict[str, float]] = {attribute: {} for attribute in ATTRIBUTES}
        for take in self.film.takes:
            for shot in take.shots:
                for attribute, of_value in seconds.items():
                    for value in dict.fromkeys(subject.value(attribute) for subject in shot.scene.subjects):
                        of_value[value] = of_value.get(value, 0.0) + shot.end_seconds - shot.start_seconds
        return seconds


@dataclass(frozen=True, slots=True)
class _Found:
    """A thing that is singled out."""

    take: Take
    said: dict[str, str]
    subjects: list[Subject]
    """The thing in all shots in which it fits."""
    span: tuple[float, float]
    """From the first of these shots to the last."""


def fitting(take: Take, said: Mapping[str, str]) -> list[Subject]:
    """The things in the take for which all that is said holds."""
    return [subject for subject in take.subjects if subject.fits(said)]


def ask_about(film: Film, num_questions: int) -> list[Question]:
    """Different questions with four options each, one of them right; the wrong ones occur elsewhere in the film.

    Raises LvqaError if the film is too short for so many.
    """
    rng = np.random.default_rng([film.seed, 2])
    asker = Asker(film, rng)
    asked: dict[str, Question] = {}
    misses = 0
    while len(asked) < num_questions and misses < MOST_MISSES:
        misses += 1
        draft = asker.draft()
        if draft is None or draft.text in asked:
            continue
        misses = 0
        options = [draft.right, *rng.permutation(draft.wrong)[:3].tolist()]
        order = rng.permutation(4).tolist()
        asked[draft.text] = Question(
            text=draft.text,
            options=tuple(options[place] for place in order),
            id=f"{film.seed}-{len(asked)}",
            video_id=film.key,
            answer=LETTERS[order.index(0)],
            tags=draft.tags,
            evidence_seconds=draft.evidence_seconds,
        )
    if len(asked) < num_questions:
        raise LvqaError(
            f"a film of {film.duration_seconds / 60:g} minutes has room for {len(asked)} questions, "
            f"{num_questions} were asked for; make it longer"
        )
    return list(asked.values())


def clock(seconds: float) -> str:
    """ "MM:SS", minutes running on past 59."""
    return f"{int(seconds) // 60:02d}:{int(seconds) % 60:02d}"

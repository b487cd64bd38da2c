"""Questions about a made film, of LVBench's six types. Every answer is checked against the script."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lvqa.records import LETTERS, LvqaError, Question
from lvqa.tiny.language import ASKED_ONE_MOMENT, describe, name, num_wordings, wording
from lvqa.tiny.script import Film, Take
from lvqa.tiny.world import ATTRIBUTES, THING_ATTRIBUTES, Subject

HELD_OUT_SEEDS = 900_000
"""Films of this seed and above are for evaluation alone: nothing is trained or tuned on them, and only they are asked
about in held-out wordings, too."""
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


class Asker:
    """Draws questions about a film."""

    def __init__(self, film: Film, rng: np.random.Generator) -> None:
        self.film, self.rng = film, rng
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
        take, said, subjects = self._singled_out(but_not=(asked,))
        values = {subject.value(asked) for subject in subjects}
        if not take or len(values) != 1:
            return None
        right = values.pop()
        wrong = self._values(asked, right)
        return Draft(
            self._wording(asked, describe(said)), right, wrong, (OF_ATTRIBUTE[asked],), self._when_seen(take, said)
        )

    def _beside(self) -> Draft | None:
        take, said, subjects = self._singled_out()
        if not take:
            return None
        beside = {name(thing) for subject in subjects for thing in subject.scene.things if thing != subject.thing}
        if len(beside) != 1:
            return None
        right = beside.pop()
        others = [n for n in self._names if n != right and n not in {name(subject.thing) for subject in subjects}]
        return self._of_phrases("beside", describe(said), right, others, (ENTITY,), self._when_seen(take, said))

    def _event(self) -> Draft | None:
        take = self._take()
        if take.event is None:
            return None
        thing = take.event.thing
        said = {"colour": thing.colour, "shape": thing.shape, "place": take.shots[0].scene.place}
        if take.event.kind != "counts":
            said["sign"] = take.shots[0].scene.sign
        if [other for other in self.film.takes if self._fitting(other, said)] != [take]:
            return None
        colour = str(
            self.rng.choice([c for c in ATTRIBUTES["colour"] if c not in (thing.colour, take.event.said.split()[-1])])
        )
        said_of_others = [f"it turns {colour}", "it stops", "it leaves", "it enters", "the number goes up"]
        said_of_others += [f"it hits {self.rng.choice(self._names)}"]
        others = [other for other in said_of_others if other.split()[1] != take.event.said.split()[1]]
        span = (take.start_seconds, take.end_seconds)
        return self._of_phrases("event", describe(said), take.event.said, others, (EVENT,), span)

    # --- about times and the course of the film -----------------------------------------------------------------------

    def _at_time(self) -> Draft | None:
        take = self._take()
        shot = take.shots[int(self.rng.integers(len(take.shots)))]
        seconds = int(self.rng.uniform(shot.start_seconds + 1, shot.end_seconds - 1))
        asked = str(self.rng.choice(ASKED_ONE_MOMENT))
        subjects = shot.scene.subjects
        subject = subjects[int(self.rng.integers(len(subjects)))]
        said = {}
        if len(subjects) > 1 and asked in THING_ATTRIBUTES:
            given = "shape" if asked != "shape" else "colour"
            said = {given: subject.value(given)}
        text = f"{self._wording(asked, describe(said)).rstrip('?.')} at {clock(seconds)}?"
        right = subject.value(asked)
        return Draft(
            text,
            right,
            self._values(asked, right),
            (OF_ATTRIBUTE[asked], GROUNDING),
            (shot.start_seconds, shot.end_seconds),
        )

    def _when(self) -> Draft | None:
        take, said, _ = self._singled_out()
        if not take:
            return None
        start, end = self._when_seen(take, said)
        others = [clock(other.start_seconds) for other in self.film.takes if abs(other.start_seconds - start) > 60]
        return self._of_phrases("when", describe(said), clock(start), others, (GROUNDING,), (start, end))

    def _after(self) -> Draft | None:
        take, said, _ = self._singled_out()
        if not take or take is self.film.takes[-1]:
            return None
        following = self.film.takes[self.film.takes.index(take) + 1].shots[0]
        asked = str(self.rng.choice(["place", "sign", "shape", "colour"]))
        values = {subject.value(asked) for subject in following.scene.subjects}
        if len(values) != 1 or values & {subject.value(asked) for subject in take.subjects}:
            return None
        right = values.pop()
        tags = (REASONING, KEY) if asked == "sign" else (REASONING,)
        span = (self._when_seen(take, said)[0], following.end_seconds)
        text = self._wording("after", describe(said), what=WHAT[asked])
        return Draft(text, right, self._values(asked, right), tags, span)

    def _most(self) -> Draft | None:
        asked = str(self.rng.choice(["place", "shape", "colour"]))
        ranked = sorted(self._seconds_of[asked].items(), key=lambda item: -item[1])
        if len(ranked) < 4 or ranked[0][1] < 1.4 * ranked[1][1]:
            return None
        right, wrong = ranked[0][0], tuple(value for value, _ in ranked[1:])
        text = self._wording("most", "", what=WHAT[asked])
        return Draft(text, right, wrong, (SUMMARY,), (0.0, self.film.duration_seconds))

    # --- parts ------------------------------------------------------------------------------------------------------

    def _take(self) -> Take:
        return self.film.takes[int(self.rng.integers(len(self.film.takes)))]

    def _singled_out(self, but_not: Sequence[str] = ()) -> tuple[Take | None, dict[str, str], list[Subject]]:
        """A take, what is said of a thing that only it has (three attributes), and its things that fit; None if others fit."""
        take = self._take()
        subject = take.subjects[int(self.rng.integers(len(take.subjects)))]
        attributes = self.rng.permutation([a for a in ATTRIBUTES if a not in but_not]).tolist()
        said = {attribute: subject.value(attribute) for attribute in attributes[:3]}
        if any(self._fitting(other, said) for other in self.film.takes if other is not take):
            return None, said, []
        return take, said, self._fitting(take, said)

    @staticmethod
    def _fitting(take: Take, said: Mapping[str, str]) -> list[Subject]:
        return [subject for subject in take.subjects if subject.fits(said)]

    def _when_seen(self, take: Take, said: Mapping[str, str]) -> tuple[float, float]:
        """The shots of the take in which there is a thing that fits."""
        fitting = [shot for shot in take.shots if any(subject.fits(said) for subject in shot.scene.subjects)]
        return fitting[0].start_seconds, fitting[-1].end_seconds

    def _wording(self, asked: str, thing: str, *, what: str = "") -> str:
        number = num_wordings(asked, held_out=self.film.seed >= HELD_OUT_SEEDS)
        return wording(asked, int(self.rng.integers(number)), thing=thing, what=what)

    def _values(self, asked: str, right: str) -> tuple[str, ...]:
        """Other values that are seen in the film."""
        return tuple(value for value in self._seconds_of[asked] if value != right)

    def _of_phrases(
        self,
        asked: str,
        thing: str,
        right: str,
        others: Sequence[str],
        tags: tuple[str, ...],
        span: tuple[float, float],
    ) -> Draft:
        return Draft(self._wording(asked, thing), right, tuple(dict.fromkeys(others)), tags, span)

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
                    for value in {subject.value(attribute) for subject in shot.scene.subjects}:
                        of_value[value] = of_value.get(value, 0.0) + shot.end_seconds - shot.start_seconds
        return seconds


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

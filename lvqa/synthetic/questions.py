"""Questions about a synthetic video, of LVBench's six types. Every answer is checked against the script."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lvqa.records import LETTERS, LvqaError, Question
from lvqa.synthetic.language import MOMENT_ATTRIBUTES, describe, name, num_wordings, wording
from lvqa.synthetic.script import Take, VideoScript
from lvqa.synthetic.world import ATTRIBUTES, THING_ATTRIBUTES, Subject

HELD_OUT_SEEDS = 900_000
"""Videos of this seed and above are for evaluation alone: nothing is trained or tuned on them, and only their questions
use the held-out wordings, too."""
MIN_LEAD = 1.4
"""What is seen most must be seen so many times as long as the next."""
MAX_TRIES = 40
"""How often a question of one kind is tried before another kind is sampled."""
MAX_MISSES = 300
"""After so many samples in a row without a new question, the video counts as exhausted."""

ENTITY, EVENT, KEY, GROUNDING, REASONING, SUMMARY = (
    *("entity recognition", "event understanding", "key information retrieval"),
    *("temporal grounding", "reasoning", "summarization"),
)
"""LVBench's names of the abilities."""
ATTRIBUTE_ABILITIES = {"colour": ENTITY, "shape": ENTITY, "motion": EVENT, "sign": KEY, "place": ENTITY}
"""The ability that it takes to recognise each attribute."""
ATTRIBUTE_PHRASES = {
    "colour": "which colour",
    "shape": "which kind of thing",
    "place": "which place",
    "sign": "which sign",
}
"""The phrase for an attribute in a question that asks for it without naming a thing."""
KIND_SHARES = {
    "attribute": 0.60,
    "beside": 0.05,
    "event": 0.07,
    "at": 0.08,
    "when": 0.06,
    "after": 0.09,
    "most": 0.05,
}
"""The kinds of questions, with the share of each."""


@dataclass(frozen=True, slots=True)
class QuestionDraft:
    """A question before its options are sampled."""

    text: str
    correct: str
    """The answer."""
    distractors: tuple[str, ...]
    """Wrong options to choose from, all different."""
    tags: tuple[str, ...]
    """LVBench's names of the abilities that the question takes."""
    evidence_seconds: tuple[float, float]
    """The start and the end of what shows the answer."""
    kind: str
    """The question's key in language.WORDINGS."""
    description: Mapping[str, str]
    """The attributes that identify the thing that the question is about; empty if it is about none."""


class QuestionWriter:
    """Samples questions about a video."""

    def __init__(self, script: VideoScript, rng: np.random.Generator) -> None:
        self.script, self.rng = script, rng
        self._draft_functions: dict[str, Callable[[], QuestionDraft | None]] = {
            "attribute": self._attribute,
            "beside": self._beside,
            "event": self._event,
            "at": self._at_time,
            "when": self._when,
            "after": self._after,
            "most": self._most,
        }

    def draft(self) -> QuestionDraft | None:
        """Sample a question of a random kind; return None if the video has no such question, as far as was tried."""
        kind = str(self.rng.choice(list(KIND_SHARES), p=list(KIND_SHARES.values())))
        drafts = (self.draft_kind(kind) for _ in range(MAX_TRIES))
        return next((draft for draft in drafts if draft is not None and len(draft.distractors) >= 3), None)

    def draft_kind(self, kind: str) -> QuestionDraft | None:
        """Try once to sample a question of one kind.

        Args:
            kind: A key of KIND_SHARES.

        Returns:
            The question, which may have fewer than three distractors, or None if what was sampled gives no question.
        """
        return self._draft_functions[kind]()

    # --- about one moment -------------------------------------------------------------------------------------------

    def _attribute(self) -> QuestionDraft | None:
        """Ask for an attribute of a thing."""
        attribute = str(self.rng.choice(MOMENT_ATTRIBUTES, p=[0.2, 0.2, 0.25, 0.25, 0.1]))
        referent = self._sample_referent(excluded=attribute)
        values = {subject.value(attribute) for subject in referent.subjects} if referent else set()
        if not referent or len(values) != 1:
            return None
        return self._draft(
            attribute,
            referent.description,
            values.pop(),
            self._seconds_by_value[attribute],
            (ATTRIBUTE_ABILITIES[attribute],),
            referent.span,
        )

    def _beside(self) -> QuestionDraft | None:
        """Ask which thing is in the same scene as another one."""
        referent = self._sample_referent()
        if not referent:
            return None
        own = {name(subject.thing) for subject in referent.subjects}
        neighbours = {name(thing) for subject in referent.subjects for thing in subject.scene.things} - own
        if len(neighbours) != 1:
            return None
        others = [other for other in self._names if other not in own]
        return self._draft("beside", referent.description, neighbours.pop(), others, (ENTITY,), referent.span)

    def _event(self) -> QuestionDraft | None:
        """Ask what happens to a thing."""
        take = self._sample_take()
        event = take.event
        if event is None:
            return None
        description = {"colour": event.thing.colour, "shape": event.thing.shape, "place": take.shots[0].scene.place}
        if event.kind != "counts":
            description["sign"] = take.shots[0].scene.sign
        if self._matches_elsewhere(description, take):
            return None
        colours = [colour for colour in ATTRIBUTES["colour"] if colour != event.thing.colour]
        phrases = [f"it turns {self.rng.choice(colours)}", f"it hits {self.rng.choice(self._names)}"]
        phrases += ["it stops", "it leaves", "it enters", "the number goes up"]
        distractors = [phrase for phrase in phrases if phrase.split()[1] != event.phrase.split()[1]]
        span = (take.start_seconds, take.end_seconds)
        return self._draft("event", description, event.phrase, distractors, (EVENT,), span)

    # --- about times and the order of events --------------------------------------------------------------------------

    def _at_time(self) -> QuestionDraft | None:
        """Ask for an attribute at a time."""
        take = self._sample_take()
        shot = take.shots[int(self.rng.integers(len(take.shots)))]
        seconds = self.rng.uniform(shot.start_seconds + 1, shot.end_seconds - 1)
        attribute = str(self.rng.choice(MOMENT_ATTRIBUTES))
        subjects = shot.scene.subjects
        subject = subjects[int(self.rng.integers(len(subjects)))]
        description = {}
        if len(subjects) > 1 and attribute in THING_ATTRIBUTES:
            identifying = "shape" if attribute != "shape" else "colour"
            description = {identifying: subject.value(identifying)}
        return self._draft(
            attribute,
            description,
            subject.value(attribute),
            self._seconds_by_value[attribute],
            (ATTRIBUTE_ABILITIES[attribute], GROUNDING),
            (shot.start_seconds, shot.end_seconds),
            at=clock(seconds),
        )

    def _when(self) -> QuestionDraft | None:
        """Ask when a thing is seen."""
        referent = self._sample_referent()
        if not referent:
            return None
        start, _ = referent.span
        others = [clock(take.start_seconds) for take in self.script.takes if abs(take.start_seconds - start) > 60]
        return self._draft("when", referent.description, clock(start), others, (GROUNDING,), referent.span)

    def _after(self) -> QuestionDraft | None:
        """Ask for an attribute of the scene that follows the take with a thing."""
        referent = self._sample_referent()
        if not referent or referent.span[1] != referent.take.end_seconds:
            return None
        following = [take.shots[0] for take in self.script.takes if take.start_seconds == referent.take.end_seconds]
        if not following:
            return None
        attribute = str(self.rng.choice(list(ATTRIBUTE_PHRASES)))
        values = {subject.value(attribute) for subject in following[0].scene.subjects}
        if len(values) != 1 or values & {subject.value(attribute) for subject in referent.take.subjects}:
            return None
        return self._draft(
            "after",
            referent.description,
            values.pop(),
            self._seconds_by_value[attribute],
            (REASONING, KEY) if attribute == "sign" else (REASONING,),
            (referent.span[0], following[0].end_seconds),
            what=ATTRIBUTE_PHRASES[attribute],
        )

    def _most(self) -> QuestionDraft | None:
        """Ask for the value of an attribute that is seen for the longest time."""
        attribute = str(self.rng.choice(["place", "shape", "colour"]))
        seconds = self._seconds_by_value[attribute]
        ranked = sorted(seconds.items(), key=lambda item: -item[1])
        if len(ranked) < 2 or ranked[0][1] < MIN_LEAD * ranked[1][1]:
            return None
        span = (0.0, self.script.duration_seconds)
        return self._draft("most", {}, ranked[0][0], seconds, (SUMMARY,), span, what=ATTRIBUTE_PHRASES[attribute])

    # --- what all kinds need ------------------------------------------------------------------------------------------

    def _sample_take(self) -> Take:
        """Sample a take of the video."""
        return self.script.takes[int(self.rng.integers(len(self.script.takes)))]

    def _sample_referent(self, excluded: str = "") -> _Referent | None:
        """Sample a thing and three or four of its attributes; return None if they match in another take, too."""
        take = self._sample_take()
        subject = take.subjects[int(self.rng.integers(len(take.subjects)))]
        free = [attribute for attribute in ATTRIBUTES if attribute != excluded]
        attributes = self.rng.permutation(free)[: int(self.rng.choice([3, 4], p=[0.4, 0.6]))].tolist()
        description = {attribute: subject.value(attribute) for attribute in attributes}
        if self._matches_elsewhere(description, take):
            return None
        shots = [shot for shot in take.shots if any(subject.matches(description) for subject in shot.scene.subjects)]
        span = (shots[0].start_seconds, shots[-1].end_seconds)
        return _Referent(take, description, matching_subjects(take, description), span)

    def _matches_elsewhere(self, description: Mapping[str, str], take: Take) -> bool:
        """Return whether a thing of another take matches the description."""
        return any(matching_subjects(other, description) for other in self.script.takes if other is not take)

    def _draft(
        self,
        kind: str,
        description: Mapping[str, str],
        correct: str,
        candidates: Iterable[str],
        tags: tuple[str, ...],
        span: tuple[float, float],
        *,
        what: str = "",
        at: str = "",
    ) -> QuestionDraft:
        """Sample a wording, and take each candidate that is not correct as a distractor, once."""
        index = int(self.rng.integers(num_wordings(kind, held_out=self.script.seed >= HELD_OUT_SEEDS)))
        text = wording(kind, index, thing=describe(description), what=what)
        if at:
            text = f"{text.rstrip('?.')} at {at}?"
        distractors = tuple(dict.fromkeys(candidate for candidate in candidates if candidate != correct))
        return QuestionDraft(text, correct, distractors, tags, span, kind, description)

    @cached_property
    def _names(self) -> list[str]:
        """The colour and shape of all things in the video, such as "the red ball", sorted."""
        return sorted({name(subject.thing) for take in self.script.takes for subject in take.subjects})

    @cached_property
    def _seconds_by_value(self) -> dict[str, dict[str, float]]:
        """How long each value of each attribute is seen."""
        seconds: dict[str, dict[str, float]] = {attribute: {} for attribute in ATTRIBUTES}
        for take in self.script.takes:
            for shot in take.shots:
                for attribute, by_value in seconds.items():
                    for value in dict.fromkeys(subject.value(attribute) for subject in shot.scene.subjects):
                        by_value[value] = by_value.get(value, 0.0) + shot.end_seconds - shot.start_seconds
        return seconds


@dataclass(frozen=True, slots=True)
class _Referent:
    """The thing that a question is about, and the description that matches it in no other take."""

    take: Take
    description: dict[str, str]
    subjects: list[Subject]
    """The thing in all shots in which it matches."""
    span: tuple[float, float]
    """The start of the first of these shots and the end of the last, in seconds."""


def matching_subjects(take: Take, description: Mapping[str, str]) -> list[Subject]:
    """Return the things of the take that match the description."""
    return [subject for subject in take.subjects if subject.matches(description)]


def ask_about(script: VideoScript, num_questions: int) -> list[Question]:
    """Write questions about a video, the same for the same script; fewer questions are the first ones of more.

    Args:
        script: What the video shows.
        num_questions: How many different questions to write.

    Returns:
        Questions with four options each. One option is correct; the others are values that the video shows elsewhere.

    Raises:
        LvqaError: The video is too short for so many questions.
    """
    rng = np.random.default_rng([script.seed, 2])
    writer = QuestionWriter(script, rng)
    questions: dict[str, Question] = {}
    misses = 0
    while len(questions) < num_questions and misses < MAX_MISSES:
        misses += 1
        draft = writer.draft()
        if draft is None or draft.text in questions:
            continue
        misses = 0
        options = [draft.correct, *rng.permutation(draft.distractors)[:3].tolist()]
        order = rng.permutation(4).tolist()
        questions[draft.text] = Question(
            text=draft.text,
            options=tuple(options[i] for i in order),
            id=f"{script.seed}-{len(questions)}",
            video_id=script.key,
            answer=LETTERS[order.index(0)],
            tags=draft.tags,
            evidence_seconds=draft.evidence_seconds,
        )
    if len(questions) < num_questions:
        raise LvqaError(
            f"a synthetic video of {script.duration_seconds / 60:g} minutes has room for {len(questions)} questions, "
            f"{num_questions} were requested; make it longer"
        )
    return list(questions.values())


def clock(seconds: float) -> str:
    """Return a time as "MM:SS"; the minutes may exceed 59."""
    return f"{int(seconds) // 60:02d}:{int(seconds) % 60:02d}"

"""The made world, its films and questions, the lessons, the training, and the embedded model itself."""

from __future__ import annotations

import dataclasses
import json
import re
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise, product
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from lvqa import LongVideoQA, prompts
from lvqa.answering import Answerer
from lvqa.backbones.chat import ChatFormat
from lvqa.backbones.positions import position_ids
from lvqa.backbones.prompt import Prompt, VisualBlock
from lvqa.backbones.qwen2_5_vl import Qwen25VL
from lvqa.embedding import Embedder
from lvqa.records import Candidate, Clip, Counts, LvqaError, Question, Video
from lvqa.rerank import MultipleChoice
from lvqa.tiny.build import WEIGHTS, build_tokenizer
from lvqa.tiny.films import ask_about, benchmark_line, make_films, write_film, write_script
from lvqa.tiny.lessons import COLUMNS, ROWS, TEMPORAL_STEP, Lesson, Part, Teacher, alone
from lvqa.tiny.questions import Asker
from lvqa.tiny.script import EVENTS, Film, Shot, Take, frame_at, random_take
from lvqa.tiny.training import Course, Stage, random_takes
from lvqa.tiny.world import ATTRIBUTES, HEIGHT, WIDTH, Scene, Thing, draw, draw_thing, nearest_things, random_scene
from lvqa.video import Grid, probe, read_frames
from lvqa.visual import Pair, VisualTokens, runs_of_pairs

SEED, MINUTES, QUESTIONS = 5, 3, 12
"""The film that the packaged model is asked about."""
ORACLE_RIGHT_AT_LEAST = 8
"""Of those questions, when the model is shown frames of the right moment."""
WEIGHTS_MB = 20

# --- what a text says, read here without the code that wrote it -------------------------------------------------------

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
ASKED = {
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
"""~ is a thing, # what is asked for; the last of each is for held-out films alone."""
MOMENT = ("colour", "shape", "motion", "sign", "place")
"""What a single frame, or two, can tell."""
SENTENCES = (
    *(r"It is a (\w+)\.", r"It moves (\w+)\.", r"It stands (still)\.", r"It (spins)\.", r"The sign says (\w+)\."),
    *(rf"It is ({PLACE})\.", r"At (\d+:\d\d)\.", r"It is (the \w+ \w+)\.", r"It is (\w+)\."),
    *(r"(It (?:turns \w+|stops|leaves|enters|hits the \w+ \w+))\.", r"(The number goes up)\."),
)
"""How an option is said in a sentence."""


class Asking(NamedTuple):
    """What a question asks for."""

    kind: str
    """A key of ASKED."""
    wording: int
    said: dict[str, str]
    """What is said of the thing that it is about."""
    what: str
    """The attribute that is asked for, if it is one."""
    at: float | None
    """The time, if one is told."""


def understood(text: str) -> Asking:
    """A question; it has one reading."""
    readings = []
    for kind, wordings in ASKED.items():
        for number, words in enumerate(wordings):
            bare = re.escape(words[:-1]).replace(r"\~", "~").replace("~", THING).replace(r"\#", WHAT)
            end = re.escape(words[-1])
            time_told = r" at (?P<at>\d\d+:[0-5]\d)\?"
            if match := re.fullmatch(rf"{bare}(?:{end}|{time_told})" if kind in MOMENT else f"{bare}{end}", text):
                readings.append((kind, number, match.groupdict()))
    ((kind, number, found),) = readings
    at, what = found.pop("at", None), found.pop("what", None)
    said = {attribute: last_word(words) for attribute, words in found.items() if words}
    what = kind if kind in MOMENT else {"kind of thing": "shape"}.get(what, what) or ""
    return Asking(kind, number, said, what, None if at is None else seconds_at(at))


def last_word(words: str) -> str:
    return "spinning" if words == "spins" else words.split()[-1]


def unsaid(sentence: str) -> str:
    """The option that a sentence says."""
    option = next(match[1] for form in SENTENCES if (match := re.fullmatch(form, sentence)))
    if re.fullmatch(f"{PLACE}|spins", option):
        return last_word(option)
    return option[0].lower() + option[1:]


def seconds_at(clock: str) -> float:
    minutes, seconds = clock.split(":")
    return 60.0 * int(minutes) + int(seconds)


def clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes:02d}:{rest:02d}"


# --- what is true of a film, found here without the code that asks ----------------------------------------------------


class Seen(NamedTuple):
    """A thing in a shot."""

    shot: Shot
    thing: Thing

    def value(self, attribute: str) -> str:
        return getattr(self.shot.scene if attribute in ("sign", "place") else self.thing, attribute)

    def holds(self, said: dict[str, str]) -> bool:
        return all(self.value(attribute) == value for attribute, value in said.items())


def everything(shots: Sequence[Shot]) -> list[Seen]:
    return [Seen(shot, thing) for shot in shots for thing in shot.scene.things]


def named(thing: Thing) -> str:
    return f"the {thing.colour} {thing.shape}"


def values(seen: Sequence[Seen], attribute: str) -> set[str]:
    return {one.value(attribute) for one in seen}


def fitting(film: Film, said: dict[str, str]) -> tuple[Take, list[Seen]]:
    """The one take that has what is said, and where in it."""
    fits = [(take, [one for one in everything(take.shots) if one.holds(said)]) for take in film.takes]
    ((take, seen),) = ((take, seen) for take, seen in fits if seen)
    return take, seen


def happened(take: Take) -> list[tuple[str, Thing]]:
    """What happens in a take, and to whom, by what it looks like before and after."""
    before, after = ({thing.shape: thing for thing in shot.scene.things} for shot in (take.shots[0], take.shots[-1]))
    both = [(before[shape], after[shape]) for shape in before if shape in after]
    found = [("it leaves", before[shape]) for shape in before.keys() - after]
    found += [("it enters", after[shape]) for shape in after.keys() - before]
    found += [(f"it turns {new.colour}", old) for old, new in both if old.colour != new.colour]
    found += [("it stops", old) for old, new in both if old.motion != new.motion == "still"]
    turned = [old for old, new in both if {old.motion, new.motion} == {"left", "right"}]
    found += [(f"it hits {named(other)}", one) for one in turned for other in turned if other is not one]
    if take.shots[0].scene.sign != take.shots[-1].scene.sign:
        found += [("the number goes up", thing) for thing in before.values()]
    return found


def seconds_seen(film: Film, attribute: str) -> Counter[str]:
    seconds: Counter[str] = Counter()
    for take in film.takes:
        for shot in take.shots:
            for value in values(everything([shot]), attribute):
                seconds[value] += shot.end_seconds - shot.start_seconds
    return seconds


class Truth(NamedTuple):
    """What is right about a question."""

    answers: set[str]
    span: tuple[float, float]
    might: set[str]
    """What may be offered besides."""
    tags: tuple[str, ...]


def span_of(seen: Sequence[Seen]) -> tuple[float, float]:
    return min(one.shot.start_seconds for one in seen), max(one.shot.end_seconds for one in seen)


def truth(film: Film, asking: Asking) -> Truth:
    tags: tuple[str, ...] = ({"motion": "event understanding", "sign": "key information retrieval"}.get(
        asking.what, "entity recognition"
    ),)  # fmt: skip
    might = set(seconds_seen(film, asking.what)) if asking.what else set()
    if asking.at is not None:
        (shot,) = (s for take in film.takes for s in take.shots if s.start_seconds <= asking.at < s.end_seconds)
        seen = [one for one in everything([shot]) if one.holds(asking.said)]
        return Truth(values(seen, asking.what), span_of(seen), might, (*tags, "temporal grounding"))
    if asking.kind == "most":
        (most, seconds), (_, less) = seconds_seen(film, asking.what).most_common(2)
        assert seconds >= 1.4 * less
        return Truth({most}, (0, film.duration_seconds), might, ("summarization",))
    take, seen = fitting(film, asking.said)
    span = span_of(seen)
    if asking.kind in MOMENT:
        return Truth(values(seen, asking.what), span, might, tags)
    if asking.kind == "after":
        (following,) = (other.shots[0] for other in film.takes if other.start_seconds == take.end_seconds)
        tags = ("reasoning", *tags) if asking.what == "sign" else ("reasoning",)
        assert not values(everything([following]), asking.what) & values(everything(take.shots), asking.what)
        return Truth(values(everything([following]), asking.what), (span[0], following.end_seconds), might, tags)
    if asking.kind == "when":
        starts = {other.start_seconds for other in film.takes}
        far = {clock(start) for start in starts if abs(start - span[0]) > 60}
        return Truth({clock(span[0])}, span, far, ("temporal grounding",))
    if asking.kind == "beside":
        own = {named(one.thing) for one in seen}
        beside = {named(thing) for one in seen for thing in one.shot.scene.things} - own
        names = {named(one.thing) for take in film.takes for one in everything(take.shots)}
        return Truth(beside, span, names - own, tags)
    happens = {what for what, thing in happened(take) if Seen(take.shots[0], thing).holds(asking.said)}
    return Truth(happens, (take.start_seconds, take.end_seconds), set(), ("event understanding",))


def right_option(question: Question) -> str:
    return question.options["ABCD".index(question.answer)]


# --- scripts ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def films() -> list[Film]:
    """Twenty hours of script."""
    return [write_script(seed, 60) for seed in range(20)]


def test_a_script_follows_from_its_seed():
    assert write_script(3, 20) == write_script(3, 20)
    assert ask_about(write_script(3, 20), 8) == ask_about(write_script(3, 20), 8)
    others = [write_script(seed, 20) for seed in (4, 5, 900_003)]
    assert all(write_script(3, 20).takes[0].shots[0].scene != film.takes[0].shots[0].scene for film in others)
    assert len({film.key for film in others}) == 3


def test_fewer_questions_are_the_first_of_more():
    film = write_script(3, 60)
    assert ask_about(film, 5) == ask_about(film, 24)[:5]


@pytest.mark.parametrize("minutes", [1, 2.5, 20, 60, 180])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_takes_fill_the_film_and_cuts_and_events_lie_on_frames(seed, minutes):
    film = write_script(seed, minutes)
    assert film.takes[0].start_seconds == 0 and film.duration_seconds == minutes * 60
    for take, following in pairwise(film.takes):
        assert 8 <= take.end_seconds - take.start_seconds <= 40
        assert take.end_seconds == following.start_seconds
        assert take.shots[-1].scene != following.shots[0].scene
    assert 8 <= film.takes[-1].end_seconds - film.takes[-1].start_seconds < 48  # it takes what is left over
    for take in film.takes:
        assert len(take.shots) == (1 if take.event is None else 2)
        assert all(shot.start_seconds * 8 == int(shot.start_seconds * 8) for shot in take.shots)
        for shot, following in pairwise(take.shots):
            assert shot.end_seconds == following.start_seconds
            assert min(s.end_seconds - s.start_seconds for s in take.shots) >= 5


def test_things_of_a_scene_differ_in_colour_and_shape(films):
    scenes = [shot.scene for film in films for take in film.takes for shot in take.shots]
    assert {len(scene.things) for scene in scenes} == {1, 2, 3}
    for scene in scenes:
        for attribute in ("colour", "shape"):
            assert len({getattr(thing, attribute) for thing in scene.things}) == len(scene.things)
        assert all(thing.radius > 37 if thing.size == "big" else thing.radius < 34 for thing in scene.things)


def test_events_are_what_they_say(films):
    kinds: Counter[str] = Counter()
    for take in (take for film in films for take in film.takes):
        if take.event is None:
            assert happened(take) == []
            continue
        kinds[take.event.kind] += 1
        assert (take.event.said, take.event.thing) in happened(take)
        assert {re.sub("the .* goes|it ", "", what).split()[0] for what, _ in happened(take)} == {
            "up" if take.event.kind == "counts" else take.event.kind
        }
        nothing_else_changes(take)
    assert set(kinds) == set(EVENTS) and min(kinds.values()) > 50


def nothing_else_changes(take: Take) -> None:
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
            assert np.allclose(thing.at(seconds), (same.x, same.y))


def test_what_collides_touches(films):
    hits = [take for film in films for take in film.takes if take.event and take.event.kind == "hits"]
    for take in hits:
        seconds = take.shots[0].end_seconds - take.shots[0].start_seconds
        one = take.event.thing
        (other,) = (t for t in take.shots[0].scene.things if take.event.said == f"it hits {named(t)}")
        (left, y), (right, other_y) = one.at(seconds), other.at(seconds)
        assert right - left == pytest.approx(one.radius + other.radius) and y == pytest.approx(other_y)
        assert one.radius < left + 10 and right + other.radius < WIDTH + 10
        assert (one.motion, other.motion) == ("right", "left")


# --- questions --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def asked(films) -> list[tuple[Film, list[tuple[Question, Asking]]]]:
    """Forty questions about each film, and what they ask for."""
    return [(film, [(question, understood(question.text)) for question in ask_about(film, 40)]) for film in films]


@pytest.fixture(scope="module")
def all_asked(asked) -> list[tuple[Question, Asking]]:
    return [one for _, here in asked for one in here]


def kind_of(asking: Asking) -> str:
    return "at" if asking.at is not None else "attribute" if asking.kind in MOMENT else asking.kind


def test_one_option_alone_is_right(asked):
    """By the script, of which one take alone fits what is said; the others are of the film and wrong."""
    for film, here in asked:
        for question, asking in here:
            told = truth(film, asking)
            assert told.answers == {right_option(question)}, question
            assert len(set(question.options)) == 4
            others = set(question.options) - told.answers
            if asking.kind == "event":
                verbs = [option.split()[1] for option in question.options]
                assert len(set(verbs)) == 4, question
                assert {"turns", "stops", "leaves", "enters", "hits", "number"} >= set(verbs)
            else:
                assert others <= told.might, question
            assert question.tags == told.tags
            assert question.evidence_seconds == told.span


def test_no_more_is_said_than_is_needed(all_asked):
    for question, asking in all_asked:
        kind = kind_of(asking)
        if kind == "event":
            assert {"colour", "shape", "place"} <= set(asking.said) <= {"colour", "shape", "place", "sign"}
        else:
            assert len(asking.said) in {"at": (0, 1), "most": (0,)}.get(kind, (3,)), question.text
        if kind in ("attribute", "at"):
            assert asking.what not in asking.said


def test_questions_are_distinct_and_belong_to_their_film(asked):
    for film, here in asked:
        questions = [question for question, _ in here]
        assert len({question.text for question in questions}) == len({question.id for question in questions}) == 40
        assert {question.video_id for question in questions} == {film.key}


def test_letters_are_balanced_and_all_kinds_occur(films, all_asked):
    letters = Counter(question.answer for question, _ in all_asked)
    assert all(0.2 < letters[letter] / len(all_asked) < 0.3 for letter in "ABCD"), letters
    kinds = Counter(kind_of(asking) for _, asking in all_asked)
    wanted = {kind: share for kind, (share, _) in Asker(films[0], np.random.default_rng(0)).kinds.items()}
    assert set(kinds) == set(wanted)
    for kind, share in wanted.items():
        # Not every film shows something much longer than all else, and there are few ways to ask for it.
        tolerance = (0.04, 0.01) if kind == "most" else (0.035, 0.035)
        assert share - tolerance[0] < kinds[kind] / len(all_asked) < share + tolerance[1], kinds
    right = {(asking.what, right_option(question)) for question, asking in all_asked}
    assert right >= {(attribute, value) for attribute in MOMENT for value in ATTRIBUTES[attribute]}
    tags = {tag for question, _ in all_asked for tag in question.tags}
    assert len(tags) == 6


def test_wordings_vary_and_some_are_held_out(all_asked):
    used = {(asking.kind, asking.wording) for _, asking in all_asked}
    assert used == {(kind, number) for kind, words in ASKED.items() for number in range(len(words) - 1)}
    held_out = [write_script(seed, 60) for seed in range(900_000, 900_010)]
    asking = [understood(question.text) for film in held_out for question in ask_about(film, 40)]
    assert {(one.kind, one.wording) for one in asking} == {
        (kind, number) for kind, words in ASKED.items() for number in range(len(words))
    }


def test_the_question_alone_does_not_tell_the_answer(all_asked):
    """Nor do the options: neither the one that is most often right in other films, nor how they are written."""
    half = len(all_asked) // 2
    often = Counter((kind_of(a), a.what, right_option(q).split()[-1]) for q, a in all_asked[:half])

    def likeness(option: str, options: Sequence[str]) -> int:
        return sum(len(set(option) & set(other)) + 5 * len({*option.split()} & {*other.split()}) for other in options)

    guessers = {
        "the most frequent": lambda option, q, a: often[kind_of(a), a.what, option.split()[-1]],
        "the longest": lambda option, q, a: len(option),
        "the most alike": lambda option, q, a: likeness(option, q.options),
        "the least alike": lambda option, q, a: -likeness(option, q.options),
    }
    for name, guesser in guessers.items():
        here = all_asked[half:] if name == "the most frequent" else all_asked
        guesses = [max(q.options, key=lambda option, q=q, a=a: guesser(option, q, a)) for q, a in here]
        hits = sum(guess == right_option(q) for guess, (q, _) in zip(guesses, here, strict=True))
        assert hits / len(here) < 0.31, name


def test_an_hour_is_scripted_and_asked_about_at_once():
    started = time.process_time()
    ask_about(write_script(3, 60), 40)
    assert time.process_time() - started < 0.7


def test_too_many_questions_for_a_film_are_refused():
    with pytest.raises(LvqaError, match=r"film of 1 minutes has room for \d+ questions, 5000 were asked for"):
        ask_about(write_script(0, 1), 5000)


def test_the_lines_have_lvbenchs_layout(asked):
    for film, here in asked[:5]:
        questions = [question for question, _ in here]
        line = json.loads(json.dumps(benchmark_line(film, questions)))
        assert set(line) == {"key", "type", "qa", "video_info"}
        assert line["video_info"] == {
            "duration_minutes": 60.0,
            "fps": 8,
            "resolution": {"width": WIDTH, "height": HEIGHT},
        }
        for told, question in zip(line["qa"], questions, strict=True):
            assert set(told) == {"uid", "question", "answer", "question_type", "time_reference"}
            stem, *options = told["question"].split("\n")
            assert stem == question.text
            assert options == [f"({letter}) {text}" for letter, text in zip("ABCD", question.options, strict=True)]
            assert (told["answer"], told["question_type"]) == (question.answer, list(question.tags))
            times = re.fullmatch(r"(\d\d+:[0-5]\d)-(\d\d+:[0-5]\d)", told["time_reference"])
            assert times
            start, end = seconds_at(times[1]), seconds_at(times[2])
            first, last = question.evidence_seconds
            assert first <= start < end <= last and start - first < 1 and last - end < 1



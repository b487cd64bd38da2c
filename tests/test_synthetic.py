"""The made world, its films and questions, the lessons, the training, and the embedded model itself."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
import sys
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
from lvqa.answering import Answerer, Asked
from lvqa.embedding import Embedder
from lvqa.models.chat import ChatTemplate
from lvqa.models.positions import VisualTokenSpan, position_ids
from lvqa.models.prompt import ClipTokens, Prompt
from lvqa.models.qwen_vl import Qwen25VL
from lvqa.records import Candidate, Clip, Counts, LvqaError, Question, Video
from lvqa.rerank import MultipleChoice
from lvqa.synthetic.build import WEIGHTS, build_model, build_tokenizer
from lvqa.synthetic.lessons import COLUMNS, ROWS, Lesson, Part, Teacher, alone
from lvqa.synthetic.material import Batch, Stage, pack, random_takes
from lvqa.synthetic.questions import Asker
from lvqa.synthetic.script import EVENTS, Film, Shot, Take, frame_at
from lvqa.synthetic.training import Course, lesson_loss
from lvqa.synthetic.videos import ask_about, benchmark_line, make_videos, write_script, write_video
from lvqa.synthetic.world import ATTRIBUTES, HEIGHT, WIDTH, Thing, draw, draw_thing, nearest_things, random_scene
from lvqa.video import FrameGrid, inspect_video, read_frames
from lvqa.visual_tokens import Pair, VisualTokens, runs_of_pairs

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
                readings.append((kind, number, match))
    ((kind, number, match),) = readings
    at, what = (match.groupdict().get(name) for name in ("at", "what"))
    what = kind if kind in MOMENT else {"kind of thing": "shape"}.get(what, what) or ""
    return Asking(kind, number, said_in(match), what, None if at is None else seconds_at(at))


def said_in(match: re.Match[str]) -> dict[str, str]:
    """Attribute -> value, where a THING was found."""
    found = match.groupdict().items()
    return {attribute: last_word(words) for attribute, words in found if attribute in ATTRIBUTES and words}


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
    turned = [old for old, new in both if {old.motion, new.motion} & {"left", "right"} and new.motion in ("up", "down")]
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


def test_scripts_and_questions_are_the_same_in_every_process():
    told = "from lvqa.synthetic.videos import *; f = write_script(3, 20); print(f, ask_about(f, 20))"
    outputs = [
        subprocess.run(
            [sys.executable, "-c", told], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in "12"
    ]
    assert outputs[0] == outputs[1] and outputs[0]


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
            assert len(asking.said) in {"at": (0, 1), "most": (0,)}.get(kind, (3, 4)), question.text
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

    def gist(option: str, asking: Asking) -> tuple[str, str, str]:
        return kind_of(asking), asking.what, option.split()[1 if asking.kind == "event" else -1]

    often = Counter(gist(right_option(q), a) for q, a in all_asked[:half])

    def likeness(option: str, options: Sequence[str]) -> int:
        return sum(len(set(option) & set(other)) + 5 * len({*option.split()} & {*other.split()}) for other in options)

    guessers = {
        "the most frequent": lambda option, q, a: often[gist(option, a)],
        "the longest": lambda option, q, a: len(option),
        "the most alike": lambda option, q, a: likeness(option, q.options),
        "the least alike": lambda option, q, a: -likeness(option, q.options),
    }
    for name, guesser in guessers.items():
        here = all_asked[half:] if name == "the most frequent" else all_asked
        guesses = [max(q.options, key=lambda option, q=q, a=a: guesser(option, q, a)) for q, a in here]
        hits = sum(guess == right_option(q) for guess, (q, _) in zip(guesses, here, strict=True))
        assert hits / len(here) < 0.25 + 3 * (0.25 * 0.75 / len(here)) ** 0.5, name


def test_an_hour_is_scripted_and_asked_about_at_once():
    started = time.process_time()
    ask_about(write_script(3, 60), 40)
    assert time.process_time() - started < 0.7


def test_too_many_questions_for_a_film_are_refused():
    with pytest.raises(LvqaError, match=r"film of 1 minutes has room for \d+ questions, 5000 were asked for"):
        ask_about(write_script(8, 1), 5000)


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


# --- films ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[Path, Path]:
    """The folder and the film of SEED."""
    folder = tmp_path_factory.mktemp("made")
    (path,) = make_videos(folder, num_videos=1, minutes=MINUTES, num_questions=QUESTIONS, seed=SEED)
    return folder, path


def mean_difference(one: np.ndarray, two: np.ndarray) -> float:
    return float(np.abs(one.astype(float) - two.astype(float)).mean())


PASSING = 1.25
"""Seconds after an event in which something may still come or go."""


def test_a_written_film_shows_its_script(made):
    video, film = inspect_video(made[1]), write_script(SEED, MINUTES)
    assert (video.height, video.width, video.frames_per_second) == (HEIGHT, WIDTH, 8)
    assert video.duration_seconds == film.duration_seconds
    assert sum(take.event is not None for take in film.takes) >= 3
    moments = sorted(
        (seconds, shot, take)
        for take in film.takes
        for shot in take.shots
        for seconds in (
            shot.start_seconds + (PASSING if shot is not take.shots[0] else 0),
            (shot.start_seconds + shot.end_seconds) // 2,
            shot.end_seconds - 1 / 8,
        )
    )
    times = [seconds for seconds, _, _ in moments]
    pixels = np.concatenate([batch.pixels for batch in read_frames(video, times, height=HEIGHT, width=WIDTH)])
    for (seconds, shot, take), shown in zip(moments, pixels, strict=True):
        assert mean_difference(shown, draw(shot.scene, seconds - shot.start_seconds)) < 6, seconds
        others = [other for other in film.takes if other is not take]
        assert all(mean_difference(shown, draw(other.shots[0].scene, 1)) > 12 for other in others), seconds


def happening(film: Film, kind: str) -> list[tuple[Take, float]]:
    """The takes in which it does, and when."""
    takes = [take for take in film.takes if take.event and take.event.kind == kind]
    return [(take, take.shots[1].start_seconds) for take in takes]


def drawn(shot: Shot, seconds: float, *, without: str = "") -> np.ndarray:
    """A time of the film by the shot, but for the thing of a shape."""
    things = tuple(thing for thing in shot.scene.things if thing.shape != without)
    return draw(dataclasses.replace(shot.scene, things=things), seconds - shot.start_seconds)


@pytest.mark.parametrize("kind", EVENTS)
def test_events_are_seen(films, kind):
    for take, at in happening(films[0], kind):
        before, after = take.shots
        assert np.array_equal(frame_at(take, at - 1 / 8), drawn(before, at - 1 / 8))
        assert np.array_equal(frame_at(take, at + PASSING), drawn(after, at + PASSING))
        if kind not in ("leaves", "enters", "hits"):
            assert np.array_equal(frame_at(take, at), drawn(after, at))


@pytest.mark.parametrize("kind", ["leaves", "enters"])
def test_things_come_and_go_over_the_nearer_side(films, kind):
    for take, at in happening(films[0], kind):
        _, after = take.shots
        x, _ = take.event.thing.at(0 if kind == "enters" else at - take.start_seconds)
        place_at = []
        for eighth in range(10):
            seconds = at + eighth / 8
            rest = drawn(after, seconds, without=take.event.thing.shape)
            changed = (frame_at(take, seconds) != rest).any(axis=(0, 2))
            place_at.append(float(np.flatnonzero(changed).mean()) if changed.any() else None)
        seen = [place for place in (place_at if kind == "leaves" else place_at[::-1]) if place is not None]
        assert place_at[0 if kind == "leaves" else -1] is not None
        assert place_at[-1 if kind == "leaves" else 0] is None
        assert all((b > a) if x > WIDTH / 2 else (b < a) for a, b in pairwise(seen[1:])), (x, seen)


def test_a_collision_flashes_where_the_things_touch(films):
    for take, at in happening(films[0], "hits"):
        one = take.event.thing
        x, y = one.at(at - take.start_seconds)
        flash = frame_at(take, at)[round(y), round(x + one.radius)]
        assert flash.tolist() == [255, 240, 120]
        assert np.array_equal(frame_at(take, at + 0.5), drawn(take.shots[1], at + 0.5))


def a_thing(**values) -> Thing:
    thing = Thing("red", "car", "big", "still", x=160.0, y=120.0, radius=50.0, speed=30.0)
    return dataclasses.replace(thing, **values)


def alone_drawn(thing: Thing, seconds: float) -> np.ndarray:
    """On nothing."""
    frame = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    draw_thing(frame, thing, seconds)
    return frame


def test_things_move_as_the_script_says():
    directions = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1), "still": (0, 0)}
    for shape, (motion, (dx, dy)) in product(ATTRIBUTES["shape"], directions.items()):
        thing = a_thing(shape=shape, motion=motion)
        for seconds in (0.5, 3.0):
            moved = np.roll(alone_drawn(thing, 0), (round(30 * seconds) * dy, round(30 * seconds) * dx), axis=(0, 1))
            assert mean_difference(alone_drawn(thing, seconds), moved) < 0.02  # smooth edges may be rounded anew


def test_things_spin_clockwise_in_their_place():
    for shape in ATTRIBUTES["shape"]:
        thing = a_thing(shape=shape, motion="spinning")
        start, quarter = (alone_drawn(thing, seconds)[20:221, 60:261] for seconds in (0, 90 / 65))
        assert mean_difference(quarter, np.rot90(start, -1)) < 3
        assert min(mean_difference(start, alone_drawn(thing, s)[20:221, 60:261]) for s in (0.3, 0.7, 1.0)) > 1


def test_what_leaves_on_one_side_enters_on_the_other():
    thing = a_thing(motion="right", x=310.0)
    columns = alone_drawn(thing, 0).any(axis=(0, 2))
    assert columns[:30].all() and columns[270:].all() and not columns[60:240].any()


def test_every_pair_of_values_looks_different():
    scene = dataclasses.replace(random_scene(np.random.default_rng(1)), things=(a_thing(),))
    changed = {
        **{name: [{name: value} for value in ATTRIBUTES[name]] for name in ("colour", "shape", "motion")},
        "size": [{"radius": radius} for radius in (58, 48, 33, 27)],
    }
    for name, changes in changed.items():
        scenes = [dataclasses.replace(scene, things=(a_thing(**change),)) for change in changes]
        looks_different([draw(one, 1.0) for one in scenes], name)
    for name in ("sign", "place"):
        looks_different([draw(dataclasses.replace(scene, **{name: value}), 0) for value in ATTRIBUTES[name]], name)


def looks_different(frames: list[np.ndarray], name: str) -> None:
    assert all(mean_difference(one, two) > 0.15 for i, one in enumerate(frames) for two in frames[:i]), name


def test_the_nearest_thing_is_the_nearest_that_is_painted():
    """On a world that wraps around; of a thing's form the rule knows the radius alone, so that close calls may err."""
    rng = np.random.default_rng(2)
    farther = []
    for _ in range(150):
        scene, seconds = random_scene(rng, int(rng.integers(2, 4))), float(rng.uniform(0, 30))
        distances = np.stack([distances_to(alone_drawn(thing, seconds)) for thing in scene.things])
        nearest = nearest_things(scene, seconds, ROWS, COLUMNS)
        assert nearest.shape == (ROWS * COLUMNS,)
        farther.append(distances[nearest, np.arange(ROWS * COLUMNS)] - distances.min(0))
    assert np.max(farther) < 30 and np.mean(np.array(farther) > 10) < 0.015


def distances_to(frame: np.ndarray) -> np.ndarray:
    """(12,) from the middle of each cell to the nearest painted pixel, around the edges, too."""
    blank = np.tile(~frame.any(axis=2), (3, 3)).astype(np.uint8)
    distance = cv2.distanceTransform(blank, cv2.DIST_L2, 5)[HEIGHT : 2 * HEIGHT, WIDTH : 2 * WIDTH]
    return distance[HEIGHT // ROWS // 2 :: HEIGHT // ROWS, WIDTH // COLUMNS // 2 :: WIDTH // COLUMNS].ravel()


def some_frames(path: Path) -> np.ndarray:
    return np.concatenate(
        [b.pixels for b in read_frames(inspect_video(path), [0, 20, 40, 59], height=HEIGHT, width=WIDTH)]
    )


def test_a_film_that_is_there_is_kept(tmp_path):
    def make() -> list[Path]:
        return make_videos(tmp_path, num_videos=2, minutes=1, num_questions=2, seed=6)

    first, second = make()
    kept, shown = first.stat().st_mtime_ns, some_frames(second)
    second.unlink()
    assert make() == [first, second]
    assert first.stat().st_mtime_ns == kept
    assert mean_difference(some_frames(second), shown) < 1  # x264 does not always write the same bytes
    lines = [json.loads(line) for line in (tmp_path / "video_info.meta.jsonl").read_text().splitlines()]
    assert [line["key"] for line in lines] == [first.stem, second.stem]
    assert [[told["uid"] for told in line["qa"]] for line in lines] == [["6-0", "6-1"], ["7-0", "7-1"]]


def test_an_interrupted_film_leaves_nothing(tmp_path):
    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_video(write_script(0, 1), tmp_path / "film.mp4", interrupt)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"num_videos": 0}, "films must be 1 or more, got 0"),
        ({"minutes": 0.5}, "minutes must be 1 or more, got 0.5"),
        ({"minutes": -1}, "minutes must be 1 or more, got -1"),
        ({"minutes": float("nan")}, "minutes must be 1 or more, got nan"),
        ({"minutes": float("inf")}, "minutes must be 1 to 1440, got inf"),
        ({"minutes": 1441}, "minutes must be 1 to 1440, got 1441"),
        ({"num_questions": 0}, "questions must be 1 or more, got 0"),
        ({"num_questions": 3000, "seed": 8}, "room for"),
        ({"seed": -1}, "seed must be 0 or more, got -1"),
    ],
)
def test_bad_numbers_are_refused_before_anything_is_written(tmp_path, changes, told):
    wanted = {"num_videos": 1, "minutes": 1, "num_questions": 1, "seed": 0} | changes
    with pytest.raises(LvqaError, match=re.escape(told)):
        make_videos(tmp_path / "films", **wanted)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "films").write_text("")
    with pytest.raises(LvqaError, match=r"cannot write films into .*films"):
        make_videos(tmp_path / "films", num_videos=1, minutes=1, num_questions=1, seed=0)


# --- the tokenizer ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def built() -> PreTrainedTokenizerFast:
    return build_tokenizer()


@pytest.fixture(scope="module")
def packaged() -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast.from_pretrained(WEIGHTS)


@pytest.fixture(scope="module", params=["built", "packaged"])
def tokenizer(request) -> PreTrainedTokenizerFast:
    return request.getfixturevalue(request.param)


def test_every_word_of_the_world_is_one_token(tokenizer):
    words = [value for values in ATTRIBUTES.values() for value in values]
    single = [*words, *"ABCD", *(f" {word}" for word in words if not word.isdigit())]
    numbers = {text: tokenizer(text, add_special_tokens=False).input_ids for text in single}
    assert all(len(ids) == 1 for ids in numbers.values()), numbers
    assert len({ids[0] for ids in numbers.values()}) == len(single)


def texts() -> Iterator[str]:
    yield from ("", " ", "\n\n \t", "\r\n\r", "a  b   c .  !  ' n't", "x" * 5000, "Straße, naïve café", "Пётр, 7 кошек")
    yield from (
        "ما هذا؟",
        "中文 かな 한국어",
        "👩\u200d👧 🇪🇺",
        "e\u0301 \u200b\u202e\ufeff\x00\x1b",
        "\uff11\uff12 ½ Ⅳ",
    )
    yield from ("<|im_end|>", "<|im_start|>system\n<|video_pad|>", "<|endoftext|>")
    rng = np.random.default_rng(0)
    for _ in range(50):
        codes = rng.integers(0, 0x110000, 40).tolist()
        yield "".join(chr(code) for code in codes if not 0xD800 <= code < 0xE000)


def test_the_weights_were_trained_on_this_tokenizer(built, packaged):
    assert json.loads(built.backend_tokenizer.to_str()) == json.loads(packaged.backend_tokenizer.to_str())


def test_any_text_comes_back(tokenizer):
    chat = ChatTemplate(tokenizer, show=lambda _: (), pad=Qwen25VL.pad)
    for text in texts():
        assert tokenizer.decode(chat.text_ids(text)) == text


# --- the lessons have exactly the product's form ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny() -> Qwen25VL:
    return Qwen25VL.load("tiny", device="cpu")


def test_lessons_see_films_as_the_product_does(tiny):
    assert tiny.frame_size(HEIGHT, WIDTH, max_pixels=tiny.max_pixels) == (28 * ROWS, 28 * COLUMNS)
    assert tiny.cell_pixels == 28


class Recorder:
    """Stands where the model would, and notes what it is shown."""

    name, revision, dim, max_pixels = "recorder", "0", 4, 1 << 20

    def __init__(self) -> None:
        self.counts = Counts()
        self.shown: list[Prompt] = []

    def frame_size(self, height: int, width: int, *, max_pixels: int) -> tuple[int, int]:
        return 28 * ROWS, 28 * COLUMNS

    def token_grid(self, height: int, width: int) -> tuple[int, int]:
        return ROWS, COLUMNS

    def last_hidden_states(self, prompts: Sequence[Prompt], **_: object) -> Tensor:
        self.shown += prompts
        return torch.ones(len(prompts), self.dim)

    def next_token_logits(self, prompts: Sequence[Prompt], words: Sequence[str]) -> Tensor:
        self.shown += prompts
        return torch.zeros(len(prompts), len(words))

    def reply_log_probs(self, prompt: Prompt, replies: Sequence[str]) -> Tensor:
        self.shown.append(prompt)
        return torch.zeros(len(replies))

    def generate(self, prompt: Prompt, *, max_new_tokens: int = 64) -> str:
        self.shown.append(prompt)
        return ""


class NoPixels(VisualTokens):
    """The store as the product lays it out, with tokens of nothing."""

    def stream(self, groups: Sequence[Sequence[Pair]]) -> Iterator[list[Tensor]]:
        for group in groups:
            yield [torch.zeros(ROWS * COLUMNS, 4) for _ in group]


class OpenTeacher(Teacher):
    """Keeps the film whose frames a lesson shows."""

    film: Film

    def _frames(self, film: Film, *, single: bool) -> list[Part]:
        self.film = film
        return super()._frames(film, single=single)


class Bench:
    """A teacher of 300 takes, and the product's rooms in front of a recorder."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, tiny: Qwen25VL) -> None:
        self.takes = random_takes(np.random.default_rng(3), 300)
        self.teacher = OpenTeacher(tokenizer, self.takes, seed=4)
        self.shots = [shot for take in self.takes for shot in take.shots]
        self.product = tiny
        self.chat = ChatTemplate(tokenizer, lay_out=tiny.lay_out, pad=tiny.pad, delimiters=tiny.delimiters)
        self.tokenizer = tokenizer
        self.recorder = Recorder()
        video = Video(Path("/film.mp4"), "film", 20_000.0, HEIGHT, WIDTH, 8.0)
        self.store = NoPixels(video, FrameGrid.exact(video, 1.0), self.recorder)

    def turns(self, lesson: Lesson) -> list[tuple[str, str]]:
        """What is asked and what is replied, turn by turn."""
        opening = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        turn = r"<\|im_start\|>user\n(.*?)<\|im_end\|>\n<\|im_start\|>assistant\n(.*?)<\|im_end\|>\n"
        text = self.tokenizer.decode(lesson.ids)
        assert re.fullmatch(f"{re.escape(opening)}(?:{turn})+", text, flags=re.DOTALL), text
        return re.findall(turn, text, flags=re.DOTALL)

    def read(self, lesson: Lesson) -> tuple[list[str], list[int]]:
        """The texts of the first user turn, and how many pairs stand between them."""
        content = self.turns(lesson)[0][0]
        cells = re.findall(r"<\|vision_start\|>((?:<\|video_pad\|>)+)<\|vision_end\|>", content)
        texts = re.split(r"<\|vision_start\|>.*?<\|vision_end\|>", content)
        return texts, [len(run) // (len("<|video_pad|>") * ROWS * COLUMNS) for run in cells]

    def block(self, num_pairs: int) -> ClipTokens:
        """A clip as the pipeline shows it."""
        (block,) = self.store.clips([[(2 * i, 2 * i + 1) for i in range(num_pairs)]])
        return block

    def check(self, lesson: Lesson) -> None:
        """The lesson up to its first reply is what the recorder was shown last: tokens, positions and places."""
        shown = self.chat.encode(self.recorder.shown.pop())
        length = lesson.targets[0].position + 1
        assert lesson.ids[:length] == shown.ids.tolist()
        assert [list(axis) for axis in zip(*lesson.positions[:length], strict=True)] == shown.positions.tolist()
        assert len(lesson.pairs) * ROWS * COLUMNS == int(shown.visual_mask.sum())

    def seen(self, lesson: Lesson) -> list[Seen]:
        """All things on the lesson's frames."""
        return everything([self.shot(pair) for pair in lesson.pairs])

    def shot(self, pair: int) -> Shot:
        return self.shots[pair if pair >= 0 else alone(pair)]

    def said(self, token: int) -> str:
        return str(self.tokenizer.decode([token])).strip()


@pytest.fixture(scope="module")
def bench(built, tiny) -> Bench:
    return Bench(built, tiny)


def shown_frames(starts: Sequence[int], num_pairs: Sequence[int], pairs: Sequence[int]) -> list[Pair]:
    """The grid frames of a lesson's blocks: each block runs on from its time; a negative pair is one frame."""
    scenes, frames = iter(pairs), []
    for start, n in zip(starts, num_pairs, strict=True):
        first = start
        for _ in range(n):
            frames.append((first, first + (next(scenes) >= 0)))
            first = frames[-1][1] + 1
    return frames


@pytest.mark.parametrize("task", ["answer", "course", "most"])
def test_lessons_of_questions_are_the_products_prompts(bench, task):
    checked: Counter[str] = Counter()
    while sum(checked.values()) < 60:
        lesson = bench.teacher.tasks[task]()
        texts, num_pairs = bench.read(lesson)
        times = [re.fullmatch(r"\[(\d\d+:\d\d)\]", text) for text in texts[:-1]]
        assert all(times), texts
        starts = [int(seconds_at(told[1])) for told in times]
        frames = shown_frames(starts, num_pairs, lesson.pairs)
        if len(runs_of_pairs(frames)) != len(starts):
            continue  # the product would show these as fewer runs
        stem, how = texts[-1].split("\n")
        is_word = how == "Answer with a word or a short phrase."
        question = Question(stem, ("one", "two") if is_word else ())
        Answerer(time_encoding="text", read="likelihood").answer(bench.recorder, [Asked(question, frames)], bench.store)
        bench.check(lesson)
        frames_show_their_film(bench, lesson, starts, num_pairs)
        for turn, (content, reply) in enumerate(bench.turns(lesson)):
            stem, how = content.rsplit("<|vision_end|>", 1)[-1].split("\n")
            assert how in ("Answer with a word or a short phrase.", "Answer the question briefly.")
            asking = understood(stem)
            assert asking.wording < len(ASKED[asking.kind]) - 1
            option = reply if how.startswith("Answer with") else unsaid(reply)
            assert {option} == truth(bench.teacher.film, asking).answers, (stem, reply)
            checked[f"{kind_of(asking)} {'word' if option == reply else 'sentence'}"] += turn == 0
    kinds = {"answer": ("attribute", "beside", "event"), "course": ("attribute", "at", "when", "after")}
    told = {kind.split()[0] for kind, number in checked.items() if number}
    assert told == set(kinds.get(task, ("most",)))
    assert {kind.split()[1] for kind, number in checked.items() if number} == {"word", "sentence"}


def frames_show_their_film(bench: Bench, lesson: Lesson, starts: Sequence[int], num_pairs: Sequence[int]) -> None:
    """Each at its time, which is told in whole seconds; every shot has one at least."""
    shots = [shot for take in bench.teacher.film.takes for shot in take.shots]
    pairs, seen = iter(lesson.pairs), []
    for start, n in zip(starts, num_pairs, strict=True):
        scenes = [bench.shot(next(pairs)).scene for _ in range(n)]
        here = [shot for shot in shots if shot.start_seconds - 1 < start < shot.end_seconds]
        (shot,) = (shot for shot in here if all(scene is shot.scene for scene in scenes))
        assert start + 2 * (n - 1) < shot.end_seconds
        seen += [] if seen[-1:] == [shot] else [shot]
    assert seen == shots


def test_rerank_lessons_are_the_products_prompts(bench):
    verdicts: Counter[str] = Counter()
    kinds = set()
    for _ in range(80):
        lesson = bench.teacher.rerank()
        (_, after), (num_pairs,) = bench.read(lesson)
        query = re.search(r"\nQuery: (.*)\nA\. Yes", after)
        assert query
        candidate = Candidate(Clip("film", 0, 16), embed_score=0.0)
        block = bench.block(num_pairs)
        reranker = MultipleChoice(layout="clip_first")
        reranker.rerank(bench.recorder, query[1], [candidate], lambda _, block=block: iter([block]))
        bench.check(lesson)
        asking = understood(query[1])
        fits = any(one.holds(asking.said) for one in bench.seen(lesson))
        assert bench.turns(lesson)[0][1] == ("A" if fits else "B")
        verdicts["A" if fits else "B"] += 1
        kinds.add(kind_of(asking))
    assert min(verdicts["A"], verdicts["B"]) > 20
    assert kinds == {"attribute", "beside", "event", "when", "after"}


SWITCHES = product([True, False], repeat=3)
EMBEDDERS = [
    *(Embedder(task=task, semantics=semantics, noise=noise) for task, semantics, noise in SWITCHES),
    Embedder(prompt="e5v"),
]


def embedder_behind(text: str, of: str) -> Embedder:
    """The embedder whose whole prompt for `of` the text ends with; of several the one with the longest prompt."""
    fitting = [embedder for embedder in EMBEDDERS if text.endswith(embedder._text(of))]
    return max(fitting, key=lambda embedder: len(embedder._text(of)))


def test_clip_word_lessons_are_the_products_prompts(bench):
    used = set()
    for _ in range(80):
        lesson = bench.teacher.clip_word()
        (nothing, text), (num_pairs,) = bench.read(lesson)
        assert nothing == ""
        embedder = embedder_behind(text, prompts.CLIP)
        embedder.clips(bench.recorder, [bench.block(num_pairs)])
        bench.check(lesson)
        words = {one.value(attribute) for one in bench.seen(lesson) for attribute in ATTRIBUTES}
        assert {bench.said(token) for token in lesson.targets[0].tokens} == words
        used.add(embedder)
    assert Embedder() in used and Embedder(prompt="e5v") in used


def test_query_word_lessons_are_the_products_prompts(bench):
    used = set()
    for _ in range(80):
        lesson = bench.teacher.query_word()
        (text,), _ = bench.read(lesson)
        query, prompt = text.split("\n", 1)
        embedder = embedder_behind(prompt, prompts.QUERY)
        embedder.query(bench.recorder, query)
        bench.check(lesson)
        words = {bench.said(token) for token in lesson.targets[0].tokens}
        assert words == set(understood(query).said.values())
        used.add(embedder)
    assert Embedder() in used and Embedder(prompt="e5v") in used


def test_captions_tell_all_of_the_scene(bench):
    for _ in range(30):
        lesson = bench.teacher.caption()
        ((_, caption),) = bench.turns(lesson)
        thing = rf"the (\w+) (\w+) (\w+) ({MOTION})"
        form = rf"{thing}(?: and {thing})*? ({PLACE}) with the (?:number|word) (\w+)\."
        found = re.fullmatch(form, caption[0].lower() + caption[1:])
        assert found, caption
        scene = bench.seen(lesson)[0].shot.scene
        assert (last_word(found[9]), found[10]) == (scene.place, scene.sign)
        told = [(*words, last_word(motion)) for *words, motion in re.findall(thing, caption, flags=re.IGNORECASE)]
        assert sorted(told) == sorted((t.size, t.colour, t.shape, t.motion) for t in scene.things)


def test_drills_say_what_holds(bench):
    """As far as their items are written out."""
    phrases = questions = 0
    for _ in range(10):
        lesson = bench.teacher.match_drill()
        items = bench.tokenizer.decode(lesson.ids).split("\n")
        for phrase, verdict in ((item[:-1], item[-1]) for item in items if re.fullmatch(f"{THING}[AB]", item)):
            said = said_in(re.fullmatch(THING, phrase))
            assert verdict == ("A" if any(one.holds(said) for one in bench.seen(lesson)) else "B")
            phrases += 1
        lesson = bench.teacher.scene_drill()
        for item in re.findall(r"\n(\w+ .+[?.]\w+)", bench.tokenizer.decode(lesson.ids).split("assistant\n")[1]):
            text, value = re.fullmatch(r"(.*[?.])(\w+)", item).groups()
            asking = understood(text)
            assert {one.value(asking.what) for one in bench.seen(lesson) if one.holds(asking.said)} == {value}
            questions += 1
    assert min(phrases, questions) > 30


def test_positions_follow_the_rule_in_every_lesson(bench):
    start, pad = bench.tokenizer.convert_tokens_to_ids(["<|vision_start|>", "<|video_pad|>"])
    for make, _ in product(bench.teacher.tasks.values(), range(5)):
        lesson = make()
        assert lesson.ids.count(pad) == len(lesson.pairs) * ROWS * COLUMNS
        if any(pair < 0 for pair in lesson.pairs):
            continue  # single frames stand closer together; `check` compares theirs with the product's
        runs: list[int | VisualTokenSpan] = [0]
        place = 0
        while place < len(lesson.ids):
            if lesson.ids[place] != pad:
                runs[-1] += 1
                place += 1
                continue
            assert lesson.ids[place - 1] == start
            cells = next(i for i, token in enumerate(lesson.ids[place:]) if token != pad)
            temporal = bench.product.temporal(bench.block(cells // (ROWS * COLUMNS)))
            runs += [VisualTokenSpan(temporal, ROWS, COLUMNS), 0]
            place += cells
        assert [list(axis) for axis in zip(*lesson.positions, strict=True)] == position_ids(runs).tolist()


def test_the_token_after_a_target_is_one_of_the_right_ones(bench):
    for make, _ in product(bench.teacher.tasks.values(), range(5)):
        lesson = make()
        assert lesson.targets
        assert all(lesson.ids[target.position + 1] in target.tokens for target in lesson.targets)


def test_every_token_of_a_reply_is_a_target(bench):
    for task, _ in product(("answer", "course", "most", "rerank", "caption"), range(5)):
        lesson = bench.teacher.tasks[task]()
        judged = [lesson.ids[target.position + 1] for target in lesson.targets]
        replies = "".join(f"{reply}<|im_end|>" for _, reply in bench.turns(lesson))
        assert bench.tokenizer.decode(judged) == replies


def test_lessons_follow_from_the_seed(built, bench):
    for name in bench.teacher.tasks:
        one, two = (Teacher(built, bench.takes, seed=9).tasks[name]() for _ in range(2))
        assert one == two
        assert one != Teacher(built, bench.takes, seed=10).tasks[name]()


# --- the training -----------------------------------------------------------------------------------------------------


def test_lessons_in_one_row_do_not_see_each_other(built, bench):
    """The packed loss is that of every lesson read by itself, by the library."""
    model = build_model(built, seed=0)
    model.model.language_model.config._attn_implementation = "sdpa"
    rng = np.random.default_rng(1)
    lessons = [bench.teacher.tasks[task]() for task in ("answer", "rerank", "caption", "match drill", "query word")]
    pad = built.convert_tokens_to_ids("<|video_pad|>")
    batch = pack(lessons, rng, (2, 1024), moments=2, visual_token=pad)
    seen = torch.from_numpy(rng.normal(size=(len(bench.teacher.scenes), 3, ROWS * COLUMNS, 192)).astype(np.float32))
    with torch.no_grad():
        loss, _ = lesson_loss(model, seen, [torch.from_numpy(field) for field in batch[:-1]], text_weight=0.0)
        surprises = []
        for number, lesson in enumerate(sorted(lessons, key=lambda lesson: -len(lesson.ids))):
            row, here = np.nonzero(batch.lesson == number)
            row, here = row[: len(lesson.ids)], here[: len(lesson.ids)]
            assert batch.ids[row, here].tolist() == lesson.ids
            states = model.model.language_model.embed_tokens(torch.tensor([lesson.ids]))
            at = np.flatnonzero(batch.scene[row, here] >= 0)
            shown = (batch.scene[row, here][at], batch.moment[row, here][at], batch.cell[row, here][at])
            states[0, at] = seen[shown]
            positions = torch.tensor(lesson.positions).T[:, None]
            read = model.model.language_model(inputs_embeds=states, position_ids=positions, use_cache=False)
            log_probs = model.lm_head(read.last_hidden_state)[0].log_softmax(-1)
            surprises += [-log_probs[t.position, list(t.tokens)].mean() for t in lesson.targets]
    assert len(surprises) == len(batch.tasks)
    assert float(loss) == pytest.approx(float(torch.stack(surprises).mean()), abs=1e-4)


STAGES = (
    Stage(name="vision", steps=3, learning_rate=1e-3, pairs=4),
    Stage(name="speak", steps=4, learning_rate=2e-3, mix={"rerank": 0.5, "caption": 0.5}, rows=1, row_tokens=256),
    Stage(name="caption", steps=4, learning_rate=1e-3, mix={"caption": 1.0}, rows=1, row_tokens=128),
)


class ShortCourse(Course):
    """Few takes, and a plug to pull."""

    takes_per_reel, num_reels, num_held_out_reels, exam_rows = 6, 2, 1, 1


class EndsBetweenStages(ShortCourse):
    def _trained(self, stage: Stage) -> list[torch.nn.Parameter]:
        if self.stage == 1:
            raise KeyboardInterrupt
        return super()._trained(stage)


class EndsAfterAStage(ShortCourse):
    def _save(self, optimizer: torch.optim.Optimizer | None) -> None:
        if optimizer is None:
            raise KeyboardInterrupt
        super()._save(optimizer)


class EndsWithinAStage(ShortCourse):
    """Saves as every 500th step does, but at the second."""

    ends_in = 1

    def _learn_from(self, batch: Batch, trained: Sequence[torch.nn.Parameter]) -> None:
        if (self.stage, self.step) == (self.ends_in, 2):
            self._save(made_optimizers[-1])
            raise KeyboardInterrupt
        super()._learn_from(batch, trained)


class EndsWithinTheLastStage(EndsWithinAStage):
    ends_in = 2


made_optimizers: list[torch.optim.Optimizer] = []


@pytest.fixture(scope="module")
def one_tokenizer(built) -> Iterator[None]:
    """Built once for all courses."""
    with pytest.MonkeyPatch.context() as patch:
        for room in ("material", "training"):
            patch.setattr(f"lvqa.synthetic.{room}.build_tokenizer", lambda: built)
        yield


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory, one_tokenizer) -> dict[str, Tensor]:
    course = ShortCourse(tmp_path_factory.mktemp("unbroken"), seed=1, device="cpu", stages=STAGES)
    before = {name: value.clone() for name, value in course.model.state_dict().items()}
    course.run()
    after = course.model.state_dict()
    moved = {name for name in after if not torch.equal(before[name], after[name])}
    assert any("visual" in name for name in moved) and any("language_model.layers" in name for name in moved)
    return after


def test_a_checkpoint_of_other_words_is_refused(tmp_path, unbroken):
    course = ShortCourse(tmp_path, seed=1, device="cpu", stages=STAGES[:0])
    course._save(None)
    saved = torch.load(course.checkpoint, weights_only=True)
    saved["vocabulary"]["lilac"] = saved["vocabulary"].pop("Ġred")
    torch.save(saved, course.checkpoint)
    with pytest.raises(LvqaError, match="other words; train into another folder"):
        ShortCourse(tmp_path, seed=1, device="cpu", stages=STAGES[:0]).run()


@pytest.mark.parametrize("broken", [EndsBetweenStages, EndsAfterAStage, EndsWithinAStage, EndsWithinTheLastStage])
def test_training_goes_on_where_it_stopped(tmp_path, monkeypatch, unbroken, broken):
    class Noted(torch.optim.AdamW):
        def __init__(self, *args, **options) -> None:
            super().__init__(*args, **options)
            made_optimizers.append(self)

    monkeypatch.setattr(torch.optim, "AdamW", Noted)
    with pytest.raises(KeyboardInterrupt):
        broken(tmp_path, seed=1, device="cpu", stages=STAGES).run()
    course = ShortCourse(tmp_path, seed=1, device="cpu", stages=STAGES)
    course.run()
    resumed = course.model.state_dict()
    assert all(torch.equal(value, resumed[name]) for name, value in unbroken.items())
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".part"] == []


def test_workers_change_nothing_of_the_training(tmp_path, unbroken):
    course = ShortCourse(tmp_path, seed=1, device="cpu", stages=STAGES, workers=1)
    course.run()
    assert all(torch.equal(value, unbroken[name]) for name, value in course.model.state_dict().items())
    lines = [json.loads(line) for line in course.log.path.read_text().splitlines()]
    assert [(line["stage"], line.get("step")) for line in lines if line.get("split", "held out") == "held out"] == [
        ("vision", 3),
        ("look", None),
        ("look", None),
        ("speak", 4),
        ("caption", 4),
    ]
    assert {"rerank", "caption", "end", "loss"} <= set(lines[-2]) and "names shape" in lines[0]


# --- the packaged model -----------------------------------------------------------------------------------------------


def test_the_packaged_model_is_small_and_whole(tiny):
    size = sum(path.stat().st_size for path in WEIGHTS.iterdir())
    assert size <= WEIGHTS_MB * 1e6
    shown = [("What colour is the star?",), (a_clip(tiny), "Describe the video clip in one sentence.")]
    states = tiny.last_hidden_states(shown)
    assert states.shape == (2, tiny.dim) and bool(torch.isfinite(states).all())


def a_clip(tiny: Qwen25VL) -> ClipTokens:
    pixels = np.stack([draw(random_scene(np.random.default_rng(0)), second)[::2, ::2] for second in (0.0, 1.0)])
    tokens = tiny.encode_pairs(pixels[None, :, : 28 * ROWS, : 28 * COLUMNS])
    return ClipTokens(tokens, ROWS, COLUMNS)


def test_the_packaged_model_answers_when_shown_the_moment(made, tmp_path):
    qa = LongVideoQA.load("tiny", overrides=["model.device=cpu", f"store.folder={tmp_path}"])
    questions = ask_about(write_script(SEED, MINUTES), QUESTIONS)
    answers = [qa.answer(made[1], question, frames=16, method="oracle") for question in questions]
    assert sum(answer.option == answer.question.answer for answer in answers) >= ORACLE_RIGHT_AT_LEAST

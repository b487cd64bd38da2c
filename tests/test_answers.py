"""What a user of the package sees of an answer, and which options can be asked about."""

import dataclasses

import pytest

import lvqa
from lvqa.pipeline import LongVideoQA
from lvqa.records import Answer, Candidate, Clip, Counts, LvqaError, Question, counted
from lvqa.validation import check_question

ANSWER = Answer(
    question=Question("What is there?", ("red", "blue")),
    text="blue",
    option="B",
    option_scores=(0.1, 0.9),
    model="tiny",
    method="freeret",
    frames_budget=16,
    frames=tuple(map(float, range(16))),
    evidence=tuple(Candidate(Clip("v", 16.0 * i, 16.0 * (i + 1)), 0.5, 0.9) for i in range(3, 200)),
    index=None,
    counts=Counts(),
    seconds={"answer": 0.1},
)


def test_an_answer_prints_short():
    assert repr(ANSWER) == "Answer(B, 'blue': tiny, freeret, 16 frames, best evidence at 48 s)"
    free = dataclasses.replace(ANSWER, option=None, text="It is blue.\n" * 50, frames=(1.0,), evidence=())
    assert repr(free).startswith("Answer('It is blue.") and repr(free).endswith(": tiny, freeret, 1 frame)")
    assert len(repr(free)) < 150 and "\n" not in repr(free)


def test_the_package_lists_its_names():
    assert {"LongVideoQA", "Question", "Answer", "LvqaError"} <= {*dir(lvqa)}


def test_a_number_and_its_noun():
    assert [counted(n, "clip") for n in (0, 1, 2)] == ["0 clips", "1 clip", "2 clips"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("left,right", "options must be a list of texts, got 'left,right'"),
        (5, "options must be a list of texts, got 5"),
        ((1, 2), "an option must be text, got 1"),
        (("left", "right", "left "), "two options are equal: 'left'"),
    ],
)
def test_options_are_distinct_texts(options, message):
    with pytest.raises(LvqaError, match=message):
        LongVideoQA.load("tiny", overrides=["model.device=cpu"]).ask("video.mp4", "Where?", options=options)


def test_benchmarks_may_have_equal_options():
    check_question(Question("Where?", ("left", "left")))


def test_a_question_is_text():
    with pytest.raises(LvqaError, match="the question must be text, got None"):
        check_question(Question(None))  # type: ignore[arg-type]

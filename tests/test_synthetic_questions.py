"""Questions about synthetic videos: one correct option each, balanced, and not to be guessed."""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from collections.abc import Sequence

import pytest
from synthetic_truth import (
    MOMENT,
    WORDINGS,
    ParsedQuestion,
    correct_option,
    parse_clock,
    parse_question,
    truth,
    twenty_scripts,
)

from lvqa.records import LvqaError, Question
from lvqa.synthetic.questions import KIND_SHARES, ask_about
from lvqa.synthetic.script import VideoScript, write_script
from lvqa.synthetic.videos import annotation
from lvqa.synthetic.world import ATTRIBUTES, HEIGHT, WIDTH


@pytest.fixture(scope="module")
def by_video() -> list[tuple[VideoScript, list[tuple[Question, ParsedQuestion]]]]:
    """Forty questions about each of twenty videos, and what they ask for."""
    return [
        (script, [(question, parse_question(question.text)) for question in ask_about(script, 40)])
        for script in twenty_scripts()
    ]


@pytest.fixture(scope="module")
def questions(by_video) -> list[tuple[Question, ParsedQuestion]]:
    """The questions about all videos."""
    return [pair for _, pairs in by_video for pair in pairs]


def test_fewer_questions_are_the_first_of_more():
    script = write_script(3, 60)
    assert ask_about(script, 5) == ask_about(script, 24)[:5]


@pytest.mark.slow
def test_exactly_one_option_is_correct(by_video):
    """One take alone matches the description; the other options are of the video and not correct."""
    for script, pairs in by_video:
        for question, parsed in pairs:
            expected = truth(script, parsed)
            assert expected.answers == {correct_option(question)}, question
            assert len(set(question.options)) == 4
            if parsed.kind == "event":
                verbs = [option.split()[1] for option in question.options]
                assert len(set(verbs)) == 4, question
                assert {"turns", "stops", "leaves", "enters", "hits", "number"} >= set(verbs)
            else:
                assert set(question.options) - expected.answers <= expected.options, question
            assert question.tags == expected.tags
            assert question.evidence_seconds == expected.span


@pytest.mark.slow
def test_descriptions_have_no_more_attributes_than_needed(questions):
    for question, parsed in questions:
        if parsed.kind == "event":
            assert {"colour", "shape", "place"} <= set(parsed.description) <= {"colour", "shape", "place", "sign"}
        else:
            assert len(parsed.description) in {"at": (0, 1), "most": (0,)}.get(parsed.kind, (3, 4)), question.text
        if parsed.kind in ("attribute", "at"):
            assert parsed.attribute not in parsed.description


@pytest.mark.slow
def test_questions_are_distinct_and_belong_to_their_video(by_video):
    for script, pairs in by_video:
        questions = [question for question, _ in pairs]
        assert len({question.text for question in questions}) == len({question.id for question in questions}) == 40
        assert {question.video_id for question in questions} == {script.key}


@pytest.mark.slow
def test_letters_are_balanced_and_all_kinds_occur(questions):
    letters = Counter(question.answer for question, _ in questions)
    assert all(0.2 < letters[letter] / len(questions) < 0.3 for letter in "ABCD"), letters
    kinds = Counter(parsed.kind for _, parsed in questions)
    assert set(kinds) == set(KIND_SHARES)
    for kind, share in KIND_SHARES.items():
        # Not every video shows something much longer than all else, and there are few ways to ask for it.
        tolerance = (0.04, 0.01) if kind == "most" else (0.035, 0.035)
        assert share - tolerance[0] < kinds[kind] / len(questions) < share + tolerance[1], kinds
    answers = {(parsed.attribute, correct_option(question)) for question, parsed in questions}
    assert answers >= {(attribute, value) for attribute in MOMENT for value in ATTRIBUTES[attribute]}
    tags = {tag for question, _ in questions for tag in question.tags}
    assert len(tags) == 6


@pytest.mark.slow
def test_wordings_vary_and_some_are_held_out(questions):
    wordings = {(parsed.wording_kind, parsed.wording) for _, parsed in questions}
    assert wordings == {(kind, i) for kind, texts in WORDINGS.items() for i in range(len(texts) - 1)}
    held_out = [write_script(seed, 60) for seed in range(900_000, 900_010)]
    parsed = [parse_question(question.text) for script in held_out for question in ask_about(script, 40)]
    assert {(one.wording_kind, one.wording) for one in parsed} == {
        (kind, i) for kind, texts in WORDINGS.items() for i in range(len(texts))
    }


@pytest.mark.slow
def test_questions_and_options_alone_do_not_give_the_answer_away(questions):
    """Neither the option that is most often correct in other videos helps, nor how the options are written."""
    half = len(questions) // 2

    def gist(option: str, parsed: ParsedQuestion) -> tuple[str, str, str]:
        return parsed.kind, parsed.attribute, option.split()[1 if parsed.kind == "event" else -1]

    frequency = Counter(gist(correct_option(q), p) for q, p in questions[:half])

    def likeness(option: str, options: Sequence[str]) -> int:
        return sum(len(set(option) & set(other)) + 5 * len({*option.split()} & {*other.split()}) for other in options)

    guessers = {
        "the most frequent": lambda option, q, p: frequency[gist(option, p)],
        "the longest": lambda option, q, p: len(option),
        "the most alike": lambda option, q, p: likeness(option, q.options),
        "the least alike": lambda option, q, p: -likeness(option, q.options),
    }
    for name, guesser in guessers.items():
        sample = questions[half:] if name == "the most frequent" else questions
        guesses = [max(q.options, key=lambda option, q=q, p=p: guesser(option, q, p)) for q, p in sample]
        hits = sum(guess == correct_option(q) for guess, (q, _) in zip(guesses, sample, strict=True))
        assert hits / len(sample) < 0.25 + 3 * (0.25 * 0.75 / len(sample)) ** 0.5, name


@pytest.mark.slow
def test_the_work_grows_with_the_minutes_and_no_faster():
    def num_calls(minutes: int) -> int:
        events = Counter[str]()
        sys.setprofile(lambda frame, event, arg: events.update([event]))
        try:
            ask_about(write_script(3, minutes), 40)
        finally:
            sys.setprofile(None)
        return events["call"]

    assert num_calls(120) < 2.5 * num_calls(60) < 1_000_000


@pytest.mark.slow
def test_too_many_questions_for_a_video_are_refused():
    message = r"synthetic video of 1 minutes has room for \d+ questions, 5000 were requested"
    with pytest.raises(LvqaError, match=message):
        ask_about(write_script(8, 1), 5000)


@pytest.mark.slow
def test_annotations_have_lvbenchs_layout(by_video):
    for script, pairs in by_video[:5]:
        questions = [question for question, _ in pairs]
        line = json.loads(json.dumps(annotation(script, questions)))
        assert set(line) == {"key", "type", "qa", "video_info"}
        assert line["type"] == "synthetic video"
        assert line["video_info"] == {
            "duration_minutes": 60.0,
            "fps": 8,
            "resolution": {"width": WIDTH, "height": HEIGHT},
        }
        for item, question in zip(line["qa"], questions, strict=True):
            assert set(item) == {"uid", "question", "answer", "question_type", "time_reference"}
            stem, *options = item["question"].split("\n")
            assert stem == question.text
            assert options == [f"({letter}) {text}" for letter, text in zip("ABCD", question.options, strict=True)]
            assert (item["answer"], item["question_type"]) == (question.answer, list(question.tags))
            times = re.fullmatch(r"(\d\d+:[0-5]\d)-(\d\d+:[0-5]\d)", item["time_reference"])
            assert times
            start, end = parse_clock(times[1]), parse_clock(times[2])
            first, last = question.evidence_seconds
            assert first <= start < end <= last and start - first < 1 and last - end < 1

"""How others read the letter of a generated reply. Their rules are kept as they are, odd ones too.

Each function takes a reply and the question, and returns a letter, or None where the source finds none. Some sources
then draw a letter at random; here such a reply is wrong. `tests/golden/protocols.json` has what the sources' own
functions read in 200 replies.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

from lvqa.datasets import lvbench
from lvqa.records import LETTERS, Question

Read = Callable[[str, Question], str | None]
"""Returns the letter that a reply names."""

MORE_THAN_A_LETTER = 5
"""A reply of more words may be read by the text of an option."""


# --- one rule for all questions --------------------------------------------------------------------------------------


def first_letter(letters: str, *, without: Sequence[str] = ()) -> Read:
    """Return a reader of the first capital letter of a reply that can be an option's, wherever it stands.

    Args:
        letters: The letters that can be an option's.
        without: Phrases with such letters in them, which are taken out before.
    """

    def read(reply: str, _: Question) -> str | None:
        for phrase in without:
            reply = reply.replace(phrase, "")
        match = re.search(f"[{letters}]", reply)
        return match[0] if match else None

    return read


def last_letter_alone(letters: str) -> Read:
    """Return a reader of the last capital letter that has no letter next to it."""

    def read(reply: str, _: Question) -> str | None:
        letters_alone: list[str] = re.findall(f"(?<![a-zA-Z])[{letters}](?![a-zA-Z])", reply)
        return letters_alone[-1] if letters_alone else None

    return read


def letter_before_bracket(reply: str, _: Question) -> str | None:
    """Return what stands before the first ")", or the whole reply without one; None unless it is a letter."""
    letter = reply.split(")")[0][-1:] if ")" in reply else reply
    return letter if len(letter) == 1 and letter in LETTERS else None


def first_character(reply: str, _: Question) -> str | None:
    """Return the first character without brackets, as LVBench's scripts do."""
    return lvbench.first_character(reply) or None


# --- lmms-eval -------------------------------------------------------------------------------------------------------

_PHRASES = (
    *("the answer is", "answer is", "the correct answer is", "correct answer is", "the best answer is"),
    *("best answer is", "the correct option is", "correct option is", "the best option is", "best option is"),
    *("the choice is", "choice is", "the correct choice is", "correct choice is", "my answer is", "my choice is"),
    *("i choose", "i select", "i pick", "옵션", "정답은", "답은", "답:", "答案是", "答案为", "选", "答えは"),
)
"""What announces an answer."""


def ranked_letter(letters: str) -> Read:
    """Return lmms-eval's reader of most tasks: the last letter in the surest of several forms."""

    def read(reply: str, _: Question) -> str | None:
        text = _stripped(reply, ",.!?;:'\"")
        if not text:
            return None
        for form in (_at_the_start, _at_the_end, _after_a_phrase):
            if places := list(form(text, letters)):
                return max(places, key=lambda place: place[0])[1]
        padded = f" {text} "
        for pattern in ("({})", "{}.", "{}:", "{})", "{} ", "{}"):
            places = [(padded.rfind(pattern.format(letter)), letter) for letter in letters]
            position, letter = max(places, key=lambda place: place[0])
            if position >= 0:
                return letter
        return None

    return read


def _stripped(reply: str, characters: str) -> str:
    """Return a reply without spaces at its ends, and then without each of these characters in turn."""
    text = reply.strip()
    for character in characters:
        text = text.strip(character)
    return text


def _at_the_start(text: str, letters: str) -> Iterator[tuple[int, str]]:
    text = text.strip()
    if text[:1] in tuple(letters) and not text[1:2].isalpha():
        yield 0, text[0]


def _at_the_end(text: str, letters: str) -> Iterator[tuple[int, str]]:
    text = text.strip()
    if text[-1:] in tuple(letters) and not text[-2:-1].isalpha():
        yield 0, text[-1]


def _after_a_phrase(text: str, letters: str) -> Iterator[tuple[int, str]]:
    """Yield each letter's first place behind the first occurrence of each phrase."""
    for phrase in _PHRASES:
        start = text.lower().find(phrase)
        if start >= 0:
            places = ((text.find(letter, start + len(phrase)), letter) for letter in letters)
            yield from (place for place in places if place[0] >= 0)


def first_of_several(reply: str, question: Question) -> str | None:
    """Return the letter of EgoSchema's task in lmms-eval: of all forms, the one whose last place is the first."""
    text = f" {_stripped(reply, _ENDS)} "
    forms = [(letter, form.format(letter)) for form in ("({})", "{} ", "{}.") for letter in question.letters]
    places = [(text.rfind(form), letter) for letter, form in forms if form in text]
    places = places or _places_of_options(text, question, "{letter}. {option}")
    return min(places, key=lambda place: place[0])[1] if places else None


def last_of_several(reply: str, question: Question) -> str | None:
    """Return the letter of NExT-QA's task in lmms-eval: of the first form that is there, the one that comes last."""
    text = f" {_stripped(reply, _ENDS)} "
    for form, position in (("({})", "({})"), ("{} ", " {} "), ("{}.", " {} ")):
        places = [
            (text.rfind(position.format(letter)), letter) for letter in question.letters if form.format(letter) in text
        ]
        if places:
            return max(places, key=lambda place: place[0])[1]
    places = _places_of_options(text, question, "{option}")
    return max(places, key=lambda place: place[0])[1] if places else None


_ENDS = ",.!?;:'"


def _places_of_options(text: str, question: Question, form: str) -> list[tuple[int, str]]:
    """Return where options, in this form, stand last in a reply of more than a few words, with their letters."""
    if len(text.split()) <= MORE_THAN_A_LETTER:
        return []
    places = (
        (text.lower().rfind(form.format(letter=letter, option=option.strip()).lower()), letter)
        for letter, option in zip(question.letters, question.options, strict=True)
    )
    return [place for place in places if place[0] >= 0]


# --- VLMEvalKit ------------------------------------------------------------------------------------------------------


def bracket_or_inferred(reply: str, question: Question) -> str | None:
    """Return VLMEvalKit's letter for MLVU, without a model as its judge.

    A reply has two chances to be right: by the letter before the first bracket, and by what can be inferred.
    """
    letter = letter_before_bracket(reply, question)
    return letter if letter is not None and letter == question.answer else inferred_letter(reply, question)


def inferred_letter(reply: str, question: Question) -> str | None:
    """Return the only letter that stands alone near the end of a reply, or that of the only option in it."""
    if any(refusal in reply for refusal in _REFUSALS):
        return None
    words = re.sub(r"[.()\[\],:;!*#{}]", " ", reply).split()
    alone = [letter for letter in question.letters if letter in words]
    if len(alone) == 1 and words.index(alone[0]) > len(words) - 5:
        return alone[0]
    if not alone and "Z" in words:
        return None
    verbose = re.search(r"(?i)answer\s+is\s+\**([ABCD])\**", reply)
    if verbose and verbose[1].upper() in question.letters:
        return verbose[1].upper()
    if len(reply) > 2 * sum(map(len, question.options)):
        return None
    texts = zip(question.letters, question.options, strict=True)
    inside = [letter for letter, option in texts if option.lower() in reply.lower()]
    return inside[0] if len(inside) == 1 else None


_REFUSALS = (
    *("Failed to obtain answer via API", "Sorry, I can't help with images of people yet."),
    *("I can't process this file.", "I'm sorry, but without the image provided", "Cannot determine the answer"),
)

"""What letter a generated text names, and that none is made up."""

import pytest

from lvqa.answering import named_letter

OPTIONS = ("red", "blue", "green", "a red car")


@pytest.mark.parametrize(
    "text",
    [
        *("B", " B\n", "B.", "(B)", "[B]", "{B}", "**B**", "`B`", '"B"', "\\boxed{B}", "<answer>B</answer>"),
        *("B. blue", "B) blue", "(B) blue", "B: blue", "B - blue", "B \u2013 blue", "B.\nIt is blue.", "**B.** blue"),
        *("Option B", "option B.", "Answer: B", "Answer:B", "answer: (B)", "The answer is B", "The answer is (B)."),
        *("The correct option is B.", "The best answer is B because A is wrong.", "THE ANSWER IS: B"),
        *("I see blue (B)", "A. red\nB. blue\nThe answer is B", "(A) is wrong, so the answer is (B)"),
        *("blue", "Blue.", "  BLUE  "),
    ],
)
def test_a_named_letter_is_read(text):
    assert named_letter(text, OPTIONS) == "B"


@pytest.mark.parametrize(
    "text",
    [
        *("", " \n", ".", "E", "E. yellow", "BB", "B's", "b", "Blueish", "A.M.", "it is blue or so"),
        *("A car", "A and B", "(A) or (B)", "A. red\nB. blue", "It contains vitamin C.", "I can't tell"),
        *("Option A is wrong, option B is right", "The answer is A. No, the answer is B.", "The answer is not A"),
    ],
)
def test_no_letter_is_made_up(text):
    assert named_letter(text, OPTIONS) is None


def test_the_article_is_not_the_letter_a():
    assert named_letter("A red car", OPTIONS) == "D"  # the text of an option, in any case of letters
    assert named_letter("A blue car", OPTIONS) is None


def test_an_option_that_is_there_twice_is_named_by_its_letter_alone():
    options = ("red", "blue", "Blue")
    assert named_letter("blue", options) is None
    assert named_letter("C", options) == "C"


def test_letters_are_those_of_the_options():
    assert named_letter("C", ("yes", "no")) is None
    assert named_letter("E", tuple("vwxyz")) == "E"
    assert named_letter("A", ()) is None

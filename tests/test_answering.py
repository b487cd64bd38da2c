"""What letter a generated text names, and that none is made up."""

import pytest

from lvqa.letters import named_letter

OPTIONS = ("red", "blue", "green", "a red car")

NAMING_B = [
    *("B", " B\n", "B.", "(B)", "[B]", "{B}", "**B**", "`B`", '"B"', "\\boxed{B}", "<answer>B</answer>", "B!", "- B"),
    *("B. blue", "B) blue", "(B) blue", "B: blue", "B - blue", "B \u2013 blue", "B.\nIt is blue.", "**B.** blue"),
    *("B; blue", "B, because it is blue", "B because A is wrong"),
    *("Option B", "option B.", "Answer: B", "Answer:B", "answer: (B)", "The answer is B", "The answer is (B)."),
    *("The correct option is B.", "The best answer is B because A is wrong.", "THE ANSWER IS: B", "Answer B"),
    *("The answer to the question is B.", "The correct answer is option B.", "The answer would be B."),
    *("The answer is most likely B.", "My answer is: B", "So the final answer: B", "The answer is B, not A"),
    *("### Answer\nB", "**Answer:** B", "**Final Answer**: (B)", "The answer is **B. blue**", "Answer: Option B"),
    *("Answer: $B", "Answer: $B$", "\\boxed{\\text{B}}", "$\\boxed{B}$", "Final answer: \\(B\\)"),
    *("I see blue (B)", "A. red\nB. blue\nThe answer is B", "(A) is wrong, so the answer is (B)"),
    *("I think it is B.", "It's B.", "It must be B.", "I would choose B.", "Therefore, B.", "My pick: B"),
    *("B is correct.", "I believe option B is correct.", "So B would be the best answer"),
    *("<think>maybe (A)</think>B", "maybe (A)</think>\n\nB", "<think>A</think><answer>B</answer>"),
    *("<thinking>The answer is A</thinking>\nThe answer is B.", "◁think▷A or B◁/think▷B"),
    *("blue", "Blue.", "  BLUE  ", "Answer: blue", "The answer is blue.", "The answer is blue, since it is bright"),
]
IN_OTHER_SCRIPTS = [
    *("\uff22", "\uff08B\uff09", "\uff08\uff22\uff09", "【B】", "「B」", "B。", "B、因为是蓝色"),
    *("答案是B", "答案\uff1aB", "正确答案是\uff08B\uff09。", "选B", "我选择B。", "应该是B", "B是正确的"),
    *("正解はBです", "答えはBです。", "정답은 B입니다.", "정답: B"),
    *(
        "La réponse est B.",
        "Die Antwort ist B.",
        "La respuesta es B.",
        "La risposta è B",
        "A resposta é B.",
        "Ответ: B",
    ),
]
NAMING_NOTHING = [
    *("", " \n", ".", "E", "E. yellow", "BB", "B's", "b", "Blueish", "A.M.", "B2", "B-roll", "it is blue or so"),
    *("A car", "A blue car is seen", "The answer is A blue car", "It contains vitamin C.", "I can't tell", "I think"),
    *("A and B", "A or B", "A/B", "A, B", "A B", "(A) or (B)", "Both B and C", "Either A or B.", "neither B nor C"),
    *("Answer: A or B", "The answer is A, B or C", "答案是A或B", "Answer: red or blue", "A. red\nB. blue"),
    *("The answer is A. No, the answer is B.", "The answer is red. The answer is blue"),
    *("Option A is wrong, option B is right", "A is wrong and B is correct"),
    *("The answer is not A", "The answer can't be B.", "It is not B.", "It isn't B", "I wouldn't choose B"),
    *("不是B", "答案不是B", "不选B", "La réponse n'est pas B.", "None of the above"),
    *("<think>(A)", "<think>The answer is B", "<think>B</think>", "<think>B</think> I can't tell"),
]


def test_the_table_is_long_enough():
    assert len(NAMING_B + IN_OTHER_SCRIPTS) >= 60


@pytest.mark.parametrize("text", NAMING_B + IN_OTHER_SCRIPTS)
def test_a_named_letter_is_read(text):
    assert named_letter(text, OPTIONS) == "B"


@pytest.mark.parametrize("text", NAMING_NOTHING)
def test_no_letter_is_made_up(text):
    assert named_letter(text, OPTIONS) is None


@pytest.mark.parametrize(
    "text", ["The answer is A red car.", "A red car", "A red car.", "Answer: A red car", "B. A red car", "B"]
)
def test_the_article_is_not_the_letter_a(text):
    assert named_letter(text, ("red", "A red car", "blue", "green")) == "B"


def test_the_text_of_an_option_names_it():
    assert named_letter("A red car", OPTIONS) == "D"  # in any case of letters
    assert named_letter("Both A and B", ("left", "right", "both A and B")) == "C"
    assert named_letter("The answer is 3", ("5", "3")) == "B"
    assert named_letter("A", ("B", "A")) == "A"  # an option that is a letter is named by its own


def test_a_text_that_contradicts_its_letter_names_nothing():
    assert named_letter("The answer is B\nThe answer is red", OPTIONS) is None


def test_an_option_that_is_there_twice_is_named_by_its_letter_alone():
    options = ("red", "blue", "Blue")
    assert named_letter("blue", options) is None
    assert named_letter("C", options) == "C"


def test_letters_are_those_of_the_options():
    assert named_letter("C", ("yes", "no")) is None
    assert named_letter("E", tuple("vwxyz")) == "E"
    assert named_letter("I", tuple("rstuvwxyz")) == "I"
    assert named_letter("I think so", tuple("rstuvwxyz")) is None
    assert named_letter("A", ()) is None

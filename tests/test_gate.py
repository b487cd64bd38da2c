"""What the model takes a question to be about: asked once for each text, and only for a selector that uses it."""

from pathlib import Path

import numpy as np
import pytest
from stored_pages import stored_answer

from lvqa.cli.answers import answer_text
from lvqa.costs import CostMeter
from lvqa.evaluation import load_run_config
from lvqa.evaluation.run import evaluate
from lvqa.gate import ask_kinds
from lvqa.output import answer_json
from lvqa.prompts import question_kind
from lvqa.records import QUESTION_KINDS, Question
from lvqa.selection import SELECTORS, SelectorInput, make_selector
from lvqa.selection.contract import check_selector
from lvqa.web import write_page

GATED = """
    class Gated:
        '''As many frames from the beginning as the whole is likely, and evenly spaced ones where nothing was asked.'''

        needs_scores = False
        uses_kind = True

        def select(self, inputs):
            if inputs.question_kind is None:
                return inputs.evenly_spaced()
            moment, order, whole = inputs.question_kind
            first = round(whole * (len(inputs) - inputs.budget))
            return inputs.selection(range(first, first + inputs.budget))
"""
GATE = "selection.gate=true"


@pytest.fixture
def gated(write_plugin) -> str:
    return str(write_plugin(GATED, "gated.py"))


def test_a_selector_that_uses_it_is_told_what_the_model_says(make, tiny, video, gated, tmp_path):
    qa = make(GATE)
    answer = qa.ask(video, "What is seen?", method=gated, frames=4)
    kind = answer.question_kind
    assert kind is not None and len(kind.probabilities) == 3 and sum(kind.probabilities) == pytest.approx(1)
    logits = tiny.next_token_logits([(question_kind("What is seen?"),)], ["A", "B", "C"])
    assert kind.probabilities == pytest.approx(logits.double().softmax(dim=1)[0].tolist())
    first = round(kind.probabilities[2] * 56)
    assert answer.frames == tuple(range(first, first + 4))
    assert "gate" in answer.seconds

    assert answer_json(answer, ())["question_kind"] == dict(zip(QUESTION_KINDS, kind.probabilities, strict=True))
    assert f"the question is about: moment {kind.probabilities[0]:.2f}, order" in answer_text(answer, ())
    write_page(tmp_path / "a.html", answer, qa.inspect_video(video), evidence=())
    expected = dict(zip(QUESTION_KINDS, kind.probabilities, strict=True))
    assert stored_answer(tmp_path / "a.html")["question_kind"] == expected


def test_a_question_is_read_once_while_the_video_is_open(make, tiny, video, gated):
    qa = make(GATE)
    first, again = (qa.ask(video, "What is seen?", method=gated, frames=n) for n in (4, 8))
    tokens, _ = tiny.prompt_length((question_kind("What is seen?"),))
    assert first.question_kind.cost.counts.tokens_prefilled == tokens > 0
    assert first.counts.tokens_prefilled == tokens + first.answer_cost.counts.tokens_prefilled
    assert again.question_kind == first.question_kind and again.question_kind.cost == first.question_kind.cost
    assert again.counts.tokens_prefilled == again.answer_cost.counts.tokens_prefilled
    assert "gate" not in again.seconds


def test_questions_are_asked_about_together_each_text_once(tiny, make, video):
    meter = CostMeter(tiny.counts)
    texts = ["What is seen?", "", "What comes after the car?", "What is seen?"]

    def kinds_of(some, meter):
        with make().open(video) as session:
            return ask_kinds(tiny, session, [Question(text) for text in some], meter)

    kinds = kinds_of(texts, meter)
    assert kinds[1] is None and kinds[0] == kinds[3] != kinds[2]
    assert list(meter.seconds) == ["gate"]
    assert meter.counts.tokens_prefilled == sum(kinds[i].cost.counts.tokens_prefilled for i in (0, 2))
    alone = [kinds_of([text], CostMeter(tiny.counts))[0] for text in texts]
    for kind, expected in zip(kinds, alone, strict=True):
        assert (kind is None) == (expected is None)
        assert kind is None or kind.probabilities == pytest.approx(expected.probabilities, abs=1e-5)


@pytest.mark.parametrize(("setting", "method"), [("selection.gate=false", None), (GATE, "uniform")])
def test_it_is_not_asked_where_nothing_uses_it(make, video, gated, setting, method):
    answer = make(setting).ask(video, "What is seen?", method=method or gated, frames=4)
    assert answer.question_kind is None and "gate" not in answer.seconds
    assert answer.counts.tokens_prefilled == answer.answer_cost.counts.tokens_prefilled
    assert answer.frames == (7, 22, 37, 52)


def test_no_method_of_a_paper_uses_it(gated):
    assert not any(make().uses_kind for name, make in SELECTORS.items() if name in ("freeret", "uniform", "router"))
    assert make_selector("router", {"otherwise": gated}).uses_kind


@pytest.mark.parametrize("kind", [(1, 0), (0.5, 0.4, 0.2), (1.5, -0.5, 0), (np.nan, 0, 0)])
def test_an_input_refuses_what_are_no_probabilities(kind):
    with pytest.raises(ValueError, match="question_kind must have a probability for each of moment, order, whole"):
        SelectorInput(np.arange(9), 3, question_kind=kind)


@pytest.mark.slow
def test_the_contract_tries_it(tmp_path, gated):
    assert set(check_selector(gated).values()) == {None}
    undeclared = tmp_path / "undeclared.py"
    undeclared.write_text(Path(gated).read_text().replace("uses_kind = True", "pass"))
    problems = [problem for problem in check_selector(str(undeclared)).values() if problem]
    assert problems == ["uses_kind is false, and another kind of the question gives other frames"]


@pytest.mark.slow
def test_rows_have_it_with_what_it_cost(video, gated, tmp_path):
    folder = tmp_path / "own"
    (folder / "videos").mkdir(parents=True)
    (folder / "videos" / "garden.mp4").symlink_to(video)
    (folder / "questions.csv").write_text("video,question,options,answer\ngarden,What is seen?,a car|a dog,A\n")
    (tmp_path / "run.yaml").write_text(
        "model: {name: tiny, device: cpu}\nframes: [3]\n"
        f"benchmark: {{name: own, folder: {folder}}}\nstore: {{folder: {tmp_path / 'store'}}}\n"
        f"arms:\n  - {{name: gated, method: {gated}, settings: {{selection.gate: true}}}}\n"
        f"  - {{name: again, method: uniform, settings: {{answer.look_again: 1, selection.gate: true}}}}\n"
        f"  - {{name: plain, method: {gated}}}\n"
    )
    rows = {row["arm"]: row for row in evaluate(load_run_config(tmp_path / "run.yaml"), tmp_path / "run").rows}
    assert [rows[arm]["question_kind"] is None for arm in ("gated", "again", "plain")] == [False, True, True]
    assert sum(rows["gated"]["question_kind"]) == pytest.approx(1, abs=1e-5)
    assert "gate" in rows["gated"]["seconds"] and "gate" not in rows["plain"]["seconds"]
    assert rows["gated"]["counts"]["tokens_prefilled"] > rows["plain"]["counts"]["tokens_prefilled"]
    assert [rows[arm]["looked_again"] is None for arm in ("gated", "again", "plain")] == [True, False, True]
    assert len(rows["again"]["times_seconds"]) == (3 if rows["again"]["looked_again"] else 2)

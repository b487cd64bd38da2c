"""What a question says about time reaches a selector that uses it, and stands in the answer, JSON, page and rows."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from stored_pages import stored_answer

from lvqa.cli.main import lvqa_command
from lvqa.evaluation import load_run_config
from lvqa.evaluation.run import evaluate
from lvqa.plugins import is_file_name
from lvqa.selection import SELECTORS, SelectorInput, make_selector
from lvqa.selection.contract import check_selector
from lvqa.temporal import TemporalReading, read_temporal
from lvqa.video import inspect_video
from lvqa.web import write_page

NEAREST = """
    class Nearest:
        '''The frames nearest to the time that the question names.'''

        needs_scores = False
        uses_reading = True

        def select(self, inputs):
            if inputs.reading is None or not inputs.reading.spans:
                return inputs.evenly_spaced()
            start, _ = inputs.reading.spans[0]
            return inputs.selection(abs(inputs.times_seconds - start).argsort(kind="stable")[: inputs.budget])
"""
AT_TIME = "What is seen at 0:21?"


@pytest.fixture
def nearest(write_plugin) -> str:
    """The file of a selector that uses the reading."""
    return str(write_plugin(NEAREST, "nearest.py"))


def test_the_reading_reaches_a_selector_that_uses_it_and_the_answer(make, video, nearest, tmp_path):
    qa = make()
    answer = qa.ask(video, AT_TIME, method=nearest, frames=3)
    assert (answer.frames, answer.time_read) == ((20, 21, 22), "0:21")
    write_page(tmp_path / "a.html", answer, inspect_video(video), evidence=())
    page = stored_answer(tmp_path / "a.html")
    assert (page["time_read"], page["time_spans"]) == ("0:21", [[21.0, 21.0]])

    untimed = qa.ask(video, "What is seen?", method=nearest, frames=3)
    assert (untimed.frames, untimed.time_read) == ((10, 30, 50), "")
    write_page(tmp_path / "b.html", untimed, inspect_video(video), evidence=())
    page = stored_answer(tmp_path / "b.html")
    assert (page["time_read"], page["time_spans"]) == ("", [])


def test_the_setting_switches_it_off(make, video, nearest):
    qa = make("selection.read_times=false")
    answer = qa.ask(video, AT_TIME, method=nearest, frames=3)
    assert (answer.frames, answer.time_read) == ((10, 30, 50), None)
    # Settings of one call count, as those of an arm do.
    settings = dataclasses.replace(qa.config.selection, read_times=True)
    answer = qa.answer(video, answer.question, selection=settings, method=nearest, frames=3)
    assert (answer.frames, answer.time_read) == ((20, 21, 22), "0:21")


@pytest.mark.parametrize("method", ["uniform", "blind"])
def test_a_method_that_does_not_use_it_is_told_nothing(make, video, method):
    assert make().ask(video, AT_TIME, method=method, frames=3).time_read is None


def test_no_method_of_a_paper_uses_it():
    assert not SELECTORS["freeret"]().uses_reading and not SELECTORS["uniform"]().uses_reading


def test_a_selector_around_another_uses_what_that_one_uses(nearest, tmp_path):
    assert make_selector("router", {"otherwise": nearest}).uses_reading
    assert not make_selector("router").uses_reading
    (tmp_path / "scores.json").write_text(json.dumps({"v": [{"question_id": "q", "frames": [0], "scores": [1]}]}))
    scored = dataclasses.replace(make_selector("topk", scores=tmp_path / "scores.json"), inner=make_selector(nearest))
    assert is_file_name(nearest) and scored.uses_reading
    reading = read_temporal(AT_TIME, 60)
    inputs = SelectorInput(np.arange(60), 1, video_name="v", question_id="q", reading=reading)
    assert scored.select(inputs).times_seconds == (21,)


@pytest.mark.slow
def test_the_contract_tries_readings(tmp_path, nearest):
    assert set(check_selector(nearest).values()) == {None}
    undeclared = tmp_path / "undeclared.py"
    undeclared.write_text(Path(nearest).read_text().replace("uses_reading = True", "pass"))
    problems = [problem for problem in check_selector(str(undeclared)).values() if problem]
    assert problems == ["uses_reading is false, and another reading of the question's time gives other frames"]
    careless = tmp_path / "careless.py"
    careless.write_text(Path(nearest).read_text().replace("inputs.reading is None or ", ""))
    assert any("AttributeError" in (problem or "") for problem in check_selector(str(careless)).values())


def test_an_input_says_what_was_read_in_words():
    read = [SelectorInput(np.arange(9), 3, reading=reading).time_read for reading in (None, TemporalReading())]
    assert read == [None, ""]
    assert SelectorInput(np.arange(9), 3, reading=read_temporal(AT_TIME, 60)).time_read == "0:21"


def run(*arguments: object) -> str:
    result = CliRunner().invoke(lvqa_command, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.mark.slow
def test_the_command_shows_it(video, nearest, tmp_path):
    ask = ("ask", video, AT_TIME, "--model", "tiny", "--method", nearest, "-s", f"store.folder={tmp_path / 'store'}")
    assert "time read from the question: 0:21" in run(*ask).splitlines()
    assert json.loads(run(*ask, "--json"))["time_read"] == "0:21"


@pytest.mark.slow
def test_rows_have_it(video, nearest, tmp_path):
    folder = tmp_path / "own"
    (folder / "videos").mkdir(parents=True)
    (folder / "videos" / "garden.mp4").symlink_to(video)
    (folder / "questions.csv").write_text(f"video,question,options,answer\ngarden,{AT_TIME},a car|a dog,A\n")
    (tmp_path / "run.yaml").write_text(
        "model: {name: tiny, device: cpu}\nframes: [3]\n"
        f"benchmark: {{name: own, folder: {folder}}}\nstore: {{folder: {tmp_path / 'store'}}}\n"
        f"arms:\n  - {{method: uniform}}\n  - {{name: named, method: {nearest}}}\n"
        f"  - {{name: unread, method: {nearest}, settings: {{selection.read_times: false}}}}\n"
    )
    rows = {row["arm"]: row for row in evaluate(load_run_config(tmp_path / "run.yaml"), tmp_path / "run").rows}
    assert {arm: row["time_read"] for arm, row in rows.items()} == {"uniform": None, "named": "0:21", "unread": None}
    assert rows["named"]["times_seconds"] == [20, 21, 22]
    assert rows["unread"]["times_seconds"] == rows["uniform"]["times_seconds"]

"""Frames that were chosen elsewhere, and scores that were given elsewhere, answered from here."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

from lvqa.cli.main import lvqa_command
from lvqa.components import selector_of
from lvqa.config import load_config
from lvqa.evaluation import load_run_config
from lvqa.evaluation.run import evaluate
from lvqa.records import LvqaError
from lvqa.selection import SelectorInput
from lvqa.selection.files import read_scores, read_selections
from lvqa.synthetic.videos import make_videos

TIMES = np.arange(10.0)


def grid(num_frames: int = 4, question: str = "q") -> SelectorInput:
    return SelectorInput(TIMES, num_frames, video_id="v", video_name="film", question_id=question)


@pytest.fixture
def chosen(tmp_path):
    def write(*frames: float):
        path = tmp_path / "chosen.json"
        path.write_text(json.dumps({"film.mp4": [{"question_id": "q", "frames": list(frames)}]}))
        return selector_of(load_config(), str(path))

    return write


def test_chosen_frames_go_to_the_nearest_of_the_grid(chosen):
    assert chosen(0.4, 2.6, 3.4, 99).select(grid()).times_seconds == (0.0, 3.0, 9.0)
    assert chosen(7).select(grid()).times_seconds == (7.0,)


def test_more_frames_than_were_asked_for_are_refused(chosen):
    with pytest.raises(LvqaError, match=r"has 5 frames for question 'q' of video 'film', and the budget is 4"):
        chosen(1, 2, 3, 4, 5).select(grid())


def test_a_question_that_is_not_there_is_named(chosen):
    with pytest.raises(LvqaError, match="has nothing for question 'other' of video 'film'"):
        chosen(1).select(grid(question="other"))


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(LvqaError, match=r"cannot read .*none\.json"):
        selector_of(load_config(), str(tmp_path / "none.json")).select(grid())


def test_frames_from_a_file_take_no_options(tmp_path):
    with pytest.raises(LvqaError, match="takes no options"):
        selector_of(load_config(None, ["selection.options.power=2"]), "chosen.json")


@pytest.mark.parametrize("method", ["topk", "freeret", "bolt"])
def test_scores_from_a_file_stand_in_for_the_models(tmp_path, method):
    path = tmp_path / "scores.json"
    rows = [{"question_id": "q", "frames": [9, 2, 6.6, 0], "scores": [0.1, 0.9, 0.8, None]}]
    path.write_text(json.dumps({"film": rows}))
    selector = selector_of(load_config(None, [f"selection.scores={path}"]), method)
    assert not selector.needs_scores, "nothing is indexed, embedded or reranked for it"
    inside = selector.select(grid(2)).times_seconds
    assert len(inside) == 2 and set(inside) <= {2.0, 3.0, 4.0, 5.0, 6.0, 7.0}
    if method == "topk":
        assert selector.select(grid(3)).times_seconds == (2.0, 3.0, 4.0), "as near to 2 as to 6.6, or nearer"


def test_a_selector_without_scores_needs_no_file(tmp_path):
    selector = selector_of(load_config(None, [f"selection.scores={tmp_path / 'none.json'}"]), "uniform")
    assert len(selector.select(grid()).times_seconds) == 4


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ([[1, 2]], "must be a mapping"),
        ({"film": 3}, "must be a list, each item a mapping"),
        ({"film": [{"question_id": "q", "frames": [1]}]}, "scores must be a list"),
        ({"film": [{"question_id": "q", "frames": [1], "scores": []}]}, "a score for each frame"),
        ({"film": [{"question_id": "q", "frames": [], "scores": []}]}, "a score for each frame"),
        ({"film": [{"question_id": "q", "frames": [-1], "scores": [1]}]}, "seconds, 0 or more"),
        ({"film": [{"question_id": "q", "frames": [1], "scores": ["good"]}]}, "a finite number, or null"),
        ({"film": [{"question_id": "q", "frames": [1], "scores": [1]}] * 2}, "stands there twice"),
    ],
)
def test_bad_scores_are_one_line(tmp_path, tree, message):
    path = tmp_path / "scores.json"
    path.write_text(json.dumps(tree))
    with pytest.raises(LvqaError, match=message) as caught:
        read_scores(path)
    assert "\n" not in str(caught.value)


def test_what_a_run_chose_goes_out_and_comes_back(tmp_path):
    """Out of a run in every format, into one that names its questions, and asked as arms: the same answers."""
    films = tmp_path / "films"
    make_videos(films, num_videos=2, minutes=1, num_questions=2, seed=30)
    settings = ["model.name=tiny", f"store.folder={tmp_path / 'store'}", "frames=[4]"]
    settings.append(f"benchmark={{name: lvbench, folder: {films}}}")
    first = evaluate(load_run_config(None, [*settings, "arms=[{method: topk}]"]), tmp_path / "first")

    def convert(source, target, *words):
        told = CliRunner().invoke(
            lvqa_command, ["selections", str(source), str(target), "--folder", str(films), *words]
        )
        assert told.exit_code == 0, told.output
        assert "4 of 4 questions" in told.stdout

    formats = ("bolt", "aks", "videoitg", "wfs")
    for format in formats:
        out, back = tmp_path / f"{format}.json", tmp_path / f"{format}-back.json"
        convert(tmp_path / "first", out, "--arm", "topk", "--frames", "4", "--format", format)
        convert(out, back)
        if format == "bolt":
            assert read_selections(back) == read_selections(out)
    arms = ", ".join(f"{{name: {format}, method: {tmp_path / f'{format}-back.json'}}}" for format in formats)
    again = evaluate(load_run_config(None, [*settings, f"arms=[{arms}]"]), tmp_path / "again")
    for format in formats:
        assert [(row["times_seconds"], row["prediction"]) for row in again.rows if row["arm"] == format] == [
            (row["times_seconds"], row["prediction"]) for row in first.rows
        ]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--arm", "topk"], "--arm needs the budget"),
        (["--arm", "topk", "--frames", "4"], "none"),
        (["--format", "xml"], "the format must be one of aks, bolt, videoitg, wfs"),
    ],
)
def test_bad_conversions_are_one_line(tmp_path, words, message):
    make_videos(tmp_path, num_videos=1, minutes=1, num_questions=1, seed=30)
    source = tmp_path / "none"
    if "--format" in words:
        source = tmp_path / "chosen.json"
        source.write_text("[[1]]")
    told = CliRunner().invoke(
        lvqa_command, ["selections", str(source), str(tmp_path / "o"), "--folder", str(tmp_path), *words]
    )
    assert told.exit_code == 1 and message in told.stderr and told.stderr.count("\n") == 1

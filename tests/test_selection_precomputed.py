"""Precomputed selections and scores, read from files."""

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


def inputs(num_frames: int = 4, question: str = "q") -> SelectorInput:
    return SelectorInput(TIMES, num_frames, video_id="v", video_name="video", question_id=question)


@pytest.fixture
def precomputed(tmp_path):
    """Return a function that makes the selector of a file with these frames."""

    def write(*frames: float):
        path = tmp_path / "chosen.json"
        path.write_text(json.dumps({"video.mp4": [{"question_id": "q", "frames": list(frames)}]}))
        return selector_of(load_config(), str(path))

    return write


def test_frames_go_to_the_nearest_frame(precomputed):
    assert precomputed(0.4, 2.6, 3.4, 99).select(inputs()).times_seconds == (0.0, 3.0, 9.0)
    assert precomputed(7).select(inputs()).times_seconds == (7.0,)


def test_more_frames_than_the_budget_are_refused(precomputed):
    with pytest.raises(LvqaError, match=r"has 5 frames for question 'q' of video 'video', and the budget is 4"):
        precomputed(1, 2, 3, 4, 5).select(inputs())


def test_a_missing_question_is_named(precomputed):
    with pytest.raises(LvqaError, match="has nothing for question 'other' of video 'video'"):
        precomputed(1).select(inputs(question="other"))


ROWS = [
    {"question_id": "q1", "question": "What colour is  the car?", "frames": [1, 2], "scores": [0.9, 0.1]},
    {"question_id": "q2", "question": "Who drives?", "frames": [7], "scores": [1]},
    {"question_id": "q3", "question": "Who drives?", "frames": [8], "scores": [1]},
    {"question_id": "q4", "frames": [9], "scores": [1]},
]


def ask_by_text(tmp_path, text, name="video", key="video.mp4", option="method"):
    """Select for a question that has no id, as `lvqa ask` does."""
    path = tmp_path / "chosen.json"
    path.write_text(json.dumps({key: ROWS}))
    inputs_by_text = SelectorInput(
        TIMES, 2, video_id="0123456789abcdef", video_name=name, question_id=text, question_text=text
    )
    if option == "method":
        return selector_of(load_config(), str(path)).select(inputs_by_text).times_seconds
    return selector_of(load_config(None, [f"selection.scores={path}"]), "topk").select(inputs_by_text).times_seconds


def test_a_question_without_an_id_is_known_by_its_text(tmp_path):
    assert ask_by_text(tmp_path, "What colour is the car?") == (1.0, 2.0)
    assert ask_by_text(tmp_path, "What colour is the car?", option="scores") == (0.0, 1.0)
    assert ask_by_text(tmp_path, "What colour is the car?", name="other", key="0123456789abcdef") == (1.0, 2.0)
    assert ask_by_text(tmp_path, "q4") == (9.0,), "an id will do as well"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            {"text": "Why?"},
            r"has nothing for question with the text 'Why\?' of video 'video'; it has 4 questions of this video: "
            r"'q1' \('What colour is  the car\?'\), 'q2' \('Who drives\?'\), 'q3' .*, 'q4'$",
        ),
        ({"text": "Why?", "name": "renamed"}, r"of video 'renamed'; it has 1 video, named as .* suffix: 'video'$"),
        ({"text": "Who drives?"}, "different frames for questions 'q2', 'q3', which have the same text"),
    ],
)
def test_what_a_file_has_is_in_the_message(tmp_path, words, message):
    with pytest.raises(LvqaError, match=message):
        ask_by_text(tmp_path, **words)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(LvqaError, match=r"cannot read .*none\.json"):
        selector_of(load_config(), str(tmp_path / "none.json")).select(inputs())


def test_frames_from_a_file_take_no_options(tmp_path):
    with pytest.raises(LvqaError, match="takes no options"):
        selector_of(load_config(None, ["selection.options.power=2"]), "chosen.json")


@pytest.mark.parametrize("method", ["topk", "freeret", "bolt"])
def test_scores_from_a_file_replace_the_models(tmp_path, method):
    path = tmp_path / "scores.json"
    rows = [{"question_id": "q", "frames": [9, 2, 6.6, 0], "scores": [0.1, 0.9, 0.8, None]}]
    path.write_text(json.dumps({"video": rows}))
    selector = selector_of(load_config(None, [f"selection.scores={path}"]), method)
    assert not selector.needs_scores, "nothing is indexed, embedded or reranked for it"
    chosen = selector.select(inputs(2)).times_seconds
    assert len(chosen) == 2 and set(chosen) <= {2.0, 3.0, 4.0, 5.0, 6.0, 7.0}
    if method == "topk":
        assert selector.select(inputs(3)).times_seconds == (2.0, 3.0, 4.0), "as near to 2 as to 6.6, or nearer"


def test_a_selector_without_scores_needs_no_file(tmp_path):
    selector = selector_of(load_config(None, [f"selection.scores={tmp_path / 'none.json'}"]), "uniform")
    assert len(selector.select(inputs()).times_seconds) == 4


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ([[1, 2]], "must be a mapping"),
        ({"video": 3}, "must be a list, each item a mapping"),
        ({"video": [{"question_id": "q", "frames": [1]}]}, "scores must be a list"),
        ({"video": [{"question_id": "q", "frames": [1], "scores": []}]}, "a score for each frame"),
        ({"video": [{"question_id": "q", "frames": [], "scores": []}]}, "a score for each frame"),
        ({"video": [{"question_id": "q", "frames": [-1], "scores": [1]}]}, "seconds, 0 or more"),
        ({"video": [{"question_id": "q", "frames": [1], "scores": ["good"]}]}, "a finite number, or null"),
        ({"video": [{"question_id": "q", "frames": [1], "scores": [1]}] * 2}, "stands there twice"),
    ],
)
def test_bad_scores_are_one_line(tmp_path, tree, message):
    path = tmp_path / "scores.json"
    path.write_text(json.dumps(tree))
    with pytest.raises(LvqaError, match=message) as caught:
        read_scores(path)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_the_selections_of_a_run_can_be_exported_and_imported(run, settings, tmp_path):
    """The answers stay the same through every format, and back to one that names its questions."""
    folder, first = run.config.benchmark.folder, [row for row in run.rows if row["arm"] == "topk"]

    def convert(source, target, *arguments):
        result = CliRunner().invoke(
            lvqa_command, ["selections", str(source), str(target), "--folder", str(folder), *arguments]
        )
        assert result.exit_code == 0, result.output
        assert f"{len(first)} of {len(first)} questions" in result.stdout

    formats = ("bolt", "aks", "videoitg", "wfs")
    for format in formats:
        exported, imported = tmp_path / f"{format}.json", tmp_path / f"{format}-back.json"
        convert(run.folder, exported, "--arm", "topk", "--frames", "4", "--format", format)
        convert(exported, imported)
        if format == "bolt":
            assert read_selections(imported) == read_selections(exported)
    arms = ", ".join(f"{{name: {format}, method: {tmp_path / f'{format}-back.json'}}}" for format in formats)
    again = evaluate(load_run_config(settings, ["frames=[4]", f"arms=[{arms}]"]), tmp_path / "again")
    for format in formats:
        assert [(row["times_seconds"], row["prediction"]) for row in again.rows if row["arm"] == format] == [
            (row["times_seconds"], row["prediction"]) for row in first
        ]
    ask = ["--model", "tiny", "--store", str(tmp_path / "store"), "--frames", "4", "--json", "--quiet", "--method"]
    for row in first[:: len(first) - 1]:  # of each video one
        video = folder / "videos" / f"{row['video_id']}.mp4"
        result = CliRunner().invoke(
            lvqa_command, ["ask", str(video), row["question"], *ask, str(tmp_path / "bolt.json")]
        )
        assert [frame["time_seconds"] for frame in json.loads(result.stdout)["frames"]] == row["times_seconds"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--arm", "topk"], "--arm needs the budget"),
        (["--arm", "topk", "--frames", "4"], "none"),
        (["--format", "xml"], "the format must be one of aks, bolt, videoitg, wfs"),
    ],
)
@pytest.mark.slow
def test_bad_conversions_are_one_line(tmp_path, arguments, message):
    make_videos(tmp_path, num_videos=1, minutes=1, num_questions=1, seed=30)
    source = tmp_path / "none"
    if "--format" in arguments:
        source = tmp_path / "chosen.json"
        source.write_text("[[1]]")
    result = CliRunner().invoke(
        lvqa_command, ["selections", str(source), str(tmp_path / "o"), "--folder", str(tmp_path), *arguments]
    )
    assert result.exit_code == 1 and message in result.stderr and result.stderr.count("\n") == 1

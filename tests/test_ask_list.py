"""`lvqa ask VIDEO --questions FILE`: many questions about one video, without a run folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import video_files
from click.testing import CliRunner, Result

from lvqa.cli.main import lvqa_command
from lvqa.datasets import load_dataset, questions_about
from lvqa.pipeline import LongVideoQA
from lvqa.records import SYNTHETIC_TAG, LvqaError, Question

TABLE = """video,question,options,answer,id,evidence
garden,What is seen?,a ball|a box,B,g1,0:02-0:04
garden,Two alike?,a|a,A,g2,
elsewhere,Where?,a|b,A,e1,
,What is heard?,,a bell,g3,
"""


@pytest.fixture(scope="module")
def video(tmp_path_factory) -> Path:
    """20 seconds; it stands for a video of the user."""
    path = tmp_path_factory.mktemp("own") / "videos" / "garden.mkv"
    path.parent.mkdir()
    return video_files.write_video(path, 100, fps=5, metadata={"comment": SYNTHETIC_TAG})


@pytest.fixture
def ask(video, tmp_path, monkeypatch):
    """Ask the questions of a table in this process; `code` is the exit code that is expected."""
    monkeypatch.setenv("LVQA_HOME", str(tmp_path / "store"))
    monkeypatch.chdir(tmp_path)

    def run(table: str, *words: str, code: int = 0) -> Result:
        (tmp_path / "list.csv").write_text(table)
        common = ("--questions", "list.csv", "--model", "tiny", "--device", "cpu")
        result = CliRunner().invoke(lvqa_command, ["ask", str(video), *common, *words])
        assert result.exit_code == code, result.output
        return result

    return run


def write(folder: Path, text: str, name: str = "q.csv") -> Path:
    path = folder / name
    path.write_text(text)
    return path


# --- what is read ----------------------------------------------------------------------------------------------------


def test_the_questions_are_those_that_a_benchmark_of_your_own_reads(video, tmp_path):
    table = "video,question,options,answer,tags,evidence\ngarden,What?,a|b,B,x|y,1:05-2:00\ngarden,Why?,,because,,\n"
    folder = video.parent.parent
    (task,) = load_dataset("own", write(folder, table, "questions.csv").parent).tasks
    listed = questions_about(folder / "questions.csv", video)
    assert listed.questions == task.questions and listed.other_videos == listed.unread == ()
    assert task.path == folder / "videos" / "garden" or task.path.samefile(video)


@pytest.mark.parametrize(
    "name", ["garden", "garden.mkv", "{video}", "videos/garden.mkv", "./garden", "../own/videos/garden.mkv"]
)
def test_a_video_goes_by_its_name_or_by_any_path_to_it(video, tmp_path, name):
    folder = tmp_path / "questions"
    folder.mkdir()
    (tmp_path / "own").symlink_to(video.parent.parent)
    (folder / "videos").symlink_to(video.parent)
    line = json.dumps({"video": name.format(video=video), "question": "What?"})
    assert len(questions_about(write(folder, line, "q.jsonl"), video).questions) == 1


def test_what_is_about_another_video_is_named(video, tmp_path):
    listed = questions_about(write(tmp_path, TABLE + "cellar,Who?,,,,\n"), video)
    assert listed.other_videos == ("elsewhere", "cellar")
    first, second, last = listed.questions
    assert isinstance(first, Question) and first.id == "g1" and first.evidence_seconds == (2.0, 4.0)
    assert isinstance(second, LvqaError) and "line 3" in str(second)
    assert isinstance(last, Question) and (last.options, last.answer) == ((), "a bell")


def test_a_list_of_questions_alone_is_about_the_video(video, tmp_path):
    listed = questions_about(write(tmp_path, "question\nWhat?\nWho?\n"), video)
    assert [item.text for item in listed.questions if isinstance(item, Question)] == ["What?", "Who?"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("q.txt", "question\nWhat?\n", "suffix .jsonl or .csv or .tsv, got"),
        (
            "q.csv",
            "video,question\ncellar,What?\n",
            "no question about {video}; its questions are about 'cellar'",
        ),
        ("q.csv", "question\n", "holds no question"),
        ("q.csv", b"question\ncaf\xe9?\n", "not UTF-8"),
    ],
)
def test_a_file_that_is_no_list_is_refused(video, tmp_path, name, text, message):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(LvqaError) as caught:
        questions_about(path, video)
    assert message.format(video=video) in str(caught.value) and str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("q.jsonl", '{"question": "What?"}\n{"question"\n{"question": "Who?"}\n', "not JSON"),
        ("q.jsonl", '{"question": "What?"}\n["Where?"]\n{"question": "Who?"}\n', "must be a mapping"),
        ("q.csv", "question,id\nWhat?,1\nWhere, exactly?,2\nWho?,3\n", "more fields than the head"),
    ],
)
def test_a_line_that_can_not_be_read_stops_no_other(video, tmp_path, name, text, message):
    first, second, last = questions_about(write(tmp_path, text, name), video).questions
    assert isinstance(second, LvqaError) and message in str(second)
    assert [item.text for item in (first, last) if isinstance(item, Question)] == ["What?", "Who?"]


def test_a_missing_key_is_named_with_all_that_are_missing(video, tmp_path):
    listed = questions_about(write(tmp_path, '{"id": 1}\n', "q.jsonl"), video)
    assert str(listed.questions[0]).startswith("question is missing")
    folder = tmp_path / "own"
    folder.mkdir()
    write(folder, '{"id": 1}\n', "questions.jsonl")
    with pytest.raises(LvqaError, match=r"^question, video are missing"):
        load_dataset("own", folder)


# --- what is printed -------------------------------------------------------------------------------------------------


def test_each_question_is_a_line_of_json_and_a_bad_one_stops_no_other(ask):
    result = ask(TABLE, "--json", "--method", "uniform", "--frames", "2", code=3)
    first, second, last = map(json.loads, result.stdout.splitlines())
    assert (first["id"], first["target"], first["error"]) == ("g1", "B", None)
    assert first["correct"] is (first["option"] == "B") and first["video"]["duration_seconds"] == 20
    assert first["settings"]["method"] == "uniform" and len(first["frames"]) == 2
    assert "two options are equal" in second["error"] and second["answer"] is None
    assert (last["option"], last["correct"], last["target"]) == (None, None, "a bell") and last["answer"]
    assert "list.csv: not asked are the questions about other videos: elsewhere" in result.stderr
    assert result.stderr.endswith("lvqa: 1 of 3 questions failed\n")
    assert not list(Path().glob("runs"))


def test_what_fails_while_it_is_answered_stops_no_other(ask):
    table = "question,options,id,evidence\nWhat?,a|b,q1,\nWho?,a|b,q2,0:02-0:04\n"
    result = ask(table, "--method", "oracle", "--quiet", code=3)
    assert result.stdout.startswith("q2  Who?\n") and "q1" not in result.stdout
    (failed, total) = result.stderr.splitlines()
    assert failed.startswith("lvqa: question q1: ") and total == "lvqa: 1 of 2 questions failed"


@pytest.mark.slow
def test_questions_are_answered_in_batches_as_a_run_answers_them(ask, monkeypatch):
    batches, answers = [], LongVideoQA.answers

    def watched(*args, **settings):
        batches.append(answers(*args, **settings))
        return batches[-1]

    monkeypatch.setattr(LongVideoQA, "answers", watched)
    table = "question,options,id\n" + "".join(f"What {i}?,a ball|a box,q{i}\n" for i in range(6))
    lines = [
        json.loads(line) for line in ask(table, "--json", "--method", "uniform", "--frames", "2").stdout.splitlines()
    ]
    assert [[answer.question.id for answer in batch] for batch in batches] == [["q0", "q1", "q2"], ["q3", "q4", "q5"]]
    assert [line["option"] for line in lines] == [answer.option for batch in batches for answer in batch]


def test_no_model_is_loaded_if_no_question_can_be_asked(ask, monkeypatch):
    monkeypatch.setattr("lvqa.pipeline.LongVideoQA.load", lambda **_: pytest.fail("it was loaded"))
    result = ask("question,options\nTwo alike?,a|a\n", code=1)
    assert result.stdout == "" and result.stderr.endswith("lvqa: 1 of 1 question failed\n")


@pytest.mark.parametrize("words", [("What?",), ("--option", "a"), ("--report", "a.html"), ("--library",)])
def test_what_belongs_to_one_question_is_wrong_usage(ask, words):
    assert "--questions" in ask("question\nWhat?\n", *words, code=2).stderr

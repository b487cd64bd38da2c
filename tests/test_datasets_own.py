"""Questions of your own, in JSON Lines and in a table."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from annotation_files import own_rows, write_own

from lvqa.datasets import load_dataset
from lvqa.evaluation import load_run_config
from lvqa.evaluation.run import evaluate
from lvqa.records import LvqaError, Question

TABLE = """video,question,options,answer,id,tags,evidence
garden,What colour is the car?,red|blue|green,blue,g1,colour|car,1:23-1:37
garden,What colour is the car?,red | blue | green,B,2,colour|car,83-97
gate,"Who comes, and why?",a man|a dog,A,,,
"""


def questions_of(folder: Path) -> list[Question]:
    return [question for task in load_dataset("own", folder).tasks for question in task.questions]


def refusal(folder: Path) -> str:
    with pytest.raises(LvqaError) as caught:
        load_dataset("own", folder)
    assert "\n" not in str(caught.value) and str(folder) in str(caught.value)
    return str(caught.value)


def test_a_line_is_a_question(tmp_path):
    write_own(tmp_path)
    assert questions_of(tmp_path)[0] == Question(
        "What colour is the car?",
        ("red", "blue", "green"),
        id="g1",
        video_id="garden",
        answer="B",
        tags=("colour", "car"),
        evidence_seconds=(83.0, 97.5),
    )


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_a_row_of_a_table_is_a_question(separator, tmp_path):
    table = TABLE.replace('"Who comes, and why?"', "Who comes?").replace(",", separator)
    (tmp_path / "questions.csv").write_text("\ufeff" + table)  # with a byte order mark, as Excel writes it
    first, second, last = questions_of(tmp_path)
    assert (first.options, first.answer, first.id, first.tags) == (
        ("red", "blue", "green"),
        "B",
        "g1",
        ("colour", "car"),
    )
    assert (first.evidence_seconds, second.evidence_seconds) == ((83.0, 97.0), (83.0, 97.0))
    assert (second.options, second.answer, second.id) == (first.options, "B", "2")
    assert (last.text, last.answer, last.tags, last.evidence_seconds) == ("Who comes?", "A", (), None)


def test_a_field_with_the_separator_is_quoted(tmp_path):
    (tmp_path / "questions.csv").write_text(TABLE)
    assert questions_of(tmp_path)[-1].text == "Who comes, and why?"


def test_without_an_id_a_question_keeps_its_own_wherever_it_stands(tmp_path):
    (tmp_path / "questions.csv").write_text(TABLE)
    before = questions_of(tmp_path)[-1]
    lines = TABLE.splitlines(keepends=True)
    (tmp_path / "questions.csv").write_text("".join([lines[0], lines[3], *lines[1:3]]))
    assert before in questions_of(tmp_path) and len(before.id) == 8


@pytest.mark.parametrize(
    ("video", "lies_at"),
    [
        ("a.mp4", "a.mp4"),
        ("clips/a.mkv", "clips/a.mkv"),
        ("a.mp4", "videos/a.mp4"),
        ("a", "videos/a.webm"),
        ("./clips/../a.mp4", "a.mp4"),
    ],
)
def test_a_video_is_a_path_from_the_folder_or_a_name_in_videos(video, lies_at, tmp_path):
    (tmp_path / lies_at).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / lies_at).touch()
    write_own(tmp_path, video=video)
    task = load_dataset("own", tmp_path).tasks[0]
    assert task.path.resolve() == tmp_path / lies_at and task.path.is_file()


def test_an_absolute_path_is_one_too(tmp_path):
    (tmp_path / "elsewhere.mp4").touch()
    (tmp_path / "own").mkdir()
    write_own(tmp_path / "own", video=str(tmp_path / "elsewhere.mp4"))
    assert load_dataset("own", tmp_path / "own").tasks[0].path == tmp_path / "elsewhere.mp4"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"video": None, "question": None}, "question, video are missing ("),
        ({"question": None}, "question is missing; it must be "),
        ({"question": " "}, "question must be Unicode text that is not empty"),
        ({"options": ["red"], "answer": None}, "a question has 2 to 20 options, or none; got 1 ("),
        ({"options": ["red", "red"]}, "two options are equal: 'red'"),
        ({"options": "red|blue"}, "options must be a list, each item text that is not empty, or a number"),
        ({"options": ["red", ""]}, "options[1] must be text that is not empty, or a number, got '' ("),
        ({"answer": "yellow"}, "answer must be one of A, B, C, or one of the options, got 'yellow' ("),
        ({"answer": "D"}, "answer must be one of A, B, C, or one of the options, got 'D' ("),
        ({"options": ["B", "A"], "answer": "A"}, "answer 'A' is the letter of one option and the text of another ("),
        ({"evidence": "soon"}, "evidence must be start and end in seconds, [83, 97.5] or 83-97.5, or as MM:SS-MM:SS"),
        ({"evidence": [9, 3]}, "evidence must be start and end in seconds"),
        ({"evidence": [True, 3]}, "evidence must be start and end in seconds"),
        ({"id": 2}, "question id '2' stands at "),
    ],
)
def test_what_is_wrong_is_one_line_with_its_place(changes, reason, tmp_path):
    write_own(tmp_path, **changes)
    message = refusal(tmp_path)
    assert message.startswith(reason) and "questions.jsonl, line " in message


def test_a_table_without_its_columns_is_one_line(tmp_path):
    (tmp_path / "questions.csv").write_text("film,text\na.mp4,Who?\n")
    assert refusal(tmp_path) == f"question, video are missing ({tmp_path / 'questions.csv'}, line 2)"


def test_there_is_one_file(tmp_path):
    assert (
        refusal(tmp_path) == f"{tmp_path}: no questions.jsonl and no questions.csv; your questions are read from there"
    )
    write_own(tmp_path)
    (tmp_path / "questions.csv").write_text(TABLE)
    assert "questions.jsonl and questions.csv are both there; keep one" in refusal(tmp_path)


def test_a_key_that_is_not_known_is_warned_of(tmp_path, caplog):
    write_own(tmp_path, anwser="red", notes=3)
    expected = "not read, since nothing is known by these names: 'anwser', 'notes'"
    assert load_dataset("own", tmp_path).warnings == (expected,)
    assert expected in caplog.text


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (
            {"options": None},
            "1 of 3 questions have no options, and free answers can't be scored without benchmark.judge: g1",
        ),
        ({"answer": None}, "1 of 3 questions have no answer, so nothing can be scored: g1"),
    ],
)
def test_what_can_not_be_scored_is_refused_before_a_run_begins(changes, reason, tmp_path):
    write_own(tmp_path, **changes)
    assert questions_of(tmp_path)[0].answer == (None if "answer" in changes else "blue")
    config = load_run_config(None, [f"benchmark={json.dumps({'name': 'own', 'folder': str(tmp_path)})}"])
    with pytest.raises(LvqaError, match=reason):
        evaluate(config, tmp_path / "run")
    assert not (tmp_path / "run").exists() and len(own_rows()) == 3

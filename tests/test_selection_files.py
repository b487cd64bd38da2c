"""Selected frames in the formats of AKS, BOLT, VideoITG and WFS: read, written, and refused in one line."""

import json
import os
from pathlib import Path

import pytest

from lvqa.records import LvqaError
from lvqa.selection.files import WRITERS, read_selections, write_selections

ORDER = [("a", "a-1"), ("a", "a-2"), ("b", "b-1")]
RATES = {"a": 30.0, "b": 25.0}
SECONDS = {("a", "a-1"): (0.0, 1.0, 2.5), ("a", "a-2"): (3.0,), ("b", "b-1"): (0.2, 4.0)}
FILES = {
    "aks": [[0, 30, 75], [90], [5, 100]],
    "bolt": {
        "a": [
            {"question_id": "a-1", "question": "?", "frames": [0, 1.0, 2.5, 2.5]},
            {"question_id": "a-2", "question": "?", "frames": [3]},
        ],
        "b.mp4": [{"question_id": "b-1", "question": "?", "frames": [4.0, 0.2]}],
    },
    "videoitg": [
        {"doc_id": 2, "index": [100, 5], "logits": [0.9, 0.1]},
        {"doc_id": 0, "index": [75, 0, 30], "logits": [0.9, 0.5, 0.1]},
        {"doc_id": 1, "index": [90], "logits": [0.9]},
    ],
    "wfs": [
        {"video_id": "a", "id": "a-1", "keyframe_indices": [0, 30, 75]},
        {"videoID": "a", "video_id": "900", "question_id": "a-2", "keyframe_indices": [90]},
        {"video_name": "b.mp4", "question_id": "b-1", "keyframe_indices": [5, 100]},
    ],
}


@pytest.fixture
def write(tmp_path):
    def write(content: object) -> Path:
        path = tmp_path / "selections.json"
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
        return path

    return write


def text_of(name: str) -> str:
    if name == "videoitg":
        return "\n".join(map(json.dumps, FILES[name]))
    return json.dumps(FILES[name], indent=2)


@pytest.mark.parametrize("name", FILES)
def test_every_format_is_read(write, name):
    assert read_selections(write(text_of(name)), order=ORDER, frames_per_second=RATES) == SECONDS


@pytest.mark.parametrize("name", WRITERS)
def test_what_is_written_is_read(tmp_path, name):
    path = tmp_path / "out.json"
    write_selections(path, SECONDS, format=name, frames_per_second=RATES, texts={ORDER[0]: "Who?"})
    assert read_selections(path, order=ORDER, frames_per_second=RATES) == SECONDS
    assert set(WRITERS) == set(FILES)


WRITTEN = {
    "aks": "[[0, 30, 75], [90], [5, 100]]\n",
    "bolt": '{\n "a": [\n  {\n   "question_id": "a-1",\n   "question": "Who?",\n   "frames": [\n    0.0,\n    1.0,\n'
    '    2.5\n   ]\n  },\n  {\n   "question_id": "a-2",\n   "question": "",\n   "frames": [\n    3.0\n   ]\n  }\n ],\n'
    ' "b": [\n  {\n   "question_id": "b-1",\n   "question": "",\n   "frames": [\n    0.2,\n    4.0\n   ]\n  }\n ]\n}\n',
    "videoitg": '{"doc_id": 0, "index": [0, 30, 75], "logits": [1.0, 1.0, 1.0]}\n'
    '{"doc_id": 1, "index": [90], "logits": [1.0]}\n{"doc_id": 2, "index": [5, 100], "logits": [1.0, 1.0]}\n',
    "wfs": '[\n {\n  "video_id": "a",\n  "question_id": "a-1",\n  "question": "Who?",\n  "keyframe_indices": [\n   0,\n'
    '   30,\n   75\n  ]\n },\n {\n  "video_id": "a",\n  "question_id": "a-2",\n  "question": "",\n'
    '  "keyframe_indices": [\n   90\n  ]\n },\n {\n  "video_id": "b",\n  "question_id": "b-1",\n  "question": "",\n'
    '  "keyframe_indices": [\n   5,\n   100\n  ]\n }\n]\n',
}
"""What lvqa 0.1 wrote of SECONDS, to the letter."""


@pytest.mark.parametrize("name", WRITERS)
def test_files_are_those_of_lvqa_0_1(write, tmp_path, name):
    assert read_selections(write(WRITTEN[name]), order=ORDER, frames_per_second=RATES) == SECONDS
    path = tmp_path / "out.json"
    write_selections(path, SECONDS, format=name, frames_per_second=RATES, texts={ORDER[0]: "Who?"})
    assert path.read_text() == WRITTEN[name]


def test_one_question_alone_is_read_too(tmp_path):
    path, one = tmp_path / "out.json", {ORDER[0]: (1.0, 2.0)}
    for name in WRITERS:
        write_selections(path, one, format=name, frames_per_second=RATES)
        assert read_selections(path, order=ORDER[:1], frames_per_second=RATES) == one


def test_the_first_of_a_ranking(write):
    selections = read_selections(write(text_of("videoitg")), order=ORDER, frames_per_second=RATES, num_frames=2)
    assert selections == {("a", "a-1"): (0.0, 2.5), ("a", "a-2"): (3.0,), ("b", "b-1"): (0.2, 4.0)}


def test_seconds_need_no_frame_rate(write):
    assert read_selections(write(FILES["bolt"])) == SECONDS


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        ("[" * 200_000, "not JSON"),
        (b"\xff\xfe\x00", "not UTF-8"),
        ("[" + "9" * 5000 + "]", "not JSON"),
        ("[]", "no file of selections"),
        ("3", "no file of selections"),
        ("null", "no file of selections"),
        ([1, 2], "no file of selections"),
        ([{"doc_id": 1}], "no file of selections"),
        ([[0], [1]], "frames of 2 questions, and the dataset has 3"),
        ([[0], [1], [True]], "[2][0] must be a whole number, 0 or more, got true"),
        ([[0], [-1], [3]], "[1][0] must be a whole number, 0 or more, got -1"),
        ([[0], [1.5], [3]], "got 1.5"),
        ("[[0], [1], [1" + "0" * 400 + "]]", "a very large number"),
        ({"a": 3}, "'a' must be a list, each item a mapping of keys to values, got 3"),
        ({"a": [3]}, "'a'[0] must be a mapping of keys to values, got 3"),
        ({"a": [{"frames": [1]}]}, "'a'[0].question_id or id or uid must be text, or a whole number, got null"),
        ({"a": [{"id": "x"}]}, "'a'[0].frames must be a list, each item seconds, 0 or more, got null"),
        ('{"a": [{"id": "x", "frames": [NaN]}]}', "must be seconds, 0 or more, got nan"),
        ('{"a": [{"id": "x", "frames": [Infinity]}]}', "got inf"),
        ('{"a": [{"id": "x", "frames": [-1]}]}', "got -1"),
        ('{"a": [{"id": "x", "frames": ["1"]}]}', "got '1'"),
        ({"a": [{"id": "x", "frames": [1]}, {"id": "x", "frames": [2]}]}, "'x' of video 'a' stands there twice"),
        ([{"doc_id": 7, "index": []}], "line 1: doc_id must be 0 to 2, got 7"),
        ([{"doc_id": True, "index": []}], "line 1: doc_id must be a whole number, got true"),
        ([{"doc_id": 1, "index": {}}], "line 1: index must be a list, each item a whole number, 0 or more, got {}"),
        (
            [{"keyframe_indices": [1]}],
            "[0].videoID or video_id or video_name or video must be text, or a whole number, got null",
        ),
        ([{"video_id": "c", "id": "x", "keyframe_indices": [1]}], "the frame rate of video 'c' must be given"),
        ([{"video_id": "a", "id": [1], "keyframe_indices": [1]}], "[0].id must be text, or a whole number, got [1]"),
    ],
    ids=lambda value: "" if isinstance(value, bytes | str) and len(value) > 60 else None,
)
def test_what_is_no_such_file_is_refused_in_one_line(write, content, named):
    path = write(content)
    with pytest.raises(LvqaError) as caught:
        read_selections(path, order=ORDER, frames_per_second=RATES)
    message = str(caught.value)
    assert named in message and str(path) in message, message
    assert "\n" not in message and len(message) < 500


def test_what_is_missing_is_named(write):
    with pytest.raises(LvqaError, match=r"order in the dataset must be given \(order\)"):
        read_selections(write(FILES["aks"]), frames_per_second=RATES)
    with pytest.raises(LvqaError, match="frame rate of video 'a' must be given"):
        read_selections(write(FILES["aks"]), order=ORDER)
    with pytest.raises(LvqaError, match="frame rate of video 'a' must be more than 0, got nan"):
        read_selections(write(FILES["aks"]), order=ORDER, frames_per_second={"a": float("nan")})


def test_files_that_can_not_be_opened(tmp_path):
    for path in (tmp_path / "none.json", tmp_path):
        with pytest.raises(LvqaError, match=str(path)):
            read_selections(path)
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(LvqaError, match="not a regular file"):
        read_selections(tmp_path / "fifo")
    with pytest.raises(LvqaError, match="cannot write"):
        write_selections(tmp_path / "none" / "out.json", SECONDS, format="bolt")
    with pytest.raises(LvqaError, match="one of aks, bolt, videoitg, wfs, got 'csv'"):
        write_selections(tmp_path / "out.csv", SECONDS, format="csv")
    with pytest.raises(LvqaError, match="frame rate of video 'a' must be given"):
        write_selections(tmp_path / "out.json", SECONDS, format="aks")

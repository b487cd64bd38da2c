"""Hostile lines in a run's answers: each is refused with its number, and a torn last line is answered again."""

import json

import pytest
from runs import copy_of

from lvqa.evaluation import load_run_config, read_run
from lvqa.evaluation.folder import open_run
from lvqa.evaluation.rows import ADDED_KEYS, FIELDS, ROWS_FORMAT, read_rows, to_line
from lvqa.evaluation.run import evaluate
from lvqa.records import LvqaError


@pytest.fixture
def line(run) -> dict:
    return next(row for row in run.rows if row["arm"] == "freeret")


@pytest.mark.parametrize(
    "text",
    [
        *(
            b"\n",
            b"null\n",
            b"[]\n",
            b"{}\n",
            b"{\n",
            b"\0\0\0\n",
            b"\xff\xfe{\0}\0\n",
            b'"\xc3"\n',
            b"[" * 99_999 + b"\n",
        ),
        *(b"1" * 5_000 + b"\n", b'{"video_id": "v"}\n'),
    ],
)
def test_a_line_that_is_no_row_is_refused_with_its_number(run, tmp_path, text):
    folder = copy_of(run, tmp_path)
    with (folder / "answers.jsonl").open("ab") as file:
        file.write(text)
    for read in (lambda: read_run(folder), lambda: evaluate(run.config, folder)):
        with pytest.raises(LvqaError, match=rf"answers\.jsonl, line {len(run.rows) + 1};") as caught:
            read()
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


BAD = {
    "video_id": [None, 3],
    "question_id": [["q"]],
    "question": [3, None],
    "options": ["x", [3], None],
    "arm": [{}],
    "budget": [-1, 1.5, True, "4"],
    "tags": ["ER", [3], None],
    "target": [3],
    "evidence_seconds": [[1], [1, 2, 3], ["a", "b"], [1, None], [1, float("nan")], [1, 10**400]],
    "prediction": [1],
    "text": [None],
    "option_scores": [["x"], None, [float("inf")]],
    "times_seconds": [[None], 3],
    "subtitle_lines": [[[1, 2, 0.5]], [[1, 2, "x", "text"]], [[1, 2, 0.5, 3]], None],
    "embedded": [[[1, 2]], [1, 2, 3], None],
    "reranked": [[["a", 2, 3]]],
    "num_clips": [-1],
    "answer_tokens": [-1, "x"],
    "answer_visual_tokens": [1.5],
    "time_read": [3],
    "question_kind": [3, ["x"]],
    "looked_again": [1, "x"],
    "counts": [{}, {"frames_decoded": 1, "pairs_encoded": 1}, None],
    "index": [{}, {"reused": 1}, 3],
    "seconds": [{"open": "x"}, [1]],
    "video_path": [3],
    "content_id": [3],
    "duration_seconds": ["1"],
    "warnings": ["a line", [3], None],
    "frames_substituted": [-1, 1.5],
    "node": [3],
    "session": [-1, 1.5, None],
    "by_place": [None, 1, "x"],
    "judge": [3, ["exact"]],
    "judged_correct": [1, "yes"],
    "judge_text": [3],
    "error": [3],
}


def test_every_field_is_checked():
    assert BAD.keys() == {*FIELDS}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in BAD.items() for value in values])
def test_a_field_that_does_not_fit_is_named(line, tmp_path, name, value):
    path = tmp_path / "answers.jsonl"
    path.write_text(to_line(line) + json.dumps({**line, "question_id": "another", name: value}) + "\n")
    with pytest.raises(
        LvqaError,
        match=rf"^{name}[\w.,\[\] ]* (must be |is missing; it must be |are missing).*\(.*answers\.jsonl, line 2;",
    ):
        list(read_rows(path))
    if ADDED_KEYS[ROWS_FORMAT].keys() == {name}:  # without it, it is a row of the format before
        return
    path.write_text(to_line(line) + json.dumps({key: line[key] for key in line if key != name}) + "\n")
    with pytest.raises(LvqaError, match=rf"^{name} is missing; it must be .*\(.*answers\.jsonl, line 2;"):
        list(read_rows(path))


def test_an_answer_that_is_there_twice_is_refused(line, tmp_path):
    path = tmp_path / "answers.jsonl"
    path.write_text(to_line(line) + to_line({**line, "budget": 1}) + to_line({**line, "prediction": None}))
    with pytest.raises(LvqaError, match="line 3: the same question, arm and budget as in line 1"):
        list(read_rows(path))


@pytest.mark.parametrize("fraction", [0.02, 0.5, 0.98])
def test_a_torn_last_line_is_cut_off_and_answered_again(run, settings, tmp_path, fraction):
    folder = copy_of(run, tmp_path)
    lines = (folder / "answers.jsonl").read_bytes().splitlines(keepends=True)
    torn = lines[-1][: int(len(lines[-1]) * fraction)]
    (folder / "answers.jsonl").write_bytes(b"".join(lines[:-1]) + torn)
    assert len(read_run(folder).rows) == len(run.rows) - 1
    with open_run(folder, load_run_config(settings)) as folder_of_run:
        assert len(folder_of_run.answered) == len(lines) - 1
        folder_of_run.append([run.rows[-1]])
    appended = to_line({**run.rows[-1], "session": 1}).encode()  # the session that went on
    assert (folder / "answers.jsonl").read_bytes() == b"".join(lines[:-1]) + appended

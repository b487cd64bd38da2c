"""Run folders without a model: those of lvqa 0.1, and the lock."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lvqa.evaluation import load_run_config, read_run
from lvqa.evaluation.folder import open_run
from lvqa.evaluation.rows import ADDED_KEYS, NEW_KEYS, ROWS_FORMAT, read_rows
from lvqa.records import LvqaError
from lvqa.report import write_report

OLD_SETTINGS = """\
model: {name: tiny, device: null}
video: {decoder: pyav, grid: exact, clip_seconds: 8.0}
answer: {time_encoding: null, read: text, max_new_tokens: 64}
benchmark:
  name: lvbench
  folder: runs/films
  make: {films: 2, minutes: 20.0, questions: 20, seed: 700}
arms:
- {name: null, method: uniform, frames: [4], settings: {answer.read: logits}, baseline: null}
- {name: nested, method: freeret, frames: [4], settings: {answer: {read: logits}, video.grid: keys}, baseline: null}
"""
OLD_ROW = {
    "video": "film000700-20min",
    "question": "700-0",
    "arm": "uniform answer.read=logits",
    "budget": 4,
    "tags": ["key information retrieval"],
    "right": "A",
    "evidence_seconds": [1013.0, 1033.0],
    "letter": "B",
    "text": "7",
    "option_scores": [0.25, 0.5, None, 0.25],
    "times_seconds": [150.0, 450.0, 750.0, 1050.0],
    "embedded": [[0.0, 8.0, 0.5]],
    "reranked": [[0.0, 8.0, None]],
    "num_clips": 150,
    "counts": {"frames_decoded": 4, "pairs_encoded": 4, "tokens_prefilled": 386},
    "index": {"reused": True, "counts": {"frames_decoded": 0, "pairs_encoded": 0, "tokens_prefilled": 0}, "seconds": 0},
    "seconds": {"open": 0.0, "answer": 0.1495},
    "error": None,
}
OLD_INFO = {
    "started": "2026-11-29T15:40:27+00:00",
    "versions": {"lvqa": "0.1.0", "python": "3.11.7"},
    "machine": {"system": "Linux", "processors": 2, "workers": 0},
    "seed": 0,
    "resumed": [],
    "videos": 2,
    "questions": 2,
    "missing": [],
    "unusable": [],
    "model_revision": "d27c49fac73db455",
}


@pytest.fixture
def old_run(tmp_path) -> Path:
    """A run folder as lvqa 0.1 wrote it."""
    folder = tmp_path / "old"
    folder.mkdir()
    (folder / "config.yaml").write_text(OLD_SETTINGS)
    (folder / "run.json").write_text(json.dumps(OLD_INFO, indent=1))
    rows = [OLD_ROW, OLD_ROW | {"arm": "nested", "question": "700-1", "letter": "A"}]
    (folder / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_a_run_of_lvqa_0_1_is_read_under_todays_names(old_run):
    run = read_run(old_run)
    assert (run.config.video.sampling, run.config.answer.mode, run.config.benchmark.make.videos) == ("exact", "text", 2)
    assert run.config.arms[0].settings == {"answer.mode": "logits"}
    assert run.config.arms[1].settings == {"answer": {"mode": "logits"}, "video.sampling": "keys"}
    assert run.num_questions == 2 and run.about["model_revision"] == "d27c49fac73db455"
    first, second = run.rows
    renamed = {"video_id": "film000700-20min", "question_id": "700-0", "target": "A", "prediction": "B"}
    added = {"question": "", "options": [], **NEW_KEYS}
    same = {key: value for key, value in OLD_ROW.items() if key not in ("video", "question", "right", "letter")}
    assert json.loads(json.dumps(first)) == renamed | added | same
    assert (second["question_id"], second["question"], second["prediction"]) == ("700-1", "", "A")


@pytest.mark.parametrize("format", [2, 3, 4])
def test_rows_of_older_formats_are_read(run, tmp_path, format):
    (before, *_) = run.rows
    path = tmp_path / "answers.jsonl"
    added = {key: value for number, keys in ADDED_KEYS.items() if number > format for key, value in keys.items()}
    path.write_text(json.dumps({key: value for key, value in before.items() if key not in added}) + "\n")
    assert list(read_rows(path)) == [before | added]


def test_a_run_of_lvqa_0_1_is_reported(old_run):
    report = write_report([old_run])
    assert "answers 2, failed 0" in report and "lvqa 0.1.0" in report


def test_a_bad_row_of_lvqa_0_1_is_refused_under_todays_names(old_run):
    path = old_run / "answers.jsonl"
    path.write_text(json.dumps(OLD_ROW | {"right": 3}) + "\n")
    with pytest.raises(LvqaError, match=r"^target must be text, or null, got 3 \(.*answers\.jsonl, line 1;"):
        list(read_rows(path))


def test_a_run_of_lvqa_0_1_is_not_added_to(old_run):
    before = {path.name: path.read_bytes() for path in old_run.iterdir()}
    message = f"{old_run} was begun by an older lvqa, which had other rows; take another folder"
    with pytest.raises(LvqaError) as caught, open_run(old_run, load_run_config(None, ["model.name=tiny"])):
        pass
    assert str(caught.value) == message
    assert {path.name: path.read_bytes() for path in old_run.iterdir() if path.name != ".lock"} == before
    (old_run / "run.json").unlink()
    with pytest.raises(LvqaError, match=r"^video\.grid is called video\.sampling since 0\.2 \(.*config\.yaml\)$"):
        open_run(old_run, load_run_config()).__enter__()


def test_a_new_run_has_the_format_of_its_rows(tmp_path):
    with open_run(tmp_path / "run", load_run_config()):
        pass
    assert json.loads((tmp_path / "run" / "run.json").read_text())["rows_format"] == ROWS_FORMAT == 8


def test_rows_of_a_later_format_are_refused(tmp_path):
    with open_run(tmp_path / "run", load_run_config()):
        pass
    path = tmp_path / "run" / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"rows_format": 9}))
    with pytest.raises(LvqaError, match=r"^rows_format must be one of 1, 2, 3, 4, 5, 6, 7, 8, got 9 \(.*run\.json;"):
        read_run(tmp_path / "run")


HOLDER = """
import sys, time
from pathlib import Path
from lvqa.evaluation import load_run_config
from lvqa.evaluation.folder import open_run
with open_run(Path(sys.argv[1]), load_run_config()):
    print("open", flush=True)
    time.sleep(600)
"""


@pytest.mark.slow
def test_a_process_that_is_killed_leaves_no_lock(tmp_path):
    folder = tmp_path / "run"
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(folder)], stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout is not None and holder.stdout.readline() == "open\n"
            with pytest.raises(LvqaError) as caught, open_run(folder, load_run_config()):
                pass
            assert str(caught.value) == f"another process is adding to the run folder {folder}; wait for it, or end it"
        finally:
            holder.kill()
    assert holder.returncode == -signal.SIGKILL
    with open_run(folder, load_run_config()) as run:
        assert run.answered == set()

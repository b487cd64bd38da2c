"""`lvqa eval` and `lvqa report` on synthetic videos and the embedded model: output, files and exit codes."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from processes import PATIENCE_SECONDS

from lvqa.cli.main import lvqa_command
from lvqa.evaluation import read_run
from lvqa.synthetic.videos import make_videos

MAKE = {"videos": 1, "minutes": 1, "questions": 3, "seed": 11}
NUM_ANSWERS = 3 * 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The folder of a benchmark: a synthetic video of one minute with three questions."""
    path = tmp_path_factory.mktemp("benchmark")
    make_videos(path, num_videos=1, minutes=1, num_questions=3, seed=11)
    return path


@pytest.fixture
def config(folder, tmp_path) -> Path:
    path = tmp_path / "small.yaml"
    benchmark = {"folder": str(folder), "make": MAKE}
    settings = {"model": {"name": "tiny", "device": "cpu"}, "benchmark": benchmark, "frames": [4]}
    arms = [{"method": "uniform"}, {"method": "freeret"}, {"method": "blind"}]
    path.write_text(json.dumps({**settings, "store": {"folder": str(tmp_path / "store")}, "arms": arms}))
    return path


@pytest.fixture
def lvqa(tmp_path, monkeypatch):
    """Run the command in this process and return its result. `code` is the exit code that is expected."""
    monkeypatch.chdir(tmp_path)

    def run(*words: object, code: int = 0) -> Result:
        result = CliRunner().invoke(lvqa_command, [str(word) for word in words])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == code, result.output
        assert all(line.startswith("lvqa: ") for line in result.stderr.splitlines() if code != 2)
        return result

    return run


@pytest.mark.slow
def test_a_run_from_videos_to_report(lvqa, config, folder, tmp_path):
    """Missing videos are made; the run is named after its configuration; a second run has nothing to do."""
    shutil.rmtree(folder)
    first = lvqa("eval", config)
    run = tmp_path / "runs" / "small"
    assert "3 questions, 9 answers, 0 of them failed" in first.stdout and "lvqa report runs/small" in first.stdout
    assert "make videos 100%" in first.stderr and "answer 100% (9 of 9 answers" in first.stderr
    assert len(read_run(run).rows) == NUM_ANSWERS

    again = lvqa("eval", config)
    assert again.stdout == first.stdout and "answer" not in again.stderr

    report = lvqa("report", run)
    assert all(arm in report.stdout for arm in ("uniform", "freeret", "blind"))
    assert first.stdout.splitlines()[5] in report.stdout
    assert report.stderr == f"lvqa: written: {run / 'report.html'}, {run / 'report.csv'}\n"
    assert (run / "report.html").read_text().startswith("<!doctype html>")
    assert len((run / "report.csv").read_text().splitlines()) > 3

    line = lvqa("eval", config, "-s", "video.clip_seconds=4", code=1).stderr
    assert "video.clip_seconds: 16.0, now 4.0" in line and "runs/small" in line


@pytest.mark.slow
def test_several_files_are_one_run_with_one_table(lvqa, config, tmp_path):
    other = tmp_path / "2_other_way.yaml"
    changed = json.loads(config.read_text()) | {
        "frames": [2],
        "arms": [{"name": "a"}, {"name": "b", "method": "random"}],
    }
    other.write_text(json.dumps(changed | {"baseline": "a"}))
    result = lvqa("eval", config, other, "--limit", 1)
    arms = [line.split(" | ")[0].strip("| ") for line in result.stdout.splitlines()[4:9]]
    assert arms == ["small: uniform", "small: freeret", "small: blind", "other way: a", "other way: b"]
    assert result.stdout.splitlines()[8].split(" | ")[-1].strip("| ") == "other way: a"
    assert len(read_run(tmp_path / "runs" / tmp_path.name).rows) == 5
    assert "named 'small' too" in lvqa("eval", config, config, code=1).stderr


@pytest.mark.slow
def test_options_override_settings_and_these_override_the_file(lvqa, config, tmp_path):
    out = tmp_path / "out"
    arms = "arms=[{method: blind}]"
    words = ("--limit", 1, "-s", "benchmark.limit=2", "-s", "seed=4", "-s", arms, "--store", "a 'b\": c", "--quiet")
    result = lvqa("eval", config, "--folder", out, *words)
    assert result.stderr == ""
    run = read_run(out)
    assert (run.config.benchmark.limit, run.config.seed, str(run.config.store.folder)) == (1, 4, "a 'b\": c")
    assert len(run.rows) == 1


@pytest.mark.slow
def test_a_wrong_argument_is_reported_in_one_line(lvqa, config, tmp_path):
    assert "-c" in lvqa("eval", config, "-c", config, code=2).stderr
    for words, message in (
        (("eval", tmp_path / "none.yaml"), "none.yaml: No such file"),
        (("eval", config, "--limit", 0), "benchmark.limit must be a whole number, 1 or more"),
        (("eval", config, "--workers", -1), "workers must be a whole number, 0 or more"),
        (("eval", config, "-s", "arms=[{method: best}]"), "'best'"),
        (("eval", config, "--ray-address", "host:1"), "workers must be 1 or more"),
        (("report", tmp_path), "is not a run folder"),
    ):
        result = lvqa(*words, code=1)
        (line,) = [line for line in result.stderr.splitlines() if "make videos 100%" not in line]
        assert message in line and result.stdout == ""


@pytest.mark.slow
def test_synthetic_videos_never_overwrite_other_questions(lvqa, config, tmp_path):
    annotations = tmp_path / "published" / "video_info.meta.jsonl"
    annotations.parent.mkdir()
    annotations.write_text('{"key": "a", "type": "cartoon", "qa": []}\n')
    line = lvqa("eval", config, "-s", f"benchmark.folder={annotations.parent}", code=1).stderr
    assert "would overwrite" in line and annotations.read_text().startswith('{"key": "a"')


@pytest.mark.slow
def test_questions_written_by_lvqa_0_1_are_synthetic_too(lvqa, config, folder):
    annotations = folder / "video_info.meta.jsonl"
    text = annotations.read_text()
    assert '"type": "synthetic video"' in text
    annotations.write_text(text.replace('"type": "synthetic video"', '"type": "made film"'))
    lvqa("eval", config, "-s", "arms=[{method: blind}]", "--limit", 1, "--quiet")
    assert annotations.read_text() == text


@pytest.mark.slow
def test_missing_and_broken_videos(lvqa, config, folder, tmp_path):
    """Missing: refused, or left out as allowed. Broken: a failure, counted as wrong."""
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    (line,) = (copy / "video_info.meta.jsonl").read_text().splitlines()
    entry = json.loads(line)
    questions = [{**qa, "uid": f"again-{qa['uid']}"} for qa in entry["qa"]]
    with (copy / "video_info.meta.jsonl").open("a") as file:
        file.write(json.dumps({**entry, "key": "other", "qa": questions}) + "\n")
    words = ("eval", config, "-s", f"benchmark={{folder: {copy}, make: null}}", "-s", "arms=[{method: blind}]")
    assert "1 of 2 videos have no file: other" in lvqa(*words, code=1).stderr
    allowed = lvqa(*words, "--allow-missing", "--folder", tmp_path / "left out")
    assert "3 questions, 3 answers, 0 of them failed (counted as wrong); 1 video is missing" in allowed.stdout

    (copy / "videos" / "other.mp4").write_bytes(b"not a video" * 99)
    result = lvqa(*words, "--folder", tmp_path / "broken", code=3)
    assert "6 questions, 6 answers, 3 of them failed" in result.stdout and "video other: " in result.stderr


@pytest.mark.slow
def test_after_ctrl_c_the_run_continues_where_it_stopped(lvqa, config, tmp_path):
    script = "import sys; from lvqa.cli.main import main\ntry:\n    main()\nfinally:\n    print(*sys.modules)"
    command = [sys.executable, "-c", script, "eval", str(config), "--folder", "run"]
    answers = tmp_path / "run" / "answers.jsonl"
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen(command, **pipes, text=True, start_new_session=True)
    while process.poll() is None and not (answers.exists() and answers.stat().st_size):
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGINT)  # to all of the group, as a terminal does
    out, err = process.communicate(timeout=PATIENCE_SECONDS)
    assert not {"torch", "transformers"} & set(out.split()), "the worker alone needs them"
    errors = err.splitlines()
    assert process.returncode in (130, 0), "\n".join(errors)
    if process.returncode == 130:
        assert errors[-1] == "lvqa: interrupted"
    assert not any("Traceback" in line or "leaked" in line for line in errors)
    before = read_run(tmp_path / "run").rows
    assert before
    lvqa("eval", config, "--folder", "run")
    assert read_run(tmp_path / "run").rows[: len(before)] == before
    assert len(read_run(tmp_path / "run").rows) == NUM_ANSWERS

"""Runs that go on: after their end, after a kill, with failing videos, and on Ray."""

import dataclasses
import errno
import json
import multiprocessing
import os
import random
import shutil
import signal
import time
from functools import partial
from pathlib import Path

import forked
import pytest
import video_files
from runs import (
    CONDITIONS,
    NUM_QUESTIONS,
    NUM_VIDEOS,
    benchmark_folder,
    copy_of,
    refusal,
    results,
)
from worker_tasks import install_deadly

from lvqa.evaluation import load_run_config, read_run
from lvqa.evaluation.folder import open_run
from lvqa.evaluation.run import evaluate
from lvqa.records import LvqaError


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory):
    return benchmark_folder(tmp_path_factory.getbasetemp())


# --- a run folder ----------------------------------------------------------------------------------------------------


def test_a_finished_run_is_read_and_nothing_is_answered_again(run, settings, tmp_path):
    folder = copy_of(run, tmp_path)
    before = (folder / "answers.jsonl").read_bytes()
    again = evaluate(load_run_config(settings), folder)
    assert (folder / "answers.jsonl").read_bytes() == before and len(again.about["resumed"]) == 1


def test_a_changed_setting_is_refused_by_name(run, settings, tmp_path):
    overrides = ["video.clip_seconds=4", "frames=[4]", "rerank.pool=2", "arms=[{method: blind}]", "seed=1"]
    for chosen in (overrides, overrides[:1]):
        line = refusal(copy_of(run, tmp_path / str(len(chosen))), load_run_config(settings, chosen))
        assert {
            name for name in ("video.clip_seconds", "frames", "rerank.pool", "arms", "seed") if f"{name}: " in line
        } == {override.partition("=")[0] for override in chosen}
        assert "video.clip_seconds: 8.0, now 4.0" in line


def test_where_the_work_is_done_may_change(run, settings, tmp_path):
    changes = ["workers=3", "ray_address=h:1", "gpus_per_worker=1", "allow_missing=true", "model.device=cuda"]
    config = load_run_config(
        settings, [*changes, "model.memory_mib=9", "store.folder=elsewhere", "video.stall_seconds=9"]
    )
    assert results(evaluate(config, copy_of(run, tmp_path)).rows) == results(run.rows)


def test_two_processes_do_not_write_one_run(settings, tmp_path):
    config = load_run_config(settings)
    with open_run(tmp_path / "run", config):
        assert "another process" in refusal(tmp_path / "run", config)
    with open_run(tmp_path / "run", config) as again:
        assert again.answered == set()


def test_another_revision_of_the_model_is_refused(settings, tmp_path):
    config = load_run_config(settings)
    with open_run(tmp_path / "run", config) as folder:
        folder.check_revision("one")
    with open_run(tmp_path / "run", config) as folder, pytest.raises(LvqaError, match=r"revision one.* now it is two"):
        folder.check_revision("two")


def test_what_is_no_run_folder_is_named(settings, tmp_path):
    with pytest.raises(LvqaError, match="is not a run folder"):
        read_run(tmp_path)
    (tmp_path / "file").write_text("")
    assert "cannot write the run folder" in refusal(tmp_path / "file", load_run_config(settings))
    (tmp_path / "answers.jsonl").write_text("{}\n")
    assert "no config.yaml" in refusal(tmp_path, load_run_config(settings))


@pytest.mark.parametrize(
    "text",
    [
        *("", "[]", "{}", "{" * 9999, "\ufeff{", '{"started": "x", "versions": 3, "resumed": []}'),
        *('{"started": "x", "versions": {}}', '{"started": "x", "versions": {}, "resumed": [3]}'),
        '{"started": "x", "versions": {}, "resumed": [], "questions": "many"}',
        '{"started": "x", "versions": {}, "resumed": [], "missing": [3]}',
    ],
)
def test_a_damaged_run_json_is_named(run, tmp_path, text):
    folder = copy_of(run, tmp_path)
    (folder / "run.json").write_text(text)
    with pytest.raises(LvqaError, match=r"run\.json"):
        read_run(folder)


# --- kills and failures ----------------------------------------------------------------------------------------------


def rows_in(folder: Path) -> int:
    path = folder / "answers.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


@pytest.mark.slow
def test_a_driver_killed_again_and_again_ends_with_each_answer_once(run, settings, tmp_path):
    """First while the model is loaded, then soon after it has answered something."""
    folder, rng, num_killed = tmp_path / "run", random.Random(3), 0
    for num_questions in (0, 1):
        enough = rows_in(folder) + num_questions * len(CONDITIONS)
        driver = forked.start(evaluate, load_run_config(settings), folder)
        while driver.is_alive() and not ((folder / "answers.jsonl").exists() and rows_in(folder) >= enough):
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.1))
        driver.kill()
        driver.join()
        num_killed += driver.exitcode == -signal.SIGKILL
    assert num_killed == 2 and rows_in(folder) > 0
    with (folder / "answers.jsonl").open("ab") as file:
        file.write(b'{"video_id": "vid')
    finished = evaluate(load_run_config(settings), folder)
    assert results(finished.rows) == results(run.rows)
    assert len(finished.about["resumed"]) >= num_killed - 1
    sessions = [row["session"] for row in finished.rows]
    # The first session may have been killed before it had an answer.
    assert sessions == sorted(sessions) and 0 < len(set(sessions)) - 1 <= sessions[-1] <= len(finished.about["resumed"])


@pytest.mark.slow
def test_a_worker_killed_while_it_answers_costs_nothing(run, settings, tmp_path):
    killed_pids = []

    def kill_once(stage: str, num_done: int, total: int) -> None:
        if num_done and not killed_pids:
            (child,) = multiprocessing.active_children()
            killed_pids.append(child.pid)
            os.kill(child.pid, signal.SIGKILL)

    finished = evaluate(load_run_config(settings), tmp_path / "run", progress=kill_once)
    assert killed_pids and results(finished.rows) == results(run.rows)


@pytest.mark.slow
def test_videos_that_fail_are_rows_with_their_error_and_the_rest_goes_on(run, benchmark, settings, tmp_path):
    folder = tmp_path / "benchmark"
    shutil.copytree(benchmark, folder)
    lines = (folder / "video_info.meta.jsonl").read_text().splitlines()
    for i, key in enumerate(("deadly", "corrupt", "sound", "missing")):
        entry = json.loads(lines[0])
        entry |= {"key": key, "qa": [{**qa, "uid": f"{i}-{qa['uid']}"} for qa in entry["qa"][:1]]}
        lines.insert(i, json.dumps(entry))
    (folder / "video_info.meta.jsonl").write_text("\n".join(lines))
    (folder / "videos" / "corrupt.mp4").write_bytes(os.urandom(5000))
    video_files.write_sound(folder / "videos" / "sound.mp4")
    video_files.write_video(folder / "videos" / "deadly.mp4", 20)

    config = load_run_config(settings, [f"benchmark.folder={folder}", f"store.folder={tmp_path / 'store'}"])
    line = refusal(tmp_path / "run", config)
    assert "1 of 6 videos" in line and "missing" in line and "--allow-missing" in line
    assert not (tmp_path / "run").exists()

    config, prepare = dataclasses.replace(config, allow_missing=True), partial(install_deadly, "av.open")
    finished = evaluate(config, tmp_path / "run", prepare=prepare)
    good = [row for row in finished.rows if row["error"] is None]
    assert results(good) == results(run.rows)
    failed = {row["video_id"]: row["error"] for row in finished.rows if row["error"] is not None}
    assert set(failed) == {"deadly", "corrupt", "sound"} and "SIGSEGV" in failed["deadly"]
    assert len(finished.rows) - len(good) == 3 * len(CONDITIONS)
    assert all(row["prediction"] is None and row["times_seconds"] == [] for row in finished.rows if row["error"])
    assert finished.missing == ("missing",) and finished.num_questions == NUM_VIDEOS * NUM_QUESTIONS + 3


DEADLY_SELECTOR = """
import os, signal
class Deadly:
    needs_scores = False
    def select(self, inputs):
        if inputs.question_id == "11-0":
            os.kill(os.getpid(), signal.SIGSEGV)
        return inputs.evenly_spaced()
"""


@pytest.mark.slow
def test_a_question_that_ends_the_process_takes_no_other_with_it(settings, tmp_path):
    """The first question of its batch, before any answer on its video."""
    path = tmp_path / "deadly.py"
    path.write_text(DEADLY_SELECTOR)
    arms = f"arms=[{{method: '{path}', frames: [4]}}]"
    rows = evaluate(load_run_config(settings, [arms, "benchmark.videos=1"]), tmp_path / "run").rows
    failed = {row["question_id"]: row["error"] for row in rows if row["error"] is not None}
    assert set(failed) == {"11-0"} and "SIGSEGV" in failed["11-0"] and len(rows) == NUM_QUESTIONS


@pytest.mark.slow
def test_a_question_that_an_arm_cannot_answer_is_one_row(benchmark, settings, tmp_path):
    """The oracle needs the time of the evidence."""
    folder = tmp_path / "benchmark"
    shutil.copytree(benchmark, folder)
    entry = json.loads((folder / "video_info.meta.jsonl").read_text().splitlines()[0])
    entry["qa"][0]["time_reference"] = "08:17-None"
    (folder / "video_info.meta.jsonl").write_text(json.dumps({**entry, "qa": entry["qa"][:2]}))
    config = load_run_config(
        settings, [f"benchmark.folder={folder}", "arms=[{method: oracle, frames: [4]}, {method: blind}]"]
    )
    finished = evaluate(config, tmp_path / "run")
    errors = [(row["arm"], "needs the time" in (row["error"] or "")) for row in finished.rows]
    assert errors == [("oracle", True), ("blind", False), ("oracle", False), ("blind", False)]
    assert finished.about["skipped"] == ["question '11-0': time reference '08:17-None' is not of the form MM:SS-MM:SS"]


# --- Ray -------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_two_workers_on_ray_give_the_same_rows(run, settings, tmp_path):
    config = load_run_config(settings, ["workers=2", f"store.folder={tmp_path / 'store'}"])
    assert results(evaluate(config, tmp_path / "run").rows) == results(run.rows)


# --- what failed by the machines -------------------------------------------------------------------------------------


def fail_some(folder: Path) -> int:
    """Turn a row into one that failed by the place, and another into one that failed by itself."""
    lines = (folder / "answers.jsonl").read_text().splitlines()
    for i, by_place in ((1, True), (2, False)):
        row = json.loads(lines[i])
        lines[i] = json.dumps({**row, "prediction": None, "error": "it failed", "by_place": by_place})
    (folder / "answers.jsonl").write_text("\n".join(lines) + "\n")
    return len(lines)


@pytest.mark.slow
@pytest.mark.parametrize(("retry_failed", "num_failed"), [(False, 1), (True, 0)])
def test_what_failed_by_the_machines_is_asked_again_and_all_if_told_so(
    run, settings, tmp_path, retry_failed, num_failed
):
    folder = copy_of(run, tmp_path)
    num_rows = fail_some(folder)
    before = read_run(folder)
    assert (before.num_failed, before.num_failed_by_place) == (2, 1)
    again = evaluate(load_run_config(settings), folder, retry_failed=retry_failed)
    assert (len(again.rows), again.num_failed, again.num_failed_by_place) == (num_rows, num_failed, 0)
    if retry_failed:
        assert results(again.rows) == results(run.rows)


def test_a_file_system_without_locks_is_said_and_the_run_goes_on(settings, tmp_path, monkeypatch, caplog):
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    with open_run(tmp_path / "run", load_run_config(settings)) as folder:
        assert folder.answered == set()
    assert "its file system has no locks (No locks available)" in caplog.text


def test_a_wrong_address_leaves_no_run_folder(settings, tmp_path):
    config = load_run_config(settings, ["workers=1", "ray_address='127.0.0.1:1'"])
    assert "no Ray answers at '127.0.0.1:1'" in refusal(tmp_path / "run", config)
    assert not (tmp_path / "run").exists()

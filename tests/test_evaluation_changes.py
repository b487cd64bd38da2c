"""What may change when a run goes on: arms, budgets and questions are added; all else is refused by name."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from pathlib import Path

import pytest
from runs import CONDITIONS, NUM_QUESTIONS, NUM_VIDEOS, copy_of, refusal, results

from lvqa.evaluation import load_run_config
from lvqa.evaluation.changes import settings_changes
from lvqa.evaluation.run import evaluate
from lvqa.provenance import git_state

pytestmark = pytest.mark.slow

ARMS = "[{method: uniform}, {method: topk, frames: [4]}]"


def changes(*overrides: str, before: tuple[str, ...] = (f"arms={ARMS}", "frames=[4, 8]")) -> list[str]:
    return settings_changes(load_run_config(None, before), load_run_config(None, [*before, *overrides]))


# --- settings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "override",
    [
        "arms=[{method: uniform}, {method: topk, frames: [4]}, {method: blind}]",
        "arms=[{method: blind}, {method: topk, frames: [16, 4]}, {method: uniform}]",
        "arms=[{name: uniform, method: uniform, frames: [8, 4]}, {name: topk, method: topk, frames: [4]}]",
        "arms=[{method: uniform, baseline: null}, {method: topk, frames: [4]}, {method: random, baseline: topk}]",
        "frames=[4, 8, 16]",
        "frames=[8, 4]",
        "workers=3",
        "benchmark.limit=2",
    ],
)
def test_arms_and_budgets_may_be_added_and_the_work_may_move(override):
    assert changes(override) == []


@pytest.mark.parametrize(
    ("override", "lines"),
    [
        ("arms=[{method: uniform}]", ["arms: uniform, topk, now without topk"]),
        ("arms=[{method: uniform}, {method: topk, frames: [8]}]", ["arm topk: frames: [4], now [8]"]),
        ("frames=[8]", ["frames: [4, 8], now [8]"]),
        (
            "arms=[{method: uniform}, {name: topk, method: aks, frames: [4]}]",
            ["arm topk: method: 'topk', now 'aks'"],
        ),
        (
            "arms=[{method: uniform, name: uniform, settings: {answer.mode: text}}, {method: topk, frames: [4]}]",
            ["arm uniform: answer.mode: null, now 'text'"],
        ),
        (
            "arms=[{method: uniform}, {method: topk, frames: [4], baseline: uniform}]",
            ["arm topk: baseline: null, now 'uniform'"],
        ),
        ("video.clip_seconds=4", ["video.clip_seconds: 16.0, now 4.0"]),
        ("baseline=topk", ["baseline: null, now 'topk'"]),
    ],
)
def test_whatever_else_differs_is_named_once(override, lines):
    assert changes(override) == lines


# --- questions and videos --------------------------------------------------------------------------------------------


@pytest.fixture
def moved(run, settings, tmp_path):
    """A copy of the finished run with a copy of its benchmark: its folder, and its settings."""
    benchmark = tmp_path / "benchmark"
    shutil.copytree(run.config.benchmark.folder, benchmark)
    folder = copy_of(run, tmp_path)
    config = folder / "config.yaml"
    config.write_text(config.read_text().replace(str(run.config.benchmark.folder), str(benchmark)))
    return folder, load_run_config(settings, [f"benchmark.folder={benchmark}"])


def edit(config, change) -> str:
    """Change the first question of a benchmark, and return its id."""
    path = config.benchmark.folder / "video_info.meta.jsonl"
    first, *others = [json.loads(line) for line in path.read_text().splitlines()]
    question_id = first["qa"][0]["uid"]
    change(first["qa"])
    path.write_text("".join(json.dumps(line) + "\n" for line in (first, *others)))
    return question_id


def other_answer(questions):
    questions[0]["answer"] = "B" if questions[0]["answer"] == "A" else "A"


def other_text(questions):
    questions[0]["question"] = "Really? " + questions[0]["question"]


def other_evidence(questions):
    questions[0]["time_reference"] = "00:00-00:01"


def other_ability(questions):
    questions[0]["question_type"] = ["reasoning in circles"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (other_answer, "has another answer ("),
        (other_text, "has another text ("),
        (other_evidence, "has its evidence elsewhere ("),
        (other_ability, "has other tags ("),
        (lambda questions: questions.pop(0), "is gone"),
    ],
)
def test_a_changed_question_is_refused_by_name_and_nothing_is_written(moved, change, message):
    folder, config = moved
    question_id = edit(config, change)
    names = ("config.yaml", "run.json", "answers.jsonl")
    before = [(folder / name).read_bytes() for name in names]
    line = refusal(folder, config)
    assert f"question {question_id} of video " in line and message in line
    assert [(folder / name).read_bytes() for name in names] == before


def test_a_changed_video_is_refused_by_name(moved, run):
    folder, config = moved
    video = sorted((config.benchmark.folder / "videos").iterdir())[0]
    with video.open("ab") as file:
        file.write(b"\0")
    before = run.about["content_ids"][video.stem]
    assert f"video {video.stem} has another content ({before}, now " in refusal(folder, config)


def test_an_untouched_copy_goes_on(moved, run):
    folder, config = moved
    assert evaluate(config, folder).rows == run.rows


def test_a_changed_file_of_your_own_is_refused_by_name(run, settings, tmp_path):
    folder = copy_of(run, tmp_path)
    info = json.loads((folder / "run.json").read_text())
    scores = tmp_path / "scores.json"
    scores.write_text("{}")
    info["files"] = {str(scores): hashlib.sha256(b"before").hexdigest()}
    (folder / "run.json").write_text(json.dumps(info))
    config = load_run_config(settings, [f"selection.scores={scores}"])
    text = (folder / "config.yaml").read_text().replace("scores: null", f"scores: {scores}")
    (folder / "config.yaml").write_text(text)
    assert f"{folder} has answers to something else: {scores} has another content; take" in refusal(folder, config)


def test_an_arm_a_budget_a_video_and_a_question_are_added_and_nothing_is_asked_again(run, settings, tmp_path):
    arms = "arms=[{method: blind}, {method: uniform, frames: [4]}]"
    few = ["benchmark.videos=1", "benchmark.limit=2"]
    first = evaluate(load_run_config(settings, [arms, *few]), tmp_path / "run")
    more = "arms=[{method: blind}, {method: uniform, frames: [4, 8]}, {method: topk, frames: [4]}]"
    grown = evaluate(load_run_config(settings, [more]), tmp_path / "run")
    num_asked = NUM_VIDEOS * NUM_QUESTIONS
    assert (first.num_questions, len(first.rows), len(grown.rows)) == (2, 2 * 2, 4 * num_asked)
    assert grown.rows[: len(first.rows)] == first.rows
    assert [arm.method for arm in grown.config.arms] == ["blind", "uniform", "topk"]
    assert grown.about["settings"]["arms"][1]["frames"] == [4, 8] and grown.num_questions == num_asked
    known = {("blind", 0), ("uniform", 4), ("topk", 4)} & {*CONDITIONS}
    alike = [row for row in grown.rows if (row["arm"], row["budget"]) in known]
    assert results(alike) == results(row for row in run.rows if (row["arm"], row["budget"]) in known)
    assert {row["session"] for row in grown.rows} == {0, 1}


# --- what is noted ---------------------------------------------------------------------------------------------------


def test_run_json_says_what_was_asked_and_with_what(run):
    about = run.about
    annotations = run.config.benchmark.folder / "video_info.meta.jsonl"
    assert about["annotations"] == {annotations.name: hashlib.sha256(annotations.read_bytes()).hexdigest()}
    videos = {path.stem: path for path in (run.config.benchmark.folder / "videos").glob("*.mp4")}
    digests = {name: hashlib.sha256(path.read_bytes()).hexdigest()[:16] for name, path in videos.items()}
    assert about["content_ids"] == digests
    assert about["devices"] == ["cpu"] and about["files"] == {} and about["seed"] == 0
    assert {"lvqa", "python", "torch", "transformers", "av", "numpy"} <= about["versions"].keys()
    assert len(about["model_revision"]) >= 12 and about["git"] == git_state()


def test_the_commit_is_that_of_the_checkout(tmp_path, monkeypatch):
    package = tmp_path / "lvqa"
    package.mkdir()
    (package / "__init__.py").write_text("")
    monkeypatch.setattr("lvqa.__file__", str(package / "__init__.py"))
    assert git_state() is None
    identity = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    for words in (("init", "-q"), ("add", "."), (*identity, "commit", "-qm", "first")):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    state = git_state()
    assert state is not None and len(state["commit"]) == 40 and state["dirty"] is False
    (package / "__init__.py").write_text("changed = True\n")
    assert git_state() == {"commit": state["commit"], "dirty": True}
    monkeypatch.setenv("PATH", str(Path(tmp_path / "nowhere")))
    assert git_state() is None

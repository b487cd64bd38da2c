"""Runs of a benchmark on the embedded model: their settings, their folders, and what survives a kill.

Nothing here depends on how well the model was trained. A run costs some seconds, for the worker is a process of its
own that loads the model; so tests look at one finished run wherever that shows the same.
"""

import dataclasses
import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import video_files

from lvqa.answering import named_letter
from lvqa.config import to_yaml
from lvqa.evaluation import RunConfig, evidence_recall, load_run_config, read_run, resolve_arms
from lvqa.evaluation.folder import open_run
from lvqa.evaluation.rows import FIELDS, key_of, read_rows, to_line
from lvqa.evaluation.run import chosen_tasks, evaluate
from lvqa.records import LvqaError
from lvqa.synthetic.videos import make_videos

FILMS, QUESTIONS = 2, 4
MINUTES = 2
PAIRS = 30 * MINUTES
ARMS = """
  - {method: uniform, frames: [4]}
  - {method: freeret}
  - {method: topk, frames: [4]}
  - {name: embedding only, method: freeret, frames: [4], settings: {rerank.name: none}}
  - {name: said, method: uniform, frames: [4], settings: {answer.mode: text, answer.max_new_tokens: 4}}
  - {method: blind}
"""
CELLS = [("uniform", 4), ("freeret", 4), ("freeret", 8), ("topk", 4), ("embedding only", 4), ("said", 4), ("blind", 0)]
SPENT = ("seconds", "counts", "index")
"""What a row says of its cost, which depends on what was in memory and in the store."""


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory) -> Path:
    """Two made films of a minute, in LVBench's layout."""
    folder = tmp_path_factory.mktemp("benchmark")
    make_videos(folder, num_videos=FILMS, minutes=MINUTES, num_questions=QUESTIONS, seed=11)
    return folder


@pytest.fixture(scope="module")
def settings(benchmark, tmp_path_factory) -> Path:
    """A YAML file of a run on them, with a store of its own."""
    folder = tmp_path_factory.mktemp("settings")
    path = folder / "run.yaml"
    path.write_text(
        "model: {name: tiny, device: cpu}\n"
        "video: {clip_seconds: 8}\nrerank: {pool: 5}\nframes: [4, 8]\n"
        f"benchmark: {{folder: {benchmark}}}\nstore: {{folder: {folder / 'store'}}}\narms: {ARMS}"
    )
    return path


@pytest.fixture(scope="module")
def run(settings, tmp_path_factory):
    """An uninterrupted run."""
    return evaluate(load_run_config(settings), tmp_path_factory.mktemp("run") / "whole")


def results(rows) -> list[str]:
    """The rows without their cost, in an order of their own."""
    return sorted(json.dumps({name: row[name] for name in FIELDS if name not in SPENT}) for row in rows)


def refusal(folder: Path, config: RunConfig) -> str:
    """What `evaluate` says without having loaded or written anything."""
    with pytest.raises(LvqaError) as caught:
        evaluate(config, folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- settings --------------------------------------------------------------------------------------------------------


def test_arms_share_the_runs_settings_but_for_their_own(settings):
    arms = resolve_arms(load_run_config(settings))
    assert [(arm.name, budget) for arm in arms for budget in arm.budgets] == CELLS
    assert [arm.config.rerank.name for arm in arms] == ["mcq", "mcq", "mcq", "none", "mcq", "mcq"]
    assert arms[0].config == arms[1].config == arms[2].config
    assert arms[4].config == dataclasses.replace(
        arms[0].config, answer=dataclasses.replace(arms[0].config.answer, mode="text", max_new_tokens=4)
    )


def test_written_out_it_reads_back_the_same(settings, tmp_path):
    config = load_run_config(settings, ["benchmark.make={videos: 2}", "arms=[{method: blind}]", "ray_address=a:1"])
    path = tmp_path / "config.yaml"
    path.write_text(to_yaml(config))
    assert load_run_config(path) == config


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("arms=[{method: best}]", "oracle, blind, or a file ending in .py or .json, got 'best'"),
        ("arms=[{method: no.py}]", "cannot read the plug-in"),
        ("arms=[{method: aks, settings: {selection.options.t1: 1}}]", "unknown option 't1' of method 'aks'"),
        ("selection.options.depth=2", "unknown option 'depth' of method"),
        ("arms=[{settings: {rerank.name: best}}]", "rerank.name must be one of none, mcq"),
        ("benchmark.name=lv", "no benchmark 'lv'; there are: lvbench"),
        ("benchmark.folder=null", "benchmark.folder"),
        ("benchmark.folder=/nowhere", "/nowhere/video_info.meta.jsonl"),
    ],
)
def test_what_no_room_knows_is_refused_before_anything_is_written(settings, tmp_path, override, named):
    assert named in refusal(tmp_path / "run", load_run_config(settings, [override]))
    assert not (tmp_path / "run").exists()


# --- rows ------------------------------------------------------------------------------------------------------------


def test_there_is_one_row_for_each_question_in_each_arm(run):
    assert len(run.rows) == FILMS * QUESTIONS * len(CELLS)
    assert Counter((row["arm"], row["budget"]) for row in run.rows) == dict.fromkeys(CELLS, FILMS * QUESTIONS)
    assert len({key_of(row) for row in run.rows}) == len(run.rows)
    assert run.num_questions == FILMS * QUESTIONS and run.missing == ()


def test_arms_with_other_rerankers_share_the_index(settings, tmp_path):
    closer = "{name: closer, method: freeret, settings: {rerank.name: retllm, rerank.options: {top: 2}}}"
    overrides = [f"arms=[{{method: freeret}}, {closer}]", "frames=[4]", f"store.folder={tmp_path / 'store'}"]
    config = load_run_config(settings, [*overrides, "benchmark.videos=1", "benchmark.limit=1"])
    first, second = evaluate(config, tmp_path / "run").rows
    assert first["index"] == second["index"] and first["index"]["counts"]["pairs_encoded"] == PAIRS
    assert [len(row["reranked"]) for row in (first, second)] == [5, 2]
    assert first["embedded"][0] in second["embedded"] and second["error"] is None


def test_a_row_tells_the_question_the_answer_and_the_evidence(run):
    for row in run.rows:
        assert row["error"] is None and row["target"] in "ABCD" and len(row["tags"]) in (1, 2)
        assert len(row["times_seconds"]) == row["budget"]
        assert row["evidence_seconds"][0] < row["evidence_seconds"][1] <= 2 * PAIRS
        searched = row["arm"] in ("freeret", "topk", "embedding only")
        assert len(row["embedded"]) == (5 if searched else 0)
        assert row["num_clips"] == (15 if searched else 0)
        scores = [score for _, _, score in row["embedded"]]
        assert scores == sorted(scores, reverse=True)
        reranked = row["arm"] in ("freeret", "topk")
        assert sorted(clip[:2] for clip in row["reranked"]) == (
            sorted(c[:2] for c in row["embedded"]) if reranked else []
        )
        scores = [score for _, _, score in row["reranked"]]
        assert scores == sorted(scores, reverse=True)


def test_letters_are_read_from_logits_or_from_text(run):
    for row in run.rows:
        if row["arm"] == "said":
            assert row["option_scores"] == [] and row["prediction"] == named_letter(row["text"], ("?",) * 4)
        else:
            assert row["prediction"] == "ABCD"[row["option_scores"].index(max(row["option_scores"]))]
            assert sum(row["option_scores"]) == pytest.approx(1, abs=1e-5)


def test_every_budget_counts_its_ranking_and_none_the_index(run):
    """A clip of 8 s is 4 pairs of 9 tokens. All five of the pool were read, for one question, in one ranking."""
    of = {key_of(row): row for row in run.rows}
    for row in run.rows:
        video, question, arm, _ = key_of(row)
        assert (
            ("rank" in row["seconds"]) == (row["index"] is not None) == (arm in ("freeret", "topk", "embedding only"))
        )
        if arm == "freeret":
            blind = of[video, question, "blind", 0]["counts"]["tokens_prefilled"]
            assert row["counts"]["tokens_prefilled"] > blind + 5 * 4 * 9
            assert row["seconds"]["rank"] == of[video, question, "freeret", 4]["seconds"]["rank"]
    made = [row["index"] for row in run.rows if row["index"] and not row["index"]["reused"]]
    assert [index["counts"]["pairs_encoded"] for index in made] == [PAIRS] * len(made) and made


def test_arms_that_index_otherwise_share_pixels_and_settings_of_the_answer_share_rankings(settings, tmp_path):
    """One reading of each film for all arms, 60 frames in 30 pairs, and no other while its questions are asked."""
    arms = (
        "[{name: a}, {name: b, settings: {embedding.state: mlp}}, {name: c, settings: {video.clip_seconds: 2}},"
        " {name: d, settings: {answer.time_encoding: mrope}}]"
    )
    config = load_run_config(settings, [f"arms={arms}", "frames=[8]", f"store.folder={tmp_path / 'store'}"])
    rows = evaluate(config, tmp_path / "run").rows
    assert len(rows) == FILMS * QUESTIONS * 4 and {row["error"] for row in rows} == {None}
    made = [row["index"]["counts"] for row in rows if not row["index"]["reused"]]
    assert [(counts["frames_decoded"], counts["pairs_encoded"]) for counts in made] == [(2 * PAIRS, PAIRS)] * 4 * FILMS
    assert {row["counts"]["frames_decoded"] for row in rows} == {row["counts"]["pairs_encoded"] for row in rows} == {0}
    assert [row["num_clips"] for row in rows[:4]] == [15, 15, 60, 15]
    of = {key_of(row): row for row in rows}
    for row in rows:
        if row["arm"] == "d":
            same = of[row["video_id"], row["question_id"], "a", 8]
            assert (row["reranked"], row["times_seconds"]) == (same["reranked"], same["times_seconds"])
            assert row["seconds"]["rank"] == same["seconds"]["rank"]


def test_arms_that_show_the_same_frames_share_the_reply_and_each_row_counts_it(settings, tmp_path):
    """With all frames as the budget every method shows the same; shown otherwise, they are answered again."""
    arms = "arms=[{method: uniform}, {method: topk}, {name: b, settings: {answer.time_encoding: mrope}}]"
    given = [arms, f"frames=[{2 * PAIRS}]", "benchmark.limit=1", f"store.folder={tmp_path / 'store'}"]
    rows = evaluate(load_run_config(settings, given), tmp_path / "run").rows
    assert len(rows) == 3 * FILMS
    for uniform, topk, mrope in (rows[:3], rows[3:]):
        assert uniform["option_scores"] == topk["option_scores"] != mrope["option_scores"]
        assert uniform["seconds"]["answer"] == topk["seconds"]["answer"] > 0
        spent = [row["counts"]["tokens_prefilled"] for row in (mrope, uniform, topk)]
        assert 0 < spent[0] != spent[1] < spent[2]  # the last one with its ranking


def test_evidence_is_found_at_every_stage(run):
    found = evidence_recall([row for row in run.rows if row["arm"] == "freeret" and row["budget"] == 4])
    assert {share.n for share in found.values()} == {FILMS * QUESTIONS}
    assert found["embedding top 5"].hits == found["reranked top 5"].hits


def test_the_folder_says_with_what_the_run_was_made(run):
    assert run.config.frames == (4, 8) and run.config.store.folder is not None
    assert run.about["versions"].keys() >= {"lvqa", "python", "torch", "transformers"}
    assert run.about["seed"] == 0 and run.about["model_revision"] and run.about["started"].endswith("+00:00")
    assert run.about["machine"]["workers"] == 0


def test_limits_cut_the_benchmark(settings):
    loaded = chosen_tasks(load_run_config(settings, ["benchmark.videos=1", "benchmark.limit=2"]))
    assert [question.id for task in loaded.tasks for question in task.questions] == ["11-0", "11-1"]


# --- a run folder ----------------------------------------------------------------------------------------------------


def copy_of(run, folder: Path) -> Path:
    return Path(shutil.copytree(run.folder, folder / "run"))


def test_a_finished_run_is_read_and_nothing_is_asked(run, settings, tmp_path):
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
    config = load_run_config(settings, [*changes, "store={folder: elsewhere, memory_mib: 9}", "video.stall_seconds=9"])
    assert results(evaluate(config, copy_of(run, tmp_path)).rows) == results(run.rows)


def test_a_run_may_go_on_with_more_questions(run, settings, tmp_path):
    few = ["benchmark.videos=1", "benchmark.limit=1", "arms=[{method: blind}]"]
    begun = evaluate(load_run_config(settings, few), tmp_path / "run")
    whole = evaluate(load_run_config(settings, few[2:]), tmp_path / "run")
    assert (begun.num_questions, whole.num_questions) == (1, FILMS * QUESTIONS)
    assert whole.rows[:1] == begun.rows and len(whole.rows) == FILMS * QUESTIONS
    asked = [row for row in run.rows if row["arm"] == "blind"]
    assert results(whole.rows) == results(asked)


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


# --- hostile lines ---------------------------------------------------------------------------------------------------


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
def test_a_line_that_is_no_row_is_refused_with_its_place(run, tmp_path, text):
    folder = copy_of(run, tmp_path)
    with (folder / "answers.jsonl").open("ab") as file:
        file.write(text)
    for refused in (lambda: read_run(folder), lambda: evaluate(run.config, folder)):
        with pytest.raises(LvqaError, match=rf"answers\.jsonl, line {len(run.rows) + 1};") as caught:
            refused()
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
    "embedded": [[[1, 2]], [1, 2, 3], None],
    "reranked": [[["a", 2, 3]]],
    "num_clips": [-1],
    "counts": [{}, {"frames_decoded": 1, "pairs_encoded": 1}, None],
    "index": [{}, {"reused": 1}, 3],
    "seconds": [{"open": "x"}, [1]],
    "error": [3],
}


def test_every_field_is_checked():
    assert BAD.keys() == {*FIELDS}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in BAD.items() for value in values])
def test_a_field_that_does_not_fit_is_named(line, tmp_path, name, value):
    path = tmp_path / "answers.jsonl"
    path.write_text(to_line(line) + json.dumps({**line, "question_id": "another", name: value}) + "\n")
    with pytest.raises(
        LvqaError, match=rf"^{name}[\w.\[\]]* (must be|is missing; it must be) .*\(.*answers\.jsonl, line 2;"
    ):
        list(read_rows(path))
    path.write_text(to_line(line) + json.dumps({key: line[key] for key in line if key != name}) + "\n")
    with pytest.raises(LvqaError, match=rf"^{name} is missing; it must be .*\(.*answers\.jsonl, line 2;"):
        list(read_rows(path))


def test_an_answer_that_is_there_twice_is_refused(line, tmp_path):
    path = tmp_path / "answers.jsonl"
    path.write_text(to_line(line) + to_line({**line, "budget": 1}) + to_line({**line, "prediction": None}))
    with pytest.raises(LvqaError, match="line 3: the same question, arm and budget as in line 1"):
        list(read_rows(path))


def test_a_number_that_is_none_becomes_null(run, tmp_path):
    """A model in half precision can say NaN; JSON can't."""
    from lvqa.evaluation.runner import _rounded

    assert [_rounded(value) for value in (float("nan"), float("inf"), None, 0.1234567)] == [None, None, None, 0.123457]


@pytest.mark.parametrize("part", [0.02, 0.5, 0.98])
def test_a_torn_last_line_is_cut_off_and_asked_again(run, settings, tmp_path, part):
    folder = copy_of(run, tmp_path)
    whole = (folder / "answers.jsonl").read_bytes()
    lines = whole.splitlines(keepends=True)
    torn = lines[-1][: int(len(lines[-1]) * part)]
    (folder / "answers.jsonl").write_bytes(b"".join(lines[:-1]) + torn)
    assert len(read_run(folder).rows) == len(run.rows) - 1
    with open_run(folder, load_run_config(settings)) as opened:
        assert len(opened.answered) == len(lines) - 1
        opened.append([run.rows[-1]])
    assert (folder / "answers.jsonl").read_bytes() == whole


# --- kills and failures ----------------------------------------------------------------------------------------------

DRIVER = """
import sys
from pathlib import Path
from lvqa.evaluation import load_run_config
from lvqa.evaluation.run import evaluate
evaluate(load_run_config(Path(sys.argv[1])), Path(sys.argv[2]))
"""


def rows_in(folder: Path) -> int:
    path = folder / "answers.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def test_a_driver_killed_again_and_again_ends_with_each_answer_once(run, settings, tmp_path):
    """First while the model is loaded, then soon after it has answered something."""
    folder, lots, killed = tmp_path / "run", random.Random(3), 0
    for num_questions in (0, 1):
        enough = rows_in(folder) + num_questions * len(CELLS)
        driver = subprocess.Popen([sys.executable, "-c", DRIVER, str(settings), str(folder)])
        while driver.poll() is None and not ((folder / "answers.jsonl").exists() and rows_in(folder) >= enough):
            time.sleep(0.002)
        time.sleep(lots.uniform(0, 0.1))
        driver.kill()
        killed += driver.wait() == -signal.SIGKILL
    assert killed == 2 and rows_in(folder) > 0
    with (folder / "answers.jsonl").open("ab") as file:
        file.write(b'{"video_id": "film')
    finished = evaluate(load_run_config(settings), folder)
    assert results(finished.rows) == results(run.rows)
    assert len(finished.about["resumed"]) >= killed - 1


def test_a_worker_killed_while_it_answers_costs_nothing(run, settings, tmp_path):
    killed = []

    def kill_once(stage: str, done: int, total: int) -> None:
        if done and not killed:
            (child,) = multiprocessing.active_children()
            killed.append(child.pid)
            os.kill(child.pid, signal.SIGKILL)

    finished = evaluate(load_run_config(settings), tmp_path / "run", progress=kill_once)
    assert killed and results(finished.rows) == results(run.rows)


DEADLY = """
import os, signal
import av
opened = av.open
def open_or_die(file, *words, **options):
    if "deadly" in str(file):
        os.kill(os.getpid(), signal.SIGSEGV)
    return opened(file, *words, **options)
av.open = open_or_die
"""
"""A decoder that takes its process with it, as a real one did; Python runs `sitecustomize` in every new process."""


@pytest.fixture
def deadly(monkeypatch, tmp_path) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(DEADLY)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path / "site"), os.environ.get("PYTHONPATH", "")]))


def test_videos_that_fail_are_rows_with_their_error_and_the_rest_goes_on(run, benchmark, settings, tmp_path, deadly):
    folder = tmp_path / "benchmark"
    shutil.copytree(benchmark, folder)
    lines = (folder / "video_info.meta.jsonl").read_text().splitlines()
    for number, key in enumerate(("deadly", "corrupt", "sound", "missing")):
        told = json.loads(lines[0])
        told |= {"key": key, "qa": [{**qa, "uid": f"{number}-{qa['uid']}"} for qa in told["qa"][:2]]}
        lines.insert(number, json.dumps(told))
    (folder / "video_info.meta.jsonl").write_text("\n".join(lines))
    (folder / "videos" / "corrupt.mp4").write_bytes(os.urandom(5000))
    video_files.write_sound(folder / "videos" / "sound.mp4")
    video_files.write_video(folder / "videos" / "deadly.mp4", 20)

    config = load_run_config(settings, [f"benchmark.folder={folder}", f"store.folder={tmp_path / 'store'}"])
    line = refusal(tmp_path / "run", config)
    assert "1 of 6 videos" in line and "missing" in line and "--allow-missing" in line
    assert not (tmp_path / "run").exists()

    finished = evaluate(dataclasses.replace(config, allow_missing=True), tmp_path / "run")
    good = [row for row in finished.rows if row["error"] is None]
    assert results(good) == results(run.rows)
    failed = {row["video_id"]: row["error"] for row in finished.rows if row["error"] is not None}
    assert set(failed) == {"deadly", "corrupt", "sound"} and "SIGSEGV" in failed["deadly"]
    assert len(finished.rows) - len(good) == 3 * 2 * len(CELLS)
    assert all(row["prediction"] is None and row["times_seconds"] == [] for row in finished.rows if row["error"])
    assert finished.missing == ("missing",) and finished.num_questions == FILMS * QUESTIONS + 3 * 2


def test_a_question_that_an_arm_cannot_answer_is_one_row(benchmark, settings, tmp_path):
    """The oracle needs the time of the evidence."""
    folder = tmp_path / "benchmark"
    shutil.copytree(benchmark, folder)
    told = json.loads((folder / "video_info.meta.jsonl").read_text().splitlines()[0])
    told["qa"][0]["time_reference"] = "08:17-None"
    (folder / "video_info.meta.jsonl").write_text(json.dumps({**told, "qa": told["qa"][:2]}))
    config = load_run_config(
        settings, [f"benchmark.folder={folder}", "arms=[{method: oracle, frames: [4]}, {method: blind}]"]
    )
    finished = evaluate(config, tmp_path / "run")
    errors = [(row["arm"], "needs the time" in (row["error"] or "")) for row in finished.rows]
    assert errors == [("oracle", True), ("blind", False), ("oracle", False), ("blind", False)]
    assert finished.about["skipped"] == ["question '11-0': time reference '08:17-None' is not of the form MM:SS-MM:SS"]


# --- Ray -------------------------------------------------------------------------------------------------------------


def test_two_workers_on_ray_give_the_same_rows(run, settings, tmp_path):
    config = load_run_config(settings, ["workers=2", f"store.folder={tmp_path / 'store'}"])
    assert results(evaluate(config, tmp_path / "run").rows) == results(run.rows)

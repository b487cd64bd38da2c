"""Runs of `lvqa retrieve`: what they rank, that they go on after kills and failures, and the files for VLM2Vec."""

import dataclasses
import json
import random
import shutil
import signal
import time
from functools import partial
from pathlib import Path

import forked
import numpy as np
import pytest
import retrieval_layouts as layouts
from click.testing import CliRunner
from worker_tasks import install_deadly

import lvqa
from lvqa.cli.main import lvqa_command
from lvqa.datasets.retrieval import load_sets
from lvqa.datasets.retrieval.published import published_rankings
from lvqa.evaluation.retrieval.metrics import RankedQuery, mean_metrics
from lvqa.evaluation.retrieval.rows import NO_CANDIDATE, RANKINGS
from lvqa.evaluation.retrieval.run import read_retrieve_run, retrieve
from lvqa.evaluation.retrieval.settings import load_retrieve_config
from lvqa.items import Item
from lvqa.prompts import RetrievalTask
from lvqa.records import LvqaError
from lvqa.retriever import Retriever
from lvqa.synthetic.retrieval import make_sets

pytestmark = pytest.mark.slow

NUM_QUERIES = 6
SETS = ("image_question", "image_to_text", "moment", "part_of_image", "text_to_clip")
ARMS = """
  - {name: embedding alone, settings: {rerank.pool: 0}}
  - {name: FreeRet}
  - {name: E5-V, settings: {rerank.pool: 0, embedding.prompt: e5v, embedding.state: mlp}}
"""


@pytest.fixture(scope="module")
def sets_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sets") / "made"
    make_sets(folder, queries=NUM_QUERIES, seed=704)
    return folder


@pytest.fixture(scope="module")
def file(sets_folder, tmp_path_factory):
    """Return the configuration of a run on a few small sets."""
    path = tmp_path_factory.mktemp("settings") / "small.yaml"
    path.write_text(
        f"model: {{name: tiny}}\ndataset: {{name: own, folder: {sets_folder}, sets: [{', '.join(SETS)}]}}\n"
        f"rerank: {{pool: 3}}\nstore: {{folder: {path.parent / 'store'}}}\narms:{ARMS}"
    )
    return path


@pytest.fixture(scope="module")
def run(file, tmp_path_factory):
    """Return a finished run, which tests only read."""
    return retrieve(load_retrieve_config(file), tmp_path_factory.mktemp("runs") / "run")


def results(rows) -> list[str]:
    """Return what does not depend on where and when rows were made, sorted."""
    kept = [{key: value for key, value in row.items() if key not in ("seconds", "node", "session")} for row in rows]
    return sorted(json.dumps(row) for row in kept)


def never(*_: object) -> None:
    raise AssertionError("a model must not be loaded")


def refusal(config, folder) -> str:
    with pytest.raises(LvqaError) as caught:
        retrieve(config, folder, prepare=never)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- what is ranked --------------------------------------------------------------------------------------------------


def test_every_query_has_a_ranking_of_all_its_candidates_in_every_arm(run, sets_folder):
    sets = {one.name: one for one in load_sets("own", sets_folder, sets=SETS)[0]}
    assert len(run.rows) == len(SETS) * NUM_QUERIES * 3 and run.num_failed == 0
    for row in run.rows:
        one = sets[row["set"]]
        query = next(query for query in one.queries if query.id == row["query_id"])
        names = one.names_of(query)
        assert sorted(row["ranking"]) == list(range(len(names))) and row["num_candidates"] == len(names)
        assert [names[i] for i in row["targets"]] == list(query.targets)
        assert len(row["rerank_scores"]) == (min(3, len(names)) if row["arm"] == "FreeRet" else 0)
        scores = row["rerank_scores"] or row["embed_scores"]
        assert scores == sorted(scores, reverse=True)


@pytest.mark.parametrize("name", ["text_to_clip", "image_question"])
def test_a_ranking_is_the_retrievers(run, sets_folder, tiny, name):
    """The run embeds in parts and keeps the vectors; the retriever is asked at once."""
    (one,) = load_sets("own", sets_folder, sets=[name])[0]

    def item(content) -> Item:
        times = {"start_seconds": content.start_seconds, "end_seconds": content.end_seconds}
        return Item(content.text, image=content.image, video=content.video, **times)

    task = RetrievalTask(query=one.nouns.query, candidate=one.nouns.candidate)
    retriever = Retriever(tiny, run.config, task=task)
    for query in one.queries[:2]:
        names = one.names_of(query)
        matches = retriever.search(item(query.content), [item(one.candidates[n]) for n in names], pool=3)
        (row,) = (row for row in run.rows if (row["set"], row["query_id"], row["arm"]) == (name, query.id, "FreeRet"))
        assert row["ranking"] == [match.index for match in matches]
        assert row["rerank_scores"] == pytest.approx([match.rerank_score for match in matches[:3]], abs=1e-4)
        assert row["embed_scores"] == pytest.approx([match.embed_score for match in matches[:10]], abs=1e-4)


def test_the_files_of_vlm2vec_hold_the_same_rankings(run, sets_folder):
    (one,) = load_sets("own", sets_folder, sets=["moment"])[0]
    folder = run.folder / "vlm2vec" / "embedding_alone" / "image"
    assert len(list(folder.iterdir())) == 3 * len(SETS)
    predictions = [json.loads(line) for line in (folder / "moment_pred.jsonl").read_text().splitlines()]
    infos = [json.loads(line) for line in (folder / "moment_info.jsonl").read_text().splitlines()]
    scores = json.loads((folder / "moment_score.json").read_text())
    assert [info["cand_names"] for info in infos] == [list(query.candidates) for query in one.queries]
    assert [info["label_name"] for info in infos] == [query.targets[0] for query in one.queries]
    assert [prediction["label"] for prediction in predictions] == [list(query.targets) for query in one.queries]
    rows = [row for row in run.rows if (row["set"], row["arm"]) == ("moment", "embedding alone")]
    for prediction, row, query in zip(predictions, rows, one.queries, strict=True):
        assert prediction["prediction"] == [query.candidates[i] for i in row["ranking"]]
        assert prediction["rel_scores"] is None
    ranked = [RankedQuery(prediction["prediction"], prediction["label"]) for prediction in predictions]
    assert scores == {**mean_metrics(ranked), "num_pred": NUM_QUERIES, "num_data": NUM_QUERIES}


def test_frames_that_lie_as_pictures_are_seen_as_a_video(tmp_path):
    """MMEB-V2's frames; a candidate with the query's own frames is its best match."""
    layouts.write_mmeb_video(tmp_path)
    config = load_retrieve_config(
        None,
        [
            *("model.name=tiny", "dataset.name=mmeb_v2_video", f"dataset.folder={tmp_path}", "rerank.pool=0"),
            *("dataset.sets=[MSVD, NExTQA]", f"store.folder={tmp_path / 'store'}", "dataset.instructions=true"),
            "arms=[{}]",
        ],
    )
    run = retrieve(config, tmp_path / "run")
    assert run.num_failed == 0 and len(run.rows) == 4
    assert sorted(path.name for path in (tmp_path / "run/vlm2vec/FreeRet").iterdir()) == ["video"]


# --- going on --------------------------------------------------------------------------------------------------------


def test_a_finished_run_loads_no_model_and_changes_nothing(run, file, tmp_path):
    folder = shutil.copytree(run.folder, tmp_path / "run")
    again = retrieve(load_retrieve_config(file), folder, prepare=never)
    assert again.rows == run.rows and len(again.about["resumed"]) == 1


def test_an_arm_can_be_added_and_what_is_there_stays(run, file, tmp_path):
    folder = shutil.copytree(run.folder, tmp_path / "run")
    arms = "arms=[{name: embedding alone, settings: {rerank.pool: 0}}, {name: FreeRet}, "
    arms += "{name: E5-V, settings: {rerank.pool: 0, embedding.prompt: e5v, embedding.state: mlp}}, "
    arms += "{name: centred, settings: {rerank.pool: 0, embedding.centre: true}}]"
    # The vectors are there, so that the worker only has nothing to do.
    grown = retrieve(load_retrieve_config(file, [arms]), folder)
    assert grown.rows[: len(run.rows)] == run.rows and len(grown.rows) == len(run.rows) * 4 // 3
    assert grown.about["embed_seconds"] == 0


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("embedding.state=mlp", "embedding.state: 'attention', now 'mlp'"),
        ("rerank.pool=2", "rerank.pool: 3, now 2"),
        ("arms=[{name: FreeRet}]", "arms: embedding alone, FreeRet, E5-V, now without embedding alone, E5-V"),
        ("dataset.instructions=true", "dataset.instructions: false, now true"),
    ],
)
def test_other_settings_are_refused_with_their_keys(run, file, override, message):
    assert message in refusal(load_retrieve_config(file, [override]), run.folder)


def test_a_query_that_has_changed_is_refused(run, file, sets_folder, tmp_path):
    changed = shutil.copytree(sets_folder, tmp_path / "sets")
    path = changed / "moment" / "queries.jsonl"
    path.write_text(path.read_text().replace("see", "look", 1).replace('"positives": ["0"]', '"positives": ["1"]'))
    folder = shutil.copytree(run.folder, tmp_path / "run")
    config = (folder / "config.yaml").read_text().replace(str(sets_folder), str(changed))
    (folder / "config.yaml").write_text(config)
    message = refusal(load_retrieve_config(file, [f"dataset.folder={changed}"]), folder)
    assert "query 0 of moment has another content" in message


@pytest.mark.parametrize("content", [b"", b"damaged", None])
def test_damaged_vectors_are_made_again(run, file, tmp_path, content):
    folder = shutil.copytree(run.folder, tmp_path / "run")
    kept = [row for row in run.rows if row["arm"] != "E5-V"]
    RANKINGS.write(folder, kept)
    for path in (folder / "vectors").iterdir():
        if content is None:
            with path.open("wb") as vectors:
                np.savez(vectors, values=np.zeros((2, 3), np.float32), errors=np.array(["", ""]))
        else:
            path.write_bytes(content)
    assert results(retrieve(load_retrieve_config(file), folder).rows) == results(run.rows)


def test_a_line_that_is_no_row_is_named(run, tmp_path):
    folder = shutil.copytree(run.folder, tmp_path / "run")
    with (folder / RANKINGS.name).open("ab") as rows:
        rows.write(b'{"set": "x"}\n')
    with pytest.raises(LvqaError, match=rf"are missing .*rankings.jsonl, line {len(run.rows) + 1}; take the line out"):
        read_retrieve_run(folder)


def test_a_run_killed_again_and_again_ends_with_each_ranking_once(run, file, tmp_path):
    """First while it embeds, then while it ranks."""
    folder, rng, num_killed = tmp_path / "run", random.Random(5), 0

    def progress() -> tuple[int, int]:
        rows = folder / RANKINGS.name
        return len(list(folder.glob("vectors/*.npz"))), rows.read_bytes().count(b"\n") if rows.exists() else 0

    for vectors, rows in ((1, 0), (1, 1)):
        driver = forked.start(retrieve, load_retrieve_config(file), folder)
        while driver.is_alive() and not all(a >= b for a, b in zip(progress(), (vectors, rows), strict=True)):
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.1))
        driver.kill()
        driver.join()
        num_killed += driver.exitcode == -signal.SIGKILL
    assert num_killed == 2
    with (folder / RANKINGS.name).open("ab") as rows_file:
        rows_file.write(b'{"set": "mom')
    finished = retrieve(load_retrieve_config(file), folder)
    assert results(finished.rows) == results(run.rows)
    assert not list((folder / "vectors").glob(".*"))


def test_two_workers_on_ray_give_the_same_rows(run, file, tmp_path):
    finished = retrieve(load_retrieve_config(file, ["workers=2"]), tmp_path / "run")
    assert results(finished.rows) == results(run.rows)
    assert finished.about["nodes"]


# --- failures --------------------------------------------------------------------------------------------------------


@pytest.fixture
def broken(tmp_path):
    """Return a set in which a query's and a candidate's pictures can't be read."""
    for name in ("good", "other", "bad"):
        layouts.picture(tmp_path / f"{name}.png", shade=len(name) * 40)
    (tmp_path / "bad.png").write_bytes(b"no picture")
    (tmp_path / "deadly.png").write_bytes((tmp_path / "good.png").read_bytes())
    layouts.lines(tmp_path / "queries.jsonl", [
        {"id": "fine", "image": "good.png", "positives": ["good"]},
        {"id": "broken", "image": "bad.png", "positives": ["good"]},
        {"id": "lost", "text": "anything", "positives": ["bad"]},
    ])  # fmt: skip
    layouts.lines(tmp_path / "candidates.jsonl", [
        {"id": "bad", "image": "bad.png"}, {"id": "good", "image": "good.png"}, {"id": "other", "image": "other.png"},
    ])  # fmt: skip
    return tmp_path


def config_of(folder: Path, *overrides: str):
    return load_retrieve_config(
        None,
        [
            "model.name=tiny",
            "dataset.name=own",
            f"dataset.folder={folder}",
            f"store.folder={folder / 'store'}",
            *overrides,
        ],
    )


def test_what_cant_be_read_costs_its_query_and_no_other(broken):
    run = retrieve(config_of(broken), broken / "run")
    rows = {(row["query_id"], row["arm"]): row for row in run.rows}
    assert len(rows) == 6
    for arm in ("embedding alone", "FreeRet"):
        fine, failed, lost = (rows[query, arm] for query in ("fine", "broken", "lost"))
        assert "bad.png' cannot be read" in failed["error"] and failed["ranking"] == [] and not failed["by_place"]
        assert fine["error"] is None and fine["ranking"][-1] == 0 and sorted(fine["ranking"]) == [0, 1, 2]
        assert lost["ranking"][-1] == 0 and lost["embed_scores"][-1] is None
        assert len(fine["rerank_scores"]) == (2 if arm == "FreeRet" else 0)
    score = json.loads((broken / "run" / "vlm2vec" / "FreeRet" / "image" / f"{broken.name}_score.json").read_text())
    assert score["num_data"] == 3 and score["hit@1"] <= 1 / 3 + 1e-9
    again = retrieve(config_of(broken), broken / "run", prepare=never)
    assert again.rows == run.rows
    layouts.picture(broken / "bad.png", shade=10)
    message = refusal(config_of(broken), broken / "run")
    assert "query fine" in message  # whose candidate is another file now


def test_a_picture_that_ends_the_process_takes_no_other_with_it(broken):
    path = broken / "queries.jsonl"
    path.write_text(path.read_text().replace("bad.png", "deadly.png"))
    run = retrieve(config_of(broken, "arms=[{}]"), broken / "run", prepare=partial(install_deadly, "PIL.Image.open"))
    errors = {row["query_id"]: row["error"] for row in run.rows}
    assert errors["fine"] is None and errors["lost"] is None and "SIGSEGV" in errors["broken"]


def test_missing_files_are_counted_before_any_work(broken):
    for name in ("good", "other"):
        (broken / f"{name}.png").unlink()
    message = refusal(config_of(broken), broken / "run")
    assert "2 of 3 files of the sets are missing" in message and str(broken / "good.png") in message
    assert not (broken / "run").exists()


def test_a_right_candidate_that_is_none_is_a_miss(tmp_path):
    layouts.write_mmeb_video(tmp_path)
    layouts.table(
        tmp_path / "annotations" / "SmthSmthV2" / "test.parquet",
        [{"video_id": 7, "pos_text": "Throwing it", "neg_text": ["Closing it"]}],
    )
    overrides = ["dataset.name=mmeb_v2_video", "dataset.sets=[SmthSmthV2]", "arms=[{}]"]
    run = retrieve(config_of(tmp_path, *overrides), tmp_path / "run")
    assert run.rows[0]["targets"] == [NO_CANDIDATE]
    scores = json.loads((tmp_path / "run/vlm2vec/FreeRet/video/SmthSmthV2_score.json").read_text())
    assert scores["hit@1"] == scores["recall@10"] == 0


# --- settings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["dataset.name=msmarco", "dataset.folder=/tmp"], "dataset.name must be one of mmeb, "),
        (["dataset.folder=null"], "dataset.folder must say where the dataset's files are, got null"),
        (["dataset.folder=/nowhere", "dataset.sets=[GQA]"], "/nowhere/annotations/MMEB_Test_Instruct/GQA has no test-"),
        (["dataset.folder=/tmp", "rerank.name=mine"], "rerank.name"),
    ],
)
def test_wrong_settings_are_refused_before_any_work(tmp_path, overrides, message):
    assert message in refusal(load_retrieve_config(None, overrides), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("arms=[]", "arms must be a list of 1 or more"),
        ("arms=[{}, {}]", "the name of an arm must be its own"),
        ("baseline=x", "baseline must be null or an arm: embedding alone, FreeRet, got 'x'"),
        ("arms=[{settings: {model.name: x}}]", "settings of arm 'model.name=x' must be without model.name"),
        ("arms=[{settings: {embedding.stat: mlp}}]", "unknown key"),
        ("dataset.queries=0", "dataset.queries must be a whole number, 1 or more"),
        ("dataset.split=x", "unknown key 'dataset.split'; known: dataset.name"),
        ("frames=[16]", "unknown key 'frames'"),
    ],
)
def test_wrong_values_are_refused_where_they_are_read(override, message):
    with pytest.raises(LvqaError) as error:
        load_retrieve_config(None, [override])
    assert message in str(error.value) and "\n" not in str(error.value)


def test_the_package_has_what_a_run_needs():
    """Labels are data beside the code, which a wheel must hold too."""
    assert (Path(lvqa.__file__).parent / "datasets" / "retrieval" / "video_labels.json").is_file()


def test_settings_of_a_run_can_be_written_and_read_back(run):
    assert load_retrieve_config(run.folder / "config.yaml") == dataclasses.replace(run.config)


CONFIGS = Path(__file__).parent.parent / "configs"


@pytest.mark.parametrize("name", ["mmeb", "mmeb_v2_video", "mmeb_ablations", "retllm_tables", "retrieve_synthetic"])
def test_the_published_configurations_are_read_and_say_what_they_lack(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = CONFIGS / f"{name}.yaml"
    assert f"lvqa retrieve configs/{name}.yaml" in path.read_text()
    config = load_retrieve_config(path)
    assert str(config.dataset.folder) in refusal(config, tmp_path / "run")


def test_the_ablations_have_an_arm_for_every_line_that_the_paper_prints():
    names = {arm.name for arm in load_retrieve_config(CONFIGS / "mmeb_ablations.yaml").arms}
    printed = {row.method for row in published_rankings("mmeb") if "Table 3" in row.source}
    assert printed - names == {"+ task"} and "state attention" in names


def test_the_command_prints_the_tables_and_writes_them(broken, tmp_path):
    layouts.picture(broken / "bad.png", shade=10)
    settings = tmp_path / "mine.yaml"
    settings.write_text(f"model: {{name: tiny}}\ndataset: {{name: own, folder: {broken}}}\narms: [{{}}]\n")
    command = ["retrieve", str(settings), "--folder", str(tmp_path / "run"), "--store", str(tmp_path / "s"), "--quiet"]
    result = CliRunner().invoke(lvqa_command, command)
    assert result.exit_code == 0, result.output
    assert "hit@1 in percent; 3 queries of 1 sets" in result.stdout
    assert result.stdout.startswith("Note: the model knows only the world of lvqa make-videos")
    assert (tmp_path / "run" / "report.md").read_text() == result.stdout
    fewer = CliRunner().invoke(lvqa_command, [*command, "--limit", "1"])
    assert fewer.exit_code == 0 and fewer.stdout == result.stdout  # what is there stays


def test_the_command_says_what_failed(broken, tmp_path):
    settings = tmp_path / "mine.yaml"
    settings.write_text(f"model: {{name: tiny}}\ndataset: {{name: own, folder: {broken}}}\narms: [{{}}]\n")
    command = ["retrieve", str(settings), "--folder", str(tmp_path / "run"), "--store", str(tmp_path / "s"), "--quiet"]
    result = CliRunner().invoke(lvqa_command, command)
    assert result.exit_code == 3 and "1 ranking failed (counted as wrong)" in result.stderr
    wrong = CliRunner().invoke(lvqa_command, ["retrieve", str(tmp_path / "none.yaml")])
    assert wrong.exit_code == 1 and "none.yaml" in wrong.stderr and wrong.stderr.count("\n") == 1


def test_a_report_of_answers_names_the_command_for_a_run_of_rankings(run):
    result = CliRunner().invoke(lvqa_command, ["report", str(run.folder)])
    assert result.exit_code == 1 and "is a run of lvqa retrieve: the same command again" in result.stderr

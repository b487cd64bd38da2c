"""Runs of a benchmark on the embedded model: their settings, and what their rows say.

Nothing here depends on how well the model was trained.
"""

import dataclasses
import json
from collections import Counter

import pytest
from runs import CONDITIONS, NUM_PAIRS, NUM_QUESTIONS, NUM_VIDEOS, refusal

from lvqa.config import to_yaml
from lvqa.evaluation import evidence_recall, load_run_config, resolve_arms
from lvqa.evaluation.rows import key_of, to_line
from lvqa.evaluation.run import chosen_tasks, evaluate
from lvqa.evaluation.runner import Runner
from lvqa.evaluation.schedule import WorkItem
from lvqa.index import Store
from lvqa.letters import named_letter
from lvqa.models.decoder import Decoder
from lvqa.pipeline import LongVideoQA
from lvqa.records import LvqaError
from lvqa.visual_tokens import VisualTokens

pytestmark = pytest.mark.slow

ALL = tuple(CONDITIONS)

# --- settings --------------------------------------------------------------------------------------------------------


def test_arms_share_the_runs_settings_but_for_their_own(settings):
    arms = resolve_arms(load_run_config(settings))
    assert [(arm.name, budget) for arm in arms for budget in arm.budgets] == CONDITIONS
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
    ("override", "message"),
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
def test_what_no_module_knows_is_refused_before_anything_is_written(settings, tmp_path, override, message):
    assert message in refusal(tmp_path / "run", load_run_config(settings, [override]))
    assert not (tmp_path / "run").exists()


# --- rows ------------------------------------------------------------------------------------------------------------


def test_there_is_one_row_for_each_question_in_each_arm(run):
    assert len(run.rows) == NUM_VIDEOS * NUM_QUESTIONS * len(CONDITIONS)
    assert Counter((row["arm"], row["budget"]) for row in run.rows) == dict.fromkeys(
        CONDITIONS, NUM_VIDEOS * NUM_QUESTIONS
    )
    assert len({key_of(row) for row in run.rows}) == len(run.rows)
    assert run.num_questions == NUM_VIDEOS * NUM_QUESTIONS and run.missing == ()


def test_arms_with_other_rerankers_share_the_index(settings, tmp_path):
    closer = "{name: closer, method: freeret, settings: {rerank.name: retllm, rerank.options: {top: 2}}}"
    overrides = [f"arms=[{{method: freeret}}, {closer}]", "frames=[4]", f"store.folder={tmp_path / 'store'}"]
    config = load_run_config(settings, [*overrides, "benchmark.videos=1", "benchmark.limit=1"])
    first, second = evaluate(config, tmp_path / "run").rows
    assert first["index"] == second["index"] and first["index"]["counts"]["pairs_encoded"] == NUM_PAIRS
    assert [len(row["reranked"]) for row in (first, second)] == [5, 2]
    assert first["embedded"][0] in second["embedded"] and second["error"] is None


def test_a_row_has_the_question_the_answer_and_the_evidence(run):
    for row in run.rows:
        assert row["question"].endswith("?") and len(row["options"]) == 4
        assert row["error"] is None and row["target"] in "ABCD" and len(row["tags"]) in (1, 2)
        assert len(row["times_seconds"]) == row["budget"]
        assert row["evidence_seconds"][0] < row["evidence_seconds"][1] <= 2 * NUM_PAIRS
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
        if row["arm"] == "generated":
            assert row["option_scores"] == [] and row["prediction"] == named_letter(row["text"], ("?",) * 4)
        else:
            assert row["prediction"] == "ABCD"[row["option_scores"].index(max(row["option_scores"]))]
            assert sum(row["option_scores"]) == pytest.approx(1, abs=1e-5)


def test_every_budget_counts_its_ranking_and_none_the_index(run):
    """A clip of 8 s is 4 pairs of 9 tokens. All five of the pool were read, for one question, in one ranking."""
    by_key = {key_of(row): row for row in run.rows}
    for row in run.rows:
        video, question, arm, _ = key_of(row)
        assert (
            ("rank" in row["seconds"]) == (row["index"] is not None) == (arm in ("freeret", "topk", "embedding only"))
        )
        if arm == "freeret":
            blind = by_key[video, question, "blind", 0]["counts"]["tokens_prefilled"]
            assert row["counts"]["tokens_prefilled"] > blind + 5 * 4 * 9
            assert row["seconds"]["rank"] == by_key[video, question, "freeret", 4]["seconds"]["rank"]
    built = [row["index"] for row in run.rows if row["index"] and not row["index"]["reused"]]
    assert [index["counts"]["pairs_encoded"] for index in built] == [NUM_PAIRS] * len(built) and built


def test_arms_with_other_indexes_share_frames_and_arms_with_another_answer_share_rankings(settings, tmp_path):
    """Each video is read once for all arms, 120 frames in 60 pairs, and not again while its questions are answered."""
    arms = (
        "[{name: a}, {name: b, settings: {embedding.state: mlp}}, {name: c, settings: {video.clip_seconds: 2}},"
        " {name: d, settings: {answer.time_encoding: mrope}}]"
    )
    config = load_run_config(settings, [f"arms={arms}", "frames=[8]", f"store.folder={tmp_path / 'store'}"])
    rows = evaluate(config, tmp_path / "run").rows
    assert len(rows) == NUM_VIDEOS * NUM_QUESTIONS * 4 and {row["error"] for row in rows} == {None}
    built = [row["index"]["counts"] for row in rows if not row["index"]["reused"]]
    expected = [(2 * NUM_PAIRS, NUM_PAIRS)] * 4 * NUM_VIDEOS
    assert [(counts["frames_decoded"], counts["pairs_encoded"]) for counts in built] == expected
    assert {row["counts"]["frames_decoded"] for row in rows} == {row["counts"]["pairs_encoded"] for row in rows} == {0}
    assert [row["num_clips"] for row in rows[:4]] == [15, 15, 60, 15]
    by_key = {key_of(row): row for row in rows}
    for row in rows:
        if row["arm"] == "d":
            same = by_key[row["video_id"], row["question_id"], "a", 8]
            assert (row["reranked"], row["times_seconds"]) == (same["reranked"], same["times_seconds"])
            assert row["seconds"]["rank"] == same["seconds"]["rank"]


def test_arms_with_the_same_frames_share_the_output_and_each_row_counts_it(settings, tmp_path):
    """With all frames as the budget every method selects the same; with other time encoding they are answered again."""
    arms = "arms=[{method: uniform}, {method: topk}, {name: b, settings: {answer.time_encoding: mrope}}]"
    overrides = [arms, f"frames=[{2 * NUM_PAIRS}]", "benchmark.limit=1", f"store.folder={tmp_path / 'store'}"]
    rows = evaluate(load_run_config(settings, overrides), tmp_path / "run").rows
    assert len(rows) == 3 * NUM_VIDEOS
    for uniform, topk, mrope in (rows[:3], rows[3:]):
        assert uniform["option_scores"] == topk["option_scores"] != mrope["option_scores"]
        assert uniform["seconds"]["answer"] == topk["seconds"]["answer"] > 0
        tokens = [row["counts"]["tokens_prefilled"] for row in (mrope, uniform, topk)]
        assert 0 < tokens[0] != tokens[1] < tokens[2]  # the last one with its ranking


def test_evidence_recall_covers_every_stage(run):
    recall = evidence_recall([row for row in run.rows if row["arm"] == "freeret" and row["budget"] == 4])
    assert {share.n for share in recall.values()} == {NUM_VIDEOS * NUM_QUESTIONS}
    assert recall["embedding top 5"].hits == recall["reranked top 5"].hits


def test_the_folder_says_with_what_the_run_was_done(run):
    assert run.config.frames == (4, 8) and run.config.store.folder is not None
    assert run.about["versions"].keys() >= {"lvqa", "python", "torch", "transformers"}
    assert run.about["seed"] == 0 and run.about["model_revision"] and run.about["started"].endswith("+00:00")
    assert run.about["machine"]["workers"] == 0


def test_a_run_keeps_its_indexes_where_other_commands_look_for_them(run, settings):
    store = load_run_config(settings).store.folder
    assert run.config.store.folder == store
    assert len(Store(store).paths()) >= NUM_VIDEOS


def test_questions_asked_together_have_the_rows_of_questions_asked_alone(settings, run):
    """Only the model's work is shared: letters, frames and tokens of a row do not depend on the others."""
    config = load_run_config(settings)
    runner, task = Runner(config), chosen_tasks(config).tasks[0]
    alone = [row for q in task.questions for row in runner(WorkItem(task.video_id, task.path, (q,), (ALL,))).rows]
    together = [row for row in run.rows if row["video_id"] == task.video_id]
    assert [key_of(row) for row in together] == [key_of(row) for row in alone]
    for row, expected in zip(together, alone, strict=True):
        for name in ("prediction", "times_seconds"):
            assert row[name] == expected[name]
        assert row["option_scores"] == pytest.approx(expected["option_scores"], abs=1e-5)
        if row["arm"] in ("uniform", "blind"):
            assert row["counts"]["tokens_prefilled"] == expected["counts"]["tokens_prefilled"]
    for arm in ("freeret", "embedding only"):
        tokens = [
            sum(row["counts"]["tokens_prefilled"] for row in rows if row["arm"] == arm) for rows in (together, alone)
        ]
        assert tokens[0] == tokens[1] > 0


def test_a_question_at_which_the_model_raises_fails_alone(settings, run, monkeypatch):
    config = load_run_config(settings)
    runner, task = Runner(config), chosen_tasks(config).tasks[0]
    real = Decoder.reply_log_probs

    def reply_log_probs(model, prompt, replies, **options):
        if task.questions[1].text in prompt[-1]:
            raise error
        return real(model, prompt, replies, **options)

    monkeypatch.setattr(Decoder, "reply_log_probs", reply_log_probs)
    item, error = (
        WorkItem(task.video_id, task.path, task.questions, (ALL,) * len(task.questions)),
        LvqaError("no words"),
    )
    result = runner(item)
    failed = {(row["question_id"], row["arm"]): row["error"] for row in result.rows if row["error"] is not None}
    assert {question_id for question_id, _ in failed} == {task.questions[1].id}
    assert {arm for _, arm in failed} == {arm for arm, _ in CONDITIONS} - {"generated"}
    assert set(failed.values()) == {"no words"}
    expected = {key_of(row): row["prediction"] for row in run.rows}
    assert all(row["prediction"] == expected[key_of(row)] for row in result.rows if row["error"] is None)
    error = ZeroDivisionError("a bug")  # it may be the machine's: another one tries, then the driver asks one by one
    with pytest.raises(ZeroDivisionError):
        runner(item)


def test_the_next_video_is_decoded_while_the_last_one_is_answered(settings, run, tmp_path, monkeypatch):
    """The third item's video; and one that can't be read does no harm before its turn."""
    config = load_run_config(settings, [f"store.folder={tmp_path / 'store'}", "arms=[{method: freeret}]", "frames=[4]"])
    runner, (first, second) = Runner(config), chosen_tasks(config).tasks
    (tmp_path / "broken.mp4").write_bytes(bytes(5000))
    read_ahead, num_ahead = VisualTokens.decode_ahead, []

    def decode_ahead(tokens, groups, stop):
        read_ahead(tokens, groups, stop)
        num_ahead.append(len(groups))

    monkeypatch.setattr(VisualTokens, "decode_ahead", decode_ahead)
    nexts = (second.path, tmp_path / "broken.mp4", second.path, None)
    rows = []
    for task, i, next_path in zip((first, first, first, second), (0, 1, 2, 0), nexts, strict=True):
        item = WorkItem(task.video_id, task.path, (task.questions[i],), ((("freeret", 4),),), next_path)
        rows += runner(item).rows
    assert num_ahead == [15]  # not during the first item: the process before may have died of it
    assert rows[3]["index"]["counts"]["frames_decoded"] == 2 * NUM_PAIRS
    expected = {key_of(row): row for row in run.rows}
    for row in rows:
        of_run = expected[key_of(row)]
        assert (row["error"], row["prediction"], row["times_seconds"]) == (
            None,
            of_run["prediction"],
            of_run["times_seconds"],
        )
        assert [clip[:2] for clip in row["reranked"]] == [clip[:2] for clip in of_run["reranked"]]


def test_a_batch_that_finds_no_memory_is_asked_one_by_one(settings, monkeypatch):
    """The machine is to blame only if there is none for a question alone."""
    config = load_run_config(settings, ["arms=[{method: uniform}]", "frames=[4]"])
    runner, task = Runner(config), chosen_tasks(config).tasks[0]
    item = WorkItem(task.video_id, task.path, task.questions[:2], ((("uniform", 4),),) * 2)
    real, room = LongVideoQA.answers, 1

    def answers(qa, video, questions, **options):
        if len(questions) > room:
            raise MemoryError
        return real(qa, video, questions, **options)

    monkeypatch.setattr(LongVideoQA, "answers", answers)
    assert [row["error"] for row in runner(item).rows] == [None, None]
    room = 0
    with pytest.raises(MemoryError):
        runner(item)


def test_limits_cut_the_benchmark(settings):
    loaded = chosen_tasks(load_run_config(settings, ["benchmark.videos=1", "benchmark.limit=2"]))
    assert [question.id for task in loaded.tasks for question in task.questions] == ["11-0", "11-1"]


def test_a_score_that_is_not_finite_becomes_null(settings, monkeypatch):
    """A model in half precision can give NaN, which JSON can't hold."""
    real_answers, nan = LongVideoQA.answers, float("nan")

    def answers_in_half_precision(*arguments, **options):
        (answer,) = real_answers(*arguments, **options)
        evidence = tuple(dataclasses.replace(one, rerank_score=one.rerank_score and nan) for one in answer.evidence)
        return [dataclasses.replace(answer, option_scores=(nan, float("inf"), 0.1234567, 0.25), evidence=evidence)]

    monkeypatch.setattr(LongVideoQA, "answers", answers_in_half_precision)
    config = load_run_config(settings, ["arms=[{method: freeret}]", "frames=[4]"])
    task = chosen_tasks(config).tasks[0]
    (row,) = Runner(config)(WorkItem(task.video_id, task.path, task.questions[:1], ((("freeret", 4),),))).rows
    assert row["option_scores"] == [None, None, 0.123457, 0.25]
    assert [score for _, _, score in row["reranked"]] == [None] * 5
    assert json.loads(to_line(row))["option_scores"] == row["option_scores"]

"""The costs that `lvqa bench` counts and measures, and that the baselines do the same work."""

import itertools
import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import gpu_check
import lvqa
from lvqa.cli.bench import ratio_table
from lvqa.cli.main import lvqa_command
from lvqa.embedding import Embedder
from lvqa.models import gpu
from lvqa.models.prompt import ClipTokens
from lvqa.models.qwen_vl import Qwen25VL
from lvqa.models.random_weights import random_model
from lvqa.profiling import BenchReport, BenchSettings, Comparison, compare, measure, predict
from lvqa.profiling.baselines import TransformersBaseline, read_with_opencv
from lvqa.profiling.comparison import HERE
from lvqa.profiling.flops import LanguageCost, VisionCost
from lvqa.profiling.machine import flop_counter
from lvqa.records import LvqaError
from lvqa.video import decode_all, inspect_video

STAGES = ("encode pairs", "embed clips", "index clips", "rerank, question first", "rerank, clip first", "answer")


@pytest.fixture(scope="module")
def video_path(synthetic_video) -> Path:
    """A synthetic video of a minute: three whole clips and a shorter one."""
    return synthetic_video(seed=3)


@pytest.fixture(scope="module")
def tiny() -> Qwen25VL:
    return Qwen25VL.load("tiny")


@pytest.fixture(scope="module")
def report(video_path, tiny) -> BenchReport:
    settings = BenchSettings(minutes=0.5, clips=2, questions=3, frames=8, repeats=1)
    return measure(tiny, inspect_video(video_path), settings)


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.slow
def test_every_stage_costs_its_lower_bound(report, stage):
    result = report.result(stage)
    bound, measured = result.lower_bound_flops, result.measured_flops
    assert result.measured == result.lower_bound
    # torch counts the upper triangle of the attention too, and all else is the same.
    assert bound < measured < 1.15 * bound or bound == measured
    assert result.lower_bound_bytes > 0 and result.share_of_ceiling is not None and result.share_of_ceiling > 0


@pytest.mark.slow
def test_reading_decodes_no_frame_twice(report):
    result = report.result("read frames")
    assert (result.units, result.lower_bound.frames_decoded) == (30, 30)


@pytest.mark.slow
def test_every_baseline_has_a_ratio(report):
    baselines = [result.name for result in report.results if ":" in result.name]
    assert len(baselines) == 5
    assert all(any(name.endswith(baseline) for name in report.ratios) for baseline in baselines)
    assert all(ratio > 0 for ratio in report.ratios.values())


@pytest.mark.slow
def test_transformers_does_far_more_than_the_lower_bound(report):
    lower_bound = report.result("rerank, question first").lower_bound_flops
    assert report.result("rerank: transformers").measured_flops > 1.5 * lower_bound


def clip_of_noise(tiny: Qwen25VL, rng: np.random.Generator) -> tuple[np.ndarray, ClipTokens]:
    pixels = rng.integers(0, 255, (3, 2, 84, 112, 3), dtype=np.uint8)
    return pixels, ClipTokens(tiny.encode_pairs(pixels), 3, 4)


@pytest.mark.slow
def test_transformers_gives_the_same_vectors_and_scores(tiny):
    """The library gives the text after a video other positions, which hardly changes the states there."""
    pixels, block = clip_of_noise(tiny, np.random.default_rng(0))
    baseline = TransformersBaseline(tiny)
    (vector,) = baseline.embed([pixels], [block])
    # all hidden states end with the final norm
    ours = Embedder(state="mlp", final_norm=True).clips(tiny, [block])[0]
    assert torch.cosine_similarity(torch.from_numpy(ours), vector, dim=0) > 0.95
    (logits,) = baseline.rerank("a red car", [pixels], [block])
    assert logits.shape == (tiny.library.config.text_config.vocab_size,)
    (text,) = baseline.rerank_by_text("a red car", [pixels], [block], num_tokens=3)
    assert isinstance(text, str)


@pytest.mark.slow
def test_opencv_reads_as_many_frames(video_path):
    assert read_with_opencv(inspect_video(video_path), [0.0, 7.0, 8.5, 59.0], height=84, width=112) == 4


def test_all_frames_are_decoded_up_to_a_time(video_path):
    assert decode_all(inspect_video(video_path)) == 60 * 8
    assert decode_all(inspect_video(video_path), 10.0) == 10 * 8 + 1


@pytest.mark.slow
def test_real_widths_cost_what_is_counted():
    """Compare the formulas with the library's own forward, whose products torch counts."""
    model = random_model("3b", layers=2, vision_layers=2)
    language = LanguageCost.from_config(model.library.config.text_config)
    vision = VisionCost.from_config(model.library.config.vision_config)
    assert (language.hidden, language.vocabulary, vision.hidden) == (2048, 151936, 1280)
    pixels = np.zeros((2, 2, 56, 84, 3), np.uint8)
    with flop_counter() as flops:
        tokens = model.encode_pairs(pixels)
    assert 2 * vision.pair(56, 84) == pytest.approx(flops.get_total_flops(), rel=0.02)
    prompt = (ClipTokens(tokens, 2, 3), "one word")
    length = len(model.encode_prompt(prompt))
    with flop_counter() as flops:
        model.last_hidden_states([prompt])
    assert language.last_position(length, with_last_mlp=False) == pytest.approx(flops.get_total_flops(), rel=0.02)


def test_a_benchmark_is_added_up_from_its_parts():
    language = LanguageCost(2048, 11008, 2048, 256, 36, 151936)
    vision = VisionCost(1280, 3420, 32, 4, 2048, 14, 2, 112)
    size = {"height": 224, "width": 420, "minutes": 68, "frames": 32}
    one = predict(language, vision, **size, questions=15)
    assert one.flops["encode pairs"] == 2040 * vision.pair(224, 420)
    length = 8 * 120 + 130
    assert one.flops["rerank"] == 750 * (language.last_position(length) + language.head(1, words=2))
    assert one.total == sum(one.flops.values())
    assert one.seconds(dict.fromkeys(one.flops, 0.5), peak=1e12) == pytest.approx(one.total / 5e11)
    faster = dict.fromkeys(one.flops, 0.5) | {"rerank": 1.0}
    assert one.seconds(faster, peak=1e12) == pytest.approx((one.total - one.flops["rerank"] / 2) / 5e11)
    benchmark = predict(language, vision, **size, questions=15, videos=103)
    assert benchmark.total == pytest.approx(103 * one.total)
    clip_first = predict(language, vision, **size, questions=15, clip_first=True)
    assert clip_first.flops["rerank"] < one.flops["rerank"] / 2
    assert {stage: n for stage, n in clip_first.flops.items() if stage != "rerank"} == {
        stage: n for stage, n in one.flops.items() if stage != "rerank"
    }


@pytest.mark.slow
def test_the_command_prints_a_table_or_json(video_path):
    sizes = ["--clips", "1", "--questions", "1", "--frames", "4", "--minutes", "0.2", "--repeats", "1"]
    arguments = ["bench", str(video_path), *sizes, "--no-baselines"]
    result = CliRunner().invoke(lvqa_command, [*arguments, "--quiet"])
    assert result.exit_code == 0, result.output
    assert all(stage in result.stdout for stage in STAGES) and "transformers" not in result.stdout
    report = json.loads(CliRunner().invoke(lvqa_command, [*arguments, "--json"]).stdout)
    assert [task["name"] for task in report["results"]][2:] == ["read frames", *STAGES]
    assert report["frame_size"] == [84, 112]
    assert {"lower_bound", "lower_bound_flops", "measured", "measured_flops"} <= report["results"][0].keys()


@pytest.mark.slow
def test_without_a_video_all_but_reading_is_measured_on_noise(tmp_path):
    sizes = ["--clips", "2", "--questions", "1", "--frames", "4", "--baseline-clips", "1", "--repeats", "1"]
    result = CliRunner().invoke(lvqa_command, ["bench", *sizes, "--save", str(tmp_path / "report.json")])
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "report.json").read_text())
    units = {task["name"]: task["units"] for task in report["results"]}
    assert {*STAGES, "matrix product"} <= units.keys() and not any("read" in name for name in units)
    assert (units["index clips"], units["index clips: transformers"]) == (2, 1)


@pytest.mark.slow
def test_only_the_named_task_is_measured(video_path, tiny):
    settings = BenchSettings(minutes=0.1, clips=1, questions=1, frames=4, repeats=1, only=("embed clips",))
    report = measure(tiny, inspect_video(video_path), settings)
    assert [result.name for result in report.results] == ["matrix product", "decode all", "embed clips"]


@pytest.fixture
def checkout(tmp_path, monkeypatch) -> Path:
    """Make this checkout one with a history: a revision that measures once more, and one that can't measure."""
    root = Path(lvqa.__file__).parents[1]
    folder = tmp_path / "checkout"
    shutil.copytree(root / "lvqa", folder / "lvqa", ignore=shutil.ignore_patterns("__pycache__"))
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]

    def commit(tag: str) -> None:
        for words in (["add", "-A"], [*identity, "commit", "--quiet", "-m", tag], ["tag", tag]):
            subprocess.run(["git", "-C", str(folder), *words], check=True)

    subprocess.run(["git", "init", "--quiet", str(folder)], check=True)
    embedding = folder / "lvqa" / "embedding.py"
    code = embedding.read_text()
    call = "            states = model.last_hidden_states(batch, "
    slow = code.replace(
        call, "            for _ in range(4):\n                model.last_hidden_states(batch)\n" + call
    )
    assert slow != code
    embedding.write_text(slow)
    commit("slow")
    embedding.write_text(code + "raise RuntimeError('broken')\n")
    commit("broken")
    embedding.write_text(code)
    monkeypatch.setattr("lvqa.provenance.lvqa.__file__", str(folder / "lvqa" / "__init__.py"))
    return folder


def test_what_the_rounds_up_to_one_give_is_known_after_it(checkout, monkeypatch):
    took = itertools.count(1)

    def report(name, *_):
        seconds = next(took) * (2 if name == "slow" else 1)
        return {"device": "cpu", "machine": "m", "results": [{"name": "answer", "processor_seconds": seconds}]}

    monkeypatch.setattr("lvqa.profiling.comparison._bench", report)
    so_far = []
    last = compare(["slow"], [], rounds=3, on_round=so_far.append)
    assert [one.seconds["answer"] for one in so_far] == [
        {HERE: [1], "slow": [4]},
        {HERE: [1, 4], "slow": [4, 6]},
        {HERE: [1, 4, 5], "slow": [4, 6, 12]},
    ]
    assert so_far[-1] == last and last.ratio("answer", "slow").median == 2.4


@pytest.mark.slow
def test_a_revision_is_measured_in_turn_with_this_tree(checkout):
    sizes = ["--clips", "1", "--questions", "1", "--frames", "4", "--no-baselines", "--only", "embed clips"]
    compared = ["bench", *sizes, "--repeats", "2", "--compare", "slow", "--quiet"]
    result = CliRunner().invoke(lvqa_command, [*compared, "--json", "--save", str(checkout / "comparison.json")])
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert json.loads((checkout / "comparison.json").read_text()) == report
    assert report["clock"] == "processor" and len(report["commits"]["slow"]) == 40
    assert {name: len(seconds) for name, seconds in report["seconds"]["embed clips"].items()} == {
        "this tree": 2,
        "slow": 2,
    }
    ratio = report["ratios"]["embed clips"]["slow"]
    assert ratio["lowest"] <= ratio["median"] <= ratio["highest"] and 2 < ratio["median"] < 10
    ours, theirs = report["seconds"]["embed clips"]["this tree"], report["seconds"]["embed clips"]["slow"]
    assert ratio["highest"] == max(b / a for a, b in zip(ours, theirs, strict=True))


def test_a_comparison_is_printed_in_columns():
    seconds = {"answer": {HERE: [2.0, 4.0], "v1": [4.0, 6.0]}, "new task": {HERE: [1.0, 1.0]}}
    comparison = Comparison(machine="a CPU", clock="processor", commits={"v1": "0" * 40}, seconds=seconds)
    lines = ratio_table(comparison).splitlines()
    assert lines[0] == "a CPU; processor seconds, to those of this tree: medians of 2 rounds (the range)"
    assert [" ".join(line.split()) for line in lines[2:]] == [
        "this tree, s v1",
        "answer 3.0000 1.75 (1.50 to 2.00)",
        "new task 1.0000 not measured",
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("revision", "error"),
    [
        ("never", "revision 'never' is not in the history of "),
        ("broken", "broken can't measure this: "),
        ("--help", "'--help' is not"),
    ],
)
def test_a_revision_that_can_not_be_measured_is_an_error_of_one_line(checkout, revision, error):
    sizes = ["--clips", "1", "--questions", "1", "--frames", "4", "--no-baselines", "--only", "embed clips", "--quiet"]
    result = CliRunner().invoke(lvqa_command, ["bench", *sizes, "--repeats", "1", f"--compare={revision}"])
    assert result.exit_code == 1
    assert error in result.stderr and result.stderr.count("\n") == 1


def test_revisions_need_a_checkout(monkeypatch, tmp_path):
    monkeypatch.setattr("lvqa.provenance.lvqa.__file__", str(tmp_path / "lvqa" / "__init__.py"))
    with pytest.raises(LvqaError, match="needs lvqa to run from a checkout"):
        compare(["main"], [], rounds=1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "error"),
    [
        (["--clips", "9"], "has 3 clips of 16 s, 9 are to be measured"),
        (["--only", "sing", "--clips", "1"], "no task has the name 'sing'; known: matrix product; "),
        (["--repeats", "0"], "repeats must be above 0, got 0"),
        (["--random", "13b"], "shape '13b' is unknown; use one of 3b, 7b"),
        (["--layers", "2"], "--layers and --vision-layers need --random"),
        (["--random", "3b", "--layers", "0"], "layers must be 1 to 36, got 0"),
    ],
)
def test_what_can_not_be_measured_is_an_error_of_one_line(video_path, options, error):
    result = CliRunner().invoke(lvqa_command, ["bench", str(video_path), *options])
    assert result.exit_code == 1
    assert error in result.stderr and result.stderr.count("\n") == 1


def test_settings_are_checked():
    with pytest.raises(LvqaError, match="clips must be above 0"):
        BenchSettings(clips=0)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")  # of torch's compiler
def test_the_check_of_a_gpu_measures_all_its_parts_without_one(tmp_path, monkeypatch, capsys):
    saved = tmp_path / "gpu.json"
    monkeypatch.setattr("sys.argv", ["gpu_check.py", "--model", "tiny", "--device", "cpu", "--save", str(saved)])
    gpu_check.main()
    report = json.loads(capsys.readouterr().out)
    assert json.loads(saved.read_text()) == report
    assert report["left_out"] == {} and report["parts"].keys() == gpu_check.PARTS.keys()
    assert all(0 < report["parts"]["stages"][stage]["share_of_product"] < 1.5 for stage in STAGES)
    assert report["parts"]["hour"]["clips"] == 4 and report["parts"]["aligned rows"]["ratio"] > 0.2
    assert report["parts"]["compiled"]["times_as_fast"].keys() == set(STAGES)
    packed = report["parts"]["fewer bits"]
    assert packed["times_as_fast"].keys() == set(STAGES) and packed["gigabytes"]["fp8"] < packed["gigabytes"]["plain"]
    assert 0.9 < packed["cosine"] < 1 and report["parts"]["replies"]["ratio"] > 1


@pytest.mark.slow
def test_a_part_that_fails_or_comes_too_late_is_left_out_with_the_reason(tiny, monkeypatch):
    def broken(check):
        raise RuntimeError("no\nkernel")

    parts = {"broken": broken, "works": lambda check: {"figure": 1}}
    monkeypatch.setattr(gpu_check, "PARTS", parts)
    settings = BenchSettings(clips=1)
    report = gpu_check.run_parts(gpu_check.Check(lambda: tiny, settings, 1, None), limit_seconds=60)
    assert report["left_out"] == {"broken": "RuntimeError: no kernel"} and report["parts"]["works"]["figure"] == 1
    late = gpu_check.run_parts(gpu_check.Check(lambda: tiny, settings, 1, None), limit_seconds=-1)
    assert late["left_out"] == dict.fromkeys(parts, "-1 s are over") and late["parts"] == {}


@pytest.mark.slow
def test_rows_that_were_filled_up_are_cut_back_to_what_they_were():
    vision = random_model("3b", layers=1, vision_layers=1).library.model.visual
    mlp, states = vision.blocks[0].mlp, torch.randn(3, 1280)
    before = {name: weight.clone() for name, weight in mlp.state_dict().items()}
    gpu.fit(vision)
    assert mlp.gate_proj.weight.shape[0] == 3424
    gpu_check.cut_rows(mlp, 3420)
    after = mlp.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    assert mlp(states).shape == (3, 1280)

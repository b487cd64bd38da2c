"""What is counted, what is measured, and that the peers do the same work."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from lvqa.cli.main import lvqa_command
from lvqa.embedding import Embedder
from lvqa.models.prompt import ClipTokens
from lvqa.models.qwen_vl import Qwen25VL
from lvqa.models.random_weights import random_model
from lvqa.profiling import Bench, BenchSettings, measure, predict
from lvqa.profiling.baselines import PlainLoop, read_with_opencv
from lvqa.profiling.flops import LanguageCost, VisionCost
from lvqa.profiling.stages import counting
from lvqa.records import LvqaError
from lvqa.synthetic.videos import make_videos
from lvqa.video import decode_all, inspect_video

STAGES = ("encode pairs", "embed clips", "index clips", "rerank, question first", "rerank, clip first", "answer")


@pytest.fixture(scope="module")
def film(tmp_path_factory) -> Path:
    """A made film of a minute: three whole clips and a shorter one."""
    return make_videos(tmp_path_factory.mktemp("films"), num_videos=1, minutes=1, num_questions=1, seed=3)[0]


@pytest.fixture(scope="module")
def tiny() -> Qwen25VL:
    return Qwen25VL.load("tiny")


@pytest.fixture(scope="module")
def found(film, tiny) -> Bench:
    return measure(tiny, inspect_video(film), BenchSettings(minutes=0.5, clips=2, questions=3, frames=8, repeats=1))


@pytest.mark.parametrize("stage", STAGES)
def test_no_stage_does_more_than_it_must(found, stage):
    job = found.of(stage)
    assert job.done == job.must
    # torch counts the upper triangle of the attention too, and all else is the same.
    assert job.must_flops < job.done_flops < 1.15 * job.must_flops or job.must_flops == job.done_flops
    assert job.must_bytes > 0 and job.of_ceiling is not None and job.of_ceiling > 0


def test_reading_decodes_no_frame_twice(found):
    job = found.of("read frames")
    assert (job.units, job.must.frames_decoded) == (30, 30)


def test_every_peer_has_a_ratio(found):
    peers = [job.name for job in found.measured if ":" in job.name]
    assert len(peers) == 5
    assert all(any(name.endswith(peer) for name in found.ratios) for peer in peers)
    assert all(ratio > 0 for ratio in found.ratios.values())


def test_a_plain_loop_does_far_more(found):
    assert found.of("rerank: plain loop").done_flops > 1.5 * found.of("rerank, question first").must_flops


def material(tiny: Qwen25VL, rng: np.random.Generator) -> tuple[np.ndarray, ClipTokens]:
    pixels = rng.integers(0, 255, (3, 2, 84, 112, 3), dtype=np.uint8)
    return pixels, ClipTokens(tiny.encode_pairs(pixels), 3, 4)


def test_the_plain_loop_comes_to_the_same_vectors_and_scores(tiny):
    """The library puts the text behind a video elsewhere, which the words there hardly notice."""
    pixels, block = material(tiny, np.random.default_rng(0))
    plain = PlainLoop(tiny)
    (theirs,) = plain.embed([pixels], [block])
    # all hidden states end with the final norm
    ours = Embedder(state="mlp", final_norm=True).clips(tiny, [block])[0]
    assert torch.cosine_similarity(torch.from_numpy(ours), theirs, dim=0) > 0.95
    (logits,) = plain.rerank("a red car", [pixels], [block])
    assert logits.shape == (tiny.library.config.text_config.vocab_size,)
    (text,) = plain.rerank_by_text("a red car", [pixels], [block], num_tokens=3)
    assert isinstance(text, str)


def test_opencv_reads_as_many_frames(film):
    assert read_with_opencv(inspect_video(film), [0.0, 7.0, 8.5, 59.0], height=84, width=112) == 4


def test_all_frames_are_decoded_up_to_a_time(film):
    assert decode_all(inspect_video(film)) == 60 * 8
    assert decode_all(inspect_video(film), 10.0) == 10 * 8 + 1


def test_real_widths_cost_what_is_counted():
    """The library's own forward, every product counted by torch, against the formulas."""
    model = random_model("3b", layers=2, vision_layers=2)
    language = LanguageCost.of(model.library.config.text_config)
    vision = VisionCost.of(model.library.config.vision_config)
    assert (language.hidden, language.vocabulary, vision.hidden) == (2048, 151936, 1280)
    pixels = np.zeros((2, 2, 56, 84, 3), np.uint8)
    with counting() as flops:
        tokens = model.encode_pairs(pixels)
    assert 2 * vision.pair(56, 84) == pytest.approx(flops.get_total_flops(), rel=0.02)
    prompt = (ClipTokens(tokens, 2, 3), "one word")
    length = len(model.encode_prompt(prompt))
    with counting() as flops:
        model.last_hidden_states([prompt])
    assert language.last_position(length, with_last_mlp=False) == pytest.approx(flops.get_total_flops(), rel=0.02)


def test_a_benchmark_is_added_up_from_its_parts():
    language = LanguageCost(2048, 11008, 2048, 256, 36, 151936)
    vision = VisionCost(1280, 3420, 32, 4, 2048, 14, 2, 112)
    size = {"height": 224, "width": 420, "minutes": 68, "frames": 32}
    one = predict(language, vision, **size, questions=15)
    assert one.flops["encode pairs"] == 2040 * vision.pair(224, 420)
    whole = 8 * 120 + 130
    assert one.flops["rerank"] == 750 * (language.last_position(whole) + language.head(1, words=2))
    assert one.total == sum(one.flops.values())
    assert one.seconds(dict.fromkeys(one.flops, 0.5), peak=1e12) == pytest.approx(one.total / 5e11)
    faster = dict.fromkeys(one.flops, 0.5) | {"rerank": 1.0}
    assert one.seconds(faster, peak=1e12) == pytest.approx((one.total - one.flops["rerank"] / 2) / 5e11)
    all_of_it = predict(language, vision, **size, questions=15, videos=103)
    assert all_of_it.total == pytest.approx(103 * one.total)
    kept = predict(language, vision, **size, questions=15, clip_first=True)
    assert kept.flops["rerank"] < one.flops["rerank"] / 2
    assert {stage: n for stage, n in kept.flops.items() if stage != "rerank"} == {
        stage: n for stage, n in one.flops.items() if stage != "rerank"
    }


def test_the_command_prints_a_table_or_json(film):
    few = [
        "bench",
        str(film),
        "--clips",
        "1",
        "--questions",
        "1",
        "--frames",
        "4",
        "--minutes",
        "0.2",
        "--repeats",
        "1",
    ]
    told = CliRunner().invoke(lvqa_command, [*few, "--no-peers", "--quiet"])
    assert told.exit_code == 0, told.output
    assert all(stage in told.stdout for stage in STAGES) and "plain loop" not in told.stdout
    data = json.loads(CliRunner().invoke(lvqa_command, [*few, "--no-peers", "--json"]).stdout)
    assert [job["name"] for job in data["measured"]][2:] == ["read frames", *STAGES]
    assert data["frame_size"] == [84, 112]


def test_without_a_film_all_but_reading_is_measured_on_noise(tiny, tmp_path):
    few = ["--clips", "2", "--questions", "1", "--frames", "4", "--peer-clips", "1", "--repeats", "1"]
    told = CliRunner().invoke(lvqa_command, ["bench", *few, "--save", str(tmp_path / "found.json")])
    assert told.exit_code == 0, told.output
    found = {job["name"]: job for job in json.loads((tmp_path / "found.json").read_text())["measured"]}
    assert {*STAGES, "matrix product"} <= found.keys() and not any("read" in name for name in found)
    assert (found["index clips"]["units"], found["index clips: plain loop"]["units"]) == (2, 1)


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["--clips", "9"], "has 3 clips of 16 s, 9 are to be measured"),
        (["--repeats", "0"], "repeats must be above 0, got 0"),
        (["--random", "13b"], "shape '13b' is unknown; use one of 3b, 7b"),
        (["--layers", "2"], "--layers and --vision-layers need --random"),
        (["--random", "3b", "--layers", "0"], "layers must be 1 to 36, got 0"),
    ],
)
def test_what_can_not_be_measured_is_one_line(film, words, names):
    told = CliRunner().invoke(lvqa_command, ["bench", str(film), *words])
    assert told.exit_code == 1
    assert names in told.stderr and told.stderr.count("\n") == 1


def test_settings_are_checked():
    with pytest.raises(LvqaError, match="clips must be above 0"):
        BenchSettings(clips=0)

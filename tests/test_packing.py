"""Which frames share a temporal patch, against the library's video processors and models, and what an answer tells."""

import json
from pathlib import Path

import numpy as np
import pytest
import small_models
import torch

from lvqa.answering import Answerer
from lvqa.models import load_model
from lvqa.models.prompt import ClipTokens
from lvqa.models.qwen_vl import Qwen3VL
from lvqa.models.vision import cut_patches
from lvqa.pairs import aligned_pairs, is_split, runs_of_pairs, sampled_pairs
from lvqa.video import FrameGrid

GOLDEN = json.loads((Path(__file__).parent / "golden" / "video_processors.json").read_text())
"""What transformers 5.23's Qwen2VLVideoProcessor and Qwen3VLVideoProcessor make of random frames (they need
torchvision, which is not installed here): each row of pixels, times one random vector."""
TOKENS_PER_PAIR = 12
"""Of the embedded model, for the synthetic videos."""
SECONDS = FrameGrid(np.arange(400.0), 1.0)


@pytest.mark.parametrize(
    ("frames", "expected"),
    [
        ([], []),
        ([7], [(7, 7)]),
        ([3, 300], [(3, 300)]),
        ([0, 1, 2, 3], [(0, 1), (2, 3)]),
        ([1, 2, 3], [(1, 2), (3, 3)]),  # frames of two pairs of the grid
        ([90, 10, 50, 30, 10], [(10, 30), (50, 90)]),
    ],
)
def test_sampled_frames_share_a_patch_with_the_next_one(frames, expected):
    assert sampled_pairs(iter(frames), SECONDS) == expected


@pytest.mark.parametrize("num_frames", [1, 15, 16, 32, 64])
def test_so_many_frames_are_half_as_many_patches_wherever_they_lie(num_frames):
    rng = np.random.default_rng(num_frames)
    for _ in range(20):
        frames = rng.choice(400, num_frames, replace=False).tolist()
        pairs = sampled_pairs(frames, SECONDS)
        assert len(pairs) == (num_frames + 1) // 2 <= len(aligned_pairs(frames, SECONDS))
        assert sorted({frame for pair in pairs for frame in pair}) == sorted(frames)


def test_a_pair_whose_frames_lie_apart_is_a_run_by_itself():
    assert not is_split((4, 5), SECONDS) and not is_split((4, 4), SECONDS) and is_split((4, 6), SECONDS)
    pairs = [(0, 1), (2, 3), (4, 9), (10, 11), (12, 12), (13, 14)]
    assert runs_of_pairs(pairs, SECONDS) == [[(0, 1), (2, 3)], [(4, 9)], [(10, 11), (12, 12), (13, 14)]]


def numbered_frames(n: int, side: int) -> np.ndarray:
    return np.random.default_rng(n).integers(0, 256, (n, 2 * side, 3 * side, 3), dtype=np.uint8)


def packed(frames: np.ndarray) -> np.ndarray:
    """Return (pairs, 2, ...) pixels of frames that are packed as sampled."""
    return np.stack([frames[list(pair)] for pair in sampled_pairs(range(len(frames)), SECONDS)])


@pytest.mark.parametrize("n", [4, 5])
@pytest.mark.parametrize("family", ["qwen2_vl", "qwen3_vl"])
def test_packed_pixels_equal_those_of_the_librarys_video_processor(family, n):
    side, channels = (28, {}) if family == "qwen2_vl" else (32, {"image_mean": (0.5,) * 3, "image_std": (0.5,) * 3})
    rows = cut_patches(torch.tensor(packed(numbered_frames(n, side))), patch=side // 2, merge=2, **channels)
    expected = GOLDEN[f"{family} {n}"]
    assert expected["grid"] == [len(rows), 4, 6]
    vector = np.random.default_rng(0).standard_normal(rows.shape[-1])
    assert rows.flatten(0, 1).double().numpy() @ vector == pytest.approx(expected["rows"], abs=2e-3)


@pytest.fixture(scope="module", params=["qwen2_vl", "qwen2_5_vl", "qwen3_vl"])
def qwen(request, tmp_path_factory):
    folder = small_models.save(request.param, tmp_path_factory.mktemp(request.param))
    return load_model(str(folder), device="cpu", dtype="float32")


def test_an_answer_from_packed_frames_equals_the_librarys(qwen):
    """The library's whole model gets the processor's pixels, its grid and the positions; ours the frames."""
    frames = packed(numbered_frames(5, qwen.cell_pixels))
    seconds = tuple((60.0 * pair, 60.0 * pair + 1) for pair in range(3))
    prompt = ("What is", ClipTokens(qwen.encode_pairs(frames), 2, 3, seconds), "red or blue?")
    tokenized = qwen.encode_prompt(prompt)
    channels = {"image_mean": qwen.image_mean, "image_std": qwen.image_std}
    patches = cut_patches(torch.tensor(frames), patch=qwen.cell_pixels // 2, merge=2, **channels)
    num_blocks = 3 if isinstance(qwen, Qwen3VL) else 1  # there each pair is a video
    grid = torch.tensor([[3 // num_blocks, 4, 6]] * num_blocks)
    with torch.no_grad():
        output = qwen.library(
            input_ids=tokenized.ids[None],
            position_ids=tokenized.positions[:, None],
            pixel_values_videos=patches.flatten(0, 1),
            video_grid_thw=grid,
        )
    expected = output.logits[:, -1, qwen.first_tokens("BAD")]
    torch.testing.assert_close(qwen.next_token_logits([prompt], "BAD"), expected, atol=1e-4, rtol=1e-4)


def test_a_time_at_which_nothing_was_seen_is_not_told(tmp_path):
    model = load_model(str(small_models.save("qwen3_vl", tmp_path)), device="cpu", dtype="float32")
    tokens = model.encode_pairs(packed(numbered_frames(4, model.cell_pixels)))
    near, far = (10.0, 11.0), (60.0, 300.0)
    text = model.tokenizer.decode(model.encode_prompt((ClipTokens(tokens, 2, 3, (near, far)),)).ids)
    assert "<10.5 seconds>" in text and "<60.0 seconds><300.0 seconds>" in text and "180" not in text


# --- answers ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["text", "mrope", "index"])
def test_equal_budgets_are_equal_tokens_if_frames_are_packed_as_sampled(make, video, question, encoding):
    visual = {}
    for packing in ("sampled", "aligned"):
        qa = make(f"answer.packing={packing}", f"answer.time_encoding={encoding}", "video.clip_seconds=8")
        for method in ("uniform", "freeret"):
            answer = qa.answer(video, question, method=method, frames=16)
            assert answer.answer_tokens > answer.answer_visual_tokens > 0
            visual[packing, method] = answer.answer_visual_tokens / TOKENS_PER_PAIR
    assert visual == {
        **{("sampled", "uniform"): 8, ("sampled", "freeret"): 8},
        **{("aligned", "uniform"): 16, ("aligned", "freeret"): 8},
    }


def test_both_times_of_a_pair_that_lies_apart_are_told(make, video):
    with make().open(video) as session:
        parts = Answerer(packing="sampled").frame_parts([(2, 3), (10, 45), (46, 47)], session.tokens)
        (block,) = Answerer(time_encoding="mrope").frame_parts([(2, 3), (10, 45)], session.tokens)
    assert [part for part in parts if type(part) is str] == ["[00:02]", "[00:10] [00:45]", "[00:46]"]
    assert block.seconds == ((2.0, 3.0), (10.0, 45.0))


@pytest.mark.parametrize(("family", "packing"), [("qwen2_5_vl", "sampled"), ("internvl", "aligned")])
def test_packing_is_the_librarys_where_frames_share_patches_at_all(tiny, family, packing, tmp_path):
    model = load_model(str(small_models.save(family, tmp_path)), device="cpu", dtype="float32")
    assert model.answer_packing == packing
    assert tiny.answer_packing == "aligned", "its tower was trained on pairs of neighbours alone"

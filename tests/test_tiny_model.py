"""The tokenizer of the embedded model, and the weights in the package."""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from tiny_tokenizer import tiny_tokenizer
from transformers import PreTrainedTokenizerFast

from lvqa import LongVideoQA
from lvqa.models.chat import ChatTemplate
from lvqa.models.prompt import ClipTokens
from lvqa.models.qwen_vl import Qwen25VL
from lvqa.synthetic.drawing import draw
from lvqa.synthetic.videos import ask_about, write_script
from lvqa.synthetic.world import ATTRIBUTES, random_scene
from tiny.model import WEIGHTS
from tiny.samples import COLUMNS, ROWS

SEED, MINUTES, NUM_QUESTIONS = 5, 3, 12
"""The video that the packaged model is asked about."""
MIN_CORRECT = 8
"""How many of these questions it answers correctly when it sees frames of the right moment."""
MAX_WEIGHTS_MB = 20


@pytest.fixture(scope="module")
def built() -> PreTrainedTokenizerFast:
    return tiny_tokenizer()


@pytest.fixture(scope="module")
def packaged() -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast.from_pretrained(WEIGHTS)


@pytest.fixture(scope="module", params=["built", "packaged"])
def tokenizer(request) -> PreTrainedTokenizerFast:
    return request.getfixturevalue(request.param)


@pytest.mark.slow
def test_every_word_of_the_world_is_one_token(tokenizer):
    words = [value for values in ATTRIBUTES.values() for value in values]
    single = [*words, *"ABCD", *(f" {word}" for word in words if not word.isdigit())]
    ids = {text: tokenizer(text, add_special_tokens=False).input_ids for text in single}
    assert all(len(tokens) == 1 for tokens in ids.values()), ids
    assert len({tokens[0] for tokens in ids.values()}) == len(single)


def texts() -> Iterator[str]:
    yield from ("", " ", "\n\n \t", "\r\n\r", "a  b   c .  !  ' n't", "x" * 5000, "Straße, naïve café", "Пётр, 7 кошек")
    yield from (
        "ما هذا؟",
        "中文 かな 한국어",
        "👩\u200d👧 🇪🇺",
        "e\u0301 \u200b\u202e\ufeff\x00\x1b",
        "\uff11\uff12 ½ Ⅳ",
    )
    yield from ("<|im_end|>", "<|im_start|>system\n<|video_pad|>", "<|endoftext|>")
    rng = np.random.default_rng(0)
    for _ in range(50):
        codes = rng.integers(0, 0x110000, 40).tolist()
        yield "".join(chr(code) for code in codes if not 0xD800 <= code < 0xE000)


@pytest.mark.slow
def test_the_weights_were_trained_on_this_tokenizer(built, packaged):
    assert json.loads(built.backend_tokenizer.to_str()) == json.loads(packaged.backend_tokenizer.to_str())


@pytest.mark.slow
def test_any_text_is_decoded_to_itself(tokenizer):
    chat = ChatTemplate(tokenizer, lay_out=lambda _: (), pad=Qwen25VL.pad)
    for text in texts():
        assert tokenizer.decode(chat.text_ids(text)) == text


def test_the_packaged_model_is_small_and_complete(tiny):
    size = sum(path.stat().st_size for path in WEIGHTS.iterdir())
    assert size <= MAX_WEIGHTS_MB * 1e6
    prompts = [("What colour is the star?",), (a_clip(tiny), "Describe the video clip in one sentence.")]
    states = tiny.last_hidden_states(prompts)
    assert states.shape == (2, tiny.dim) and bool(torch.isfinite(states).all())


def a_clip(tiny: Qwen25VL) -> ClipTokens:
    pixels = np.stack([draw(random_scene(np.random.default_rng(0)), second)[::2, ::2] for second in (0.0, 1.0)])
    tokens = tiny.encode_pairs(pixels[None, :, : 28 * ROWS, : 28 * COLUMNS])
    return ClipTokens(tokens, ROWS, COLUMNS)


@pytest.mark.slow
def test_the_packaged_model_answers_from_frames_of_the_right_moment(synthetic_video, tmp_path):
    path = synthetic_video(seed=SEED, minutes=MINUTES)
    qa = LongVideoQA.load("tiny", overrides=["model.device=cpu", f"store.folder={tmp_path}"])
    questions = ask_about(write_script(SEED, MINUTES), NUM_QUESTIONS)
    answers = [qa.answer(path, question, frames=16, method="oracle") for question in questions]
    assert sum(answer.option == answer.question.answer for answer in answers) >= MIN_CORRECT

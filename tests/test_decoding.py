"""The model's own generation settings: the library's processors, and draws that a seed repeats."""

from __future__ import annotations

from pathlib import Path

import pytest
import small_models
import torch
from library_reference import encoded_clip, prompts
from pipelines import make_pipeline
from transformers import GenerationConfig

from lvqa.models import load_model
from lvqa.models.chat import collate
from lvqa.models.decoder import Decoder
from lvqa.models.decoding import GREEDY, Decoding
from lvqa.models.prompt import Prompt
from lvqa.protocols import find_format
from lvqa.records import LvqaError

NUM_TOKENS = 24
PENALTIES = {"repetition_penalty": 1.3, "no_repeat_ngram_size": 2}
SAMPLING = {"do_sample": True, "temperature": 0.9, "top_k": 20, "top_p": 0.95}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_models.save("qwen2_5_vl", tmp_path_factory.mktemp("qwen"))


def load(folder: Path, **settings: object) -> Decoder:
    """Load the model with a generation_config.json that has these settings."""
    GenerationConfig(eos_token_id=2, **settings).save_pretrained(folder)
    loaded = load_model(str(folder), device="cpu", dtype="float32")
    assert isinstance(loaded, Decoder)
    return loaded


def replies(model: Decoder, whole: list[Prompt], *, seed: int = 0, generation: str = "checkpoint", **options) -> list:
    """Return the tokens of replies."""
    tokens: list[list[int]] = [[] for _ in whole]
    decoding = model.decoding(generation, seed=seed)
    on_token = lambda i, token, _: tokens[i].append(token)  # noqa: E731
    model.generate(whole, max_new_tokens=NUM_TOKENS, decoding=decoding, on_token=on_token, **options)
    return tokens


@pytest.mark.slow
def test_penalties_are_those_of_the_library(folder: Path) -> None:
    """Token for token beside its own generate, for prompts of a batch; greedy is another reply."""
    model = load(folder, **PENALTIES)
    texts: list[Prompt] = [("say something",), ("a red car and a blue ball and a red car",), ("Why?",)]
    ours = replies(model, texts)
    for prompt, reply in zip(texts, ours, strict=True):
        ids = collate([model.encode_prompt(prompt)]).ids
        with torch.no_grad():
            whole = model.library.generate(
                input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=NUM_TOKENS
            )
        assert reply == whole[0, ids.shape[1] :].tolist()
    assert ours != replies(model, texts, generation="greedy")


def test_a_penalty_sees_the_whole_prompt_whether_it_was_read_before_or_not(folder: Path) -> None:
    model = load(folder, repetition_penalty=1.5)
    clip: Prompt = ("Look at this thing:", encoded_clip(model, 2))
    prefixes = model.prefill_prefix([clip, clip])
    ends: list[Prompt] = [("What is it?",), ("Why is this thing red?",)]
    assert replies(model, ends, prefixes=prefixes) == replies(model, [(*clip, *end) for end in ends])


@pytest.mark.slow
def test_a_seed_repeats_a_draw_in_any_batch(folder: Path) -> None:
    model = load(folder, **SAMPLING)
    whole = prompts(model)
    together = replies(model, whole, seed=7)
    assert together == [replies(model, [prompt], seed=7)[0] for prompt in whole]
    assert together != replies(model, whole, seed=8) and together != replies(model, whole, generation="greedy")


@pytest.mark.slow
def test_tokens_are_drawn_by_their_probability() -> None:
    """4,000 draws; each frequency within four standard deviations, and nothing beyond top_k."""
    logits = torch.tensor([[1.0, 2.0, 3.0, 3.5, 0.0, -1.0]])
    processors = Decoding(do_sample=True, temperature=0.8, top_k=4, seed=3).processors()
    counts = torch.zeros(6)
    for _ in range(4000):
        scores = logits
        for process in processors:
            scores = process(torch.tensor([[0]]), scores)
        counts[scores.argmax()] += 1
    expected = (logits[0, :4] / 0.8).softmax(0)
    spread = (expected * (1 - expected) / 4000).sqrt()
    assert ((counts[:4] / 4000 - expected).abs() < 4 * spread).all() and counts[4:].sum() == 0


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"do_sample": True, "temperature": 1e-6, "repetition_penalty": 1.05}, 1),  # Qwen2.5-VL's: no draw in effect
        ({"temperature": 0.7, "top_p": 0.8}, 0),  # without do_sample they say nothing
        ({"repetition_penalty": 1.0, "no_repeat_ngram_size": 0, "do_sample": False}, 0),
        ({"pad_token_id": 1, "bos_token_id": 1, "use_cache": True, "max_new_tokens": 5}, 0),
    ],
)
def test_what_a_checkpoint_says_is_read(settings: dict[str, object], expected: int) -> None:
    decoding = Decoding.of_checkpoint(settings, model="m", seed=5)
    names = [type(process).__name__ for process in decoding.processors()]
    assert [name for name in names if "Penalty" in name] == ["RepetitionPenaltyLogitsProcessor"] * expected
    assert (names[-1:] == ["Noise"]) == bool(settings.get("do_sample")) and decoding.seed == 5 * decoding.do_sample


@pytest.mark.parametrize(("name", "value"), [("num_beams", 4), ("typical_p", 0.5), ("suppress_tokens", [3])])
def test_settings_that_are_not_followed_are_refused_when_a_pipeline_is_made(
    folder: Path, tmp_path: Path, name: str, value: object
) -> None:
    model = load(folder)
    setattr(model.library.generation_config, name, value)
    with pytest.raises(LvqaError, match=rf"generation_config.json of model .* has {name}: .*answer.generation=greedy"):
        make_pipeline(model, tmp_path, "answer.generation=checkpoint")
    make_pipeline(model, tmp_path)
    make_pipeline(model, tmp_path, "answer.generation=checkpoint", answer_format=find_format("lmms-eval", "lvbench"))


def test_greedy_is_the_default(folder: Path) -> None:
    model = load(folder, **PENALTIES)
    assert model.decoding("greedy", seed=3) == GREEDY and GREEDY.processors() == []
    assert replies(model, [("say",)], generation="greedy") == replies(load(folder), [("say",)])

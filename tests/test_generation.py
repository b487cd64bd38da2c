"""Replies that are written together: each is what it is alone, and memory may run out on the way."""

from __future__ import annotations

import pytest
import small_models
import torch
from library_reference import encoded_clip, prompts
from torch import Tensor

from lvqa.models import load_model
from lvqa.models.decoder import Decoder
from lvqa.models.forward import ForwardPasses
from lvqa.models.prompt import Prompt
from lvqa.records import LvqaError

MAX_NEW_TOKENS = 12


@pytest.fixture(scope="module", params=small_models.SMALL)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Decoder:
    folder = small_models.save(request.param, tmp_path_factory.mktemp(request.param))
    loaded = load_model(str(folder), device="cpu", dtype="float32")
    assert isinstance(loaded, Decoder)
    return loaded


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Decoder:
    folder = small_models.save("qwen2_5_vl", tmp_path_factory.mktemp("qwen"))
    loaded = load_model(str(folder), device="cpu", dtype="float32")
    assert isinstance(loaded, Decoder)
    return loaded


def tokens_of(model: Decoder, whole: list[Prompt], **options: object) -> list[list[int]]:
    """Return the tokens of replies, with those that end them."""
    tokens: list[list[int]] = [[] for _ in whole]
    model.generate(whole, on_token=lambda i, token, _: tokens[i].append(token), **options)  # type: ignore[arg-type]
    return tokens


def logits_of(model: Decoder, whole: list[Prompt]) -> list[Tensor]:
    """Return the logits at each token of each reply, (tokens, vocabulary)."""
    rows: list[list[Tensor]] = [[] for _ in whole]
    model.generate(whole, max_new_tokens=MAX_NEW_TOKENS, on_token=lambda i, _, row: rows[i].append(row.clone()))
    return [torch.stack(of_one) for of_one in rows]


def eight(model: Decoder) -> list[Prompt]:
    """Return prompts of different lengths, with and without clips."""
    clips = [("Look:", encoded_clip(model, num, seed=num)) for num in (1, 3, 2)]
    return [*prompts(model), *((*clip, f"What is it, number {i}?") for i, clip in enumerate(clips)), ("say",)][:8]


@pytest.mark.slow
def test_replies_that_are_written_together_are_those_of_each_alone(model: Decoder) -> None:
    """Token for token, with logits; prompts differ in length, and rows that end leave the batch."""
    whole = eight(model)
    together = logits_of(model, whole)
    for of_one, prompt in zip(together, whole, strict=True):
        (alone,) = logits_of(model, [prompt])
        torch.testing.assert_close(of_one, alone, atol=1e-4, rtol=1e-4)
        assert torch.equal(of_one.argmax(1), alone.argmax(1))


@pytest.mark.slow
def test_replies_behind_prefixes_are_those_to_whole_prompts(model: Decoder) -> None:
    """Some of the prompts of a batch have a prefix, of different lengths, and some have none."""
    clips: list[Prompt] = [("Look:", encoded_clip(model, num, seed=num)) for num in (1, 3, 2, 4)]
    ends: list[Prompt] = [("What?",), ("and what is that one there?",), ("Who?",), ("Where is it?",)]
    prefixes = model.prefill_prefix(clips)
    whole: list[Prompt] = [(*clip, *end) for clip, end in zip(clips, ends, strict=True)]
    expected = [tokens_of(model, [prompt], max_new_tokens=MAX_NEW_TOKENS)[0] for prompt in [*whole, ("say",)]]
    suffixes, read = [*ends, ("say",)], [*prefixes, None]
    for _ in range(2):  # what was read is not changed by what followed it
        assert tokens_of(model, suffixes, prefixes=read, max_new_tokens=MAX_NEW_TOKENS) == expected


def test_no_prompts_have_no_replies(qwen: Decoder) -> None:
    assert qwen.generate([]) == []


def test_a_reply_that_ends_leaves_the_batch(qwen: Decoder, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = eight(qwen)
    tokens = tokens_of(qwen, whole, max_new_tokens=4)
    ends = {tokens[1][1], tokens[4][2]}
    monkeypatch.setattr(qwen.library.generation_config, "eos_token_id", [2, *ends])
    sizes: list[int] = []
    decode_step = ForwardPasses.decode_step

    def counted(forward: ForwardPasses, ids: Tensor, *args: object) -> Tensor:
        sizes.append(len(ids))
        return decode_step(forward, ids, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(ForwardPasses, "decode_step", counted)
    cut = tokens_of(qwen, whole, max_new_tokens=4)
    for before, after in zip(tokens, cut, strict=True):
        end = next((i + 1 for i, token in enumerate(before) if token in {2, *ends}), 4)
        assert after == before[:end]
    assert sizes == [sum(len(reply) > n for reply in cut) for n in (1, 2, 3) if any(len(reply) > n for reply in cut)]
    assert sizes[0] > sizes[-1]


# --- memory -----------------------------------------------------------------------------------------------------------


def limited(monkeypatch: pytest.MonkeyPatch, max_rows: int, after: int) -> list[int]:
    """Let decoding steps of more rows than these run out of memory after so many steps; return the steps' rows."""
    sizes: list[int] = []
    decode_step = ForwardPasses.decode_step

    def step(forward: ForwardPasses, ids: Tensor, *args: object) -> Tensor:
        sizes.append(len(ids))
        if len(ids) > max_rows and len(sizes) > after:
            raise torch.OutOfMemoryError("out of memory")
        return decode_step(forward, ids, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(ForwardPasses, "decode_step", step)
    return sizes


@pytest.mark.parametrize("after", [0, 3])
def test_where_memory_runs_out_replies_go_on_in_smaller_batches(
    qwen: Decoder, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    """No token is given twice, and none is another one."""
    whole = eight(qwen)
    budget = qwen._generator._budget
    expected = tokens_of(qwen, whole, max_new_tokens=MAX_NEW_TOKENS)
    monkeypatch.setattr(budget, "tokens", 100_000)
    sizes = limited(monkeypatch, 2, after)
    assert tokens_of(qwen, whole, max_new_tokens=MAX_NEW_TOKENS) == expected
    assert sizes[after] > 2 and max(sizes[-3:]) <= 2 and budget.tokens < 100_000


def test_without_memory_for_one_reply_there_is_one_line(qwen: Decoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qwen._generator._budget, "tokens", 100_000)
    limited(monkeypatch, 0, 1)
    with pytest.raises(LvqaError, match=r"out of memory on one item of .* tokens"):
        qwen.generate([("say",)], max_new_tokens=5)

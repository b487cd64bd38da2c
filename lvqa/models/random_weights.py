"""Make a Qwen2.5-VL of its real widths with random weights, at any depth, for measurements and tests without a hub."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoTokenizer, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from lvqa.models.checkpoint import TINY
from lvqa.models.devices import DTYPES, best_device, default_dtype
from lvqa.models.qwen_vl import Qwen25VL
from lvqa.records import LvqaError


@dataclass(frozen=True, slots=True)
class Shape:
    """The numbers of a published config.json."""

    hidden_size: int
    intermediate_size: int
    num_attention_heads: int
    num_key_value_heads: int
    num_hidden_layers: int
    vocab_size: int
    tie_word_embeddings: bool


SHAPES = {
    "3b": Shape(2048, 11008, 16, 2, 36, 151936, True),
    "7b": Shape(3584, 18944, 28, 4, 28, 152064, False),
}
"""The language models of the published sizes."""
VISION_DEPTH = 32
"""How many layers the published vision tower has."""
_VISION = {"hidden_size": 1280, "num_heads": 16, "intermediate_size": 3420, "window_size": 112}
_FULL_ATTENTION = (7, 15, 23, 31)
_ROPE = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]}
_NORMS = ("norm.weight", "norm1.weight", "norm2.weight", "ln_q.weight", "layernorm.weight")


def real_config(shape: str, *, layers: int | None = None, vision_layers: int | None = None) -> Qwen2_5_VLConfig:
    """Return the configuration of one of SHAPES, with the embedded tokenizer's special tokens.

    Args:
        shape: A name in SHAPES.
        layers: How many decoder layers; None means all of them.
        vision_layers: How many layers of the vision tower; None means all of them.

    Raises:
        LvqaError: The shape is unknown, or has fewer layers.
    """
    if shape not in SHAPES:
        raise LvqaError(f"shape {shape!r} is unknown; use one of {', '.join(SHAPES)}")
    published = SHAPES[shape]
    for name, count, available in (
        ("layers", layers, published.num_hidden_layers),
        ("vision layers", vision_layers, VISION_DEPTH),
    ):
        if count is not None and not 1 <= count <= available:
            raise LvqaError(f"{name} must be 1 to {available}, got {count}")
    text = {
        "hidden_size": published.hidden_size,
        "intermediate_size": published.intermediate_size,
        "num_attention_heads": published.num_attention_heads,
        "num_key_value_heads": published.num_key_value_heads,
        "num_hidden_layers": layers or published.num_hidden_layers,
        "vocab_size": published.vocab_size,
        "rms_norm_eps": 1e-6,
        "rope_parameters": _ROPE,
    }
    depth = vision_layers or VISION_DEPTH
    full = [i for i in _FULL_ATTENTION if i < depth] or [depth - 1]
    vision = {**_VISION, "depth": depth, "fullatt_block_indexes": full, "out_hidden_size": published.hidden_size}
    tokenizer = AutoTokenizer.from_pretrained(TINY)
    names = {
        "image_token_id": "<|image_pad|>",
        "video_token_id": "<|video_pad|>",
        "vision_start_token_id": "<|vision_start|>",
        "vision_end_token_id": "<|vision_end|>",
    }
    ids: dict[str, Any] = {name: tokenizer.convert_tokens_to_ids(token) for name, token in names.items()}
    config = Qwen2_5_VLConfig(
        text_config=text, vision_config=vision, tie_word_embeddings=published.tie_word_embeddings, **ids
    )
    config._attn_implementation = "sdpa"
    return config


def random_model(
    shape: str,
    *,
    layers: int | None = None,
    vision_layers: int | None = None,
    device: str | None = None,
    dtype: str | None = None,
    max_batch_tokens: int | None = None,
) -> Qwen25VL:
    """Return a model of `real_config` with random weights and the embedded tokenizer.

    Its answers mean nothing; each layer costs what it costs in the real model. The other arguments are those of
    `load_model`.

    Raises:
        LvqaError: As `real_config`.
    """
    config = real_config(shape, layers=layers, vision_layers=vision_layers)
    with torch.device("meta"):
        model: Any = Qwen2_5_VLForConditionalGeneration(config)
    target = best_device(device)
    model.to(DTYPES[dtype or default_dtype(target)])
    model.to_empty(device=target)
    model.tie_weights()
    tokenizer = AutoTokenizer.from_pretrained(TINY)
    _fill(model, vocab_size=len(tokenizer))
    model.eval().requires_grad_(False)
    text: Any = config.text_config
    vision: Any = config.vision_config
    name = f"random {shape}, {text.num_hidden_layers} layers, {vision.depth} vision layers"
    return Qwen25VL(model, tokenizer, name=name, revision="random", max_batch_tokens=max_batch_tokens)


def _fill(model: Any, *, vocab_size: int) -> None:
    """Fill the weights with one piece of noise over and over: to sample billions of numbers takes minutes.

    Of the vocabulary only the tokens that the tokenizer has are filled.
    """
    noise = torch.randn(1 << 20, generator=torch.Generator().manual_seed(0)).mul_(0.03).to(model.dtype).to(model.device)
    for name, weight in model.named_parameters():
        if name.endswith(_NORMS):
            weight.data.fill_(1)
            continue
        is_vocabulary = name.endswith(("embed_tokens.weight", "lm_head.weight"))
        flat = (weight.data[:vocab_size] if is_vocabulary else weight.data).view(-1)
        for start in range(0, len(flat), len(noise)):
            flat[start : start + len(noise)] = noise[: len(flat) - start]
    text, visual = model.model.language_model.rotary_emb, model.model.visual.rotary_pos_emb
    text.inv_freq = text.compute_default_rope_parameters(model.config.text_config)[0].to(model.device)
    visual.inv_freq = visual.compute_axial_rope_parameters(model.config.vision_config)[0].to(model.device)

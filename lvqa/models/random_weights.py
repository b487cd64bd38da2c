"""Qwen2.5-VL in its real widths with random weights, at any depth: for measurements, and for tests without a hub."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoTokenizer, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from lvqa.models.checkpoint import TINY
from lvqa.models.decoder import DTYPES, best_device, usual_dtype
from lvqa.models.qwen_vl import Qwen25VL
from lvqa.records import LvqaError


@dataclass(frozen=True, slots=True)
class Shape:
    """What the published config.json says."""

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
VISION_DEPTH = 32
_VISION = {"hidden_size": 1280, "num_heads": 16, "intermediate_size": 3420, "window_size": 112}
_FULL_ATTENTION = (7, 15, 23, 31)
_ROPE = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]}
_NORMS = ("norm.weight", "norm1.weight", "norm2.weight", "ln_q.weight", "layernorm.weight")


def real_config(shape: str, *, layers: int | None = None, vision_layers: int | None = None) -> Qwen2_5_VLConfig:
    """The configuration of one of SHAPES with so many layers (None: all), and the embedded tokenizer's special tokens.

    LvqaError for a shape that is unknown, or more layers than it has.
    """
    if shape not in SHAPES:
        raise LvqaError(f"shape {shape!r} is unknown; use one of {', '.join(SHAPES)}")
    of = SHAPES[shape]
    for what, number, most in (
        ("layers", layers, of.num_hidden_layers),
        ("vision layers", vision_layers, VISION_DEPTH),
    ):
        if number is not None and not 1 <= number <= most:
            raise LvqaError(f"{what} must be 1 to {most}, got {number}")
    text = {
        "hidden_size": of.hidden_size,
        "intermediate_size": of.intermediate_size,
        "num_attention_heads": of.num_attention_heads,
        "num_key_value_heads": of.num_key_value_heads,
        "num_hidden_layers": layers or of.num_hidden_layers,
        "vocab_size": of.vocab_size,
        "rms_norm_eps": 1e-6,
        "rope_parameters": _ROPE,
    }
    depth = vision_layers or VISION_DEPTH
    full = [number for number in _FULL_ATTENTION if number < depth] or [depth - 1]
    vision = {**_VISION, "depth": depth, "fullatt_block_indexes": full, "out_hidden_size": of.hidden_size}
    tokenizer = AutoTokenizer.from_pretrained(TINY)
    names = {
        "image_token_id": "<|image_pad|>",
        "video_token_id": "<|video_pad|>",
        "vision_start_token_id": "<|vision_start|>",
        "vision_end_token_id": "<|vision_end|>",
    }
    ids: dict[str, Any] = {name: tokenizer.convert_tokens_to_ids(token) for name, token in names.items()}
    config = Qwen2_5_VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=of.tie_word_embeddings, **ids)
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
    """A model of `real_config` with random weights and the embedded tokenizer.

    Its answers mean nothing; what it costs is what the real one costs, a layer. Raises LvqaError as `real_config` does.
    """
    config = real_config(shape, layers=layers, vision_layers=vision_layers)
    with torch.device("meta"):
        model: Any = Qwen2_5_VLForConditionalGeneration(config)
    place = best_device(device)
    model.to(DTYPES[dtype or usual_dtype(place)])
    model.to_empty(device=place)
    model.tie_weights()
    tokenizer = AutoTokenizer.from_pretrained(TINY)
    _fill(model, num_words=len(tokenizer))
    model.eval().requires_grad_(False)
    text: Any = config.text_config
    vision: Any = config.vision_config
    name = f"random {shape}, {text.num_hidden_layers} layers, {vision.depth} vision layers"
    return Qwen25VL(model, tokenizer, name=name, revision="random", max_batch_tokens=max_batch_tokens)


def _fill(model: Any, *, num_words: int) -> None:
    """Noise from one block, since drawing billions of numbers takes minutes; of the vocabulary only what is used."""
    noise = torch.randn(1 << 20, generator=torch.Generator().manual_seed(0)).mul_(0.03).to(model.dtype).to(model.device)
    for name, weight in model.named_parameters():
        if name.endswith(_NORMS):
            weight.data.fill_(1)
            continue
        is_vocabulary = name.endswith(("embed_tokens.weight", "lm_head.weight"))
        flat = (weight.data[:num_words] if is_vocabulary else weight.data).view(-1)
        for start in range(0, len(flat), len(noise)):
            flat[start : start + len(noise)] = noise[: len(flat) - start]
    text, visual = model.model.language_model.rotary_emb, model.model.visual.rotary_pos_emb
    text.inv_freq = text.compute_default_rope_parameters(model.config.text_config)[0].to(model.device)
    visual.inv_freq = visual.compute_axial_rope_parameters(model.config.vision_config)[0].to(model.device)

"""Models of every family in their real layout, a few layers deep and narrow, with random weights."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from transformers import (
    PreTrainedModel,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)

from lvqa.backbones.checkpoint import TINY

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
IDS = {"image_token_id": 6, "video_token_id": 7, "vision_start_token_id": 3, "vision_end_token_id": 4}

TEXT = {
    "vocab_size": 700,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 3, 3]},
    "bos_token_id": None,
    "eos_token_id": 2,
    "initializer_range": 0.2,
}
VISION = {"depth": 4, "hidden_size": 32, "intermediate_size": 48, "num_heads": 4, "initializer_range": 0.2}


def qwen2_vl() -> Qwen2VLForConditionalGeneration:
    vision = {"depth": 3, "embed_dim": 32, "hidden_size": 64, "mlp_ratio": 2, "num_heads": 4, "initializer_range": 0.2}
    return Qwen2VLForConditionalGeneration(Qwen2VLConfig(text_config=TEXT, vision_config=vision, **IDS))


def qwen2_5_vl() -> Qwen2_5_VLForConditionalGeneration:
    """Of its four vision layers two see windows only."""
    vision = VISION | {"out_hidden_size": 64, "window_size": 112, "fullatt_block_indexes": [1, 3]}
    return Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(text_config=TEXT, vision_config=vision, **IDS))


def qwen3_vl() -> Qwen3VLForConditionalGeneration:
    """Heads wider than the states, and two layers that take features from the middle of the tower."""
    text = TEXT | {"head_dim": 16, "num_attention_heads": 6}
    vision = VISION | {"out_hidden_size": 64, "num_position_embeddings": 25, "deepstack_visual_indexes": [0, 2]}
    model = Qwen3VLForConditionalGeneration(Qwen3VLConfig(text_config=text, vision_config=vision, **IDS))
    for layer in model.model.language_model.layers:  # norms as they never are before training
        torch.nn.init.uniform_(layer.self_attn.q_norm.weight, 0.5, 2)
        torch.nn.init.uniform_(layer.self_attn.k_norm.weight, 0.5, 2)
    return model


SMALL: dict[str, Callable[[], PreTrainedModel]] = {
    "qwen2_vl": qwen2_vl,
    "qwen2_5_vl": qwen2_5_vl,
    "qwen3_vl": qwen3_vl,
}
"""A model for each of BACKBONES."""


def save(family: str, folder: Path) -> Path:
    """The folder, with the model of this family as `from_pretrained` reads it, and the embedded tokenizer."""
    torch.manual_seed(0)
    SMALL[family]().save_pretrained(folder)
    for name in TOKENIZER_FILES:
        shutil.copy(TINY / name, folder / name)
    return folder

"""Models of every family in their real layout, a few layers deep and narrow, with random weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from transformers import (
    AutoTokenizer,
    InternVLConfig,
    InternVLForConditionalGeneration,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    PreTrainedModel,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5OmniConfig,
    Qwen2_5OmniForConditionalGeneration,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLMoeConfig,
    Qwen3VLMoeForConditionalGeneration,
)

from lvqa.models.checkpoint import TINY

OTHER_TOKENS = ["<img>", "</img>", "<IMG_CONTEXT>", "<image>", "<video>"]
OTHER_TOKENS += ["<|VIDEO|>", "<|vision_bos|>", "<|vision_eos|>", "<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>"]
"""The special tokens of the models that are not Qwen-VLs, behind those of the embedded tokenizer."""
NUM_TOKENS = len(AutoTokenizer.from_pretrained(TINY))
OTHER_IDS = {token: NUM_TOKENS + i for i, token in enumerate(OTHER_TOKENS)}
IDS = {"image_token_id": 6, "video_token_id": 7, "vision_start_token_id": 3, "vision_end_token_id": 4}

TEXT = {
    "vocab_size": NUM_TOKENS + 40,
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
ONE_AXIS = TEXT | {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}
VISION = {"depth": 4, "hidden_size": 32, "intermediate_size": 48, "num_heads": 4, "initializer_range": 0.2}
WINDOWED = VISION | {"out_hidden_size": 64, "window_size": 112, "fullatt_block_indexes": [1, 3]}
"""Two of the four layers attend inside windows only."""


def qwen2_vl() -> Qwen2VLForConditionalGeneration:
    vision = {"depth": 3, "embed_dim": 32, "hidden_size": 64, "mlp_ratio": 2, "num_heads": 4, "initializer_range": 0.2}
    return Qwen2VLForConditionalGeneration(Qwen2VLConfig(text_config=TEXT, vision_config=vision, **IDS))


def qwen2_5_vl() -> Qwen2_5_VLForConditionalGeneration:
    return Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(text_config=TEXT, vision_config=WINDOWED, **IDS))


def qwen2_5_omni() -> Qwen2_5OmniForConditionalGeneration:
    """Return the model with its audio tower, and without speech."""
    audio = {"d_model": 32, "encoder_layers": 1, "encoder_attention_heads": 2, "encoder_ffn_dim": 48, "output_dim": 64}
    audio |= {"initializer_range": 0.2}
    ids = {
        "video_token_index": OTHER_IDS["<|VIDEO|>"],
        "image_token_index": 6,
        "audio_token_index": OTHER_IDS["<|AUDIO|>"],
    }
    ids |= {"vision_start_token_id": OTHER_IDS["<|vision_bos|>"], "vision_end_token_id": OTHER_IDS["<|vision_eos|>"]}
    ids |= {"audio_start_token_id": OTHER_IDS["<|audio_bos|>"], "audio_end_token_id": OTHER_IDS["<|audio_eos|>"]}
    thinker = {"text_config": TEXT, "vision_config": WINDOWED, "audio_config": audio, **ids}
    return Qwen2_5OmniForConditionalGeneration(Qwen2_5OmniConfig(thinker_config=thinker, enable_audio_output=False))


def qwen3_vl() -> Qwen3VLForConditionalGeneration:
    """Return a model with heads wider than the states, and features from two layers in the middle of the tower."""
    text = TEXT | {"head_dim": 16, "num_attention_heads": 6}
    vision = VISION | {"out_hidden_size": 64, "num_position_embeddings": 25, "deepstack_visual_indexes": [0, 2]}
    model = Qwen3VLForConditionalGeneration(Qwen3VLConfig(text_config=text, vision_config=vision, **IDS))
    for layer in model.model.language_model.layers:  # before training they are all ones
        torch.nn.init.uniform_(layer.self_attn.q_norm.weight, 0.5, 2)
        torch.nn.init.uniform_(layer.self_attn.k_norm.weight, 0.5, 2)
    return model


def qwen3_vl_moe() -> Qwen3VLMoeForConditionalGeneration:
    """Return a model whose language model is a mixture of experts."""
    text = TEXT | {"head_dim": 16, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 48}
    vision = VISION | {"out_hidden_size": 64, "num_position_embeddings": 25, "deepstack_visual_indexes": [0, 2]}
    return Qwen3VLMoeForConditionalGeneration(Qwen3VLMoeConfig(text_config=text, vision_config=vision, **IDS))


def internvl(text: dict[str, object] | None = None) -> InternVLForConditionalGeneration:
    """Return a model of frames of 56 x 56: four by four patches, four tokens."""
    vision = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
    vision |= {"image_size": 56, "initializer_range": 0.2, "layer_scale_init_value": 1.0}
    text = text or ONE_AXIS | {"model_type": "qwen2"}
    ids = {"image_token_id": OTHER_IDS["<IMG_CONTEXT>"], "image_seq_length": 4}
    config = InternVLConfig(vision_config=vision, text_config=text, **ids)
    return InternVLForConditionalGeneration(config)


def internvl_moe() -> InternVLForConditionalGeneration:
    """Return a model laid out as InternVL3.5-30B-A3B: its language model is a mixture of experts."""
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 48, "norm_topk_prob": True}
    return internvl(ONE_AXIS | experts | {"model_type": "qwen3_moe", "head_dim": 16})


def llava_onevision() -> LlavaOnevisionForConditionalGeneration:
    """Return a model of frames of 42 x 42: three by three patches, pooled to two by two tokens."""
    vision = {"model_type": "siglip_vision_model", "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    vision |= {"intermediate_size": 48, "image_size": 42, "patch_size": 14, "vision_use_head": False}
    text = ONE_AXIS | {"model_type": "qwen2"}
    ids = {"image_token_index": OTHER_IDS["<image>"], "video_token_index": OTHER_IDS["<video>"]}
    return LlavaOnevisionForConditionalGeneration(LlavaOnevisionConfig(vision_config=vision, text_config=text, **ids))


SMALL: dict[str, Callable[[], PreTrainedModel]] = {
    "qwen2_vl": qwen2_vl,
    "qwen2_5_vl": qwen2_5_vl,
    "qwen2_5_omni": qwen2_5_omni,
    "qwen3_vl": qwen3_vl,
    "qwen3_vl_moe": qwen3_vl_moe,
    "internvl": internvl,
    "internvl_moe": internvl_moe,
    "llava_onevision": llava_onevision,
}
"""A family, most by its `model_type` -> a function that makes a model of it."""


def save(family: str, folder: Path) -> Path:
    """Save a model of this family, as `from_pretrained` reads it, with the embedded tokenizer; return the folder."""
    torch.manual_seed(0)
    SMALL[family]().save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(TINY)
    tokenizer.add_tokens(OTHER_TOKENS, special_tokens=True)
    tokenizer.save_pretrained(folder)
    return folder

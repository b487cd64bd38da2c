"""A hub cache made from code: checkpoints in the layout in which the hub has them, with few layers and random weights.

What is written here are facts about the published repositories: the keys of config.json, how tensors are called and
split over files, ids of special tokens, chat templates, settings of preprocessing and generation. The widths are an
eighth of the published ones, except that of a head, on which the rotation of positions depends.
"""

from __future__ import annotations

import copy
import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from transformers import AutoConfig, AutoModelForImageTextToText, Qwen2_5OmniThinkerForConditionalGeneration

COMMIT = "0123456789abcdef0123456789abcdef01234567"
FIRST_SPECIAL = 151643
"""The published vocabularies of Qwen have so many plain tokens; the special ones follow."""
SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>"]
SPECIALS += ["<|box_start|>", "<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>"]
SPECIALS += ["<|vision_pad|>", "<|image_pad|>", "<|video_pad|>"]
TOOLS = ["<tool_call>", "</tool_call>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>"]
TOOLS += ["<|repo_name|>", "<|file_sep|>"]
QWEN2_TOKENS = SPECIALS + TOOLS
QWEN3_TOKENS = [*QWEN2_TOKENS, "<tool_response>", "</tool_response>", "<think>", "</think>"]
OMNI_TOKENS = [*SPECIALS[:3], "<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>", "<|box_end|>", "<|quad_start|>"]
OMNI_TOKENS += ["<|quad_end|>", "<|vision_bos|>", "<|vision_eos|>", "<|vision_pad|>", "<|IMAGE|>", "<|VIDEO|>", *TOOLS]
INTERNVL_TOKENS = [*QWEN2_TOKENS, "<img>", "</img>", "<IMG_CONTEXT>", "<quad>", "</quad>", "<ref>", "</ref>"]
INTERNVL_TOKENS += ["<box>", "</box>"]
LLAVA_TOKENS = [*SPECIALS[:3], "<image>", "<video>"]

QWEN2_VL_TEMPLATE = (
    "{% set image_count = namespace(value=0) %}{% set video_count = namespace(value=0) %}"
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}<|im_start|>system\n"
    "You are a helpful assistant.<|im_end|>\n{% endif %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}<|im_end|>\n{% else %}"
    "{% for content in message['content'] %}"
    "{% if content['type'] == 'image' or 'image' in content or 'image_url' in content %}"
    "{% set image_count.value = image_count.value + 1 %}{% if add_vision_id %}Picture {{ image_count.value }}: "
    "{% endif %}<|vision_start|><|image_pad|><|vision_end|>{% elif content['type'] == 'video' or 'video' in content %}"
    "{% set video_count.value = video_count.value + 1 %}{% if add_vision_id %}Video {{ video_count.value }}: "
    "{% endif %}<|vision_start|><|video_pad|><|vision_end|>{% elif 'text' in content %}{{ content['text'] }}{% endif %}"
    "{% endfor %}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
QWEN3_VL_TEMPLATE = (
    "{%- for message in messages %}{{- '<|im_start|>' + message.role + '\\n' }}"
    "{%- if message.content is string %}{{- message.content }}{%- else %}{%- for content in message.content %}"
    "{%- if content.type == 'image' or 'image' in content %}<|vision_start|><|image_pad|><|vision_end|>"
    "{%- elif content.type == 'video' or 'video' in content %}<|vision_start|><|video_pad|><|vision_end|>"
    "{%- elif 'text' in content %}{{- content.text }}{%- endif %}{%- endfor %}{%- endif %}{{- '<|im_end|>\\n' }}"
    "{%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)
THINKING_TEMPLATE = QWEN3_VL_TEMPLATE.replace("assistant\\n' }}", "assistant\\n<think>\\n' }}")
SWITCHED_TEMPLATE = QWEN3_VL_TEMPLATE.replace(
    "{{- '<|im_start|>assistant\\n' }}",
    "{{- '<|im_start|>assistant\\n' }}{%- if enable_thinking is defined and enable_thinking is false %}"
    "{{- '<think>\\n\\n</think>\\n\\n' }}{%- else %}{{- '<think>\\n' }}{%- endif %}",
)
OMNI_TEMPLATE = QWEN2_VL_TEMPLATE.replace("<|vision_start|><|image_pad|>", "<|vision_bos|><|IMAGE|>")
OMNI_TEMPLATE = OMNI_TEMPLATE.replace("<|vision_start|><|video_pad|>", "<|vision_bos|><|VIDEO|>")
OMNI_TEMPLATE = OMNI_TEMPLATE.replace("<|vision_end|>", "<|vision_eos|>")
INTERNVL_TEMPLATE = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n'}}{% if message['content'] is string %}"
    "{{ message['content'] }}{% else %}{% for content in message['content'] %}{% if content['type'] == 'image' %}"
    "{{ '<IMG_CONTEXT>\n' }}{% elif content['type'] == 'video' %}{{ '<video>\n' }}{% elif content['type'] == 'text' %}"
    "{{ content['text'] }}{% endif %}{% endfor %}{% endif %}{{'<|im_end|>\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{'<|im_start|>assistant\n' }}{% endif %}"
)
LLAVA_TEMPLATE = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + ' '}}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>\n' }}{% endfor %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'video') %}{{ '<video>\n' }}{% endfor %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}{{ '\n' + content['text'] }}"
    "{% endfor %}{{'<|im_end|>'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
TEXT_ONLY_TEMPLATE = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

GENERATION = {"bos_token_id": 151643, "pad_token_id": 151643, "do_sample": True, "eos_token_id": [151645, 151643]}
GENERATION |= {"repetition_penalty": 1.05, "temperature": 0.000001}
PREPROCESSING = {
    "min_pixels": 3136,
    "max_pixels": 12845056,
    "patch_size": 14,
    "temporal_patch_size": 2,
    "merge_size": 2,
}
PREPROCESSING |= {"image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711]}
PREPROCESSING |= {"image_processor_type": "Qwen2VLImageProcessor", "merge_size": 2}


@dataclass(frozen=True)
class Published:
    """A checkpoint of the hub, and how it lies there."""

    config: Mapping[str, Any]
    """Its config.json."""
    tokens: list[str]
    """The special tokens, from FIRST_SPECIAL on."""
    template: str
    """The chat template of its processor."""
    old_keys: tuple[tuple[str, str], ...] = ()
    """Patterns of the library's names of tensors, and what the hub calls them."""
    tokenizer_template: str | None = None
    """The template of its tokenizer; None: the processor's."""
    template_file: str = "chat_template.json"
    """The file of the processor's template."""
    generation: Mapping[str, Any] = field(default_factory=lambda: GENERATION)
    library_class: Any = AutoModelForImageTextToText
    experts: str = "apart"
    """How the experts of a mixture lie there: each by itself, or together and "transposed"."""


IDS = {"vision_start_token_id": 151652, "vision_end_token_id": 151653, "image_token_id": 151655}
IDS |= {"video_token_id": 151656}
FLAT = {"attention_dropout": 0.0, "bos_token_id": 151643, "eos_token_id": 151645, "hidden_act": "silu"}
FLAT |= {"initializer_range": 0.02, "max_position_embeddings": 128000, "rms_norm_eps": 1e-6, "rope_theta": 1e6}
FLAT |= {"sliding_window": 32768, "torch_dtype": "bfloat16", "use_cache": True, "use_sliding_window": False}
FLAT |= {"rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]}}
BEFORE_5 = (
    (r"^model\.language_model\.", "model."),
    (r"^model\.visual\.", "visual."),
)
"""How Qwen2-VL and Qwen2.5-VL call their tensors on the hub."""


def qwen2_5_vl(
    hidden: int,
    intermediate: int,
    heads: int,
    kv_heads: int,
    *,
    vocabulary: int = 152064,
    tied: bool = False,
    tower: tuple[int, int, int] = (160, 427, 2),
) -> Published:
    """Return a Qwen2.5-VL: its config is flat, and 3B's head is tied to its embeddings.

    `tower` are the widths of the vision tower, of its MLPs, and its heads; (1280, 3420, 16) are the published ones.
    """
    width, inner, tower_heads = tower
    vision = {"depth": 2, "hidden_act": "silu", "hidden_size": width, "intermediate_size": inner}
    vision |= {"num_heads": tower_heads}
    vision |= {"in_chans": 3, "out_hidden_size": hidden, "patch_size": 14, "spatial_merge_size": 2, "window_size": 112}
    vision |= {"spatial_patch_size": 14, "fullatt_block_indexes": [1], "tokens_per_second": 2, "temporal_patch_size": 2}
    config = {
        **FLAT,
        **IDS,
        "architectures": ["Qwen2_5_VLForConditionalGeneration"],
        "model_type": "qwen2_5_vl",
        "vision_token_id": 151654,
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "max_window_layers": 2,
        "num_attention_heads": heads,
        "num_hidden_layers": 2,
        "num_key_value_heads": kv_heads,
        "tie_word_embeddings": tied,
        "transformers_version": "4.41.2",
        "vision_config": vision,
        "vocab_size": vocabulary,
    }
    return Published(config, QWEN2_TOKENS, QWEN2_VL_TEMPLATE, BEFORE_5)


def qwen2_vl() -> Published:
    """Return Qwen2-VL-7B-Instruct."""
    vision = {"depth": 2, "embed_dim": 160, "mlp_ratio": 4, "num_heads": 2, "in_chans": 3, "hidden_size": 512}
    vision |= {"patch_size": 14, "spatial_merge_size": 2, "spatial_patch_size": 14, "temporal_patch_size": 2}
    base = qwen2_5_vl(512, 2368, 4, 2).config
    config = {**base, "architectures": ["Qwen2VLForConditionalGeneration"], "model_type": "qwen2_vl"}
    config |= {"vision_config": vision, "max_position_embeddings": 32768}
    return Published(config, QWEN2_TOKENS, QWEN2_VL_TEMPLATE, BEFORE_5)


def qwen3_vl(*, experts: bool = False, template: str = QWEN3_VL_TEMPLATE) -> Published:
    """Return a Qwen3-VL: 8B, or 30B-A3B with its mixture of experts."""
    kind = "qwen3_vl_moe" if experts else "qwen3_vl"
    hidden = 256 if experts else 512
    text = {"attention_bias": False, "attention_dropout": 0.0, "bos_token_id": 151643, "eos_token_id": 151645}
    text |= {"dtype": "bfloat16", "head_dim": 128, "hidden_act": "silu", "hidden_size": hidden, "use_cache": True}
    text |= {"initializer_range": 0.02, "intermediate_size": 1536, "max_position_embeddings": 262144}
    text |= {"model_type": f"{kind}_text", "num_attention_heads": 4, "num_hidden_layers": 3, "num_key_value_heads": 1}
    text |= {"rms_norm_eps": 1e-6, "rope_theta": 5000000, "vocab_size": 151936}
    text |= {"rope_scaling": {"mrope_interleaved": True, "mrope_section": [24, 20, 20], "rope_type": "default"}}
    if experts:
        text |= {"decoder_sparse_step": 1, "mlp_only_layers": [], "moe_intermediate_size": 96, "norm_topk_prob": True}
        text |= {"num_experts": 8, "num_experts_per_tok": 2}
    vision = {"deepstack_visual_indexes": [0, 1], "depth": 3, "hidden_act": "gelu_pytorch_tanh", "hidden_size": 144}
    vision |= {"in_channels": 3, "initializer_range": 0.02, "intermediate_size": 538, "model_type": kind}
    vision |= {"num_heads": 2, "num_position_embeddings": 2304, "out_hidden_size": hidden, "patch_size": 16}
    vision |= {"spatial_merge_size": 2, "temporal_patch_size": 2}
    architecture = "Qwen3VLMoeForConditionalGeneration" if experts else "Qwen3VLForConditionalGeneration"
    config = {**IDS, "architectures": [architecture], "model_type": kind, "text_config": text, "vision_config": vision}
    config |= {"tie_word_embeddings": False, "transformers_version": "4.57.0.dev0"}
    generation = {"bos_token_id": 151643, "pad_token_id": 151643, "do_sample": True, "eos_token_id": [151645, 151643]}
    generation |= {"top_k": 20, "top_p": 0.8, "repetition_penalty": 1.0, "temperature": 0.7}
    return Published(config, QWEN3_TOKENS, template, generation=generation, experts="transposed")


def internvl(text: Mapping[str, Any], vocabulary: int) -> Published:
    """Return an InternVL in the library's format."""
    vision = {"architectures": ["InternVisionModel"], "attention_bias": True, "attention_dropout": 0.0, "dropout": 0.0}
    vision |= {"hidden_act": "gelu", "hidden_size": 128, "image_size": [448, 448], "initializer_factor": 0.1}
    vision |= {"initializer_range": 1e-10, "intermediate_size": 512, "layer_norm_eps": 1e-6, "norm_type": "layer_norm"}
    vision |= {"layer_scale_init_value": 0.1, "model_type": "internvl_vision", "num_attention_heads": 2}
    vision |= {"num_channels": 3, "num_hidden_layers": 2, "patch_size": [14, 14], "use_mask_token": False}
    vision |= {"use_absolute_position_embeddings": True, "use_mean_pooling": True, "use_qk_norm": False}
    config = {"architectures": ["InternVLForConditionalGeneration"], "downsample_ratio": 0.5, "image_seq_length": 256}
    config |= {"image_token_id": 151667, "model_type": "internvl", "projector_hidden_act": "gelu"}
    config |= {"text_config": {**text, "vocab_size": vocabulary}, "torch_dtype": "bfloat16", "vision_config": vision}
    config |= {"vision_feature_layer": -1, "vision_feature_select_strategy": "default"}
    old_keys = (
        (r"^model\.language_model\.", "language_model.model."),
        (r"^lm_head\.", "language_model.lm_head."),
        (r"^model\.(vision_tower|multi_modal_projector)\.", r"\1."),
    )
    # InternVL's checkpoints stop at the turn's end alone.
    options = {"template_file": "chat_template.jinja", "generation": {"eos_token_id": 151645}}
    return Published(config, INTERNVL_TOKENS, INTERNVL_TEMPLATE, old_keys, **options)


INTERNVL3_TEXT = {
    **{"architectures": ["Qwen2ForCausalLM"], "attention_dropout": 0.0, "bos_token_id": 151643},
    **{"eos_token_id": 151643, "hidden_act": "silu", "hidden_size": 448, "initializer_range": 0.02},
    **{"intermediate_size": 2368, "max_position_embeddings": 32768, "max_window_layers": 70, "model_type": "qwen2"},
    **{"num_attention_heads": 4, "num_hidden_layers": 2, "num_key_value_heads": 2, "rms_norm_eps": 1e-6},
    **{"rope_scaling": {"factor": 2.0, "rope_type": "dynamic", "type": "dynamic"}, "rope_theta": 1e6},
    **{"sliding_window": None, "torch_dtype": "bfloat16", "use_cache": True, "use_sliding_window": False},
}
INTERNVL35_TEXT = {
    **{"architectures": ["Qwen3ForCausalLM"], "attention_bias": False, "attention_dropout": 0.0, "head_dim": 128},
    **{"bos_token_id": 151643, "eos_token_id": 151645, "hidden_act": "silu", "hidden_size": 512},
    **{"initializer_range": 0.02, "intermediate_size": 1536, "max_position_embeddings": 40960, "model_type": "qwen3"},
    **{"num_attention_heads": 4, "num_hidden_layers": 2, "num_key_value_heads": 1, "rms_norm_eps": 1e-6},
    **{"rope_theta": 1e6, "sliding_window": None, "use_cache": True, "use_sliding_window": False},
}
INTERNVL35_MOE_TEXT = {
    **INTERNVL35_TEXT,
    **{"architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "decoder_sparse_step": 1},
    **{"mlp_only_layers": [], "moe_intermediate_size": 96, "norm_topk_prob": True, "num_experts": 8},
    **{"num_experts_per_tok": 2, "hidden_size": 256, "router_aux_loss_coef": 0.001},
}


def llava_onevision() -> Published:
    """Return llava-onevision-qwen2-7b-ov-hf; its tokenizer has the template of the text model that it is from."""
    text = {**INTERNVL3_TEXT, "vocab_size": 152000, "rope_scaling": None, "sliding_window": 131072}
    text |= {"_name_or_path": "Qwen/Qwen2-7B-Instruct", "max_window_layers": 28}
    vision = {"hidden_size": 144, "image_size": 384, "intermediate_size": 538, "model_type": "siglip_vision_model"}
    vision |= {"num_attention_heads": 2, "num_hidden_layers": 2, "patch_size": 14, "vision_use_head": False}
    config = {"architectures": ["LlavaOnevisionForConditionalGeneration"], "model_type": "llava_onevision"}
    config |= {"image_grid_pinpoints": [[384, 384], [384, 768], [768, 384]], "image_token_index": 151646}
    config |= {"projector_hidden_act": "gelu", "text_config": text, "tie_word_embeddings": False}
    config |= {"torch_dtype": "float16", "use_image_newline_parameter": True, "video_token_index": 151647}
    config |= {"vision_aspect_ratio": "anyres_max_9", "vision_config": vision, "vision_feature_layer": -1}
    config |= {"vision_feature_select_strategy": "full"}
    old_keys = (
        (r"^model\.language_model\.", "language_model.model."),
        (r"^lm_head\.", "language_model.lm_head."),
        (r"^model\.(vision_tower|multi_modal_projector)\.", r"\1."),
        (r"^model\.image_newline", "image_newline"),
    )
    return Published(config, LLAVA_TOKENS, LLAVA_TEMPLATE, old_keys, tokenizer_template=TEXT_ONLY_TEMPLATE)


def qwen2_5_omni() -> Published:
    """Return Qwen2.5-Omni-7B without the weights that speak; what it thinks with lies under `thinker`."""
    base = qwen2_5_vl(512, 2368, 4, 2).config
    text = {key: base[key] for key in FLAT if key not in ("torch_dtype", "bos_token_id", "eos_token_id")}
    text |= {key: base[key] for key in ("hidden_size", "intermediate_size", "num_attention_heads", "vocab_size")}
    text |= {"model_type": "qwen2_5_omni_text", "num_hidden_layers": 2, "num_key_value_heads": 2}
    text |= {"rope_scaling": {"mrope_section": [16, 24, 24], "rope_type": "default", "type": "default"}}
    audio = {"model_type": "qwen2_5_omni_audio_encoder", "d_model": 160, "encoder_attention_heads": 2}
    audio |= {"encoder_ffn_dim": 640, "encoder_layers": 1, "num_mel_bins": 128, "n_window": 100, "output_dim": 512}
    vision = {**base["vision_config"], "model_type": "qwen2_5_omni_vision_encoder"}
    thinker = {"model_type": "qwen2_5_omni_thinker", "architectures": ["Qwen2OmniNaViTThinkerForConditionalGeneration"]}
    thinker |= {"audio_token_index": 151646, "image_token_index": 151655, "video_token_index": 151656}
    thinker |= {"audio_start_token_id": 151647, "audio_end_token_id": 151648, "vision_start_token_id": 151652}
    thinker |= {"vision_end_token_id": 151653, "vision_token_id": 151654, "position_id_per_seconds": 25}
    thinker |= {"seconds_per_chunk": 2, "bos_token_id": 151644, "eos_token_id": 151645, "pad_token_id": 151643}
    thinker |= {"user_token_id": 872, "text_config": text, "vision_config": vision, "audio_config": audio}
    config = {"architectures": ["Qwen2_5OmniModel"], "model_type": "qwen2_5_omni", "enable_audio_output": True}
    config |= {"thinker_config": thinker, "enable_talker": True}
    old_keys = ((r"^lm_head\.", "thinker.lm_head."), (r"^(?!thinker\.)", "thinker."))
    library_class = Qwen2_5OmniThinkerForConditionalGeneration
    return Published(config, OMNI_TOKENS, OMNI_TEMPLATE, old_keys, library_class=library_class)


CHECKPOINTS: dict[str, Callable[[], Published]] = {
    "Qwen/Qwen2.5-VL-3B-Instruct": lambda: qwen2_5_vl(256, 1376, 2, 1, vocabulary=151936, tied=True),
    "Qwen/Qwen2.5-VL-7B-Instruct": lambda: qwen2_5_vl(512, 2368, 4, 2),
    "Qwen/Qwen2.5-VL-32B-Instruct": lambda: qwen2_5_vl(640, 3456, 5, 1),
    "Qwen/Qwen2.5-VL-72B-Instruct": lambda: qwen2_5_vl(1024, 3696, 8, 1),
    "Qwen/Qwen2-VL-7B-Instruct": qwen2_vl,
    "Qwen/Qwen3-VL-8B-Instruct": qwen3_vl,
    "Qwen/Qwen3-VL-30B-A3B-Instruct": lambda: qwen3_vl(experts=True),
    "OpenGVLab/InternVL3-8B-hf": lambda: internvl(INTERNVL3_TEXT, 151674),
    "OpenGVLab/InternVL3_5-8B-HF": lambda: internvl(INTERNVL35_TEXT, 151936),
    "OpenGVLab/InternVL3_5-30B-A3B-HF": lambda: internvl(INTERNVL35_MOE_TEXT, 151936),
    "llava-hf/llava-onevision-qwen2-7b-ov-hf": llava_onevision,
    "Qwen/Qwen2.5-Omni-7B": qwen2_5_omni,
}
"""Hub ids of checkpoints that can be used."""


@cache
def tokenizer_json() -> str:
    """Return a byte-level tokenizer with FIRST_SPECIAL tokens: the bytes, some words, and others that never come."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("Ġ", "t"), ("h", "e"), ("Ġt", "he"), ("i", "n"), ("Ċ", "Ċ"), ("e", "s"), ("s", "t"), ("a", "n")]
    words = [*alphabet, *("".join(pair) for pair in merges)]
    words += [f"unused{i}" for i in range(FIRST_SPECIAL - len(words))]
    vocabulary = {word: i for i, word in enumerate(words)}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer.to_str()


@cache
def tokenizer_with(tokens: tuple[str, ...]) -> str:
    """Return that tokenizer with special tokens behind the others."""
    tokenizer = Tokenizer.from_str(tokenizer_json())
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in tokens])
    return tokenizer.to_str()


def write_tokenizer(folder: Path, published: Published) -> None:
    """Write tokenizer.json and tokenizer_config.json."""
    (folder / "tokenizer.json").write_text(tokenizer_with(tuple(published.tokens)), encoding="utf-8")
    added = {
        str(FIRST_SPECIAL + i): {"content": token, "special": True, "lstrip": False, "normalized": False}
        | {"rstrip": False, "single_word": False}
        for i, token in enumerate(published.tokens)
    }
    settings = {"add_prefix_space": False, "added_tokens_decoder": added, "bos_token": None, "eos_token": "<|im_end|>"}
    settings |= {
        "pad_token": "<|endoftext|>",
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": None,
        "errors": "replace",
    }
    settings |= {"chat_template": published.tokenizer_template or published.template, "model_max_length": 131072}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def random_weights(published: Published) -> dict[str, Tensor]:
    """Return tensors for a checkpoint, by the library's names."""
    config = AutoConfig.for_model(published.config["model_type"]).from_dict(copy.deepcopy(dict(published.config)))
    config, class_ = getattr(config, "thinker_config", config), published.library_class
    with torch.device("meta"):
        empty = class_.from_config(config) if class_ is AutoModelForImageTextToText else class_(config)
    noise, tensors = torch.randn(1 << 20, generator=torch.Generator().manual_seed(0)), {}
    for i, (name, tensor) in enumerate(sorted(empty.state_dict().items())):
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue  # the hub has it once
        flat = noise.roll(7919 * i).repeat(-(-tensor.numel() // len(noise)))[: tensor.numel()]
        scale = 0.3 if tensor.dim() < 2 else 0.5 if "embed_tokens" in name else tensor.shape[-1] ** -0.5
        is_norm = tensor.dim() == 1 and name.endswith("weight")
        tensors[name] = (flat.view(tensor.shape) * scale + (1 if is_norm else 0)).bfloat16().contiguous()
    return tensors


def as_on_hub(published: Published, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors as the hub has them: under its names, the experts apart or the other way round."""
    on_hub = {}
    for name, tensor in tensors.items():
        key = hub_key(name, published.old_keys)
        if ".experts." not in name:
            on_hub[key] = tensor
        elif published.experts == "transposed":
            on_hub[key] = tensor.transpose(1, 2).contiguous()
        else:
            stem, _, kind = key.rpartition(".")
            names = ["gate_proj", "up_proj"] if kind == "gate_up_proj" else ["down_proj"]
            for i, expert in enumerate(tensor):
                for projection, part in zip(names, expert.chunk(len(names)), strict=True):
                    on_hub[f"{stem}.{i}.{projection}.weight"] = part.contiguous()
    return on_hub


def write_checkpoint(hub: Path, hub_id: str, published: Published, weights: Mapping[str, Tensor] | None = None) -> Path:
    """Write a checkpoint into a hub cache, as huggingface_hub keeps it; return the folder of its files."""
    weights = weights or random_weights(published)
    repository = hub / f"models--{hub_id.replace('/', '--')}"
    folder = repository / "snapshots" / COMMIT
    folder.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    (folder / "config.json").write_text(json.dumps(published.config))
    (folder / "generation_config.json").write_text(json.dumps(published.generation))
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPROCESSING))
    template = published.template
    is_json = published.template_file.endswith(".json")
    (folder / published.template_file).write_text(json.dumps({"chat_template": template}) if is_json else template)
    write_tokenizer(folder, published)
    write_shards(folder, as_on_hub(published, weights))
    for path in list(folder.iterdir()):  # the cache keeps a file under its checksum, and links to it
        blob = repository / "blobs" / hashlib.sha256(path.read_bytes()).hexdigest()
        blob.parent.mkdir(exist_ok=True)
        path.replace(blob)
        path.symlink_to(Path("../../blobs") / blob.name)
    return folder


def hub_key(name: str, old_keys: tuple[tuple[str, str], ...]) -> str:
    """Return what the hub calls a tensor of the library."""
    for pattern, replacement in old_keys:
        name, count = re.subn(pattern, replacement, name)
        if count:
            return name
    return name


def write_shards(folder: Path, tensors: Mapping[str, Tensor], num_shards: int = 3) -> None:
    """Write tensors into several files with an index, as large checkpoints are split."""
    names = sorted(tensors)
    shards = [names[i::num_shards] for i in range(num_shards)]
    weight_map = {}
    for i, shard in enumerate(shards, 1):
        file = f"model-{i:05}-of-{num_shards:05}.safetensors"
        save_file({name: tensors[name] for name in shard}, folder / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(shard, file)
    total = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))

"""One layer of a decoder: for a whole sequence, or for its last position alone."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache
from transformers.masking_utils import create_causal_mask
from transformers.models.qwen2.modeling_qwen2 import apply_rotary_pos_emb

from lvqa.models.attention import attend_sharing_keys
from lvqa.models.reply_cache import ReplyCache

CACHE_ARGUMENT = "cache" if "cache" in inspect.signature(create_causal_mask).parameters else "past_key_values"
"""What the library calls its argument for the cache: transformers 5.24 has given it another name everywhere."""

LayerCache = DynamicCache | ReplyCache
"""What a layer adds its keys and values to."""
Past = tuple[Tensor, Tensor]
"""A layer's keys and values of what stands before a sequence, (batch, kv_heads, length, head_dim) each."""


@dataclass(frozen=True, slots=True, eq=False)
class HiddenStates:
    """The states of a batch between two layers, and what the next layer needs with them."""

    states: Tensor
    """The residual stream, (batch, sequence, dim)."""
    rotary: tuple[Tensor, Tensor]
    """Cosine and sine of the positions' rotation, as the library makes them."""
    padding: Tensor | None
    """False where padded, (batch, sequence) bool; None without padding."""

    def to(self, device: torch.device) -> HiddenStates:
        """Return the same on a device."""
        if self.states.device == device:
            return self
        cos, sin = self.rotary
        padding = None if self.padding is None else self.padding.to(device)
        return HiddenStates(self.states.to(device), (cos.to(device), sin.to(device)), padding)


def run_layer(
    layer: nn.Module,
    states: Tensor,
    mask: Any,
    rotary: tuple[Tensor, Tensor],
    cache: LayerCache | None = None,
) -> Tensor:
    """Return (batch, sequence, dim) states after a layer; its keys and values go to the cache."""
    return layer(  # type: ignore[no-any-return]
        states,
        attention_mask=mask,
        position_embeddings=rotary,
        use_cache=cache is not None,
        **{CACHE_ARGUMENT: cache},
    )


def run_layer_at_last(layer: nn.Module, hidden: HiddenStates, *, with_mlp: bool, past: Past | None = None) -> Tensor:
    """Return (batch, dim): the state of the last position alone after a layer.

    Args:
        layer: A layer of the library's decoder.
        hidden: The states before the layer, of all positions.
        with_mlp: Whether the layer's MLP is included; without it, the state is the one between attention and MLP.
        past: Keys and values of what stands before the sequence.
    """
    last: Tensor = hidden.states[:, -1] + _attend_from_last(layer, hidden, past)
    return last + _mlp_output(layer, last) if with_mlp else last


def _mlp_output(layer: Any, last: Tensor) -> Tensor:
    """Return (batch, dim): what a layer's MLP adds to a position, (batch, dim).

    A mixture of experts takes sequences alone, and some return their routing next to the states.
    """
    output = layer.mlp(layer.post_attention_layernorm(last)[:, None])  # (batch, 1, dim)
    states: Tensor = output[0] if isinstance(output, tuple) else output
    return states[:, 0]


def keys_and_values(layer: nn.Module, hidden: HiddenStates) -> tuple[Tensor, Tensor]:
    """Return a layer's keys, with their rotation, and its values: (batch, kv_heads, sequence, head_dim) each."""
    return _project_keys_and_values(layer, layer.input_layernorm(hidden.states), hidden.rotary)  # type: ignore[operator]


def _attend_from_last(layer: nn.Module, hidden: HiddenStates, past: Past | None) -> Tensor:
    """Return (batch, dim): what the last position takes from all positions, by the layer's own attention weights."""
    attention: Any = layer.self_attn
    normal = layer.input_layernorm(hidden.states)  # type: ignore[operator]
    key, value = _project_keys_and_values(layer, normal, hidden.rotary)
    if past is not None:
        key, value = torch.cat([past[0], key], dim=2), torch.cat([past[1], value], dim=2)
    query = _heads(attention, "q", normal[:, -1:])  # (batch, heads, 1, head_dim)
    query, _ = apply_rotary_pos_emb(query, query, *(angles[:, -1:] for angles in hidden.rotary))
    mask = None if hidden.padding is None else hidden.padding[:, None, None]  # (batch, 1, 1, sequence)
    mixed = attend_sharing_keys(query, key, value, mask)
    return attention.o_proj(mixed.flatten(1))  # type: ignore[no-any-return]


def _project_keys_and_values(layer: nn.Module, normal: Tensor, rotary: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Return the keys and values of states that the layer's input norm has normalised."""
    key, value = _heads(layer.self_attn, "k", normal), _heads(layer.self_attn, "v", normal)
    key, _ = apply_rotary_pos_emb(key, key, *rotary)
    return key, value


def _heads(attention: Any, name: str, normal: Tensor) -> Tensor:
    """Return (batch, heads, sequence, head_dim) by the projection of this name, and its norm where a model has one."""
    heads = getattr(attention, f"{name}_proj")(normal).unflatten(-1, (-1, attention.head_dim))
    norm = getattr(attention, f"{name}_norm", nn.Identity())
    return norm(heads).transpose(1, 2)  # type: ignore[no-any-return]

"""Attention behind a prefix, without a copy of its keys for every query head that shares them.

The library's `sdpa` repeats keys and values for each head of a group as soon as there is a mask. Behind a long prefix
that is most of the memory traffic, so that here the heads of a group stand below each other, as more queries on the
same keys: the same sums. Everything else is left to the library.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

SHARED_KEYS = "sdpa_shared_keys"
"""The name under which the library finds `attend`."""


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Return (batch, queries, heads, head_dim) attention, by the library's contract of an attention function.

    Args:
        module: The attention layer.
        query: (batch, heads, queries, head_dim).
        key: (batch, kv_heads, keys, head_dim).
        value: As `key`.
        attention_mask: (batch, 1, queries, keys), or None.
        scaling: The factor on the products; None means the usual one.
        **others: The library's other arguments, which go to its own function.
    """
    if attention_mask is None or query.shape[1] == key.shape[1] or query.shape[2] == key.shape[2]:
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **others)
    return attend_sharing_keys(query, key, value, attention_mask, scaling=scaling).transpose(1, 2), None


def attend_sharing_keys(
    query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, *, scaling: float | None = None
) -> Tensor:
    """Return (batch, heads, queries, head_dim) attention of queries on keys and values with fewer heads.

    Args:
        query: (batch, heads, queries, head_dim).
        key: (batch, kv_heads, keys, head_dim).
        value: As `key`.
        attention_mask: (batch, 1, queries, keys); without one every query sees every key.
        scaling: The factor on the products; None means the usual one.
    """
    batch, heads, _, head_dim = query.shape
    kv_heads = key.shape[1]
    stacked = query.reshape(batch, kv_heads, -1, head_dim)  # a kv_head's query heads stand below each other
    mask = None if attention_mask is None else attention_mask.repeat(1, 1, heads // kv_heads, 1)
    return scaled_dot_product_attention(stacked, key, value, mask, scale=scaling).reshape(query.shape)


AttentionInterface.register(SHARED_KEYS, attend)
AttentionMaskInterface.register(SHARED_KEYS, sdpa_mask)

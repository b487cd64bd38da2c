"""The vision towers of the Qwen-VL family over a batch of frame pairs of one size.

The weights are the library's modules, untouched. The library's own forwards loop over pairs or attention windows in
Python and take one flat sequence; here pairs are a batch dimension, and so are the windows of one size.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear, scaled_dot_product_attention
from transformers.vision_utils import get_vision_interpolation_indices_and_weights

from lvqa.models.devices import execution_device, to_device, weight_of
from lvqa.records import MAX_ASPECT

Channels = tuple[float, float, float]
"""A number each for red, green and blue."""
CLIP_IMAGE_MEAN: Channels = (0.48145466, 0.4578275, 0.40821073)
"""The mean of CLIP's training images, which Qwen2-VL and Qwen2.5-VL normalise pixels by."""
CLIP_IMAGE_STD: Channels = (0.26862954, 0.26130258, 0.27577711)
"""The standard deviation of CLIP's training images."""

Windows = list[tuple[int, int]]
"""Runs of attention windows along the sequence: how many windows of which size, one run after the other."""
Rotation = Callable[[Tensor, Tensor], Tensor]
"""Rotates queries and keys by the rotation of their positions, as `_apply_rotary`."""
VisionLayer = Callable[[Any, Tensor, Tensor, Windows], Tensor]
"""Computes one layer of a tower, as `run_vision_layer`."""


def target_size(height: int, width: int, *, max_pixels: int, min_pixels: int, factor: int = 28) -> tuple[int, int]:
    """Return the height and width to decode at: multiples of `factor`, the aspect nearly kept, the area within limits.

    >>> target_size(720, 1280, max_pixels=128 * 28 * 28, min_pixels=4 * 28 * 28)
    (224, 420)
    """
    if max(height, width) > MAX_ASPECT * min(height, width):
        raise ValueError(
            f"a frame of {height} x {width} is too narrow: one side may be {MAX_ASPECT} times the other at most"
        )
    rows, cols = round(height / factor), round(width / factor)
    area = rows * cols * factor * factor
    if area > max_pixels:
        scale = math.sqrt(height * width / max_pixels)
        rows = max(1, math.floor(height / scale / factor))
        cols = max(1, math.floor(width / scale / factor))
    elif area < min_pixels:
        scale = math.sqrt(min_pixels / (height * width))
        rows, cols = math.ceil(height * scale / factor), math.ceil(width * scale / factor)
    return rows * factor, cols * factor


def _apply_rotary(states: Tensor, rotary: Tensor) -> Tensor:
    """Return (n, S, 2, heads, head_dim) queries and keys with their rotation.

    It is in float32, as the library has it, but in three passes over the memory: its dozen took half of a GPU's time.
    """
    # Each pair of numbers is rotated by an angle.
    plane = states.view(*states.shape[:-1], 2, rotary.shape[-1]).transpose(-2, -1)
    rotated = torch.view_as_complex(plane.to(torch.float32, copy=True, memory_format=torch.contiguous_format))
    rotated = rotated * rotary[:, None, None]
    back = torch.view_as_real(rotated).transpose(-2, -1)
    return back.to(states.dtype, copy=True, memory_format=torch.contiguous_format).flatten(-2)


def run_vision_layer(
    layer: Any, states: Tensor, rotary: Tensor, windows: Windows, rotate: Rotation = _apply_rotary
) -> Tensor:
    """Return the states after a layer of the tower, which attends inside windows, (n, S, dim).

    Args:
        layer: The library's module.
        states: (n, S, dim).
        rotary: The rotation of queries and keys at each position, (S, head_dim / 2) complex.
        windows: The runs of windows that the S positions consist of.
        rotate: Rotates queries and keys.
    """
    states = states + _attend(layer.attn, layer.norm1(states), lambda qk: rotate(qk, rotary), windows=windows)
    return states + layer.mlp(layer.norm2(states))  # type: ignore[no-any-return]


def compiled_vision_layer() -> VisionLayer:
    """Return `run_vision_layer` compiled, but for the rotation: the compiler can't fuse complex numbers."""
    rotate = torch.compiler.disable(_apply_rotary)  # type: ignore[no-untyped-call]

    def run_layer(layer: Any, states: Tensor, rotary: Tensor, windows: Windows) -> Tensor:
        return run_vision_layer(layer, states, rotary, windows, rotate)

    return torch.compile(run_layer, dynamic=True)


def encode_pixels(
    tower: Any,
    pixels: Tensor,
    *,
    image_mean: Channels = CLIP_IMAGE_MEAN,
    image_std: Channels = CLIP_IMAGE_STD,
    run_layer: VisionLayer = run_vision_layer,
) -> Tensor:
    """Return the merged tokens of frame pairs, each pair by itself, (n, tokens, width); differentiable.

    What a tower has is read from its config: the attention windows of Qwen2.5-VL and Omni; Qwen3-VL's deepstack, whose
    features stand behind the tokens' own, layer by layer.

    Args:
        tower: The library's vision tower of a Qwen2-VL, Qwen2.5-VL, Qwen2.5-Omni or Qwen3-VL.
        pixels: (n, 2, height, width, 3) uint8 on its device, height and width multiples of two patches.
        image_mean: Pixels are normalised by this mean.
        image_std: Pixels are normalised by this standard deviation.
        run_layer: Computes a layer.

    Returns:
        The tokens, row by row. The width is the language model's, times 1 + the number of deepstack layers.
    """
    config, embed = tower.config, tower.patch_embed.proj
    pixels, weight, bias = pixels.to(execution_device(embed)), weight_of(embed), weight_of(embed, "bias")
    patch, merge = config.patch_size, config.spatial_merge_size
    n, rows, cols = len(pixels), pixels.shape[2] // patch, pixels.shape[3] // patch
    patches = cut_patches(pixels, patch=patch, merge=merge, image_mean=image_mean, image_std=image_std)
    states = linear(patches.to(weight.dtype), weight.flatten(1), bias)  # (n, S, dim)
    if hasattr(tower, "pos_embed"):
        states = states + _learned_positions(tower, rows, cols).to(states)

    cells = _in_merge_order(torch.cartesian_prod(torch.arange(rows), torch.arange(cols)), rows, cols, merge)  # (S, 2)
    whole = windows = [(1, len(cells))]
    full_attention: Any = range(len(tower.blocks))
    order = torch.arange(len(cells))
    if hasattr(config, "window_size"):
        order, windows = _windows(cells, side=config.window_size // patch // merge * merge)
        full_attention = config.fullatt_block_indexes
    if windows != whole:
        states = states[:, to_device(order, pixels.device)]
    rotary = _complex_rotary(*tower.rotary_pos_emb(states, to_device(cells[order], pixels.device)))
    deepstack = getattr(config, "deepstack_visual_indexes", ()), getattr(tower, "deepstack_merger_list", ())
    mergers = dict(zip(*deepstack, strict=True))
    features = []
    for i, layer in enumerate(tower.blocks):
        states, rotary = states.to(device := execution_device(layer)), rotary.to(device)
        states = run_layer(layer, states, rotary, whole if i in full_attention else windows)
        if i in mergers:
            features.append(mergers[i](states))
    last = tower.merger(states)
    merged = torch.cat([last, *(each.to(last.device) for each in features)], dim=-1).view(n, len(cells) // merge**2, -1)
    # The four patches of a token never part, so the tokens' order is that of their first ones.
    return merged[:, to_device(order[:: merge**2].argsort(), merged.device)] if windows != whole else merged


def cut_patches(
    pixels: Tensor,
    *,
    patch: int,
    merge: int,
    image_mean: Channels = CLIP_IMAGE_MEAN,
    image_std: Channels = CLIP_IMAGE_STD,
) -> Tensor:
    """Return rows of normalised pixels, (n, S, 3 * 2 * patch * patch) float32.

    The patches that are merged into one token are neighbours.

    Args:
        pixels: (n, 2, height, width, 3) uint8.
        patch: The side of a patch in pixels.
        merge: The side of a token in patches.
        image_mean: Pixels are normalised by this mean.
        image_std: Pixels are normalised by this standard deviation.
    """
    n, frames, height, width, _ = pixels.shape
    if pixels.dtype != torch.uint8:
        raise ValueError(f"pixels must be uint8, got {pixels.dtype}")
    if frames != 2 or height % (patch * merge) or width % (patch * merge):
        raise ValueError(
            f"pixels of shape {tuple(pixels.shape)} are no pairs of frames in multiples of {patch * merge}"
        )
    mean, std = (to_device(torch.tensor(values), pixels.device) for values in (image_mean, image_std))
    normal = (pixels.float() / 255 - mean) / std
    rows, cols = height // patch, width // patch
    cells = normal.view(n, 2, rows // merge, merge, patch, cols // merge, merge, patch, 3)
    return cells.permute(0, 2, 5, 3, 6, 8, 1, 4, 7).reshape(n, rows * cols, -1)


def _learned_positions(tower: Any, rows: int, cols: int) -> Tensor:
    """Return (S, dim): the tower's square of learned positions, interpolated to this grid."""
    indices, weights = get_vision_interpolation_indices_and_weights(
        torch.tensor([[1, rows, cols]], device=execution_device(tower.pos_embed)),
        num_grid_per_side=tower.num_grid_per_side,
        mode=tower.interpolation_mode,
        align_corners=tower.interpolation_align_corners,
        spatial_merge_size=tower.config.spatial_merge_size,
    )
    return (tower.pos_embed(indices) * weights[..., None]).sum(1)  # type: ignore[no-any-return]


def _in_merge_order(cells: Tensor, rows: int, cols: int, merge: int) -> Tensor:
    """Return (rows * cols, ...) cells, given row by row, so that those merged into one token are neighbours."""
    squares = cells.view(rows // merge, merge, cols // merge, merge, -1)
    return squares.transpose(1, 2).reshape(rows * cols, -1)


def _windows(cells: Tensor, *, side: int) -> tuple[Tensor, Windows]:
    """Return an order of the patches in which windows of `side` x `side` follow each other, and the runs of windows.

    Windows of equal size stand together: at the right and at the bottom edge they may be smaller.
    """
    corner = cells // side  # (S, 2)
    window = corner[:, 0] * (int(corner[:, 1].max()) + 1) + corner[:, 1]
    sizes = window.bincount()
    order = (sizes[window] * len(sizes) + window).argsort(stable=True)
    num_of_size = sizes.bincount()
    return order, [(int(num_of_size[size]), size) for size in num_of_size.nonzero().flatten().tolist()]


def _attend(attention: Any, states: Tensor, rotate: Callable[[Tensor], Tensor], *, windows: Windows) -> Tensor:
    """Return (n, S, dim): the tower's attention inside each window."""
    if hasattr(attention, "qkv"):
        qkv = attention.qkv(states)
    else:
        qkv = torch.cat([attention.q(states), attention.k(states), attention.v(states)], -1)
    qkv = qkv.unflatten(-1, (3, attention.num_heads, -1))  # (n, S, 3, heads, head_dim)
    query, key = rotate(qkv[:, :, :2]).unbind(2)  # (n, S, heads, head_dim)
    value = qkv[:, :, 2]
    lengths = [count * size for count, size in windows]
    runs = zip(windows, *(torch.split(heads, lengths, dim=1) for heads in (query, key, value)), strict=True)
    mixed = [_attend_inside(size, *heads) for (_, size), *heads in runs]
    return attention.proj(torch.cat(mixed, dim=1) if len(mixed) > 1 else mixed[0])  # type: ignore[no-any-return]


def _complex_rotary(cos: Tensor, sin: Tensor) -> Tensor:
    """Return (S, head_dim / 2) complex64, of the (S, head_dim) cosine and sine, whose halves are equal."""
    half = cos.shape[-1] // 2
    return torch.complex(cos[:, :half].float(), sin[:, :half].float())


def _attend_inside(size: int, *qkv: Tensor) -> Tensor:
    """Return (n, windows * size, heads * head_dim) attention inside each window of so many positions.

    Args:
        size: The length of a window.
        *qkv: Queries, keys and values, (n, windows * size, heads, head_dim) each.
    """
    query, key, value = (heads.reshape(-1, size, *heads.shape[2:]).transpose(1, 2) for heads in qkv)
    mixed = scaled_dot_product_attention(query, key, value).transpose(1, 2)  # (n * windows, size, heads, head_dim)
    return mixed.flatten(2).view(len(qkv[0]), qkv[0].shape[1], -1)

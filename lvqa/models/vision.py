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

from lvqa.models.devices import to_device

Colours = tuple[tuple[float, float, float], tuple[float, float, float]]
"""Mean and standard deviation of red, green and blue, by which pixels are normalised."""
CLIP_COLOURS: Colours = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))


def target_size(height: int, width: int, *, max_pixels: int, min_pixels: int, factor: int = 28) -> tuple[int, int]:
    """Height and width to decode at: multiples of `factor`, the aspect nearly kept, the area within the limits.

    >>> target_size(720, 1280, max_pixels=128 * 28 * 28, min_pixels=4 * 28 * 28)
    (224, 420)
    """
    if max(height, width) > 200 * min(height, width):
        raise ValueError(f"a frame of {height} x {width} is too narrow: one side may be 200 times the other at most")
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


Block = Callable[[Any, Tensor, Tensor, list[tuple[int, int]]], Tensor]
"""One layer of a tower, as `through_block`."""


def encode_pixels(
    visual: Any, pixels: Tensor, *, colours: Colours = CLIP_COLOURS, through: Block | None = None
) -> Tensor:
    """(n, tokens, width) merged tokens of n frame pairs, each by itself; differentiable.

    `visual` is the library's tower of a Qwen2-VL, Qwen2.5-VL, Qwen2.5-Omni or Qwen3-VL; `pixels` are (n, 2, height,
    width, 3) uint8 on its device, height and width multiples of two patches. What a tower has is read from its config:
    the attention windows of Qwen2.5-VL and Omni; Qwen3-VL's deepstack, whose features stand behind the tokens' own,
    layer by layer (width: the language model's, times 1 + the number of those layers).
    """
    config, embed = visual.config, visual.patch_embed.proj
    patch, merge = config.patch_size, config.spatial_merge_size
    n, rows, cols = len(pixels), pixels.shape[2] // patch, pixels.shape[3] // patch
    patches = cut_patches(pixels, patch=patch, merge=merge, colours=colours).to(embed.weight.dtype)
    states = linear(patches, embed.weight.flatten(1), embed.bias)  # (n, S, dim)
    if hasattr(visual, "pos_embed"):
        states = states + _learned_positions(visual, rows, cols).to(states)

    places = _in_merge_order(torch.cartesian_prod(torch.arange(rows), torch.arange(cols)), rows, cols, merge)  # (S, 2)
    whole = windows = [(1, len(places))]
    everywhere: Any = range(len(visual.blocks))
    order = torch.arange(len(places))
    if hasattr(config, "window_size"):
        order, windows = _windows(places, side=config.window_size // patch // merge * merge)
        everywhere = config.fullatt_block_indexes
    if windows != whole:
        states = states[:, to_device(order, pixels.device)]
    turn = _turn(*visual.rotary_pos_emb(states, to_device(places[order], pixels.device)))
    deepstack = getattr(config, "deepstack_visual_indexes", ()), getattr(visual, "deepstack_merger_list", ())
    mergers = dict(zip(*deepstack, strict=True))
    features = []
    for number, block in enumerate(visual.blocks):
        states = (through or through_block)(block, states, turn, whole if number in everywhere else windows)
        if number in mergers:
            features.append(mergers[number](states))
    merged = torch.cat([visual.merger(states), *features], dim=-1).view(n, len(places) // merge**2, -1)
    # The four patches of a token never part, so the tokens' order is that of their first ones.
    return merged[:, to_device(order[:: merge**2].argsort(), pixels.device)] if windows != whole else merged


def through_block(block: Any, states: Tensor, turn: Tensor, windows: list[tuple[int, int]]) -> Tensor:
    """(n, S, dim) after a layer that attends inside windows: so many of such a size, one after the other.

    `turn` is (S, head_dim / 2) complex: how queries and keys are turned at each place.
    """
    states = states + _attend(block.attn, block.norm1(states), turn=turn, windows=windows)
    return states + block.mlp(block.norm2(states))  # type: ignore[no-any-return]


def cut_patches(pixels: Tensor, *, patch: int, merge: int, colours: Colours = CLIP_COLOURS) -> Tensor:
    """(n, S, 3 * 2 * patch * patch) float32 rows of normalised pixels; the cells of a merge block are neighbours."""
    n, frames, height, width, _ = pixels.shape
    if pixels.dtype != torch.uint8:
        raise ValueError(f"pixels must be uint8, got {pixels.dtype}")
    if frames != 2 or height % (patch * merge) or width % (patch * merge):
        raise ValueError(
            f"pixels of shape {tuple(pixels.shape)} are no pairs of frames in multiples of {patch * merge}"
        )
    mean, std = (to_device(torch.tensor(values), pixels.device) for values in colours)
    normal = (pixels.float() / 255 - mean) / std
    rows, cols = height // patch, width // patch
    cells = normal.view(n, 2, rows // merge, merge, patch, cols // merge, merge, patch, 3)
    return cells.permute(0, 2, 5, 3, 6, 8, 1, 4, 7).reshape(n, rows * cols, -1)


def _learned_positions(visual: Any, rows: int, cols: int) -> Tensor:
    """(S, dim): the tower's square of learnt positions, drawn out to this grid."""
    indices, weights = get_vision_interpolation_indices_and_weights(
        torch.tensor([[1, rows, cols]], device=visual.pos_embed.weight.device),
        num_grid_per_side=visual.num_grid_per_side,
        mode=visual.interpolation_mode,
        align_corners=visual.interpolation_align_corners,
        spatial_merge_size=visual.config.spatial_merge_size,
    )
    return (visual.pos_embed(indices) * weights[..., None]).sum(1)  # type: ignore[no-any-return]


def _in_merge_order(cells: Tensor, rows: int, cols: int, merge: int) -> Tensor:
    """(rows * cols, ...) cells given row by row, put in the order of the merge blocks."""
    blocks = cells.view(rows // merge, merge, cols // merge, merge, -1)
    return blocks.transpose(1, 2).reshape(rows * cols, -1)


def _windows(places: Tensor, *, side: int) -> tuple[Tensor, list[tuple[int, int]]]:
    """An order of the patches in which windows of `side` x `side` follow each other, those of equal size together.

    With it how many there are of each size, and the size: at the right and at the bottom edge they may be smaller.
    """
    corner = places // side  # (S, 2)
    name = corner[:, 0] * (int(corner[:, 1].max()) + 1) + corner[:, 1]
    sizes = name.bincount()
    order = (sizes[name] * len(sizes) + name).argsort(stable=True)
    of_size = sizes.bincount()
    return order, [(int(of_size[size]), size) for size in of_size.nonzero().flatten().tolist()]


def _attend(attn: Any, states: Tensor, *, turn: Tensor, windows: list[tuple[int, int]]) -> Tensor:
    """(n, S, dim): the tower's attention inside each window."""
    qkv = attn.qkv(states) if hasattr(attn, "qkv") else torch.cat([attn.q(states), attn.k(states), attn.v(states)], -1)
    parts_of_qkv = qkv.unflatten(-1, (3, attn.num_heads, -1))  # (n, S, 3, heads, head_dim)
    query, key = _turned(parts_of_qkv[:, :, :2], turn).unbind(2)  # (n, S, heads, head_dim)
    value = parts_of_qkv[:, :, 2]
    lengths = [number * size for number, size in windows]
    parts = zip(windows, *(torch.split(one, lengths, dim=1) for one in (query, key, value)), strict=True)
    mixed = [_inside(size, *part) for (_, size), *part in parts]
    return attn.proj(torch.cat(mixed, dim=1) if len(mixed) > 1 else mixed[0])  # type: ignore[no-any-return]


def _turn(cos: Tensor, sin: Tensor) -> Tensor:
    """(S, head_dim / 2) complex64, of the (S, head_dim) cosine and sine of the angles, which stand there twice."""
    half = cos.shape[-1] // 2
    return torch.complex(cos[:, :half].float(), sin[:, :half].float())


@torch.compiler.disable  # type: ignore[untyped-decorator]  # it cannot fuse complex numbers
def _turned(states: Tensor, turn: Tensor) -> Tensor:
    """(n, S, 2, heads, head_dim) queries and keys with their rotation.

    In float32, as the library has it, but in three passes over the memory: its dozen took half of a GPU's time.
    """
    # Each pair of numbers is turned by an angle.
    plane = states.view(*states.shape[:-1], 2, turn.shape[-1]).transpose(-2, -1)
    turned = torch.view_as_complex(plane.to(torch.float32, copy=True, memory_format=torch.contiguous_format))
    turned = turned * turn[:, None, None]
    back = torch.view_as_real(turned).transpose(-2, -1)
    return back.to(states.dtype, copy=True, memory_format=torch.contiguous_format).flatten(-2)


def _inside(size: int, *part: Tensor) -> Tensor:
    """(n, windows * size, heads * head_dim), attention inside each window, of (n, windows * size, heads, head_dim)."""
    query, key, value = (one.reshape(-1, size, *one.shape[2:]).transpose(1, 2) for one in part)
    mixed = scaled_dot_product_attention(query, key, value).transpose(1, 2)  # (n * windows, size, heads, head_dim)
    return mixed.flatten(2).view(len(part[0]), part[0].shape[1], -1)

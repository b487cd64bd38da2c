"""What the library's own classes compute of a model's prompts, by their whole forward pass: what ours must equal.

Positions and the encoded frames are given to it, since the library puts the text after a clip at other positions, and
samples videos by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers.models.qwen3_vl.modeling_qwen3_vl import BaseModelOutputWithDeepstackFeatures

from lvqa.models.chat import Batch, collate
from lvqa.models.decoder import Decoder
from lvqa.models.frame_by_frame import FrameByFrame
from lvqa.models.prompt import ClipTokens, Prompt
from lvqa.models.vision import cut_patches


@contextmanager
def own_attention(library: Any, implementation: str = "sdpa") -> Iterator[None]:
    """Have the library's decoder attend by its own code inside the `with` block, and not by ours."""
    config = library.model.language_model.config
    ours = config._attn_implementation
    config._attn_implementation = implementation
    try:
        yield
    finally:
        config._attn_implementation = ours


@torch.no_grad()
def library_tower(model: Decoder, frames: np.ndarray, library: Any = None) -> Tensor:
    """Return the visual tokens of frame pairs by the library's vision tower, all pairs as one video.

    Args:
        model: The model, by whose normalisation pixels are cut into patches.
        frames: (n, 2, height, width, 3) uint8, of a size that `frame_size` returns.
        library: The library's model; None: the one whose weights the model has.

    Returns:
        (n * tokens, width).
    """
    library = library or model.library
    if isinstance(model, FrameByFrame):
        mean, std = np.array(model.image_mean), np.array(model.image_std)
        single = ((frames.reshape(-1, *frames.shape[2:]) / 255 - mean) / std).transpose(0, 3, 1, 2)
        pixels = torch.tensor(single, dtype=library.dtype, device=model.device)
        if model.model_type == "internvl":
            features: Tensor = library.get_image_features(pixels).pooler_output
            return features.flatten(0, 1)
        tokens: Tensor = library.get_video_features(pixels[None]).pooler_output[0]
        return tokens[:-1]  # the last is the line's end
    patch = model.cell_pixels // 2  # type: ignore[attr-defined]
    normalisation = {"image_mean": model.image_mean, "image_std": model.image_std}  # type: ignore[attr-defined]
    patches = cut_patches(torch.tensor(frames), patch=patch, merge=2, **normalisation).flatten(0, 1)
    grid = torch.tensor([[len(frames), frames.shape[2] // patch, frames.shape[3] // patch]], device=model.device)
    output = library.model.visual(patches.to(model.device, library.dtype), grid_thw=grid)
    return torch.cat([output.pooler_output, *getattr(output, "deepstack_features", ())], dim=-1)


@torch.no_grad()
def library_output(
    model: Decoder, prompt: Prompt, reply: Sequence[int] = (), library: Any = None, **options: Any
) -> Any:
    """Return the output of the library's whole model on a prompt and a reply, at our positions; a batch of one.

    Args:
        model: The model, whose token ids and positions are taken.
        prompt: A whole prompt.
        reply: The first tokens of the reply.
        library: The library's model; None: the one whose weights the model has.
        options: What the library's forward takes besides.
    """
    library = library or model.library
    batch = collate([model.encode_prompt(prompt)])
    if isinstance(model, FrameByFrame):
        return _frame_by_frame_output(model, prompt, batch, reply, library, **options)
    reply_ids = torch.tensor([list(reply)], dtype=torch.long)
    after = batch.positions.max() + 1 + torch.arange(len(reply)).expand(3, 1, -1)
    clips = [part.tokens.flatten(0, 1) for part in prompt if isinstance(part, ClipTokens)]
    visual_inputs = {}
    if clips:
        tokens, *added = torch.split(torch.cat(clips), model.dim, dim=1)
        by_layer: Any = [(features,) for features in added]
        one_video: Any = (tokens,)
        encoded = BaseModelOutputWithDeepstackFeatures(pooler_output=one_video, deepstack_features=by_layer)
        visual_inputs["mm_encoder_outputs"] = {"video": encoded}
    return library(
        input_ids=torch.cat([batch.ids, reply_ids], dim=1).to(model.device),
        position_ids=torch.cat([batch.positions, after], dim=2).to(model.device),
        use_cache=False,
        **visual_inputs,
        **options,
    )


def _frame_by_frame_output(
    model: FrameByFrame, prompt: Prompt, batch: Batch, reply: Sequence[int], library: Any, **options: Any
) -> Any:
    """Return the same of a model that counts positions by itself, on embeddings with the frames scattered into them."""
    ids = torch.cat([batch.ids, torch.tensor([list(reply)], dtype=torch.long)], dim=1).to(model.device)
    embeds = library.get_input_embeddings()(ids)
    rows = []
    for part in prompt:
        if isinstance(part, ClipTokens):
            rows += [part.tokens.flatten(0, 1)]
            if part.seconds[-1:] and part.seconds[-1][0] == part.seconds[-1][1]:
                rows[-1] = rows[-1][: -model.cells]
            if model.model_type == "llava_onevision":
                rows += [library.model.image_newline[None]]
    if rows:
        visual_mask = ids == model.tokenizer.convert_tokens_to_ids(model.pad.text)
        visual_mask[:, batch.ids.shape[1] :] = False  # a random model may well reply with it
        embeds = embeds.masked_scatter(visual_mask[..., None], torch.cat(rows).to(embeds))
    return library(inputs_embeds=embeds, use_cache=False, **options)


def library_states(model: Decoder, prompt: Prompt, library: Any = None) -> dict[str, Tensor]:
    """Return what the library's whole model has at a prompt's last position, by hooks on it.

    Args:
        model: The model, whose token ids and positions are taken.
        prompt: A whole prompt.
        library: The library's model; None: the one whose weights the model has.

    Returns:
        The states of `forward.STATES`, each (1, dim), as far as there are layers; "normed" is the last one after the
        final norm, "logits" are (1, vocabulary).
    """
    library = library or model.library
    text = library.model.language_model
    states: dict[str, Tensor] = {}

    def record(state: str) -> Callable[..., None]:
        return lambda _module, args, output=None: states.__setitem__(
            state, (args[0] if output is None else output)[:, -1]
        )

    hooks = [
        text.layers[-1].post_attention_layernorm.register_forward_pre_hook(record("attention")),
        text.norm.register_forward_pre_hook(record("mlp")),
        text.norm.register_forward_hook(record("normed")),
        *(layer.register_forward_hook(record(f"mlp-{n + 1}")) for n, layer in enumerate(reversed(text.layers[-3:-1]))),
    ]
    try:
        # Two positions: on a CPU a bfloat16 batch of one row takes 100 times as long.
        output = library_output(model, prompt, library=library, logits_to_keep=2)
    finally:
        for hook in hooks:
            hook.remove()
    return states | {"logits": output.logits[:, -1]}

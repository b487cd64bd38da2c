"""What the library's own classes compute of a model's prompts, by its whole forward pass: the independent reference."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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


def pixels(pairs: int, height: int, width: int, *, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (pairs, 2, height, width, 3), dtype=np.uint8)


def pair_pixels(model: Decoder, pairs: int, rows: int = 3, cols: int = 4, *, seed: int = 0) -> np.ndarray:
    """Return the pixels of so many cells, or of the only size that the model has."""
    if isinstance(model, FrameByFrame):
        return pixels(pairs, model.frame_side, model.frame_side, seed=seed)
    return pixels(pairs, rows * model.cell_pixels, cols * model.cell_pixels, seed=seed)


def encoded_clip(model: Decoder, pairs: int = 2, *, rows: int = 3, cols: int = 4, seed: int = 0, **more) -> ClipTokens:
    frames = pair_pixels(model, pairs, rows, cols, seed=seed)
    return ClipTokens(model.encode_pairs(frames), *model.token_grid(*frames.shape[2:4]), **more)


def library_tower(model: Decoder, frames: np.ndarray, library: Any = None) -> Tensor:
    """Return (n * tokens, width) by the library's own forward, all pairs as one video."""
    library = library or model.library
    if isinstance(model, FrameByFrame):
        mean, std = np.array(model.image_mean), np.array(model.image_std)
        single = ((frames.reshape(-1, *frames.shape[2:]) / 255 - mean) / std).transpose(0, 3, 1, 2)
        single = torch.tensor(single, dtype=torch.float32)
        with torch.no_grad():
            if model.model_type == "internvl":
                return library.get_image_features(single).pooler_output.flatten(0, 1)
            tokens = library.get_video_features(single[None]).pooler_output[0]
        assert torch.equal(tokens[-1], library.model.image_newline)
        return tokens[:-1]
    patch = model.cell_pixels // 2
    normalisation = {"image_mean": model.image_mean, "image_std": model.image_std}
    patches = cut_patches(torch.tensor(frames), patch=patch, merge=2, **normalisation).flatten(0, 1)
    visual = library.model.visual
    grid = torch.tensor([[len(frames), frames.shape[2] // patch, frames.shape[3] // patch]])
    with torch.no_grad():
        output = visual(patches.to(library.dtype), grid_thw=grid)
    return torch.cat([output.pooler_output, *getattr(output, "deepstack_features", ())], dim=-1)


def library_output(model: Decoder, prompt: Prompt, reply: Sequence[int] = (), library: Any = None, **options) -> Any:
    """Return the output of the library's whole model on the prompt and a reply, at our positions; a batch of one."""
    library = library or model.library
    batch = collate([model.encode_prompt(prompt)])
    if isinstance(model, FrameByFrame):
        return frame_by_frame_output(model, prompt, batch, reply, library, **options)
    reply_ids = torch.tensor([list(reply)], dtype=torch.long)
    after = batch.positions.max() + 1 + torch.arange(len(reply)).expand(3, 1, -1)
    clips = [part.tokens.flatten(0, 1) for part in prompt if isinstance(part, ClipTokens)]
    visual_inputs = {}
    if clips:
        tokens, *added = torch.cat(clips).split(model.dim, dim=1)
        encoded = BaseModelOutputWithDeepstackFeatures(
            pooler_output=(tokens,), deepstack_features=[(features,) for features in added]
        )
        visual_inputs["mm_encoder_outputs"] = {"video": encoded}
    with torch.no_grad():
        return library(
            input_ids=torch.cat([batch.ids, reply_ids], dim=1),
            position_ids=torch.cat([batch.positions, after], dim=2),
            use_cache=False,
            **visual_inputs,
            **options,
        )


def frame_by_frame_output(
    model: FrameByFrame, prompt: Prompt, batch: Batch, reply: Sequence[int], library: Any, **options
) -> Any:
    """Return the same of a model that counts positions by itself, on embeddings with the frames scattered into them."""
    ids = torch.cat([batch.ids, torch.tensor([list(reply)], dtype=torch.long)], dim=1)
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
        pad = model.tokenizer.convert_tokens_to_ids(model.pad.text)
        visual_mask = ids == pad
        visual_mask[:, batch.ids.shape[1] :] = False  # a random model may well reply with it
        embeds = embeds.masked_scatter(visual_mask[..., None], torch.cat(rows))
    with torch.no_grad():
        return library(inputs_embeds=embeds, use_cache=False, **options)


def plain_text_ids(model: Decoder, text: str) -> list[int]:
    return model.tokenizer(text, add_special_tokens=False, split_special_tokens=True).input_ids


def library_states(model: Decoder, prompt: Prompt, library: Any = None) -> dict[str, Tensor]:
    """Return the states and the logits at the last position, by hooks on the library's whole model."""
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
    # The last position alone: on a CPU a bfloat16 batch of one row takes 100 times as long.
    output = library_output(model, prompt, library=library, logits_to_keep=2)
    for hook in hooks:
        hook.remove()
    return states | {"logits": output.logits[:, -1]}


def prompts(model: Decoder) -> list[Prompt]:
    timed = encoded_clip(model, 2, rows=5, cols=2, seed=2, seconds=((3.0, 4.0), (11.0, 11.0)))
    return [
        ("What happens?", encoded_clip(model), "Answer in one word."),
        (encoded_clip(model, 3, rows=2, cols=2, seed=1), "red or blue"),
        ("At first", encoded_clip(model, 1), "then", timed, "and at the end?"),
        ("no video at all",),
    ]

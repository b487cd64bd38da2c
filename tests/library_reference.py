"""Frames, clips and prompts on which models are compared with the library's own classes."""

from __future__ import annotations

import numpy as np

from lvqa.models.decoder import Decoder
from lvqa.models.frame_by_frame import FrameByFrame
from lvqa.models.prompt import ClipTokens, Prompt


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


def plain_text_ids(model: Decoder, text: str) -> list[int]:
    return model.tokenizer(text, add_special_tokens=False, split_special_tokens=True).input_ids


def prompts(model: Decoder) -> list[Prompt]:
    timed = encoded_clip(model, 2, rows=5, cols=2, seed=2, seconds=((3.0, 4.0), (11.0, 11.0)))
    return [
        ("What happens?", encoded_clip(model), "Answer in one word."),
        (encoded_clip(model, 3, rows=2, cols=2, seed=1), "red or blue"),
        ("At first", encoded_clip(model, 1), "then", timed, "and at the end?"),
        ("no video at all",),
    ]

"""All that is asked of a model: encode frame pairs, read the last state, score words, write text."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol

from lvqa.records import Counts, LvqaError

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor

    from lvqa.backbones.beginnings import Beginning
    from lvqa.backbones.head import LanguageHead
    from lvqa.backbones.prompt import Prompt, SoundBlock


class Backbone(Protocol):
    """One multimodal model, untouched. Tokens and prompts are those of `lvqa.backbones.prompt`."""

    name: str
    revision: str
    """What tells these weights from others: it belongs into every stamp."""
    counts: Counts
    """What was spent since loading; added to by every call."""
    dim: int
    max_pixels: int
    """The default limit on a frame's size."""
    rerank_layout: str
    """What it had better read first in reranking, as `rerank.layout` names it."""
    answer_reading: str
    """How its answers to multiple choice are best read, as `answer.read` names it."""
    time_encoding: str
    """How it is best told the time of a frame, as `answer.time_encoding` names it."""

    head: LanguageHead
    """What turns its states into words."""

    @property
    def device(self) -> torch.device:
        """Where it is, and its tokens."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """Of its tokens."""
        ...

    def compile(self) -> None:
        """Have the layers compiled when they are first used."""
        ...

    def frame_size(self, height: int, width: int, *, max_pixels: int) -> tuple[int, int]:
        """Height and width to decode frames of this size at."""
        ...

    def grid_of(self, height: int, width: int) -> tuple[int, int]:
        """How many rows and columns of visual tokens a pair of frames of this size has."""
        ...

    def pairs_at_once(self, height: int, width: int) -> int:
        """How many pairs of such frames fill a batch; fewer leave the device idle."""
        ...

    def encode_pairs(self, pixels: np.ndarray) -> Tensor:
        """(n, tokens, width) visual tokens of (n, 2, height, width, 3) uint8 pixels; the model knows the width."""
        ...

    def encode_sound(self, samples: np.ndarray) -> SoundBlock:
        """What is heard of (samples,) float32, 16,000 a second. LvqaError where the model does not hear."""
        ...

    def last_states(self, prompts: Sequence[Prompt], *, state: str = ..., final_norm: bool = ...) -> Tensor:
        """(n, dim) float32 states at the place where the reply begins."""
        ...

    def sublayer_states(self, prompts: Sequence[Prompt]) -> Tensor:
        """(n, 1 + 2 * layers, dim) float32 states there: at first, and after each attention and each MLP."""
        ...

    def first_tokens(self, words: Sequence[str]) -> list[int]:
        """The token that each word begins with. LvqaError if two begin with the same one."""
        ...

    def next_token_logits(self, prompts: Sequence[Prompt], words: Sequence[str] | None = None) -> Tensor:
        """(n, words) float32 logits of the words' first tokens as the reply's; without words (n, vocabulary)."""
        ...

    def read_beginnings(self, prompts: Sequence[Prompt]) -> list[Beginning]:
        """Prompts that end with a visual block, read once for all that may follow."""
        ...

    def next_token_logits_after(
        self, beginnings: Sequence[Beginning], rests: Sequence[Prompt], words: Sequence[str] | None = None
    ) -> Tensor:
        """(n, words) float32: `next_token_logits` of each beginning with its rest behind it, which starts with text."""
        ...

    def visual_enhancement(self, *, ratio: float, formula: str = ...) -> AbstractContextManager[None]:
        """While it lasts, prompts are read with RetLLM's visual enhancement; whole prompts only."""
        ...

    def reply_log_probs(self, prompt: Prompt, replies: Sequence[str]) -> Tensor:
        """(replies,) float32 log-probabilities that the reply is exactly this text."""
        ...

    def generate(self, prompt: Prompt, *, max_new_tokens: int = ...) -> str:
        """The greedy reply."""
        ...


def load_backbone(
    model: str, *, device: str | None = None, dtype: str | None = None, max_batch_tokens: int | None = None
) -> Backbone:
    """The model under a hub id, in a folder, or the embedded "tiny"; its config.json says which family it is."""
    from lvqa.backbones.checkpoint import find_checkpoint

    family = find_checkpoint(model).model_type
    if family not in BACKBONES:
        raise LvqaError(f"model {model!r} is a {family}; the families that can be used are {', '.join(BACKBONES)}")
    module, name = BACKBONES[family].split(":")
    backbone = getattr(importlib.import_module(module), name)
    loaded: Backbone = backbone.load(model, device=device, dtype=dtype, max_batch_tokens=max_batch_tokens)
    return loaded


ENHANCEMENTS = ("released", "paper")
"""Formulas of RetLLM's visual enhancement, as `lvqa.backbones.enhancement` explains them."""

BACKBONES = {
    "qwen2_vl": "lvqa.backbones.qwen_vl:Qwen2VL",
    "qwen2_5_vl": "lvqa.backbones.qwen_vl:Qwen25VL",
    "qwen2_5_omni": "lvqa.backbones.qwen_omni:Qwen25Omni",
    "qwen3_vl": "lvqa.backbones.qwen_vl:Qwen3VL",
    "internvl": "lvqa.backbones.frame_by_frame:InternVL",
    "llava_onevision": "lvqa.backbones.frame_by_frame:LlavaOnevision",
}
"""A `model_type` of config.json -> where its class lies; imported when it is loaded."""

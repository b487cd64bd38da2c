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

    from lvqa.models.lm_head import LMHead
    from lvqa.models.prefix import PrefixKV
    from lvqa.models.prompt import AudioTokens, Prompt


class Model(Protocol):
    """One multimodal model, untouched. Tokens and prompts are those of `lvqa.models.prompt`."""

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
    answer_mode: str
    """How its answers to multiple choice are best read, as `answer.mode` names it."""
    time_encoding: str
    """How it is best told the time of a frame, as `answer.time_encoding` names it."""

    head: LMHead
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

    def token_grid(self, height: int, width: int) -> tuple[int, int]:
        """How many rows and columns of visual tokens a pair of frames of this size has."""
        ...

    def pairs_at_once(self, height: int, width: int) -> int:
        """How many pairs of such frames fill a batch; fewer leave the device idle."""
        ...

    def encode_pairs(self, pixels: np.ndarray) -> Tensor:
        """(n, tokens, width) visual tokens of (n, 2, height, width, 3) uint8 pixels; the model knows the width."""
        ...

    def encode_audio(self, samples: np.ndarray) -> AudioTokens:
        """What is heard of (samples,) float32, 16,000 a second. LvqaError where the model does not hear."""
        ...

    def last_hidden_states(self, prompts: Sequence[Prompt], *, state: str = ..., final_norm: bool = ...) -> Tensor:
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

    def prefill_prefix(self, prompts: Sequence[Prompt]) -> list[PrefixKV]:
        """Prompts that end with a visual block, read once for all that may follow."""
        ...

    def score_with_prefix(
        self, beginnings: Sequence[PrefixKV], rests: Sequence[Prompt], words: Sequence[str] | None = None
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


def load_model(
    name: str, *, device: str | None = None, dtype: str | None = None, max_batch_tokens: int | None = None
) -> Model:
    """The model under a hub id, in a folder, or the embedded "tiny"; its config.json says which family it is."""
    from lvqa.models.checkpoint import find_checkpoint

    family = find_checkpoint(name).model_type
    if family not in MODELS:
        raise LvqaError(f"model {name!r} is a {family}; the families that can be used are {', '.join(MODELS)}")
    module, class_name = MODELS[family].split(":")
    family_class = getattr(importlib.import_module(module), class_name)
    loaded: Model = family_class.load(name, device=device, dtype=dtype, max_batch_tokens=max_batch_tokens)
    return loaded


ENHANCEMENTS = ("released", "paper")
"""Formulas of RetLLM's visual enhancement, as `lvqa.models.enhancement` explains them."""

MODELS = {
    "qwen2_vl": "lvqa.models.qwen_vl:Qwen2VL",
    "qwen2_5_vl": "lvqa.models.qwen_vl:Qwen25VL",
    "qwen2_5_omni": "lvqa.models.qwen_omni:Qwen25Omni",
    "qwen3_vl": "lvqa.models.qwen_vl:Qwen3VL",
    "internvl": "lvqa.models.frame_by_frame:InternVL",
    "llava_onevision": "lvqa.models.frame_by_frame:LlavaOnevision",
}
"""A `model_type` of config.json -> where its class lies; imported when it is loaded."""

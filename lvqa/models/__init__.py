"""The interface of a model: encode frame pairs, compute the last state, score words, generate text."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol

from lvqa.records import Counts, LvqaError
from lvqa.startup import library_imports

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor

    from lvqa.models.decoding import Decoding
    from lvqa.models.lm_head import LMHead
    from lvqa.models.loading import DeviceMap
    from lvqa.models.prefix import PrefixKV
    from lvqa.models.prompt import AudioTokens, Prompt
    from lvqa.schema import AnswerSchema


class Model(Protocol):
    """One multimodal model, with its weights unchanged. Tokens and prompts are those of `lvqa.models.prompt`.

    Threads may share it: it does one thing at a time.
    """

    name: str
    """The name that the model was loaded by."""
    revision: str
    """The hub's commit, or a fingerprint of a folder's files; it belongs into every fingerprint."""
    quantisation: str | None
    """How the weights are packed: a value of `model.quantize`, or a method of a checkpoint; None: they are not."""
    memory_bytes: int
    """How much may be kept in the memory of the device where the settings do not say: see `lvqa.models.memory`."""
    dim: int
    """The width of the hidden states."""
    max_pixels: int
    """The default limit on a frame's size."""
    rerank_layout: str
    """The layout of reranking prompts that suits the model best, as `rerank.layout` names it."""
    prompts: str
    """The wording of retrieval's prompts that suits the model best, as `prompts` names it."""
    answer_mode: str
    """The way to answer multiple choice that suits the model best, as `answer.mode` names it."""
    answer_packing: str
    """Which frames of an answer become a pair, as `answer.packing` names it, if the settings do not say."""
    is_for_synthetic: bool
    """Whether the model knows the videos of `lvqa make-videos` alone, as its config.json says."""
    time_encoding: str
    """The encoding of a frame's time that suits the model best, as `answer.time_encoding` names it."""

    tokenizer: Any
    """The library's tokenizer, as it was loaded."""
    lm_head: LMHead
    """The final norm and the language head."""

    @property
    def counts(self) -> Counts:
        """The work of this thread since loading; every call adds to it."""
        ...

    @property
    def device(self) -> torch.device:
        """The device of the model and of its tokens."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """The precision of the model's tokens."""
        ...

    def compile(self) -> None:
        """Have the layers compiled when they are first used."""
        ...

    def frame_size(self, height: int, width: int, *, max_pixels: int) -> tuple[int, int]:
        """Return the height and width at which frames of this size are decoded."""
        ...

    def token_grid(self, height: int, width: int) -> tuple[int, int]:
        """Return how many rows and columns of visual tokens a pair of frames of this size has."""
        ...

    def pairs_at_once(self, height: int, width: int) -> int:
        """Return how many pairs of frames of this size fill a batch; fewer leave the device idle."""
        ...

    def prompt_length(self, prompt: Prompt) -> tuple[int, int]:
        """Return how many tokens a whole prompt has, and how many of them are visual or audio tokens."""
        ...

    def encode_pairs(self, pixels: np.ndarray) -> Tensor:
        """Return the visual tokens of frame pairs, (n, tokens, width); the width is the model's own.

        Args:
            pixels: (n, 2, height, width, 3) uint8.
        """
        ...

    def encode_audio(self, samples: np.ndarray) -> AudioTokens:
        """Return the audio tokens of (samples,) float32, 16,000 a second.

        Raises:
            LvqaError: The model does not hear.
        """
        ...

    def last_hidden_states(self, prompts: Sequence[Prompt], *, state: str = ..., final_norm: bool = ...) -> Tensor:
        """Return the states at each prompt's last position, where the reply begins, (n, dim) float32."""
        ...

    def sublayer_states(self, prompts: Sequence[Prompt]) -> Tensor:
        """Return the states there at first and after each attention and MLP, (n, 1 + 2 * layers, dim) float32."""
        ...

    def first_tokens(self, words: Sequence[str]) -> list[int]:
        """Return the token that each word begins with.

        Raises:
            LvqaError: Two words begin with the same token.
        """
        ...

    def next_token_logits(self, prompts: Sequence[Prompt], words: Sequence[str] | None = None) -> Tensor:
        """Return the logit of each word's first token as the reply's first token, (n, words) float32.

        Without words it returns (n, vocabulary).
        """
        ...

    def prefill_prefix(self, prompts: Sequence[Prompt], *, lead: str = ...) -> list[PrefixKV]:
        """Return the keys and values of prefixes, each of which ends with a clip, for all that may follow them.

        `lead` is a text that most of what follows begins with: it is read with the prefixes.
        """
        ...

    def score_with_prefix(
        self, prefixes: Sequence[PrefixKV], suffixes: Sequence[Prompt], words: Sequence[str] | None = None
    ) -> Tensor:
        """Return the logits of `next_token_logits` for each prefix with its suffix behind it, (n, words) float32.

        A suffix starts with text.
        """
        ...

    def visual_enhancement(self, *, ratio: float, formula: str = ...) -> AbstractContextManager[None]:
        """Apply RetLLM's visual enhancement to all prompts inside the `with` block; whole prompts only."""
        ...

    def reply_log_probs(self, prompt: Prompt, replies: Sequence[str], *, prefix: PrefixKV | None = ...) -> Tensor:
        """Return the log-probability that the reply is exactly each of these texts, (replies,) float32.

        With a prefix the prompt is what follows it.
        """
        ...

    def generate(
        self,
        prompts: Sequence[Prompt],
        *,
        prefixes: Sequence[PrefixKV | None] | None = ...,
        max_new_tokens: int = ...,
        decoding: Decoding = ...,
        schemas: Sequence[AnswerSchema | None] | None = ...,
        on_token: Callable[[int, int, Tensor], None] = ...,
    ) -> list[str]:
        """Return the replies, written together; with prefixes the prompts are what follows them.

        Each fits its schema unless it is cut. `on_token` gets the index of a prompt, a token of its reply, the one that
        ends it too, and the logits of all, (vocabulary,).
        """
        ...

    def decoding(self, generation: str, *, seed: int) -> Decoding:
        """Return how tokens are chosen under `answer.generation`, "greedy" or "checkpoint".

        Raises:
            LvqaError: The checkpoint's generation settings have what is not followed.
        """
        ...


def device_name(device: torch.device) -> str:
    """Return the name of the GPU that a device is, or "cpu"."""
    import torch

    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)


def load_model(
    name: str,
    *,
    revision: str | None = None,
    device: str | None = None,
    dtype: str | None = None,
    device_map: DeviceMap = None,
    quantize: str | None = None,
    max_batch_tokens: int | None = None,
) -> Model:
    """Load a model; its config.json names the family.

    Args:
        name: A hub id, a folder, or "tiny" for the embedded model.
        revision: A commit, a tag or a branch of a hub id; None means the main branch as it is now.
        device: "cpu", "cuda" or "cuda:0"; None means CUDA where there is one, else the CPU.
        dtype: "bfloat16", "float16" or "float32"; None means bfloat16 on CUDA and on CPUs that multiply in it, else
            float32, unless config.json has a `cpu_dtype`.
        device_map: Where the modules go, in place of one device: "auto", "balanced" or "sequential" as accelerate
            shares them out, or names of modules with a device, "cpu" or "disk" each; the last two are offloaded.
        quantize: "int8", "fp8" or "nf4": how the language model's weights are packed while they are loaded.
        max_batch_tokens: How many tokens a batch may hold; None means a number that suits the device.

    Raises:
        LvqaError: There is no such model or revision, it is of an unknown family, it is incomplete, or the device, the
            map, the dtype or the quantisation can't be used.
    """
    with library_imports():
        from lvqa.models.checkpoint import find_checkpoint

    checkpoint = find_checkpoint(name, revision)
    if checkpoint.made_of is not None:
        raise LvqaError(f"model {name!r} is the embedder of {checkpoint.made_of}, and can't answer; give that model")
    family = checkpoint.model_type
    if family not in MODELS:
        lacking = NEEDED.get(family) or (RUNS_CODE if checkpoint.has_code else None)
        why = "" if lacking is None else f", and {lacking}"
        raise LvqaError(f"model {name!r} is a {family}{why}; the families that can be used are {', '.join(MODELS)}")
    module, class_name = MODELS[family].split(":")
    with library_imports():
        family_class = getattr(importlib.import_module(module), class_name)
    options: dict[str, Any] = {"device": device, "dtype": dtype, "max_batch_tokens": max_batch_tokens}
    options |= {"device_map": device_map, "quantize": quantize}
    # By the commit: the branch may move meanwhile.
    loaded: Model = family_class.load(name, revision=checkpoint.commit, **options)
    return loaded


ENHANCEMENTS = ("released", "paper")
"""The formulas of RetLLM's visual enhancement, as `lvqa.models.enhancement` explains them."""

MODELS = {
    "qwen2_vl": "lvqa.models.qwen_vl:Qwen2VL",
    "qwen2_5_vl": "lvqa.models.qwen_vl:Qwen25VL",
    "qwen2_5_omni": "lvqa.models.qwen_omni:Qwen25Omni",
    "qwen3_vl": "lvqa.models.qwen_vl:Qwen3VL",
    "qwen3_vl_moe": "lvqa.models.qwen_vl:Qwen3VLMoe",
    "internvl": "lvqa.models.frame_by_frame:InternVL",
    "llava_onevision": "lvqa.models.frame_by_frame:LlavaOnevision",
}
"""A `model_type` of config.json -> the module and the class, which are imported when a model is loaded."""

RUNS_CODE = "its code lies in the checkpoint, of which none is run here: it would need an adapter and a library class"
_LINEAR = "its linear attention has a state in place of keys and values: prefixes and single last positions need those"
_CONVERTED = "its code lies in the checkpoint, of which none is run here: use the same model in the library's format"
NEEDED = {
    "qwen3_5": _LINEAR,
    "qwen3_5_moe": _LINEAR,
    "qwen3_omni_moe": "it would need an adapter for its audio and its positions: use a Qwen2.5-Omni",
    "internvl_chat": f"{_CONVERTED}, whose name ends in -HF",
    "llava_qwen": f"{_CONVERTED}, whose name ends in -hf",
    "llavaonevision1_5": RUNS_CODE,
    "llava_onevision1_5": RUNS_CODE,
}
"""A `model_type` that users ask for and that can't be used -> what it would need."""

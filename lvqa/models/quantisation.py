"""Weights in few bits: the ways to pack them while they are loaded, and what packed checkpoints need.

`model.quantize` packs the linear layers of the language model, where nearly all weights are: int8 and fp8 by torchao,
nf4 by bitsandbytes. All three unpack a weight for each product and leave the states alone, so that what is computed of
a prompt does not depend on its batch: bitsandbytes' own int8 rounds states by the largest of a batch. Vision and audio
towers, embeddings and the language head stay as they are, as in Qwen's own AWQ checkpoints.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from lvqa.records import LvqaError

PACKAGES = {
    "int8": ("torchao", "accelerate"),
    "fp8": ("torchao", "accelerate"),
    "nf4": ("bitsandbytes", "accelerate"),
}
"""A value of `model.quantize` -> the packages that it needs."""
CHECKPOINT_PACKAGES = {
    "awq": ("gptqmodel", "accelerate"),
    "gptq": ("optimum", "gptqmodel", "accelerate"),
    "bitsandbytes": ("bitsandbytes", "accelerate"),
    "fp8": ("accelerate",),
    "torchao": ("torchao", "accelerate"),
    "compressed-tensors": ("compressed-tensors",),
}
"""A method of quantisation, as config.json names it -> the packages that the library needs for such a checkpoint."""
LEFT_ALONE = [r"(.*\.)?(visual|vision_tower|multi_modal_projector|audio_tower)", "lm_head"]
"""Patterns of the modules that `model.quantize` does not pack."""


def missing_packages(packages: tuple[str, ...]) -> list[str]:
    """Return those of the packages that are not installed."""
    return [package for package in packages if find_spec(package.replace("-", "_")) is None]


def quantisation_config(method: str, *, name: str, config: Mapping[str, Any], dtype: torch.dtype) -> Any:
    """Return what the library's `from_pretrained` takes to pack the weights that it loads.

    Args:
        method: A key of PACKAGES.
        name: The model, for messages.
        config: Its config.json.
        dtype: What products are computed in.

    Raises:
        LvqaError: The method is unknown, a package is missing, or the model can't be packed.
    """
    if method not in PACKAGES:
        raise LvqaError(f"model.quantize {method!r} is unknown; use one of {', '.join(PACKAGES)}")
    if packed := checkpoint_method(config):
        raise LvqaError(f"model {name!r} is quantised by {packed} already; leave model.quantize null")
    if "num_experts_per_tok" in config.get("text_config", config):
        raise LvqaError(
            f"model {name!r} is a mixture of experts, whose weights model.quantize can't pack; "
            "leave it null, and use a quantised checkpoint of the model"
        )
    if missing := missing_packages(PACKAGES[method]):
        raise LvqaError(f"model.quantize {method!r} needs what is not installed: pip install {' '.join(missing)}")
    if method == "nf4":
        from transformers import BitsAndBytesConfig

        options = {"bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": dtype}
        return BitsAndBytesConfig(load_in_4bit=True, llm_int8_skip_modules=LEFT_ALONE, **options)  # type: ignore[no-untyped-call]
    from torchao.quantization import Float8WeightOnlyConfig, Int8WeightOnlyConfig
    from transformers import TorchAoConfig

    way = Int8WeightOnlyConfig() if method == "int8" else Float8WeightOnlyConfig()
    return TorchAoConfig(way, modules_to_not_convert=LEFT_ALONE)


def checkpoint_method(config: Mapping[str, Any]) -> str | None:
    """Return how a checkpoint's weights are packed, as its config.json names it; None if they are not."""
    packed = config.get("quantization_config")
    return str(packed.get("quant_method")) if isinstance(packed, Mapping) else None


def method_of(library: Any, method: str | None) -> str | None:
    """Return how the weights of a loaded model are packed; None if they are not, or are unpacked again.

    Args:
        library: The library's model.
        method: How it was asked for: `model.quantize`.
    """
    quantizer = getattr(library, "hf_quantizer", None)
    if quantizer is None or getattr(quantizer.quantization_config, "dequantize", False):
        return None
    packed = quantizer.quantization_config.quant_method
    return method or str(getattr(packed, "value", packed))


def is_plain(weight: Tensor) -> bool:
    """Return whether a weight is numbers that can be computed with: neither packed nor offloaded."""
    is_number = weight.dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64)
    return is_number and not hasattr(weight, "__tensor_flatten__") and weight.device.type != "meta"


def is_packed(linear: nn.Module) -> bool:
    """Return whether the numbers of a linear layer, offloaded or not, are packed, so that none can be read off it."""
    weight = getattr(linear, "weight", None)
    return not isinstance(weight, Tensor) or hasattr(weight, "__tensor_flatten__") or not weight.is_floating_point()


def weight_bytes(weight: Tensor) -> int:
    """Return how many bytes of memory a weight takes, packed or not."""
    if not hasattr(weight, "__tensor_flatten__"):
        return weight.nbytes
    inner, _ = weight.__tensor_flatten__()
    return sum(weight_bytes(getattr(weight, name)) for name in inner)

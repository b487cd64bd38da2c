"""Load a model's weights and tokenizer with the library, and refuse what does not belong together."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from transformers import AutoTokenizer, PreTrainedConfig, ProcessorMixin

from lvqa.models.checkpoint import Checkpoint, find_checkpoint
from lvqa.models.devices import DTYPES, best_device, default_dtype
from lvqa.records import LvqaError

QUANTISATION_PACKAGES = {
    "awq": ("gptqmodel", "accelerate"),
    "gptq": ("optimum", "gptqmodel", "accelerate"),
    "bitsandbytes": ("bitsandbytes", "accelerate"),
    "fp8": ("accelerate",),
    "compressed-tensors": ("compressed-tensors", "accelerate"),
}
"""A method of quantisation, as config.json names it -> the packages that the library needs for it."""


@dataclass(frozen=True, slots=True)
class Pretrained:
    """The library's model on its device, its tokenizer, and where they are from."""

    model: Any
    tokenizer: Any
    revision: str
    """The revision of the checkpoint, as `find_checkpoint` determines it."""


def load_pretrained(
    name: str,
    *,
    revision: str | None = None,
    model_type: str,
    library_class: Any,
    device: str | None,
    dtype: str | None,
) -> Pretrained:
    """Load a checkpoint, ready for inference.

    Args:
        name: A hub id, a folder, or "tiny".
        revision: A commit, a tag or a branch of a hub id; config, tokenizer and weights are of one commit.
        model_type: The only architecture that is accepted, as config.json names it.
        library_class: The library's class for it.
        device: A device's name; None means `best_device`.
        dtype: One of DTYPES; None means `default_dtype`, or `cpu_dtype` of config.json on a CPU.

    Raises:
        LvqaError: The checkpoint, the device or the dtype can't be used.
    """
    target = best_device(device)
    if dtype is not None and dtype not in DTYPES:
        raise LvqaError(f"dtype {dtype!r} is unknown; use one of {', '.join(DTYPES)}")
    checkpoint = find_checkpoint(name, revision)
    if checkpoint.model_type != model_type:
        raise LvqaError(f"model {name!r} is a {checkpoint.model_type}; only a {model_type} can be used")
    precision = DTYPES[dtype or default_dtype(target, checkpoint.cpu_dtype)]
    try:
        tokenizer = _load_tokenizer(checkpoint)
        model, report = library_class.from_pretrained(
            checkpoint.source,
            **checkpoint.options,
            dtype=precision,
            attn_implementation="sdpa",
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # _check refuses them by name
        )
    except ImportError as error:  # of a quantised model, or of a tokenizer
        raise LvqaError(_missing_package(checkpoint, str(error))) from error
    except (OSError, ValueError) as error:  # without a tokenizer it is a ValueError
        raise LvqaError(f"model {name!r} is incomplete: {str(error).splitlines()[0]}") from error
    except (AttributeError, LookupError, TypeError) as error:  # a value of another kind in config.json
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise LvqaError(f"model {name!r} can't be loaded, perhaps for its config.json ({reason})") from error
    _check(name, model, tokenizer, report)
    model.eval().requires_grad_(False).to(target)
    return Pretrained(model, tokenizer, checkpoint.revision)


def _missing_package(checkpoint: Checkpoint, reason: str) -> str:
    """Return one line that names the packages that are missing, by the model's quantisation or the library's words."""
    config, _ = PreTrainedConfig.get_config_dict(checkpoint.source, **checkpoint.options)
    method = config.get("quantization_config", {}).get("quant_method")
    packages = [name for name in QUANTISATION_PACKAGES.get(method, ()) if find_spec(name.replace("-", "_")) is None]
    packages = packages or re.findall(r"pip install (?:-\S+ )*'?([A-Za-z0-9][\w.-]*)", reason)
    what = "" if method is None else f"is quantised by {method} and "
    advice = f": pip install {' '.join(packages)}" if packages else f": {' '.join(reason.split())[:200]}"
    return f"model {checkpoint.name!r} {what}needs what is not installed{advice}"


def _load_tokenizer(checkpoint: Checkpoint) -> Any:
    tokenizer = AutoTokenizer.from_pretrained(checkpoint.source, **checkpoint.options)
    # The tokenizer of some has the template of the text model that it is from: the processor's is that of pictures.
    processor, _ = ProcessorMixin.get_processor_dict(checkpoint.source, **checkpoint.options)
    tokenizer.chat_template = processor.get("chat_template") or tokenizer.chat_template
    return tokenizer


def _check(name: str, model: Any, tokenizer: Any, report: dict[str, Any]) -> None:
    """Raise LvqaError unless weights, config and tokenizer belong to one model that is supported."""
    if report["missing_keys"]:
        raise LvqaError(f"model {name!r} lacks weights, among them {min(report['missing_keys'])}")
    if report["mismatched_keys"]:
        weight, actual, expected = min(report["mismatched_keys"])
        raise LvqaError(
            f"model {name!r}: {weight} is of {tuple(actual)}, and config.json asks for {tuple(expected)}; "
            "they belong to different models"
        )
    vocab_size = model.config.text_config.vocab_size
    if len(tokenizer) > vocab_size:
        raise LvqaError(
            f"model {name!r}: its tokenizer has {len(tokenizer)} tokens and its vocabulary {vocab_size}; "
            "they belong to different models"
        )
    if getattr(model.model.language_model, "has_sliding_layers", False):
        raise LvqaError(f"model {name!r} uses sliding-window attention, which is not supported")

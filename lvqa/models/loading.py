"""Load a model's weights and tokenizer with the library, and refuse what does not belong together."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from transformers import AutoTokenizer, PreTrainedConfig, ProcessorMixin

from lvqa.deferred import deferred_imports
from lvqa.models.checkpoint import Checkpoint, find_checkpoint
from lvqa.models.devices import DTYPES, best_device, default_dtype
from lvqa.models.quantisation import (
    CHECKPOINT_PACKAGES,
    checkpoint_method,
    method_of,
    missing_packages,
    quantisation_config,
)
from lvqa.records import LvqaError

DEVICE_MAPS = ("auto", "balanced", "sequential")
"""The ways in which accelerate shares a model out by itself."""
DeviceMap = str | Mapping[str, str | int] | None
"""One of DEVICE_MAPS; or a module's name -> a device, "cpu" or "disk"; None: the model is on one device."""


@dataclass(frozen=True, slots=True)
class Pretrained:
    """The library's model on its device or devices, its tokenizer, and where they are from."""

    model: Any
    tokenizer: Any
    revision: str
    """The revision of the checkpoint, as `find_checkpoint` determines it."""
    quantisation: str | None
    """How the weights are packed; None: they are not."""


def load_pretrained(
    name: str,
    *,
    revision: str | None = None,
    model_type: str,
    library_class: Any,
    device: str | None,
    dtype: str | None,
    device_map: DeviceMap = None,
    quantize: str | None = None,
) -> Pretrained:
    """Load a checkpoint, ready for inference.

    Args:
        name: A hub id, a folder, or "tiny".
        revision: A commit, a tag or a branch of a hub id; config, tokenizer and weights are of one commit.
        model_type: The only architecture that is accepted, as config.json names it.
        library_class: The library's class for it.
        device: A device's name; None means `best_device`.
        dtype: One of DTYPES; None means `default_dtype`, or `cpu_dtype` of config.json on a CPU.
        device_map: Where the modules go, in place of one device.
        quantize: How the weights are packed, a key of `quantisation.PACKAGES`.

    Raises:
        LvqaError: The checkpoint, the device, the map, the dtype or the quantisation can't be used.
    """
    target = best_device(device)
    _check_placement(device, dtype, device_map)
    checkpoint = find_checkpoint(name, revision)
    if checkpoint.model_type != model_type:
        raise LvqaError(f"model {name!r} is a {checkpoint.model_type}; only a {model_type} can be used")
    precision = DTYPES[dtype or default_dtype(target, checkpoint.cpu_dtype)]
    config, _ = PreTrainedConfig.get_config_dict(checkpoint.source, **checkpoint.options)
    _require_packages(name, config)
    options: dict[str, Any] = {} if device_map is None else {"device_map": device_map}
    if quantize is not None:
        packing = quantisation_config(quantize, name=name, config=config, dtype=precision)
        options = {"device_map": {"": target}, **options, "quantization_config": packing}  # they can't be moved later
    try:
        tokenizer = _load_tokenizer(checkpoint)
        with deferred_imports(("torch.distributed.tensor",), calls=False), _QuickMeta():
            model, report = library_class.from_pretrained(
                checkpoint.source,
                **checkpoint.options,
                **options,
                dtype=precision,
                attn_implementation="sdpa",
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # _check refuses them by name
            )
    except Exception as error:
        if (refusal := _refusal(name, config, error, is_shared=device_map is not None)) is None:
            raise
        raise refusal from error
    _check(name, model, tokenizer, report)
    model.eval().requires_grad_(False)
    if (packed := method_of(model, quantize)) is None and checkpoint_method(config) is not None:
        _unify(model, precision)
    return Pretrained(model if options else model.to(target), tokenizer, checkpoint.revision, packed)


class _QuickMeta(TorchFunctionMode):
    """Spares torch what it does on the device `meta` by its compiler, of which the import takes longer than the rest.

    The library builds a model there, without values, before it reads the weights. Numbers that buffers are computed
    from are on the CPU instead, and weights are not initialised; the library replaces all of these later.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is torch.arange and str(kwargs.get("device")) == "meta":
            return func(*args, **{**kwargs, "device": "cpu"})
        if getattr(func, "__module__", None) == "torch.nn.init":
            weight: Any = args[0] if args else kwargs["tensor"]
            if weight.is_meta:
                return weight
        return func(*args, **kwargs)


def _unify(model: Any, dtype: torch.dtype) -> None:
    """Bring all weights to one type: where the library unpacks some, it leaves the others as they were."""
    for weight in model.parameters():
        weight.data = weight.data.to(dtype)


def _check_placement(device: str | None, dtype: str | None, device_map: DeviceMap) -> None:
    """Raise LvqaError unless the type is known, and a model can be shared out by the map."""
    if dtype is not None and dtype not in DTYPES:
        raise LvqaError(f"dtype {dtype!r} is unknown; use one of {', '.join(DTYPES)}")
    if device_map is None:
        return
    if isinstance(device_map, str) and device_map not in DEVICE_MAPS:
        allowed = f"one of {', '.join(DEVICE_MAPS)}, or names of modules with their devices"
        raise LvqaError(f"model.device_map {device_map!r} is unknown; use {allowed}")
    for place in set() if isinstance(device_map, str) else {*device_map.values()} - {"disk"}:
        best_device(f"cuda:{place}" if isinstance(place, int) else place)
    if device is not None:
        raise LvqaError(f"model.device_map says where the model is, and model.device {device!r} too; give one of them")
    if missing := missing_packages(("accelerate",)):
        raise LvqaError(f"model.device_map needs what is not installed: pip install {' '.join(missing)}")


def _require_packages(name: str, config: Mapping[str, Any]) -> None:
    """Raise LvqaError if a package is missing that a quantised checkpoint needs, as far as that is known."""
    method = checkpoint_method(config)
    if method and (missing := missing_packages(CHECKPOINT_PACKAGES.get(method, ()))):
        needed = f"needs what is not installed: pip install {' '.join(missing)}"
        raise LvqaError(f"model {name!r} is quantised by {method} and {needed}")


def _refusal(name: str, config: Mapping[str, Any], error: Exception, *, is_shared: bool) -> LvqaError | None:
    """Return one line for an error of the library's while it loaded a model; None if it is none that it raises."""
    method, reason = checkpoint_method(config), " ".join(str(error).split())
    what = f"is quantised by {method} and " if method else ""
    match error:
        case ImportError():  # of a quantised model, or of a tokenizer
            packages = re.findall(r"pip install (?:-\S+ )*'?([A-Za-z0-9][\w.-]*)", reason)
            advice = f"pip install {' '.join(packages)}" if packages else reason[:200]
            return LvqaError(f"model {name!r} {what}needs what is not installed: {advice}")
        case RuntimeError() if method:  # it asks for a GPU
            return LvqaError(f"model {name!r} {what}can't be loaded here: {reason[:200]}")
        case OSError() | ValueError():  # without a tokenizer it is a ValueError
            problem = "can't be shared out by model.device_map" if is_shared else "is incomplete"
            return LvqaError(f"model {name!r} {problem}: {str(error).splitlines()[0][:300]}")
        case AttributeError() | LookupError() | TypeError():  # a value of another kind in config.json
            reason = f"{type(error).__name__}: {reason}"[:200]
            return LvqaError(f"model {name!r} can't be loaded, perhaps for its config.json ({reason})")
    return None


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

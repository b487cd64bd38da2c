"""Where a model computes, in which precision, and how tensors get there."""

from __future__ import annotations

import torch
from torch import Tensor

from lvqa.records import LvqaError

DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
"""The precisions that a model can be loaded in, by name."""


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Return the tensor on the device.

    To a GPU it goes through pinned memory, so that the host does not wait: a plain copy would wait until the GPU is
    idle.
    """
    if device.type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def best_device(name: str | None) -> torch.device:
    """Return the named device; without a name, CUDA where there is one, else the CPU.

    Raises:
        LvqaError: The name is unknown, or this machine has no such device.
    """
    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
    except RuntimeError as error:
        raise LvqaError(f"device {name!r} is unknown; use cpu, cuda or cuda:0") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise LvqaError(f"device {name!r}: there is no usable CUDA device here; use cpu")
    return device


def default_dtype(device: torch.device, cpu_dtype: str | None = None) -> str:
    """Return the name of the fastest precision on a device.

    It is bfloat16 on CUDA and on CPUs that multiply in it, else float32. On a CPU, `cpu_dtype` goes first if it is one
    of DTYPES.
    """
    if device.type == "cpu" and cpu_dtype in DTYPES:
        return cpu_dtype
    capabilities: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()  # older versions of torch lack it
    multiplies_bfloat16 = capabilities.get("avx512_bf16") or capabilities.get("amx_bf16")
    return "bfloat16" if device.type == "cuda" or multiplies_bfloat16 else "float32"

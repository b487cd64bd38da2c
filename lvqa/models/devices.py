"""Where a model computes, in which precision, and how tensors get there.

Several devices: accelerate places the library's modules by a map, and has hooks on all of them, which bring each its
inputs, and its weights where these are offloaded. Our own code places what it computes between two layers by
`execution_device`, and reads a weight by `weight_of`. Visual tokens and prefixes lie on the device of the embeddings.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from lvqa.records import LvqaError, counted
from lvqa.startup import num_cores

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


def execution_device(module: nn.Module) -> torch.device:
    """Return the device that a module computes on, wherever its weights lie meanwhile."""
    for hook in _hooks(module):
        return torch.device(hook.execution_device)
    return next(module.parameters()).device


def weight_of(module: nn.Module, key: str = "weight") -> Any:
    """Return a tensor of a module, of an offloaded one a copy on the device that it computes on; None if it is None."""
    weight = getattr(module, key)
    return _loaded(module, key, weight) if weight is not None and weight.is_meta else weight


def loaded_weights(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield all weights of a model by their names; offloaded ones are loaded one by one."""
    for name, weight in model.named_parameters():
        owner, _, key = name.rpartition(".")
        yield name, _loaded(model.get_submodule(owner), key, weight) if weight.is_meta else weight


def _loaded(module: nn.Module, key: str, weight: Tensor) -> Tensor:
    for hook in _hooks(module):
        if getattr(hook, "weights_map", None) is not None:
            loaded: Tensor = hook.weights_map[key].to(hook.execution_device, weight.dtype)
            return loaded
    raise ValueError(f"{type(module).__name__}.{key} is on no device, and nothing says where it is")


def _hooks(module: nn.Module) -> Iterator[Any]:
    """Yield accelerate's hooks that place a module, those of its parts behind its own."""
    for part in module.modules():
        hook = getattr(part, "_hf_hook", None)
        hooks = getattr(hook, "hooks", (hook,))
        yield from (one for one in hooks if getattr(one, "execution_device", None) is not None)


def best_device(name: str | None) -> torch.device:
    """Return the named device; without a name, CUDA where there is one, else the CPU.

    Raises:
        LvqaError: The name is unknown, or there is no such device, on this machine or for this build of torch.
    """
    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
    except (RuntimeError, ValueError) as error:
        raise LvqaError(f"device {name!r} is unknown; use cpu, cuda, cuda:0 or mps") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise LvqaError(f"device {name!r}: there is no usable CUDA device here; use cpu")
    if device.type == "meta":
        raise LvqaError(f"device {name!r} computes nothing; use cpu, cuda, cuda:0 or mps")
    try:
        torch.ones(1, device=device).add(1).item()
    except Exception as error:  # each backend has its own way to say that it is not there
        raise LvqaError(f"device {name!r} can't be used by torch {torch.__version__} here; use cpu") from error
    return device


def keep_to_cores() -> None:
    """Have torch compute with no more threads than this process has cores, since it does not know a container's quota.

    OMP_NUM_THREADS of the user goes first.
    """
    if not os.environ.get("OMP_NUM_THREADS") and torch.get_num_threads() > num_cores():
        torch.set_num_threads(num_cores())


def device_of_process(name: str | None) -> str | None:
    """Return the device of this process: of several that a launcher started on a machine, each has a GPU of its own.

    `torchrun` and `accelerate launch` number the processes of a machine in LOCAL_RANK.

    Args:
        name: The device that was asked for; None: the best there is.

    Raises:
        LvqaError: There are fewer GPUs than processes, or all processes are to share one.
    """
    local_rank = int(os.environ.get("LOCAL_RANK", 0))
    if int(os.environ.get("WORLD_SIZE", 1)) == 1 or not torch.cuda.is_available():
        return name
    if name not in (None, "cuda"):
        if torch.device(name).type == "cuda":
            raise LvqaError(f"device {name!r} can't be that of several processes: give cuda, and each has its own")
        return name
    if local_rank >= torch.cuda.device_count():
        num_gpus = counted(torch.cuda.device_count(), "GPU")
        raise LvqaError(f"process {local_rank} has no GPU: this machine has {num_gpus}; start as many processes")
    return f"cuda:{local_rank}"


def default_dtype(device: torch.device, cpu_dtype: str | None = None) -> str:
    """Return the name of the fastest precision on a device.

    It is bfloat16 on CUDA and on CPUs that multiply in it, else float32. On a CPU, `cpu_dtype` goes first if it is one
    of DTYPES.
    """
    if device.type == "cpu" and isinstance(cpu_dtype, str) and cpu_dtype in DTYPES:
        return cpu_dtype
    capabilities: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()  # older versions of torch lack it
    multiplies_bfloat16 = capabilities.get("avx512_bf16") or capabilities.get("amx_bf16")
    return "bfloat16" if device.type == "cuda" or multiplies_bfloat16 else "float32"

"""The machine: its name, its clocks, and torch's counter of operations."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from lvqa.startup import num_cores


def flop_counter() -> FlopCounterMode:
    """Return torch's counter of operations, with all attention kernels, whose query heads may share keys."""

    def attention(query: Sequence[int], key: Sequence[int], value: Sequence[int], *_: Any, **__: Any) -> int:
        shared = [(*query[:2], *shape[2:]) for shape in (key, value)]
        return int(sdpa_flop_count(query, *shared))  # type: ignore[no-untyped-call]

    kernels = ("flash_attention", "flash_attention_for_cpu", "efficient_attention", "cudnn_attention")
    mapping = {getattr(torch.ops.aten, f"_scaled_dot_product_{kernel}"): attention for kernel in kernels}
    return FlopCounterMode(display=False, custom_mapping=mapping)


def processor_seconds() -> float:
    """Return the processor time of this process and its children so far."""
    return time.process_time() + sum(os.times()[2:4])


def synchronize(device: torch.device) -> None:
    """Wait until the device has completed its work."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def machine_name(device: torch.device) -> str:
    """Return the name of the GPU, or that of the processor with the number of its cores."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        models = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if "model name" in line]
        name = models[0] if models else name
    return f"{name}, {num_cores()} cores"

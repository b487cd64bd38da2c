"""Devices that are not there: tensors say that they lie on one, compute on the CPU, and never meet those of another.

Operations get a tensor's numbers, and what they return lies where their inputs lie. An operation on tensors of two
devices is an error, as it is on two GPUs. A number without dimensions may be on the CPU, as there.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map_only, tree_unflatten

FIRST, SECOND = "cpu:1", "cpu:2"


class PlacedTensor(Tensor):
    """A tensor that lies on a device that is not there."""

    numbers: Tensor

    @staticmethod
    def __new__(cls, numbers: Tensor, device: torch.device) -> PlacedTensor:
        sizes = {"strides": numbers.stride(), "storage_offset": numbers.storage_offset(), "dtype": numbers.dtype}
        made = Tensor._make_wrapper_subclass(cls, numbers.shape, **sizes, layout=numbers.layout, device=device)
        made.numbers = numbers
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run(func, args, kwargs or {})


def run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Compute an operation of torch on the numbers; raise RuntimeError if it mixes devices."""
    flat, tree = tree_flatten((args, kwargs))
    devices = {value.device for value in flat if isinstance(value, Tensor) and (placed(value) or value.dim())}
    if func is torch.ops.aten.index.Tensor:  # rows of any device may be chosen from the host
        devices = {args[0].device} | {device for device in devices if is_absent(device)}
    target = kwargs.get("device")
    if len(devices) > 1 and func is not torch.ops.aten.copy_.default:
        raise RuntimeError(f"{func} mixes {', '.join(sorted(map(str, devices)))}")
    numbers = [value.numbers if isinstance(value, PlacedTensor) else value for value in flat]
    numbers = [torch.device("cpu") if value == target and is_absent(value) else value for value in numbers]
    args, kwargs = tree_unflatten(numbers, tree)
    result = func(*args, **kwargs)
    where = torch.device(target) if target is not None else next(iter(devices), torch.device("cpu"))
    if func is torch.ops.aten.copy_.default or func._schema.name[-1] == "_":
        return flat[0]
    return tree_map_only(Tensor, lambda value: PlacedTensor(value, where), result) if is_absent(where) else result


def placed(value: Tensor) -> bool:
    return isinstance(value, PlacedTensor)


def is_absent(device: Any) -> bool:
    return isinstance(device, torch.device) and device.index in (1, 2)


class _Absent(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run(func, args, kwargs or {})


@contextmanager
def absent_devices() -> Iterator[None]:
    """Let tensors be put on FIRST and SECOND inside the `with` block."""
    tensor = torch.tensor

    def made(*args: Any, device: Any = None, **more: Any) -> Tensor:  # torch makes these before it dispatches anything
        return tensor(*args, **more) if device is None else tensor(*args, **more).to(device)

    with mock.patch("torch.tensor", made), _Absent():
        yield

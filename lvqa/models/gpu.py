"""Change the library's modules so that a GPU comes near its peak with them. The weights stay what they are.

Written as the library writes it, a norm reads and writes its states a dozen times in float32; as one kernel, once. And
rows that do not begin at a multiple of 16 bytes keep a product off the fast paths, as those of Qwen2.5-VL's vision
tower, 3420 wide: they are filled up with zeros, which change nothing.
"""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.nn.functional import pad

from lvqa.models.quantisation import is_plain

ROW_MULTIPLE = 8
"""A row must hold a multiple of so many numbers: they have two bytes each, and it begins at a multiple of 16."""


def fit(model: nn.Module) -> None:
    """Replace norms by one kernel each, and pad MLPs to aligned rows, in place; packed and offloaded weights stay."""
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            weight: Any = getattr(child, "weight", None)
            if hasattr(child, "variance_epsilon") and is_plain(weight):
                setattr(module, name, _one_kernel(child))
        children = dict(module.named_children())
        linears = [children.get(name) for name in ("gate_proj", "up_proj", "down_proj")]
        if all(isinstance(linear, nn.Linear) and is_plain(linear.weight) for linear in linears):
            _pad_rows(module)


def _one_kernel(norm: Any) -> nn.RMSNorm:
    """Return the norm as the module that computes it in one kernel."""
    fused = nn.RMSNorm(norm.weight.shape, eps=norm.variance_epsilon)
    fused.weight = norm.weight
    if hook := getattr(norm, "_hf_hook", None):  # it brings the states to the norm's device
        from accelerate.hooks import add_hook_to_module

        add_hook_to_module(fused, hook)
    return fused


def _pad_rows(mlp: Any) -> None:
    """Widen the inner rows of an MLP with zeros."""
    lacking = -mlp.down_proj.in_features % ROW_MULTIPLE
    if not lacking:
        return
    for linear, sides in (
        (mlp.gate_proj, (0, 0, 0, lacking)),
        (mlp.up_proj, (0, 0, 0, lacking)),
        (mlp.down_proj, (0, lacking)),
    ):
        linear.weight = nn.Parameter(pad(linear.weight, sides), requires_grad=False)
        if linear.bias is not None and linear is not mlp.down_proj:
            linear.bias = nn.Parameter(pad(linear.bias, (0, lacking)), requires_grad=False)

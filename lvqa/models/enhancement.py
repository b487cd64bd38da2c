"""RetLLM's visual enhancement: a feed-forward layer sees the visual tokens again (arXiv 2602.22278).

A feed-forward layer is a memory of keys and values, FFN(x) = sum_i phi(<x, k_i>) v_i. The prompt's visual tokens z_j
join it as both, and phi is the layer's own activation:

    D(x) = sum_j phi(<x, z_j>) z_j        FFN'(x) = ratio D(x) + (1 - ratio) FFN(x)

"paper" is this, with a ratio of 0.3. "released" is the authors' program, with 0.12, as in MemVR, where the idea is
from: keys are scaled by mean|W_gate| / mean|z|, values by mean|W_down| / mean|z|, and D(x) to the mean magnitude of
FFN(x).

The paper leaves open in which layer; both formulas follow the program. It watches the layers l with 5 < l < 16 of 28,
counted from 0 (here the same fraction of any depth), and measures the model's uncertainty after each: of the last
position's ten largest logits, by the language head without the final norm, the entropy of their softmax, over ln 10.
The first time that it is more than 0.75, layer l + 1 is enhanced, at all positions of the prompt; at most one in a
forward pass.

Where the program is wrong, this is not: it takes all embeddings of the sequence for visual tokens, in generation that
of the last word, and sums the entropy over a batch. Here a prompt has its own tokens, trigger and means, in any batch.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from lvqa.models.chat import Batch
from lvqa.models.devices import weight_of
from lvqa.models.quantisation import is_packed
from lvqa.records import LvqaError

NUM_LOGITS = 10
"""The entropy is taken over this many of the largest logits."""
TINIEST = torch.finfo(torch.float32).tiny
"""The smallest divisor."""
MAX_ENTROPY = 0.75
"""The model is left alone up to this entropy, as a fraction of the largest possible."""
FIRST, END, DEPTH = 5, 16, 28
"""The layers between the first two are watched, in a model of so many layers as the third."""


class VisualEnhancement:
    """Enhances the forward passes of a language model while `attached`."""

    def __init__(self, text_model: Any, lm_head: Any, *, ratio: float, formula: str) -> None:
        """Prepare for a language model.

        Args:
            text_model: The library's decoder without its language head.
            lm_head: The library's language head.
            ratio: The weight of the enhancement in the formula above.
            formula: "released" or "paper".
        """
        self._text, self._lm_head = text_model, lm_head
        self._ratio, self._formula = ratio, formula
        num_layers = len(text_model.layers)
        # Never the last layer: it may be computed for one position only.
        self.watched = [i for i in range(num_layers - 2) if FIRST * num_layers < DEPTH * i < END * num_layers]
        """The indices of the layers after which the uncertainty is measured."""

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Hook the layers inside the `with` block. LvqaError if the model is a mixture of experts."""
        mlps = [layer.mlp for layer in self._text.layers]
        if not all(hasattr(mlp, "gate_proj") for mlp in mlps):
            raise LvqaError("visual enhancement needs a model without experts: they have no one MLP to enhance")
        if self._formula == "released" and any(is_packed(mlp.gate_proj) for mlp in mlps):
            raise LvqaError(
                "visual enhancement by the released formula reads the MLPs' weights, which are quantised here; "
                'use formula "paper", or a model that is not quantised'
            )
        hooks = []
        for i in self.watched:
            layer, following = self._text.layers[i], self._text.layers[i + 1]
            hooks.append(layer.register_forward_hook(functools.partial(self._watch, i)))
            hooks.append(following.mlp.register_forward_hook(self._enhance))
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def set_batch(self, batch: Batch, states: Tensor) -> None:
        """Set the batch of the next forward pass, and its (batch, sequence, dim) embeddings."""
        visual = [row[mask] for row, mask in zip(states, batch.visual_mask.to(states.device), strict=True)]
        # A row of zeros looks up nothing: phi(0) = 0.
        self._visual = pad_sequence(visual, batch_first=True)  # (batch, most tokens, dim)
        self._num_visual = torch.tensor([len(row) for row in visual], device=states.device)
        mask = batch.attention_mask
        self._mask = None if mask is None else mask.to(states.device)

    def _watch(self, layer_index: int, _layer: Any, _args: Any, states: Tensor) -> None:
        """Decide after a layer which prompts are enhanced in the next one."""
        if layer_index == self.watched[0]:
            self._settled = self._num_visual == 0  # (batch,): nothing to enhance with, or enhanced already
        self._due = torch.zeros_like(self._settled)
        if self._settled.all():
            return  # the language head is large
        largest = self._lm_head(states[:, -1]).float().topk(NUM_LOGITS).values.to(self._settled.device)
        log_shares = largest.log_softmax(dim=1)
        entropy = -(log_shares.exp() * log_shares).sum(dim=1) / math.log(NUM_LOGITS)
        self._due = (entropy > MAX_ENTROPY) & ~self._settled
        self._settled = self._settled | self._due

    def _enhance(self, mlp: Any, args: tuple[Tensor], output: Tensor) -> Tensor | None:
        """Return the MLP's output, enhanced for the prompts that are due; None leaves it as it is."""
        if not self._due.any():
            return None
        delta = self._lookup(mlp, args[0], output).to(output)
        mixed = self._ratio * delta + (1 - self._ratio) * output
        return torch.where(self._due[:, None, None].to(output.device), mixed, output)

    def _lookup(self, mlp: Any, inputs: Tensor, output: Tensor) -> Tensor:
        """Return D(x), (batch, sequence, dim)."""
        visual = self._visual.to(inputs.device)
        if self._formula == "paper":
            paper: Tensor = mlp.act_fn(inputs @ visual.mT) @ visual
            return paper
        count = (self._num_visual.to(inputs.device) * visual.shape[2]).clamp(min=1)
        size = (visual.float().abs().sum(dim=(1, 2)) / count).clamp(min=TINIEST)
        unit = visual / size[:, None, None].to(visual)
        keys, values = (unit * weight_of(linear).abs().mean() for linear in (mlp.gate_proj, mlp.down_proj))
        delta = (mlp.act_fn(inputs @ keys.mT) @ values).float()
        released: Tensor = delta * (self._magnitude(output) / self._magnitude(delta).clamp(min=TINIEST))
        return released

    def _magnitude(self, states: Tensor) -> Tensor:
        """Return (batch, 1, 1) float32: the mean magnitude over a prompt's positions, padding left out."""
        by_position = states.float().abs().mean(dim=2)
        if self._mask is None:
            return by_position.mean(dim=1)[:, None, None]
        mask = self._mask.to(states.device)
        return (by_position.masked_fill(~mask, 0).sum(dim=1) / mask.sum(dim=1))[:, None, None]

"""RetLLM's visual enhancement: a feed-forward layer is shown the visual tokens again (arXiv 2602.22278).

A feed-forward layer is a memory of keys and values, FFN(x) = sum_i phi(<x, k_i>) v_i. The prompt's visual tokens z_j
join it as both, and phi is the layer's own activation:

    D(x) = sum_j phi(<x, z_j>) z_j        FFN'(x) = ratio D(x) + (1 - ratio) FFN(x)

"paper" is this, with a ratio of 0.3. "released" is the authors' program, with 0.12, as in MemVR, where the idea is
from: keys are scaled by mean|W_gate| / mean|z|, values by mean|W_down| / mean|z|, and D(x) to the mean magnitude of
FFN(x).

The paper leaves open in which layer; both formulas follow the program. It watches the layers l with 5 < l < 16 of 28,
counted from 0 (here the same part of any depth), and asks how sure the model is after each: of the last position's
ten largest logits, by the language head without the final norm, the entropy of their softmax, over ln 10. The first
time that it is more than 0.75, layer l + 1 is enhanced, at all positions of the prompt; at most one in a forward pass.

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

LARGEST_LOGITS = 10
TINIEST = torch.finfo(torch.float32).tiny
SURE = 0.75
"""Entropy, as a part of the largest possible, up to which the model is left alone."""
FIRST, END, DEPTH = 5, 16, 28
"""Layers between these, of so many, are watched."""


class VisualEnhancement:
    """Enhances the forward passes of a language model while `attached`."""

    def __init__(self, text: Any, head: Any, *, ratio: float, formula: str) -> None:
        self._text, self._head = text, head
        self._ratio, self._formula = ratio, formula
        num_layers = len(text.layers)
        # Never the last layer: it may be computed for one position only.
        self.watched = [n for n in range(num_layers - 2) if FIRST * num_layers < DEPTH * n < END * num_layers]

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Hooks on the layers, and none left behind."""
        hooks = []
        for number in self.watched:
            layer, following = self._text.layers[number], self._text.layers[number + 1]
            hooks.append(layer.register_forward_hook(functools.partial(self._watch, number)))
            hooks.append(following.mlp.register_forward_hook(self._enhance))
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def see(self, batch: Batch, states: Tensor) -> None:
        """What the next forward passes are about: a batch and its (batch, sequence, dim) embeddings."""
        shown = [row[places] for row, places in zip(states, batch.visual.to(states.device), strict=True)]
        # A row of zeros looks up nothing: phi(0) = 0.
        self._visual = pad_sequence(shown, batch_first=True)  # (batch, most tokens, dim)
        self._num_visual = torch.tensor([len(row) for row in shown], device=states.device)
        self._mask = None if batch.mask is None else batch.mask.to(states.device)

    def _watch(self, number: int, _layer: Any, _args: Any, states: Tensor) -> None:
        """After a layer: which prompts are enhanced in the next one."""
        if number == self.watched[0]:
            self._done = self._num_visual == 0  # (batch,)
        self._due = torch.zeros_like(self._done)
        if self._done.all():
            return  # the language head is large
        largest = self._head(states[:, -1]).float().topk(LARGEST_LOGITS).values
        log_shares = largest.log_softmax(dim=1)
        entropy = -(log_shares.exp() * log_shares).sum(dim=1) / math.log(LARGEST_LOGITS)
        self._due = (entropy > SURE) & ~self._done
        self._done = self._done | self._due

    def _enhance(self, mlp: Any, args: tuple[Tensor], output: Tensor) -> Tensor | None:
        if not self._due.any():
            return None
        delta = self._lookup(mlp, args[0], output).to(output)
        mixed = self._ratio * delta + (1 - self._ratio) * output
        return torch.where(self._due[:, None, None], mixed, output)

    def _lookup(self, mlp: Any, inputs: Tensor, output: Tensor) -> Tensor:
        """(batch, sequence, dim): D(x)."""
        if self._formula == "paper":
            paper: Tensor = mlp.act_fn(inputs @ self._visual.mT) @ self._visual
            return paper
        count = (self._num_visual * self._visual.shape[2]).clamp(min=1)
        size = (self._visual.float().abs().sum(dim=(1, 2)) / count).clamp(min=TINIEST)
        unit = self._visual / size[:, None, None].to(self._visual)
        keys, values = (unit * part.weight.abs().mean() for part in (mlp.gate_proj, mlp.down_proj))
        delta = (mlp.act_fn(inputs @ keys.mT) @ values).float()
        released: Tensor = delta * (self._magnitude(output) / self._magnitude(delta).clamp(min=TINIEST))
        return released

    def _magnitude(self, states: Tensor) -> Tensor:
        """(batch, 1, 1) float32 mean magnitude over a prompt's places, padding left out."""
        of_places = states.float().abs().mean(dim=2)
        if self._mask is None:
            return of_places.mean(dim=1)[:, None, None]
        return (of_places.masked_fill(~self._mask, 0).sum(dim=1) / self._mask.sum(dim=1))[:, None, None]

"""Forward passes of a language model over batches of prompts, by the library's own layers.

No pass computes more than it is asked for: nothing behind the wanted state, and of the last layer the last position
alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache
from transformers.masking_utils import create_causal_mask

from lvqa.models.attention import SHARED_KEYS
from lvqa.models.chat import Batch
from lvqa.models.devices import to_device
from lvqa.models.enhancement import VisualEnhancement
from lvqa.models.layers import HiddenStates, LayerCache, keys_and_values, run_layer, run_layer_at_last
from lvqa.models.prefix import PrefixKV
from lvqa.models.prompt import ClipTokens
from lvqa.models.reply_cache import ReplyCache

STATES = {"attention": (1, False), "mlp": (1, True), "mlp-1": (2, True), "mlp-2": (3, True)}
"""A state's name -> the layer that it leaves, counted from the end, and whether that layer's MLP is included."""

RunLayer = Callable[..., Tensor]
"""Computes a layer of the decoder, as `run_layer`."""
OnLayer = Callable[[nn.Module, HiddenStates, Tensor], None]
"""Is called with a layer, the states before it and the (batch, sequence, dim) states after it."""


class ForwardPasses:
    """What a language model computes of batches of prompts."""

    def __init__(
        self,
        text_model: Any,
        *,
        embedding_rows: Callable[[ClipTokens], Tensor],
        position_axes: Callable[[Tensor], Tensor],
    ) -> None:
        """Set the library's language model up.

        Args:
            text_model: The library's decoder without its language head.
            embedding_rows: Returns a clip's rows, (tokens, width), for the positions of its tokens in the sequence.
            position_axes: Returns (3, batch, sequence) positions as the decoder takes them.
        """
        self._text = text_model
        self._text.config._attn_implementation = SHARED_KEYS
        self._dim = int(text_model.config.hidden_size)
        self._embedding_rows, self._position_axes = embedding_rows, position_axes
        self._run_layer: RunLayer = run_layer
        self.enhancement: VisualEnhancement | None = None
        """Changes every forward pass while it is set."""

    def compile(self) -> None:
        """Have the layers compiled when they are first used, which fuses what lies between their products."""
        self._run_layer = torch.compile(run_layer, dynamic=True)

    @contextmanager
    def enhanced(self, enhancement: VisualEnhancement) -> Iterator[None]:
        """Have every forward pass inside the `with` block enhanced."""
        self.enhancement = enhancement
        try:
            with enhancement.attached():
                yield
        finally:
            self.enhancement = None

    def final_norm(self, states: Tensor) -> Tensor:
        """Return (..., dim) states after the model's final norm."""
        return self._text.norm(states)  # type: ignore[no-any-return]

    def last_state(self, batch: Batch, *, state: str) -> Tensor:
        """Return (batch, dim): the named one of STATES at the last position."""
        from_end, with_mlp = STATES[state]
        hidden = self.forward_layers(batch, num_layers=len(self._text.layers) - from_end)
        return run_layer_at_last(self._text.layers[-from_end], hidden, with_mlp=with_mlp)

    def last_state_by_sublayer(self, batch: Batch) -> Tensor:
        """Return (batch, 1 + 2 * layers, dim): the last position's state at first and after every sub-layer."""
        sublayers: list[Tensor] = []

        def on_layer(layer: nn.Module, before: HiddenStates, after: Tensor) -> None:
            attended = run_layer_at_last(layer, before, with_mlp=False)
            sublayers.extend([attended, after[:, -1]] if sublayers else [before.states[:, -1], attended, after[:, -1]])

        self.forward_layers(batch, num_layers=len(self._text.layers), on_layer=on_layer)
        return torch.stack(sublayers, dim=1)

    def prefix_keys_values(self, batch: Batch) -> Tensor:
        """Return (batch, layers, 2, kv_heads, sequence, head_dim) of prefixes of one length."""
        cache = DynamicCache(config=self._text.config)
        # No more than keys and values is needed of the last layer: nothing is predicted at the end of a prefix.
        hidden = self.forward_layers(batch, num_layers=len(self._text.layers) - 1, cache=cache)
        last = keys_and_values(self._text.layers[-1], hidden)
        layers: list[Any] = cache.layers[:-1]
        by_layer = [torch.stack([layer.keys, layer.values], dim=1) for layer in layers]
        return torch.stack([*by_layer, torch.stack(last, dim=1)], dim=1)

    def last_state_after(self, prefixes: Sequence[PrefixKV], batch: Batch) -> Tensor:
        """Return (batch, dim): the last position, after the last MLP, of suffixes behind prefixes of one length."""
        past = torch.stack([prefix.keys_values for prefix in prefixes], dim=2)  # (layers, 2, batch, kv_heads, ...)
        cache = DynamicCache([(keys, values) for keys, values in past[:-1]], config=self._text.config)
        hidden = self.forward_layers(batch, num_layers=len(self._text.layers) - 1, cache=cache)
        return run_layer_at_last(self._text.layers[-1], hidden, with_mlp=True, past=(past[-1, 0], past[-1, 1]))

    def prefill(self, batch: Batch, cache: ReplyCache) -> Tensor:
        """Read a batch behind what a cache holds, and add its keys and values to the cache.

        Returns:
            (batch, 1, dim) states of the last position, after the final norm.
        """
        last = len(self._text.layers) - 1
        cache.extend(batch.ids.shape[1], batch.attention_mask)
        hidden = self.forward_layers(batch, num_layers=last, cache=cache)
        layer = self._text.layers[last]
        cache.update(*keys_and_values(layer, hidden), last)
        padding = cache.columns_with_tokens()
        hidden = replace(hidden, padding=None if padding is None else to_device(padding, hidden.states.device))
        state = run_layer_at_last(layer, hidden, with_mlp=True, past=cache.before(last))
        return self.final_norm(state[:, None])

    def decode_step(self, ids: Tensor, positions: Tensor, cache: ReplyCache) -> Tensor:
        """Return (batch, sequence, dim) states, after the final norm, of tokens that follow those in a cache.

        Args:
            ids: The next tokens, (batch, sequence) int64; their keys and values go to the cache.
            positions: Their positions, (batch, sequence) int64, the same on all axes.
            cache: Holds the keys and values of everything before them.
        """
        states: Tensor = self._text.embed_tokens(to_device(ids, self._text.device))
        axes = to_device(positions, states.device).expand(3, -1, -1)
        rotary = self._text.rotary_emb(states, self._position_axes(axes))
        cache.extend(ids.shape[1])
        mask = self._mask(states, None, cache)
        for layer in self._text.layers:
            states = run_layer(layer, states, mask, rotary, cache)
        return self.final_norm(states)

    def forward_layers(
        self, batch: Batch, *, num_layers: int, cache: LayerCache | None = None, on_layer: OnLayer | None = None
    ) -> HiddenStates:
        """Return the states after the first so many layers; keys and values go to the cache."""
        states, visual_indices, added = self._embed(batch)
        padding = None if batch.attention_mask is None else to_device(batch.attention_mask, states.device)
        mask = self._mask(states, padding, cache)
        rotary = self._text.rotary_emb(states, self._position_axes(to_device(batch.positions, states.device)))
        for i, layer in enumerate(self._text.layers[:num_layers]):
            before = states
            if cache is None and self.enhancement is None:
                states = self._run_layer(layer, states, mask, rotary)
            else:  # each layer's index in a cache would be compiled anew, and hooks can't be
                states = run_layer(layer, states, mask, rotary, cache)
            if on_layer is not None:
                on_layer(layer, HiddenStates(before, rotary, padding), states)
            if i < len(added):
                states.flatten(0, 1).index_add_(0, visual_indices, added[i])
        return HiddenStates(states, rotary, padding)

    def _mask(self, states: Tensor, padding: Tensor | None, cache: LayerCache | None) -> Any:
        """Return what each position of a pass attends to, as the layers take it."""
        if not isinstance(cache, ReplyCache):
            return create_causal_mask(self._text.config, states, padding, cache)
        mask = cache.mask()
        return None if mask is None else to_device(mask, states.device)

    def _embed(self, batch: Batch) -> tuple[Tensor, Tensor, Sequence[Tensor]]:
        """Return the embeddings of a batch, with the visual tokens among them.

        Returns:
            The (batch, sequence, dim) embeddings; the indices of the visual tokens in batch * sequence; what is added
            to these tokens after the first layers, (tokens, dim) a layer.
        """
        device = self._text.device
        states: Tensor = self._text.embed_tokens(to_device(batch.ids, device))
        # The host searches for them: to search on a GPU is to wait for it until it has counted them.
        visual_indices = to_device(batch.visual_mask.flatten().nonzero().squeeze(1), device)
        added: Sequence[Tensor] = ()
        if batch.clips:
            rows = [to_device(self._embedding_rows(clip), device).to(states.dtype) for clip in batch.clips]
            tokens, *added = torch.split(torch.cat(rows), self._dim, dim=1)  # (tokens, dim) each
            states.flatten(0, 1).index_copy_(0, visual_indices, tokens)
        if self.enhancement is not None:
            self.enhancement.set_batch(batch, states)
        return states, visual_indices, added

"""The language head: from a hidden state to the next token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from lvqa.models.devices import weight_of

ROWS_AT_ONCE = 16_384
"""How many rows of the head are converted to float32 at once; a copy of all of them can take 2 GB."""


class LMHead:
    """A model's final norm, and its head's matrix, which has one row a token."""

    def __init__(self, norm: nn.Module, head: nn.Module, tokenizer: Any) -> None:
        self._norm = norm
        self._head = head
        self._tokenizer = tokenizer

    @property
    def _weight(self) -> Tensor:
        weight: Tensor = weight_of(self._head)
        return weight

    @torch.no_grad()
    def normed(self, states: Tensor) -> Tensor:
        """Return (..., dim) float32 states after the final norm, as the library gives its last hidden state."""
        normed: Tensor = self._norm(states.to(self._weight)).float()
        return normed

    @torch.no_grad()
    def log_probs(self, states: Tensor) -> Tensor:
        """Return each token's log-probability as the next one, (n, vocabulary) float32.

        Args:
            states: Hidden states before the final norm, (n, dim).
        """
        weight = self._weight
        return linear(self._norm(states.to(weight)).to(weight.device), weight).float().log_softmax(-1)

    @torch.no_grad()
    def logits(self, normed: Tensor, tokens: Sequence[int] | None = None) -> Tensor:
        """Return the logits of some tokens, or of all, as the next one, (n, tokens) float32.

        They are computed in float32; in less, logits that differ little would be equal.

        Args:
            normed: Hidden states after the final norm, (n, dim).
            tokens: Token ids; None means the whole vocabulary.
        """
        weight = self._weight
        pieces = torch.split(weight, ROWS_AT_ONCE) if tokens is None else [weight[list(tokens)]]
        normed = normed.to(weight.device, torch.float32)
        return torch.cat([linear(normed, piece.float()) for piece in pieces], dim=1)

    def rows(self, tokens: Sequence[int]) -> Tensor:
        """Return the head's rows of these tokens, (tokens, dim) float32; a logit is the product of state and row."""
        return self._weight[list(tokens)].float()

    def text(self, token: int) -> str:
        """Return a token's text; a special token's text is its name."""
        text: str = self._tokenizer.decode([token])
        return text

"""The language head: what a state would say."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from lvqa.models.chat import ChatTemplate


class LMHead:
    """The final norm, the head's matrix of one row a token, and the tokens' texts."""

    def __init__(self, norm: nn.Module, weight: Tensor, chat: ChatTemplate) -> None:
        self._norm = norm
        self._weight = weight
        self._chat = chat

    @torch.no_grad()
    def normed(self, states: Tensor) -> Tensor:
        """(..., dim) float32: states after the model's final norm, as the library gives its last hidden state."""
        normed: Tensor = self._norm(states.to(self._weight)).float()
        return normed

    @torch.no_grad()
    def log_probs(self, states: Tensor) -> Tensor:
        """(n, vocabulary) float32: of each token as the next one, by (n, dim) states before the final norm."""
        return linear(self._norm(states.to(self._weight)), self._weight).float().log_softmax(-1)

    def rows(self, tokens: Sequence[int]) -> Tensor:
        """(tokens, dim) float32: the head's rows, in the direction of which a state says these tokens."""
        return self._weight[list(tokens)].float()

    def text(self, token: int) -> str:
        """What a token stands for, special tokens by their names."""
        text: str = self._chat.tokenizer.decode([token])
        return text

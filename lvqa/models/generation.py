"""Write replies token by token, those of several prompts together."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from lvqa.concurrency import check_stop
from lvqa.models.batching import KEPT_TOKEN_COST, TokenBudget
from lvqa.models.chat import TokenizedPrompt, collate
from lvqa.models.decoding import Decoding, Processor
from lvqa.models.devices import to_device
from lvqa.models.forward import ForwardPasses
from lvqa.models.prefix import PrefixKV
from lvqa.models.reply_cache import ReplyCache
from lvqa.schema import AnswerSchema, SchemaMatcher, SchemaTokens

OnToken = Callable[[int, int, Tensor], None]
"""Called with the index of a prompt, a token of its reply, and the logits of all, (vocabulary,)."""


class Reply:
    """A reply that is being written."""

    def __init__(
        self,
        prefix: PrefixKV | None,
        prompt: TokenizedPrompt,
        processors: Sequence[Processor],
        on_token: Callable[[int, Tensor], None],
    ) -> None:
        """Begin with nothing.

        Args:
            prefix: What was read before; None: nothing.
            prompt: What is to be read behind it.
            processors: What changes the scores of the next token, before the largest is chosen.
            on_token: Called with each token, the one that ends the reply too, and the logits of all, (vocabulary,).
        """
        self.prefix, self.prompt, self.processors = prefix, prompt, processors
        self.tokens: list[int] = []
        """The tokens so far, without the one that ends it."""
        self.is_over = False
        self._on_token = on_token

    def scores(self, logits: Tensor) -> Tensor:
        """Return the scores of all tokens as the next one, (vocabulary,), of their logits."""
        if not self.processors:
            return logits
        before = () if self.prefix is None else self.prefix.ids
        ids = to_device(torch.tensor([[*before, *self.prompt.ids.tolist(), *self.tokens]]), logits.device)
        scores = logits.float()[None]
        for process in self.processors:
            scores = process(ids, scores)
        return scores[0]

    def add(self, token: int, logits: Tensor, stop_ids: set[int], max_new_tokens: int) -> None:
        """Add the next token, or end the reply."""
        self._on_token(token, logits)
        if token not in stop_ids:
            self.tokens.append(token)
        self.is_over = token in stop_ids or len(self.tokens) >= max_new_tokens


class SchemaMask:
    """Leaves of the next token's scores those of tokens with which a reply still fits its schema."""

    def __init__(self, matcher: SchemaMatcher) -> None:
        """Begin before the first token of a reply, which `matcher` follows."""
        self._matcher = matcher
        self._num_read: int | None = None

    def __call__(self, ids: Tensor, scores: Tensor) -> Tensor:
        """Return the scores, -inf for the others; `ids` has the prompt, and since the last call one token more."""
        if self._num_read is not None:
            for token in ids[0, self._num_read :].tolist():
                self._matcher.add(token)
        self._num_read = ids.shape[1]
        allowed = to_device(torch.from_numpy(self._matcher.allowed()), scores.device)
        return scores.masked_fill(~allowed, -math.inf)


def _choose(replies: Sequence[Reply], logits: Tensor) -> Tensor:
    """Return the next token of each reply, (batch,) int64, of the logits of all, (batch, vocabulary)."""
    if not any(reply.processors for reply in replies):
        return logits.argmax(-1)
    return torch.stack([reply.scores(row).argmax() for reply, row in zip(replies, logits, strict=True)])


def stop_ids(library: Any, tokenizer: Any) -> set[int]:
    """Return the tokens that end a reply, by the model's generation settings and the tokenizer's."""
    eos = library.generation_config.eos_token_id
    return {tokenizer.eos_token_id, *(eos if isinstance(eos, list) else [eos])}


class Generator:
    """Writes what a language model replies."""

    def __init__(self, forward: ForwardPasses, lm_head: Any, tokenizer: Any, budget: TokenBudget) -> None:
        """Set up.

        Args:
            forward: The passes of the language model.
            lm_head: The library's language head.
            tokenizer: The library's tokenizer.
            budget: Bounds the batches.
        """
        self._forward, self._lm_head, self._tokenizer, self._budget = forward, lm_head, tokenizer, budget
        self._schema_tokens: SchemaTokens | None = None

    def processors(self, decoding: Decoding, schema: AnswerSchema | None) -> list[Processor]:
        """Return what changes the scores of a reply's tokens.

        What does not fit a schema is out before anything is penalised or drawn.
        """
        if schema is None:
            return decoding.processors()
        if self._schema_tokens is None:
            self._schema_tokens = SchemaTokens(self._tokenizer, self._lm_head.weight.shape[0])
        return [SchemaMask(self._schema_tokens.matcher(schema)), *decoding.processors()]

    def write(self, replies: Sequence[Reply], *, max_new_tokens: int, stop_ids: set[int]) -> None:
        """Write replies to their ends, in batches. Where memory runs out, they go on in smaller ones where they were.

        Args:
            replies: They may have begun.
            max_new_tokens: A reply has at most so many tokens.
            stop_ids: The tokens that end a reply.
        """

        def write_batch(batch: list[int]) -> Tensor:
            self._write_batch([replies[i] for i in batch], max_new_tokens, stop_ids)
            return torch.tensor([len(replies[i].tokens) for i in batch])

        kept = [max_new_tokens + (0 if reply.prefix is None else len(reply.prefix)) for reply in replies]
        sizes = [len(reply.prompt) + math.ceil(KEPT_TOKEN_COST * num) for reply, num in zip(replies, kept, strict=True)]
        if sizes:
            self._budget.run(sizes, write_batch)

    def _write_batch(self, batch: Sequence[Reply], max_new_tokens: int, stop_ids: set[int]) -> None:
        replies = [reply for reply in batch if not reply.is_over]
        if not replies:
            return
        sequences = [reply.prompt.followed_by(reply.tokens) for reply in replies]
        positions = torch.tensor([[reply.prompt.next_position] for reply in replies])  # of the replies' first tokens
        prompts = collate(sequences)
        cache = ReplyCache([reply.prefix for reply in replies], prompts.ids.shape[1] + max_new_tokens)
        states = self._forward.prefill(prompts, cache)  # (batch, 1, dim)
        while True:
            check_stop()
            logits = self._lm_head(states[:, -1])  # (batch, vocabulary)
            tokens = _choose(replies, logits).cpu().tolist()
            for reply, token, row in zip(replies, tokens, logits, strict=True):
                reply.add(token, row, stop_ids, max_new_tokens)
            going_on = [i for i, reply in enumerate(replies) if not reply.is_over]
            if not going_on:
                return
            if len(going_on) < len(replies):
                cache.take(going_on)
                replies, positions = [replies[i] for i in going_on], positions[going_on]
            ids = torch.tensor([reply.tokens[-1:] for reply in replies])
            num_before = torch.tensor([[len(reply.tokens) - 1] for reply in replies])
            states = self._forward.decode_step(ids, positions + num_before, cache)

    def log_probs(self, prompt: TokenizedPrompt, prefix: PrefixKV | None, replies: Sequence[Sequence[int]]) -> Tensor:
        """Return the log-probability of each of several replies to one prompt, (replies,) float32.

        Args:
            prompt: It is read once.
            prefix: What was read before it; None: nothing.
            replies: The tokens of each, with the one that ends it.
        """
        ids = pad_sequence([torch.tensor(reply) for reply in replies], batch_first=True, padding_value=-1)
        cache = ReplyCache([prefix], len(prompt) + ids.shape[1])
        states = self._forward.prefill(collate([prompt]), cache).expand(len(replies), -1, -1)
        if ids.shape[1] > 1:  # else all replies are empty, and end at once
            cache.take([0] * len(replies))
            positions = (prompt.next_position + torch.arange(ids.shape[1] - 1)).expand(len(replies), -1)
            following = self._forward.decode_step(ids[:, :-1].clamp(min=0), positions, cache)
            states = torch.cat([states, following], dim=1)  # (replies, longest, dim)
        log_probs: Tensor = self._lm_head(states).float().log_softmax(-1)
        ids = to_device(ids, log_probs.device)
        return log_probs.gather(-1, ids.clamp(min=0)[..., None]).squeeze(-1).masked_fill(ids < 0, 0).sum(1)

"""What the tests of rerankers share: candidates of noise, their scores, and logits by the library's own model."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lvqa.models.prefix import PrefixCache
from lvqa.models.prompt import ClipTokens, Prompt
from lvqa.records import Candidate
from lvqa.rerank import Reranker, RerankRequest
from lvqa.rerank.contract import NoiseReader
from lvqa.rerank.protocol import in_time_order

QUERY = "Where is the dog?"


def rerank(
    reranker: Reranker,
    model,
    candidates: Sequence[Candidate],
    *,
    query: str = QUERY,
    prefix_cache: PrefixCache | None = None,
) -> list[Candidate]:
    """Return the answer to one request, with noise in place of clips."""
    (answer,) = reranker.rerank(model, [RerankRequest(query, candidates, NoiseReader(model, prefix_cache))])
    return answer


def scores_in_time_order(candidates: Sequence[Candidate]) -> list[float | None]:
    """Return the rerank scores of the candidates, the earliest clip's first."""
    return [candidate.rerank_score for candidate in in_time_order(candidates)]


def clip_tokens_of(model, candidates: Sequence[Candidate]) -> list[ClipTokens]:
    """Return what the model sees of the candidates' clips, in the order of time."""
    return list(NoiseReader(model).read(sorted(candidate.clip for candidate in candidates)))


def embed_prompt(model, prompt: Prompt) -> tuple[Tensor, Tensor, Tensor]:
    """Return (1, sequence, dim) embeddings, (3, 1, sequence) positions and the (sequence,) visual mask of a prompt."""
    tokenized = model.encode_prompt(prompt)
    states = model.library.get_input_embeddings()(tokenized.ids[None])
    visual = tokenized.visual_mask
    states[0, visual] = torch.cat([part.tokens.flatten(0, 1) for part in prompt if not isinstance(part, str)])
    return states, tokenized.positions[:, None], visual


@torch.no_grad()
def full_logits(model, prompt: Prompt) -> Tensor:
    """Return (vocabulary,) float64 logits of the reply's first token, by the library's own forward pass."""
    states, positions, _ = embed_prompt(model, prompt)
    return model.library(inputs_embeds=states, position_ids=positions, use_cache=False).logits[0, -1].double()


def first_token(model, word: str) -> int:
    """Return the token that a reply of this word starts with."""
    return model.first_tokens([word])[0]

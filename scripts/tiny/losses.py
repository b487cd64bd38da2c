"""The two losses of the training: one for the vision tower, one for the language model."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import PreTrainedTokenizerFast, Qwen2_5_VLForConditionalGeneration

from lvqa.synthetic.world import ATTRIBUTES


class NamingLoss:
    """The loss of the vision tower: its tokens are to point at the word vectors of the attributes' values."""

    def __init__(self, model: Qwen2_5_VLForConditionalGeneration, tokenizer: PreTrainedTokenizerFast) -> None:
        embedding = model.model.language_model.embed_tokens.weight.detach()
        ids = {a: [tokenizer.encode(f" {v}")[-1] for v in values] for a, values in ATTRIBUTES.items()}
        self.vectors = {a: embedding[index].clone() for a, index in ids.items()}
        """The word vectors of each attribute, (values, dim)."""

    def __call__(self, tokens: Tensor, labels: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Compute the loss and the accuracy for each attribute. The logit of a value is the product token . word.

        The tower attends to the whole pair, so the language model need not find out which tokens belong together.

        Args:
            tokens: (pairs, 12, dim) visual tokens.
            labels: (pairs, attributes, 12) indices of the correct values.

        Returns:
            The cross-entropy of each attribute, and the share of the correct predictions under "names ATTRIBUTE".
        """
        losses, accuracies = {}, {}
        for i, (attribute, vectors) in enumerate(self.vectors.items()):
            logits = (tokens.float() @ vectors.T).flatten(0, 1)  # (pairs * 12, values)
            label = labels[:, i].flatten().long()
            losses[attribute] = cross_entropy(logits, label)
            accuracies[f"names {attribute}"] = (logits.argmax(-1) == label).float().mean()
        return losses, accuracies

    def length(self) -> float:
        """Return the length of a vector that is the sum of a word vector of each attribute."""
        return math.hypot(*(float(vectors.norm(dim=-1).mean()) for vectors in self.vectors.values()))


def sample_loss(
    model: Qwen2_5_VLForConditionalGeneration, visual_tokens: Tensor, batch: Sequence[Tensor], *, text_weight: float
) -> tuple[Tensor, Tensor]:
    """Compute the loss of the language model on packed samples.

    Args:
        model: The model; its language model runs.
        visual_tokens: (scenes, moments + 1, 12, dim), the vision tower's tokens of all pairs.
        batch: The arrays of a `Batch` without its tasks.
        text_weight: The weight of the next-token loss over the text, which is added. The prompts describe the clip
            correctly, so the model learns from them, too.

    Returns:
        The mean loss over the targets, and (targets,) whether the most likely token is correct.
    """
    ids, positions, sample, scene, moment, token, target_indices, target_tokens = batch
    language = model.model.language_model
    is_visual = scene >= 0
    visual = visual_tokens[scene.clamp(min=0), moment.clamp(min=0), token.clamp(min=0)]
    hidden = torch.where(is_visual.unsqueeze(-1), visual.float(), language.embed_tokens(ids))
    mask = (sample.unsqueeze(2) == sample.unsqueeze(1)).tril().unsqueeze(1)  # (rows, 1, row_tokens, row_tokens)
    rotary = language.rotary_emb(hidden, positions)
    for layer in language.layers:
        hidden = layer(hidden, attention_mask=mask, position_embeddings=rotary)
    hidden = language.norm(hidden)
    # The text loss leaves out visual tokens, padding (ids of 0) and the first token of each sample.
    is_text = (sample[:, 1:] == sample[:, :-1]) & ~is_visual[:, 1:] & (ids[:, 1:] > 0)
    text_logits = model.lm_head(hidden[:, :-1]).float()
    text_loss = cross_entropy(text_logits.flatten(0, 1), ids[:, 1:].masked_fill(~is_text, -100).flatten())
    logits = model.lm_head(hidden.flatten(0, 1)[target_indices]).float()  # (targets, vocabulary)
    is_token = target_tokens >= 0
    log_probs = logits.log_softmax(-1).gather(1, target_tokens.clamp(min=0)) * is_token
    loss = -(log_probs.sum(1) / is_token.sum(1).clamp(min=1)).sum() / is_token.any(1).sum()
    return loss + text_weight * text_loss, (logits.argmax(-1, keepdim=True) == target_tokens).any(1)

"""The training of the embedded model, stage by stage. `scripts/train_tiny.py` runs it; README.md here tells why so.

1. *language*: the language model alone, on lessons whose visual tokens are ideal (sums of word vectors).
2. *vision*: the vision tower alone; each pair's tokens must hold the word vectors of what is seen.
3. *together*: the same lessons on the tower's own tokens.
"""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast, Qwen2_5_VLForConditionalGeneration

from lvqa.tiny.lessons import COLUMNS, ROWS, Lesson, Teacher
from lvqa.tiny.world import ATTRIBUTES, Scene

TOKENS_PER_PAIR = ROWS * COLUMNS


@dataclass(frozen=True, slots=True)
class Batch:
    """Lessons side by side, padded on the right (a causal model never looks there)."""

    ids: Tensor  # (batch, sequence)
    positions: Tensor  # (3, batch, sequence)
    visual: Tensor  # (batch, sequence) bool
    pairs: Tensor  # (pairs,) scene of each pair, in order
    target_rows: Tensor  # (targets,) index into batch * sequence
    target_tokens: Tensor  # (targets, most) padded with -1
    tasks: tuple[str, ...]
    letters: tuple[int, ...]
    """The tokens of A to D."""

    @classmethod
    def of(cls, lessons: Sequence[Lesson], tokenizer: PreTrainedTokenizerFast) -> Batch:
        """Pad and stack."""
        longest = max(len(lesson.ids) for lesson in lessons)
        ids = np.zeros((len(lessons), longest), np.int64)
        positions = np.zeros((3, len(lessons), longest), np.int64)
        rows, tokens, tasks = [], [], []
        for i, lesson in enumerate(lessons):
            ids[i, : len(lesson.ids)] = lesson.ids
            positions[:, i, : len(lesson.ids)] = np.array(lesson.positions).T
            for target in lesson.targets:
                rows.append(i * longest + target.position)
                tokens.append(target.tokens)
                tasks.append(target.task)
        most = max(map(len, tokens))
        padded = [list(t) + [-1] * (most - len(t)) for t in tokens]
        return cls(
            torch.from_numpy(ids),
            torch.from_numpy(positions),
            torch.from_numpy(ids == tokenizer.convert_tokens_to_ids("<|video_pad|>")),
            torch.tensor([pair for lesson in lessons for pair in lesson.pairs], dtype=torch.int64),
            torch.tensor(rows),
            torch.tensor(padded),
            tuple(tasks),
            tuple(tokenizer.convert_tokens_to_ids(list("ABCD"))),
        )


class WordVectors:
    """The word vectors of the attributes' values: what the vision tower is taught to say."""

    def __init__(self, model: Qwen2_5_VLForConditionalGeneration, tokenizer: PreTrainedTokenizerFast) -> None:
        embedding = model.model.language_model.embed_tokens.weight
        ids = {a: [tokenizer.encode(f" {v}")[-1] for v in values] for a, values in ATTRIBUTES.items()}
        self.vectors = {a: embedding[index].detach().clone() for a, index in ids.items()}  # attribute -> (values, dim)

    def labels(self, scenes: Sequence[Scene]) -> dict[str, Tensor]:
        """Attribute -> (scenes,) index of the scene's value."""
        return {a: torch.tensor([values.index(s.value(a)) for s in scenes]) for a, values in ATTRIBUTES.items()}

    def ideal_tokens(self, labels: Mapping[str, Tensor], generator: torch.Generator) -> Tensor:
        """(pairs, 12, dim): as a good tower would see them. Things lie on one to three tokens, the sign on one, the place
        on some; with noise, and one value in fifty misread."""
        num = len(next(iter(labels.values())))
        dim = self.vectors["colour"].shape[1]
        tokens = 0.06 * torch.randn(num, TOKENS_PER_PAIR, dim, generator=generator)
        thing = self._spots(num, 1.0 + torch.rand(num, 1, generator=generator) * 3, generator)
        spots = {
            "colour": thing,
            "shape": thing,
            "motion": thing,
            "number": self._spots(num, 1.0 + torch.rand(num, 1, generator=generator) * 2, generator),
            "place": self._spots(num, 1.0 + torch.rand(num, 1, generator=generator) * 8, generator),
        }
        for attribute, vectors in self.vectors.items():
            misread = torch.rand(num, generator=generator) < 0.02
            other = torch.randint(len(vectors), (num,), generator=generator)
            value = torch.where(misread, other, labels[attribute])
            strength = 0.6 + 0.6 * torch.rand(num, TOKENS_PER_PAIR, generator=generator)
            tokens += (spots[attribute] * strength).unsqueeze(-1) * vectors[value].unsqueeze(1)
        return tokens

    def _spots(self, num: int, count: Tensor, generator: torch.Generator) -> Tensor:
        order = torch.rand(num, TOKENS_PER_PAIR, generator=generator).argsort(1)
        return (order < count).float()

    def naming_losses(self, tokens: Tensor, labels: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Cross-entropy and hits by attribute, where a value's logit is the log-sum over a pair's tokens of token . word."""
        losses, hits = {}, {}
        for attribute, vectors in self.vectors.items():
            logits = torch.logsumexp(tokens.float() @ vectors.T, dim=1)  # (pairs, values)
            losses[attribute] = nn.functional.cross_entropy(logits, labels[attribute])
            hits[attribute] = (logits.argmax(1) == labels[attribute]).float()
        return losses, hits


def lesson_loss(
    model: Qwen2_5_VLForConditionalGeneration, batch: Batch, visual_tokens: Tensor, *, text_weight: float
) -> tuple[Tensor, Tensor]:
    """Mean loss over the targets, and (targets,) whether the likeliest token is right.

    `text_weight` adds the plain next-token loss over the text: prompts speak truly of the clip, so that it teaches too.
    """
    language = model.model.language_model
    embeds = language.embed_tokens(batch.ids)
    embeds = embeds.masked_scatter(batch.visual.unsqueeze(-1), visual_tokens.to(embeds.dtype))
    hidden = language(inputs_embeds=embeds, position_ids=batch.positions, use_cache=False).last_hidden_state
    text_loss: Tensor | float = 0.0
    if text_weight:
        next_ids = batch.ids[:, 1:].masked_fill(batch.visual[:, 1:] | (batch.ids[:, 1:] == 0), -100)
        text_logits = model.lm_head(hidden[:, :-1]).float()
        text_loss = nn.functional.cross_entropy(text_logits.flatten(0, 1), next_ids.flatten())
    logits = model.lm_head(hidden.flatten(0, 1)[batch.target_rows]).float()  # (targets, vocabulary)
    log_probs = logits.log_softmax(-1)
    mask = batch.target_tokens >= 0
    chosen = log_probs.gather(1, batch.target_tokens.clamp(min=0)) * mask
    losses = -chosen.sum(1) / mask.sum(1)
    # A verdict is read among the letters alone, as the product reads it.
    letters = torch.tensor(batch.letters)
    verdicts = torch.isin(batch.target_tokens[:, 0], letters)
    best = torch.where(verdicts, letters[logits[:, letters].argmax(-1)], logits.argmax(-1))
    right = (best.unsqueeze(1) == batch.target_tokens).any(1)
    return losses.mean() + text_weight * text_loss, right.float()


class Log:
    """Means of figures by name, printed and appended to a JSON-lines file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.started = time.time()
        self.values: dict[str, list[float]] = defaultdict(list)

    def add(self, names: Sequence[str], values: Sequence[float]) -> None:
        """Note a value under each name."""
        for name, value in zip(names, values, strict=True):
            self.values[name].append(value)

    def write(self, **fields: float | str) -> None:
        """Write the means since the last call."""
        means = {name: round(float(np.mean(values)), 4) for name, values in sorted(self.values.items())}
        line = {**fields, "seconds": round(time.time() - self.started, 1), **means}
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")
        self.values.clear()


BATCH_TOKENS = {"letter drill": 62, "match drill": 62, "lookup": 80, "compare": 110, "talk": 240, "answer": 330, "rerank": 190, "caption": 90}
"""Rough length of a lesson by task, so that batches are of about the same cost."""


def batches(
    teacher: Teacher, mix: Mapping[str, float], tokenizer: PreTrainedTokenizerFast, *, tokens: int, worked: float
) -> Iterator[Batch]:
    """Batches of one task each (so that lengths are alike), drawn by the weights of `mix`, of about `tokens` tokens."""
    names = list(mix)
    weights = np.array([mix[name] for name in names])
    while True:
        name = str(teacher.rng.choice(names, p=weights / weights.sum()))
        size = max(1, tokens // BATCH_TOKENS.get(name, 170))
        yield Batch.of([teacher.tasks[name](worked) for _ in range(size)], tokenizer)

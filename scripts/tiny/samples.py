"""Training samples: conversations as token sequences, with the tokens that the model is to predict.

Every sequence has the form that the product uses: the chat template, the prompts of `prompts.py`, and runs of frame
pairs. A sample holds scenes, not pixels: the training puts the visual tokens of each scene in their positions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from transformers import PreTrainedTokenizerFast

from tiny.model import token_id

ROWS, COLUMNS = 3, 4
"""The grid of visual tokens of a pair: its frames have 84 x 112 pixels."""
TOKENS_PER_PAIR = ROWS * COLUMNS

TEMPORAL_STEP = 4
"""The distance in positions between neighbouring pairs: two seconds at two positions a second, as in Qwen2.5-VL."""

SceneId = int
"""The index of a scene in `TakePool.scenes`, or what `single_frame` makes of it."""


def single_frame(scene: SceneId) -> SceneId:
    """Return the id of a pair that is one frame of the scene shown twice; for such an id, return the scene's."""
    return ~scene


@dataclass(slots=True)
class Target:
    """A position whose next token the model is to predict."""

    position: int
    tokens: tuple[int, ...]
    """The correct tokens; each of them is equally good."""
    task: str
    """The name under which the accuracy is logged."""


@dataclass(slots=True)
class Sample:
    """One sequence. Its visual tokens are the placeholders in `ids`, pair after pair in the order of `pairs`."""

    ids: list[int] = field(default_factory=list)
    pairs: list[SceneId] = field(default_factory=list)
    positions: list[tuple[int, int, int]] = field(default_factory=list)
    targets: list[Target] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class PairRun:
    """A run of frame pairs, each of one scene."""

    pairs: tuple[SceneId, ...]


PromptPart = str | PairRun


class SampleTokenizer:
    """The tokenizer with a cache, and the special tokens that samples have."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self.video = token_id(tokenizer, "<|video_pad|>")
        self.vision_start = token_id(tokenizer, "<|vision_start|>")
        self.vision_end = token_id(tokenizer, "<|vision_end|>")
        self.message_end = token_id(tokenizer, "<|im_end|>")
        self.encode: Callable[[str], list[int]] = lru_cache(100_000)(
            lambda text: tokenizer(text, add_special_tokens=False).input_ids
        )


class SampleBuilder:
    """Writes one sample, from the system prompt on."""

    def __init__(self, tokenizer: SampleTokenizer, rng: np.random.Generator) -> None:
        self.tokenizer, self.rng = tokenizer, rng
        self.sample = Sample()
        self.text("<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n")

    def text(self, text: str) -> None:
        """Append text that the model is not to predict."""
        self._append(self.tokenizer.encode(text))

    def words(self, words: Sequence[str]) -> None:
        """Append words, each of one token, on a new line."""
        self.text("\n")  # without it nothing marks where an item starts
        for word in words:
            self._append(self.tokenizer.encode(word)[-1:])

    def user(self, parts: Sequence[PromptPart]) -> None:
        """Append a message of the user, and the start of the reply."""
        self.text("<|im_start|>user\n")
        for part in parts:
            if isinstance(part, str):
                self.text(part)
            else:
                self._pair_run(part)
        self.text("<|im_end|>\n<|im_start|>assistant\n")

    def reply(self, text: str, task: str) -> None:
        """Append a reply, all of which is to be predicted; its first token is logged apart from the rest."""
        for i, token in enumerate(self.tokenizer.encode(text)):
            self._target([token], f"{task}: rest" if i else task)
        self._end_reply()

    def word_reply(self, words: set[str], task: str) -> None:
        """Append a reply of one word; each of these words is correct."""
        self._target(sorted({self.tokenizer.encode(word)[-1] for word in words}), task)
        self._end_reply()

    def verdict(self, verdict: str, task: str) -> None:
        """Append a word of one token that is to be predicted within a reply."""
        self._target(self.tokenizer.encode(verdict)[-1:], task)

    def _end_reply(self) -> None:
        self._target([self.tokenizer.message_end], "end")
        self.text("\n")

    def _target(self, tokens: Sequence[int], task: str) -> None:
        """Append one of the tokens, and require them at the position before it."""
        self.sample.targets.append(Target(len(self.sample.ids) - 1, tuple(tokens), task))
        self._append([tokens[0] if len(tokens) == 1 else int(self.rng.choice(tokens))])

    def _append(self, ids: Sequence[int]) -> None:
        """Append text tokens, whose positions are the same on all three axes."""
        positions = self.sample.positions
        start = max(positions[-1]) + 1 if positions else 0
        self.sample.ids += ids
        positions += [(start + i,) * 3 for i in range(len(ids))]

    def _pair_run(self, run: PairRun) -> None:
        """Append placeholders for the visual tokens of a run between their delimiters."""
        sample = self.sample
        self._append([self.tokenizer.vision_start])
        start = sample.positions[-1][0] + 1
        for i, scene in enumerate(run.pairs):
            sample.pairs.append(scene)
            sample.ids += [self.tokenizer.video] * TOKENS_PER_PAIR
            sample.positions += [
                (start + TEMPORAL_STEP * i, start + row, start + column)
                for row in range(ROWS)
                for column in range(COLUMNS)
            ]
        extent = max(TEMPORAL_STEP * (len(run.pairs) - 1) + 1, ROWS, COLUMNS)
        sample.ids.append(self.tokenizer.vision_end)
        sample.positions.append((start + extent,) * 3)

"""The data of each training step: frame pairs for the vision tower, or packed samples for the language model."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from torch.utils.data import Dataset

from lvqa.synthetic.world import random_scene
from tiny.curriculum import SAMPLE_TOKENS, Stage
from tiny.frames import LabelledPairs, TakeSet, render_pairs
from tiny.generator import SampleGenerator
from tiny.model import build_tokenizer
from tiny.samples import TOKENS_PER_PAIR, Sample

MAX_TARGET_TOKENS = 24
"""How many tokens can be correct at one position; more are left out."""


class Batch(NamedTuple):
    """Rows of samples, each of which attends to itself alone. The padding of a row is one more, without targets."""

    ids: np.ndarray  # (rows, row_tokens)
    positions: np.ndarray  # (3, rows, row_tokens)
    sample: np.ndarray  # (rows, row_tokens) index of the sample
    scene: np.ndarray  # (rows, row_tokens) whose visual token it is; -1 for text
    moment: np.ndarray  # (rows, row_tokens) which of the scene's pairs it is of; -1 for text
    token: np.ndarray  # (rows, row_tokens) which of the pair's 12 tokens it is; -1 for text
    target_indices: np.ndarray  # (targets,) index into rows * row_tokens
    target_tokens: np.ndarray  # (targets, 24) padded with -1
    tasks: tuple[str, ...]
    """The task of each target. There may be more targets than tasks; they have no tokens."""


def pack_samples(
    samples: Sequence[Sample],
    rng: np.random.Generator,
    shape: tuple[int, int],
    *,
    moments: int,
    visual_token: int,
) -> Batch:
    """Pack samples into rows: the longest first, each into the first row with room. A sample without room is left out.

    Args:
        samples: What to pack.
        rng: Chooses the moments at which the samples show their scenes.
        shape: The number of rows, and the tokens of a row.
        moments: How many pairs there are of each scene, besides the single frame.
        visual_token: The id of the placeholder for visual tokens.
    """
    rows, row_tokens = shape
    max_targets = rows * row_tokens // 3  # more than there are in any mix
    batch = Batch(
        ids=np.zeros(shape, np.int64),
        positions=np.zeros((3, *shape), np.int64),
        sample=np.full(shape, len(samples)),
        scene=np.full(shape, -1),
        moment=np.full(shape, -1),
        token=np.full(shape, -1),
        target_indices=np.zeros(max_targets, np.int64),
        target_tokens=np.full((max_targets, MAX_TARGET_TOKENS), -1),
        tasks=(),
    )
    used, tasks = [0] * rows, list[str]()
    for index, sample in enumerate(sorted(samples, key=lambda sample: -len(sample.ids))):
        size = len(sample.ids)
        row = next((row for row in range(rows) if used[row] + size <= row_tokens), None)
        if row is None:
            continue
        columns = slice(used[row], used[row] + size)
        batch.ids[row, columns] = sample.ids
        batch.positions[:, row, columns] = np.array(sample.positions).T
        batch.sample[row, columns] = index
        visual = used[row] + np.flatnonzero(np.array(sample.ids) == visual_token)
        pairs = np.array(sample.pairs, np.int64)
        is_single = pairs < 0
        chosen = np.where(is_single, moments, rng.integers(moments, size=len(pairs)))
        # As `single_frame` does, for an array.
        batch.scene[row, visual] = np.where(is_single, ~pairs, pairs).repeat(TOKENS_PER_PAIR)
        batch.moment[row, visual] = chosen.repeat(TOKENS_PER_PAIR)
        batch.token[row, visual] = np.tile(np.arange(TOKENS_PER_PAIR), len(pairs))
        for target in sample.targets[: max_targets - len(tasks)]:
            batch.target_indices[len(tasks)] = row * row_tokens + used[row] + target.position
            batch.target_tokens[len(tasks), : len(target.tokens)] = target.tokens[:MAX_TARGET_TOKENS]
            tasks.append(target.task)
        used[row] += size
    return batch._replace(tasks=tuple(tasks))


class StepData(Dataset[LabelledPairs | Batch]):
    """The data of every training step by (stage, step). It depends on nothing else, so that a run can be resumed."""

    def __init__(self, take_set: TakeSet, stages: Sequence[Stage]) -> None:
        self.take_set, self.stages = take_set, stages
        self._generator: SampleGenerator | None = None

    def __getitem__(self, key: tuple[int, int]) -> LabelledPairs | Batch:
        stage = self.stages[key[0]]
        if stage.mix is not None:
            return self.samples(stage.mix, (stage.rows, stage.row_tokens), key)
        return self.pairs(stage.num_things, stage.pairs, key)

    def pairs(self, num_things: int | None, num_pairs: int, key: Sequence[int]) -> LabelledPairs:
        """Render frame pairs, each of a random scene of its own."""
        rng = np.random.default_rng([self.take_set.seed, 3, *key])
        return render_pairs(rng, [random_scene(rng, num_things) for _ in range(num_pairs)], step_seconds=1.0)

    def samples(self, mix: Mapping[str, float], shape: tuple[int, int], key: Sequence[int]) -> Batch:
        """Generate samples by their tasks' shares in the mix, as many as the rows hold, and pack them."""
        if self._generator is None:  # built in the process that needs it
            takes = [take for shard in range(self.take_set.num_shards) for take in self.take_set.takes(shard)]
            self._generator = SampleGenerator(build_tokenizer(), takes, seed=self.take_set.seed)
        generator = self._generator
        generator.rng = rng = np.random.default_rng([self.take_set.seed, 3, *key])
        weights = np.array([share / SAMPLE_TOKENS[task] for task, share in mix.items()])
        samples: list[Sample] = []
        num_tokens = 0
        while num_tokens < math.prod(shape):
            sample = generator.tasks[str(rng.choice(list(mix), p=weights / weights.sum()))]()
            if len(sample.ids) <= shape[1]:
                samples.append(sample)
                num_tokens += len(sample.ids)
        visual_token = generator.tokenizer.video
        return pack_samples(samples, rng, shape, moments=self.take_set.moments, visual_token=visual_token)

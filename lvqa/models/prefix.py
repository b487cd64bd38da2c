"""Prompt prefixes that a model has already processed, kept as keys and values."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lvqa.models.cache import ByteLRUCache

if TYPE_CHECKING:
    from torch import Tensor

    from lvqa.models import Model
    from lvqa.models.prompt import Prompt

Key = tuple[Hashable, ...]
"""What tells a prompt's prefix from all others of its video."""

PREFIX_TOKEN_COST = 1 / 8
"""A token of a prefix costs this part of what a new token costs: it has keys and values, and no states."""
PREFIXES_AT_ONCE = 4
"""So many different prefixes are in memory at a time, beyond those that are kept: of 64 frames 2 GB with 7B."""


@dataclass(frozen=True, slots=True, eq=False)
class PrefixKV:
    """The keys and values of a prompt's prefix, which ends with a clip."""

    keys_values: Tensor
    """The keys, with their rotation, and the values: (layers, 2, kv_heads, length, head_dim)."""
    next_position: int
    """The position of the first token after the prefix."""
    text_ids: tuple[int, ...] = ()
    """The tokens of the text that was read behind the clip, because most of what follows it begins so."""

    def without_last(self, num_tokens: int) -> PrefixKV:
        """Return the prefix without the last tokens of its text."""
        if not num_tokens:
            return self
        kept = len(self.text_ids) - num_tokens
        return PrefixKV(
            self.keys_values[..., : len(self) - num_tokens, :], self.next_position - num_tokens, self.text_ids[:kept]
        )

    def __len__(self) -> int:
        return int(self.keys_values.shape[3])

    @property
    def nbytes(self) -> int:
        """How many bytes of memory the keys and values take."""
        return self.keys_values.nbytes


class PrefixCache(ByteLRUCache[Hashable, PrefixKV]):
    """Keep prefixes up to a number of bytes, by keys that the caller chooses."""


@dataclass(frozen=True, slots=True)
class SplitPrompt:
    """A prompt, split behind its last clip, and what the model has read of it."""

    index: int
    """Which of the prompts it is."""
    prefix: PrefixKV | None
    """What was read up to the last clip; None without a clip: then the suffix is the whole prompt."""
    suffix: Prompt
    """What follows."""


def prefill_shared(
    model: Model, prompts: Sequence[Prompt], cache: PrefixCache | None = None
) -> Iterator[list[SplitPrompt]]:
    """Have the model read what prompts begin with, up to their last clip, once for all that begin alike.

    Each prompt is split, whether others share its prefix or not: so its reply does not depend on the others.

    Args:
        model: The model that reads.
        prompts: Whole prompts.
        cache: What was read before; prefixes that several prompts share are added.

    Yields:
        Some prompts, so few that their prefixes fit into memory. Those with equal prefixes follow each other.
    """
    split = [_split(prompt) for prompt in prompts]
    sharing: dict[Key, list[int]] = {}
    for i, (prefix, _) in enumerate(split):
        sharing.setdefault(_key(prefix), []).append(i)
    keys = list(sharing)
    for first in range(0, len(keys), PREFIXES_AT_ONCE):
        chunk = {key: sharing[key] for key in keys[first : first + PREFIXES_AT_ONCE]}
        read = _prefill(model, {key: split[indices[0]][0] for key, indices in chunk.items()}, cache)
        if cache is not None:
            cache.update({key: prefix for key, prefix in read.items() if len(chunk[key]) > 1})
        yield [SplitPrompt(i, read.get(key), split[i][1]) for key, indices in chunk.items() for i in indices]


def _split(prompt: Prompt) -> tuple[Prompt, Prompt]:
    """Return a prompt up to its last clip, and the rest."""
    end = max((i + 1 for i, part in enumerate(prompt) if not isinstance(part, str)), default=0)
    return prompt[:end], prompt[end:]


def _key(prefix: Prompt) -> Key:
    return tuple(
        (type(part), part) if isinstance(part, str) else (part.is_image, part.source or part) for part in prefix
    )


def _prefill(model: Model, prefixes: Mapping[Key, Prompt], cache: PrefixCache | None) -> dict[Key, PrefixKV]:
    """Return what the model has read, now or before, of prefixes by their keys; an empty one is left out."""
    read = {key: kept for key in prefixes if cache is not None and (kept := cache.get(key)) is not None}
    new = {key: prefix for key, prefix in prefixes.items() if prefix and key not in read}
    if new:
        read.update(zip(new, model.prefill_prefix(list(new.values())), strict=True))
    return read

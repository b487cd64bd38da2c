"""Have the model read clips between texts, each clip once, and give the logits of its reply."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lvqa.models import Model
from lvqa.records import Clip
from lvqa.rerank.protocol import ClipReader

if TYPE_CHECKING:
    from torch import Tensor

    from lvqa.models.prefix import PrefixCache, PrefixKV
    from lvqa.models.prompt import ClipTokens, Prompt

CLIPS_IN_MEMORY = 64
"""How many clips are in memory at a time: a usual pool at once, since in small batches a GPU waits for Python."""


@dataclass(frozen=True, slots=True)
class ScoringRequest:
    """Clips that are each read between `before` and each of `afters`."""

    clips: Sequence[Clip]
    before: Prompt
    afters: Sequence[Prompt]
    lead: str = ""
    """The text with which what follows a clip begins, whatever the query is: it is read once with the clip."""


@dataclass(frozen=True, slots=True)
class ClipLogits:
    """What the model would reply to some clips of some requests."""

    rows: list[tuple[int, Clip]]
    """The index of a request, and one of its clips."""
    logits: list[Tensor]
    """For each of the requests' `afters`, (rows, words) logits of the reply's first token."""


def clip_logits(
    model: Model,
    requests: Sequence[ScoringRequest],
    reader: ClipReader,
    *,
    words: Sequence[str] | None,
    prefix_cache: PrefixCache | None = None,
) -> Iterator[ClipLogits]:
    """Have the model read clips, and yield its logits, some clips at a time in the order of time.

    A clip is shown once for all requests. Where several texts follow it, it is read once too: for all `afters` of a
    request, and with a cache for all requests.

    Args:
        model: The model that reads.
        requests: All have as many `afters`; with a cache, all have the same `before` and `lead`.
        reader: Gives the clips' visual tokens.
        words: The words whose first tokens the logits are of; None: the whole vocabulary.
        prefix_cache: What was read of clips before, and is to be kept of them; None: requests share nothing.
    """
    users: dict[Clip, list[int]] = {}
    for i, request in enumerate(requests):
        for clip in request.clips:
            users.setdefault(clip, []).append(i)
    num_afters = len(requests[0].afters)
    if num_afters == 1 and prefix_cache is None:
        yield from _whole_prompts(model, requests, reader, users, words)
        return
    # Where each request has keys and values, or logits of all words, of its own, so many fewer clips are in memory.
    is_small = words is not None and prefix_cache is not None
    size = CLIPS_IN_MEMORY if is_small else max(1, CLIPS_IN_MEMORY // len(requests))
    yield from _shared_prefixes(model, requests, reader, users, words, prefix_cache=prefix_cache, size=size)


def _whole_prompts(
    model: Model,
    requests: Sequence[ScoringRequest],
    reader: ClipReader,
    users: dict[Clip, list[int]],
    words: Sequence[str] | None,
) -> Iterator[ClipLogits]:
    clips = sorted(users)
    tokens = reader.read(clips)
    size = CLIPS_IN_MEMORY if words is not None else max(1, CLIPS_IN_MEMORY // len(requests))
    for chunk in _chunks(clips, size):
        tokens_of = {clip: next(tokens) for clip in chunk}
        rows = [(i, clip) for clip in chunk for i in users[clip]]
        prompts = [(*requests[i].before, tokens_of[clip], *requests[i].afters[0]) for i, clip in rows]
        yield ClipLogits(rows, [model.next_token_logits(prompts, words)])


def _shared_prefixes(
    model: Model,
    requests: Sequence[ScoringRequest],
    reader: ClipReader,
    users: dict[Clip, list[int]],
    words: Sequence[str] | None,
    *,
    prefix_cache: PrefixCache | None,
    size: int,
) -> Iterator[ClipLogits]:
    prefixes: dict[Hashable, PrefixKV] = {}
    if prefix_cache is not None:
        prefixes = {clip: prefix for clip in users if (prefix := prefix_cache.get(clip)) is not None}
    clips = sorted(users)
    tokens = reader.read([clip for clip in clips if clip not in prefixes])
    for chunk in _chunks(clips, size):
        tokens_of = {clip: next(tokens) for clip in chunk if clip not in prefixes}
        rows = [(i, clip) for clip in chunk for i in users[clip]]
        keys: list[Hashable] = [clip if prefix_cache is not None else (i, clip) for i, clip in rows]
        _prefill(model, requests, rows, keys, tokens_of, prefixes)
        of_rows = [prefixes[key] for key in keys]
        if prefix_cache is not None:
            for clip in chunk:
                prefix_cache[clip] = prefixes[clip]
        for key in set(keys):
            del prefixes[key]
        afters = [[requests[i].afters[k] for i, _ in rows] for k in range(len(requests[0].afters))]
        yield ClipLogits(rows, [model.score_with_prefix(of_rows, after, words) for after in afters])


def _prefill(
    model: Model,
    requests: Sequence[ScoringRequest],
    rows: Sequence[tuple[int, Clip]],
    keys: Sequence[Hashable],
    tokens_of: dict[Clip, ClipTokens],
    prefixes: dict[Hashable, PrefixKV],
) -> None:
    """Have the model read what it has not read yet, and add it to the prefixes."""
    unread = {
        key: (*requests[i].before, tokens_of[clip])
        for key, (i, clip) in zip(keys, rows, strict=True)
        if key not in prefixes
    }
    if unread:
        prefixes.update(zip(unread, model.prefill_prefix(list(unread.values()), lead=requests[0].lead), strict=True))


def _chunks(clips: Sequence[Clip], size: int) -> Iterator[Sequence[Clip]]:
    return (clips[first : first + size] for first in range(0, len(clips), size))

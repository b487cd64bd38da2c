"""Have the model read clips between texts, each clip once, and give the logits of its reply.

Items of any kind may stand in for the clips: a text, a picture, a picture with a text.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lvqa.models import Model
from lvqa.records import Clip
from lvqa.rerank.protocol import ClipReader, as_prompt

if TYPE_CHECKING:
    from torch import Tensor

    from lvqa.models.prefix import PrefixCache, PrefixKV
    from lvqa.models.prompt import Prompt

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
    separator: str = "\n"
    """What stands between a candidate that ends with a text and a text that follows it."""


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


def join_content(before: Prompt, content: Prompt, after: Prompt, separator: str = "\n") -> Prompt:
    """Return a prompt with a candidate's content in the middle; a text is set apart from the texts around it.

    Args:
        before: What stands before it.
        content: At least one part.
        after: What follows it.
        separator: What sets a text apart from the text after it; a space sets it apart from that before it.
    """
    head = content
    if before and isinstance(before[-1], str) and isinstance(content[0], str) and not before[-1].endswith(" "):
        head = (" ", *content)
    follows = after[0] if after else None
    is_text_after = isinstance(follows, str) and isinstance(content[-1], str) and not follows.startswith(separator)
    return (*before, *head, separator, *after) if is_text_after and separator else (*before, *head, *after)


def _whole_prompts(
    model: Model,
    requests: Sequence[ScoringRequest],
    reader: ClipReader,
    users: dict[Clip, list[int]],
    words: Sequence[str] | None,
) -> Iterator[ClipLogits]:
    clips = sorted(users)
    contents = reader.read(clips)
    size = CLIPS_IN_MEMORY if words is not None else max(1, CLIPS_IN_MEMORY // len(requests))
    for chunk in _chunks(clips, size):
        content_of = {clip: as_prompt(next(contents)) for clip in chunk}
        yield _read_whole(model, requests, [(i, clip) for clip in chunk for i in users[clip]], content_of, words)


def _read_whole(
    model: Model,
    requests: Sequence[ScoringRequest],
    rows: list[tuple[int, Clip]],
    content_of: dict[Clip, Prompt],
    words: Sequence[str] | None,
) -> ClipLogits:
    """Have the model read each row's whole prompt, for each of the texts that follow the clip."""

    def prompt(i: int, clip: Clip, k: int) -> Prompt:
        return join_content(requests[i].before, content_of[clip], requests[i].afters[k], requests[i].separator)

    num_afters = len(requests[0].afters)
    return ClipLogits(
        rows, [model.next_token_logits([prompt(i, clip, k) for i, clip in rows], words) for k in range(num_afters)]
    )


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
    contents = reader.read([clip for clip in clips if clip not in prefixes])
    for chunk in _chunks(clips, size):
        content_of = {clip: as_prompt(next(contents)) for clip in chunk if clip not in prefixes}
        # A prefix ends with a clip. What ends with a text is tokenised together with what follows it, and read whole.
        as_whole = {clip for clip, content in content_of.items() if isinstance(content[-1], str)}
        if as_whole:
            rows = [(i, clip) for clip in chunk if clip in as_whole for i in users[clip]]
            yield _read_whole(model, requests, rows, content_of, words)
        rows = [(i, clip) for clip in chunk if clip not in as_whole for i in users[clip]]
        if not rows:
            continue
        keys: list[Hashable] = [clip if prefix_cache is not None else (i, clip) for i, clip in rows]
        _prefill(model, requests, rows, keys, content_of, prefixes)
        of_rows = [prefixes[key] for key in keys]
        if prefix_cache is not None:
            for clip in dict.fromkeys(clip for _, clip in rows):
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
    content_of: dict[Clip, Prompt],
    prefixes: dict[Hashable, PrefixKV],
) -> None:
    """Have the model read what it has not read yet, and add it to the prefixes."""
    unread = {
        key: join_content(requests[i].before, content_of[clip], ())
        for key, (i, clip) in zip(keys, rows, strict=True)
        if key not in prefixes
    }
    if unread:
        prefixes.update(zip(unread, model.prefill_prefix(list(unread.values()), lead=requests[0].lead), strict=True))


def _chunks(clips: Sequence[Clip], size: int) -> Iterator[Sequence[Clip]]:
    return (clips[first : first + size] for first in range(0, len(clips), size))

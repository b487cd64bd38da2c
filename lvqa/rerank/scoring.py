"""Clips read by the model beside texts, each of them once."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lvqa.models import Model
from lvqa.records import Clip
from lvqa.rerank.protocol import ClipTokensOf

if TYPE_CHECKING:
    from torch import Tensor

    from lvqa.models.prefix import PrefixCache, PrefixKV
    from lvqa.models.prompt import Prompt

CHUNK = 64
"""Clips in hand at a time: a usual pool at once, for in small batches a GPU waits for Python."""


@dataclass(frozen=True, slots=True)
class Reading:
    """Clips that are each read between `before` and each of `afters`."""

    clips: Sequence[Clip]
    before: Prompt
    afters: Sequence[Prompt]


def next_token_logits(
    model: Model,
    readings: Sequence[Reading],
    clip_tokens: ClipTokensOf,
    *,
    words: Sequence[str] | None,
    beginnings: PrefixCache | None = None,
) -> Iterator[tuple[list[tuple[int, Clip]], list[Tensor]]]:
    """In parts, clip by clip in the order of time: the numbers of readings with a clip, and what the model would say.

    That is, for each of the `afters`, of which all readings have as many, (rows, words) logits of the reply's first
    token; without `words` those of the whole vocabulary. A clip is shown once for all readings. Where there is more to
    say behind it than one text, it is read once too: for all `afters` of a reading, and with `beginnings`, which are
    looked for and kept there, for all readings, whose `before` must then be the same.
    """
    readers: dict[Clip, list[int]] = {}
    for number, reading in enumerate(readings):
        for clip in reading.clips:
            readers.setdefault(clip, []).append(number)
    num_afters, is_shared = len(readings[0].afters), beginnings is not None
    held: dict[Hashable, PrefixKV] = {}
    if beginnings is not None:
        held = {clip: known for clip in readers if (known := beginnings.get(clip)) is not None}
    clips = sorted(readers)
    blocks = clip_tokens([clip for clip in clips if clip not in held])
    # Where each reading has keys and values, or logits of all words, of its own, so many fewer clips are in hand.
    is_small = words is not None and (is_shared or num_afters == 1)
    for chunk in _chunks(clips, CHUNK if is_small else max(1, CHUNK // len(readings))):
        shown = {clip: next(blocks) for clip in chunk if clip not in held}
        rows = [(number, clip) for clip in chunk for number in readers[clip]]
        if num_afters == 1 and not is_shared:
            whole = [(*readings[number].before, shown[clip], *readings[number].afters[0]) for number, clip in rows]
            yield rows, [model.next_token_logits(whole, words)]
            continue
        names: list[Hashable] = [clip if is_shared else (number, clip) for number, clip in rows]
        unread = {
            name: (*readings[number].before, shown[clip])
            for name, (number, clip) in zip(names, rows, strict=True)
            if name not in held
        }
        if unread:
            held.update(zip(unread, model.prefill_prefix(list(unread.values())), strict=True))
        begun = [held[name] for name in names]
        if beginnings is not None:
            for clip in chunk:
                beginnings[clip] = held[clip]
        for name in set(names):
            del held[name]
        afters = [[readings[number].afters[place] for number, _ in rows] for place in range(num_afters)]
        yield rows, [model.score_with_prefix(begun, after, words) for after in afters]


def _chunks(clips: Sequence[Clip], length: int) -> Iterator[Sequence[Clip]]:
    return (clips[first : first + length] for first in range(0, len(clips), length))

"""Clips read by the model beside a text, each of them once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from lvqa.backbones import Backbone
from lvqa.records import Clip
from lvqa.rerank.protocol import BlocksOf

if TYPE_CHECKING:
    from torch import Tensor

    from lvqa.backbones.beginnings import Beginnings
    from lvqa.backbones.prompt import Prompt

CHUNK = 64
"""Clips in hand at a time: a usual pool at once, for in small batches a GPU waits for Python."""


def next_token_logits(
    backbone: Backbone,
    clips: Sequence[Clip],
    blocks_of: BlocksOf,
    *,
    before: Prompt,
    afters: Sequence[Prompt],
    words: Sequence[str] | None,
    beginnings: Beginnings | None = None,
) -> Iterator[list[Tensor]]:
    """For some of the clips at a time, in order: (clips, words) logits of the reply's first token for each of `afters`.

    A prompt is `before`, the clip and one of `afters`; without `words` the logits are those of the whole vocabulary. If
    `beginnings` are given, where "before, clip" is looked for and kept, a clip is read once for all that is asked; else
    once for all of `afters`.
    """
    if beginnings is None and len(afters) == 1:
        blocks = blocks_of(clips)
        for chunk in _chunks(clips):
            yield [backbone.next_token_logits([(*before, next(blocks), *afters[0]) for _ in chunk], words)]
        return
    read = {} if beginnings is None else {clip: held for clip in clips if (held := beginnings.get(clip)) is not None}
    blocks = blocks_of([clip for clip in clips if clip not in read])
    for chunk in _chunks(clips):
        unread = [clip for clip in chunk if clip not in read]
        if unread:
            new = backbone.read_beginnings([(*before, next(blocks)) for _ in unread])
            read.update(zip(unread, new, strict=True))
        of_chunk = [read.pop(clip) for clip in chunk]
        if beginnings is not None:
            for clip, beginning in zip(chunk, of_chunk, strict=True):
                beginnings.keep(clip, beginning)
        yield [backbone.next_token_logits_after(of_chunk, [after] * len(chunk), words) for after in afters]


def _chunks(clips: Sequence[Clip]) -> Iterator[Sequence[Clip]]:
    return (clips[first : first + CHUNK] for first in range(0, len(clips), CHUNK))

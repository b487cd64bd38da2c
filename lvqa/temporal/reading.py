"""The reading of a question: named times, a part of the video, an occurrence, a relation."""

from __future__ import annotations

import math
from dataclasses import dataclass

from lvqa.records import clock_time
from lvqa.temporal.clocks import clock_times
from lvqa.temporal.mentions import Interval, Mention, plain_text
from lvqa.temporal.order import Occurrence, Position, Relation, read_occurrence, read_position, read_relation

MAX_CHARACTERS = 2000
"""As much as any question has; a text of any length is read within a second."""


@dataclass(frozen=True, slots=True)
class TemporalReading:
    """What a question says about time. One that says nothing is equal to `TemporalReading()`."""

    spans: tuple[Interval, ...] = ()
    """The times that are named, in seconds of the video, in the order of the text; a moment starts where it ends."""
    position: Position | None = None
    """The part of the video: "at the beginning of the video", "in the end"."""
    occurrence: Occurrence | None = None
    """Which one of several: "the first time that a car is seen", "the last person who ..."."""
    relation: Relation | None = None
    """Where the evidence lies, seen from what the question describes: "what happened after ..."."""

    @property
    def text(self) -> str:
        """The reading in words, "12:10-12:50; the end", or "" if nothing was read."""
        order = f"the {self.occurrence} time" if self.occurrence else ""
        part = f"the {self.position}" if self.position else ""
        return "; ".join(filter(None, (", ".join(map(_span_text, self.spans)), part, order, self.relation)))


def read_temporal(text: str, duration_seconds: float) -> TemporalReading:
    """Read what a question says about time.

    Args:
        text: The question without its options, whose times are not meant. Of a longer one, MAX_CHARACTERS are read.
        duration_seconds: The video's duration. Spans are clipped to it; a time beyond it is none of this video's.
    """
    from lvqa.temporal.amounts import amounts  # its patterns take a while to compile: only where a question is read

    plain = plain_text(text[:MAX_CHARACTERS])
    named = clock_times(plain)
    plain = _without(plain, named)
    in_words = amounts(plain, duration_seconds)
    plain = _without(plain, in_words)
    mentions = sorted([*named, *in_words], key=lambda mention: mention.begin)
    spans = (_clipped(mention.seconds, duration_seconds) for mention in mentions)
    return TemporalReading(
        tuple(dict.fromkeys(span for span in spans if span)),
        read_position(plain),
        read_occurrence(plain),
        read_relation(plain),
    )


def _without(text: str, mentions: list[Mention]) -> str:
    """Return the text with the mentions struck out: "the last two minutes" has no last occurrence."""
    parts, end = [], 0
    for mention in mentions:
        parts += [text[end : mention.begin], "_" * (mention.end - mention.begin)]
        end = mention.end
    return "".join([*parts, text[end:]])


def _clipped(span: Interval, duration_seconds: float) -> Interval | None:
    """Return the span within the video, or None if it begins after the video's end: then it means something else."""
    if not duration_seconds >= span[0]:  # also where the duration is not a number
        return None
    start, end = max(0.0, float(span[0])), min(float(span[1]), float(duration_seconds))
    return (start, end) if start <= end < math.inf else None


def _span_text(span: Interval) -> str:
    start, end = map(clock_time, span)
    return start if start == end else f"{start}-{end}"

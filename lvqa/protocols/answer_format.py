"""How a source asks a benchmark's questions: what the model is shown beside the frames, and how its reply is read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lvqa.datasets.headline import AnswerRow, Figure
from lvqa.protocols.replies import Read
from lvqa.records import Question, Subtitle

Headline = Callable[[Sequence[AnswerRow]], dict[str, Figure]]
"""Returns the figures of one method, as a benchmark's own `headline`."""
Choose = Callable[[Sequence[Subtitle], Sequence[float]], str]
"""Returns the text of the subtitles to show with frames at these times, in seconds."""
Interleave = Callable[[Sequence[Subtitle], Sequence[float]], list[int | str]]
"""Returns the frames, by their numbers, and texts of subtitles in the order in which they are shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerFormat:
    """How a source asks a benchmark's questions. The frames come first, then the text; the reply is generated."""

    text: Callable[[Question, str | None], str]
    """The text behind the frames, of the question and of the subtitles; None: subtitles are not shown."""
    read: Read
    """The letter that a reply names."""
    max_new_tokens: int
    """A reply has at most so many tokens."""
    system: str = ""
    """The system message; empty: that of the model's own template."""
    reply_start: str = ""
    """The reply begins with this text, which the model goes on from."""
    subtitles: Choose | None = None
    """Which subtitles are shown in the text, if the source shows any there."""
    interleave: Interleave | None = None
    """How subtitles are shown between frames, if the source does that; each frame is then an image of its own."""
    wants_subtitles: bool = False
    """Whether the source shows subtitles unless it is told not to."""
    headline: Headline | None = None
    """The figures as the source counts them; None: as the benchmark's own script does."""
    counting: str = ""
    """How it counts, in whole sentences, where `headline` is its own."""

    @property
    def shows_subtitles(self) -> bool:
        """Whether there is a way to show subtitles."""
        return self.subtitles is not None or self.interleave is not None


def lettered(question: Question, form: str = "{}. {}") -> str:
    """Return the options, a line each, with their letters."""
    return "\n".join(form.format(*pair) for pair in zip(question.letters, question.options, strict=True))


# --- subtitles -------------------------------------------------------------------------------------------------------


def shown_with_frames(subtitles: Sequence[Subtitle], times: Sequence[float]) -> list[str]:
    """Return the lines that are on screen at one of the times, each once, in their order."""
    return [
        line.text
        for line in subtitles
        if line.text and any(line.start_seconds <= seconds < line.end_seconds for seconds in times)
    ]


def one_for_each_frame(subtitles: Sequence[Subtitle], times: Sequence[float]) -> str:
    """Return for each time the first line on screen; a line may come several times."""
    lines = (
        next((line.text for line in subtitles if line.start_seconds < seconds < line.end_seconds), "")
        for seconds in times
    )
    return "\n".join(filter(str.strip, lines))


def all_words(subtitles: Sequence[Subtitle], _: Sequence[float]) -> str:
    """Return all subtitles as one text."""
    return " ".join(line.text for line in subtitles)


MIN_SUBTITLE_SECONDS = 1.0
"""A shorter line of LongVideoBench counts as so long, about its middle."""


def interleaved(subtitles: Sequence[Subtitle], times: Sequence[float]) -> list[int | str]:
    """Return frames and lines as LongVideoBench does: a line follows the frames up to its middle.

    A line that is on screen at no frame is left out.
    """
    order: list[int | str] = []
    num_shown = 0
    for line in subtitles:
        start, end = line.start_seconds, line.end_seconds
        middle = (start + end) / 2
        while num_shown < len(times) and times[num_shown] <= middle:
            order.append(num_shown)
            num_shown += 1
        if end - start < MIN_SUBTITLE_SECONDS:
            start, end = middle - MIN_SUBTITLE_SECONDS / 2, middle + MIN_SUBTITLE_SECONDS / 2
        if any(start < seconds < end for seconds in times):
            order.append(line.text)
    return [*order, *range(num_shown, len(times))]


def on_lines(subtitles: Sequence[Subtitle], times: Sequence[float]) -> list[int | str]:
    """Return `interleaved` with each line of subtitles on a line of its own."""
    return [item if isinstance(item, int) else f"{item}\n" for item in interleaved(subtitles, times)]


def all_on_lines(subtitles: Sequence[Subtitle], times: Sequence[float]) -> list[int | str]:
    """Return `interleaved` with each frame on a line of its own too."""
    items: list[int | str] = []
    for item in interleaved(subtitles, times):
        items += [item, "\n"] if isinstance(item, int) else [f"{item}\n"]
    return items

"""The values that cross rooms. All are immutable; seconds are the only coordinate of time."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

VIDEO_SUFFIXES = (
    *(".mp4", ".mkv", ".webm", ".mov", ".m4v", ".avi", ".ts", ".mts", ".m2ts", ".mpg", ".mpeg", ".flv", ".wmv"),
    *(".asf", ".ogv", ".mxf", ".3gp", ".vob", ".gif", ".nut", ".ivf"),
)
"""What counts as a video file in a folder, the likeliest first; a file named outright may end in anything."""


class LvqaError(Exception):
    """Something the user can mend. The message is one line: the value, what is allowed, where."""


def shorten(value: object) -> str:
    """A value for a message: on one line, and short; of a long one its ends, for a path ends with its name."""
    if isinstance(value, int) and abs(value) > 10**20:  # Python refuses to write thousands of digits
        return "a very large number"
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:37]}...{text[-40:]}"


@dataclass(frozen=True, slots=True)
class Video:
    """A probed file. It holds no handle and no pixels, so it is cheap to send to a worker."""

    path: Path
    """Where the file lies, absolute."""
    id: str
    """Fingerprint of the file's bytes: 16 hexadecimal digits, the same under any name."""
    duration_seconds: float
    """From the first presented frame to the end of the last one."""
    height: int
    """Pixels, as shown: after rotation."""
    width: int
    frames_per_second: float
    """Average of the file's own frames; a variable rate is fine."""


@dataclass(frozen=True, slots=True, order=True)
class Clip:
    """A run of frame pairs of one video: [start_seconds, end_seconds)."""

    video_id: str
    start_seconds: float
    end_seconds: float

    def __post_init__(self) -> None:
        if not 0 <= self.start_seconds < self.end_seconds:
            raise ValueError(f"a clip must end after it starts: {self.start_seconds} to {self.end_seconds}")


@dataclass(frozen=True, slots=True, eq=False)
class Frames:
    """Decoded frames with the times they were asked for."""

    times_seconds: np.ndarray
    """(n,) float64, counted from the first presented frame."""
    pixels: np.ndarray = field(repr=False)
    """(n, height, width, 3) uint8, RGB."""
    substituted: np.ndarray
    """(n,) bool: the file's own frame is damaged, and the nearest good one stands in for it."""

    def __post_init__(self) -> None:
        n = len(self.times_seconds)
        if self.pixels.shape != (n, *self.pixels.shape[1:3], 3) or self.substituted.shape != (n,):
            raise ValueError(f"{n} times for pixels of shape {self.pixels.shape}")


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked, with what a benchmark knows about it."""

    text: str
    """The stem, without options."""
    options: tuple[str, ...] = ()
    """Texts of the options, without letters; empty for a free question."""
    image: Path | None = None
    """A picture that belongs to the question."""
    voice: Path | None = None
    """A sound file that asks the question, or goes on with it."""
    id: str = ""
    video_id: str = ""
    answer: str | None = None
    """The right letter, where it is known."""
    tags: tuple[str, ...] = ()
    """The abilities it tests, as the benchmark names them."""
    evidence_seconds: tuple[float, float] | None = None
    """Where the evidence lies, where it is annotated."""

    @property
    def letters(self) -> str:
        """The letters of the options: "ABCD" for four."""
        return LETTERS[: len(self.options)]


LETTERS = "ABCDEFGHIJKLMNOPQRST"
"""One for each option; twenty at most."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A clip that may hold the evidence, with the scores it has got so far."""

    clip: Clip
    embed_score: float
    """Cosine of the clip's vector and the question's."""
    rerank_score: float | None = None
    """The reranker's probability that it fits; None if it was not looked at."""

    @property
    def start_seconds(self) -> float:
        """Where the clip begins."""
        return self.clip.start_seconds

    @property
    def end_seconds(self) -> float:
        """Where it ends."""
        return self.clip.end_seconds


@dataclass(frozen=True, slots=True)
class FrameSelection:
    """The seconds to show: sorted and distinct."""

    video_id: str
    times_seconds: tuple[float, ...]

    def __post_init__(self) -> None:
        if any(a >= b for a, b in zip(self.times_seconds, self.times_seconds[1:], strict=False)):
            raise ValueError(f"times must be sorted and distinct, got {self.times_seconds}")


@dataclass(slots=True)
class Counts:
    """What the work cost. Added up as the stages run; every result carries its own."""

    frames_decoded: int = 0
    pairs_encoded: int = 0
    tokens_prefilled: int = 0

    def __sub__(self, other: Counts) -> Counts:
        return Counts(
            self.frames_decoded - other.frames_decoded,
            self.pairs_encoded - other.pairs_encoded,
            self.tokens_prefilled - other.tokens_prefilled,
        )


@dataclass(frozen=True, slots=True)
class IndexUse:
    """Which index served a question, and whether it was made before this call."""

    reused: bool
    clips: int
    path: Path | None


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer with its evidence and its cost. The field names are those of `lvqa ask --json`."""

    question: Question
    text: str
    """The option's text, or the generated sentence."""
    option: str | None
    """The letter, or None for a free question."""
    option_scores: tuple[float, ...]
    """Softmax over the option letters, in the options' order; empty for a free question."""
    model: str
    method: str
    frames_budget: int
    frames: tuple[float, ...]
    """The seconds that were shown."""
    evidence: tuple[Candidate, ...]
    """Best first; empty for methods that look for none."""
    index: IndexUse | None
    counts: Counts
    seconds: dict[str, float]
    """Wall time by stage."""

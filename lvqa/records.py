"""The values that cross modules. All are immutable but Counts; seconds are the only coordinate of time."""

from __future__ import annotations

import json
import operator
from dataclasses import astuple, dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np

from lvqa.lazy import LazyField

VIDEO_SUFFIXES = (
    *(".mp4", ".mkv", ".webm", ".mov", ".m4v", ".avi", ".ts", ".mts", ".m2ts", ".mpg", ".mpeg", ".flv", ".wmv"),
    *(".asf", ".ogv", ".mxf", ".3gp", ".vob", ".gif", ".nut", ".ivf", ".m2v", ".h264", ".264", ".h265", ".265"),
    *(".hevc", ".dv", ".ogm", ".f4v", ".3g2", ".divx", ".rm", ".rmvb", ".wtv", ".y4m", ".obu"),
)
"""The suffixes of video files in a folder, the likeliest first; a file named outright may have any suffix."""

MAX_ASPECT = 200
"""One side of a picture may be so many times the other at most, as in Qwen's own preprocessing."""

SYNTHETIC_TAG = "lvqa synthetic video"
"""The comment in the container of a video that `lvqa make-videos` made."""

LETTERS = "ABCDEFGHIJKLMNOPQRST"
"""The letters of options; a question has at most this many."""


class LvqaError(Exception):
    """Something the user can fix. The message is one line: the value, what is allowed, where."""

    def __str__(self) -> str:
        """Return the message on one line, even if a name in it has several."""
        return " ".join(super().__str__().splitlines())


FileKey = tuple[int, int, int, int]
"""What is another value after each change of a file, in place too: size, times of modification and change, inode."""


def file_key(path: Path) -> FileKey:
    """Return the key of a file in its present state. A time of modification can be set back; the time of change can't.

    Raises:
        OSError: There is no such file.
    """
    status = path.stat()
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


def shorten(value: object) -> str:
    """Return a value for a message: on one line, at most 80 characters, with both ends of a longer one."""
    if isinstance(value, int) and abs(value) > 10**20:  # Python refuses to write thousands of digits
        return "a very large number"
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:37]}...{text[-40:]}"


def counted(number: int, noun: str) -> str:
    """Return the number with its noun, which takes an s in the plural: "1 clip", "2 clips"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def clock_time(seconds: float) -> str:
    """Return a time as "0:05", "12:30" or "2:05:00"."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


@dataclass(frozen=True)
class Video:
    """A video file that was inspected. It holds no handle and no pixels, so it is cheap to send to a worker."""

    path: Path
    """The absolute path of the file."""
    id: str
    """The fingerprint of the file's bytes: 16 hexadecimal digits, the same under any name. The file may be read for it
    when it is first used, as in a comparison, with a VideoError if it was changed after it was inspected."""
    duration_seconds: float
    """The time from the first presented frame to the end of the last one."""
    height: int
    """The height in pixels, as shown: turned, and in square pixels."""
    width: int
    """The width in pixels, as shown: turned, and in square pixels."""
    frames_per_second: float
    """The average rate of the file's own frames; it may vary."""
    warnings: tuple[str, ...] = ()
    """What is wrong with the file, and what was made of it, in one line each."""
    is_synthetic: bool = False
    """Whether `lvqa make-videos` made it, as a tag in the file says."""

    def __getstate__(self) -> dict[str, Any]:
        """Return what another process receives: with the id, so that not every worker reads the file for it."""
        return {**vars(self), "id": self.id}


Video.id = LazyField("id")  # type: ignore[assignment]  # within the class it would be a default


@dataclass(frozen=True, slots=True, order=True)
class Clip:
    """A run of frame pairs of one video: [start_seconds, end_seconds)."""

    video_id: str
    start_seconds: float
    end_seconds: float

    def __post_init__(self) -> None:
        if not 0 <= self.start_seconds < self.end_seconds:
            raise ValueError(f"a clip must end after it starts: {self.start_seconds} to {self.end_seconds}")


@dataclass(frozen=True, slots=True)
class Subtitle:
    """A line of subtitles."""

    start_seconds: float
    end_seconds: float
    """Where it ends; infinity if the file does not say."""
    text: str


@dataclass(frozen=True, slots=True)
class Question:
    """A question, with what a benchmark knows about it."""

    text: str
    """The question without its options."""
    options: tuple[str, ...] = ()
    """The texts of the options, without letters; empty for a free question."""
    image: Path | None = None
    """The file of a picture that belongs to the question."""
    voice: Path | None = None
    """A sound file that asks the question, or goes on with it."""
    id: str = ""
    """The benchmark's id of the question."""
    video_id: str = ""
    """The benchmark's id of the video."""
    answer: str | None = None
    """The letter of the correct option, where it is known; "" where no option is correct. Of a free question, the text
    that is expected."""
    tags: tuple[str, ...] = ()
    """The abilities that the question tests, as the benchmark names them."""
    evidence_seconds: tuple[float, float] | None = None
    """The annotated start and end of the evidence."""
    history: tuple[tuple[str, str], ...] = ()
    """The earlier turns of the conversation that it goes on with, oldest first: what was asked, what was answered."""
    subtitles: tuple[Subtitle, ...] | None = None
    """The subtitles of its video that may be shown; empty if the video has none, None: they are not to be shown."""
    schema: str | None = None
    """The JSON schema that its answer must fit, as `lvqa.schema.schema_text` returns it; None: it is free text."""

    @property
    def letters(self) -> str:
        """The letters of the options: "ABCD" for four."""
        return LETTERS[: len(self.options)]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A clip that may hold the evidence, with its scores."""

    clip: Clip
    embed_score: float
    """The cosine of the clip's vector and the question's."""
    rerank_score: float | None = None
    """The reranker's probability that the clip matches; None if it was not reranked."""
    line: Subtitle | None = None
    """The line of the video's subtitles in the clip that matches best; None: there is none, or none was searched."""
    line_score: float | None = None
    """The cosine of that line's vector and the question's."""
    merged_score: float | None = None
    """By which the clips are ranked where lines were searched, too: see `speech.merged`."""

    @property
    def start_seconds(self) -> float:
        """Where the clip begins."""
        return self.clip.start_seconds

    @property
    def end_seconds(self) -> float:
        """Where the clip ends."""
        return self.clip.end_seconds


@dataclass(frozen=True, slots=True)
class FrameSelection:
    """The times of the frames that the model is to see, in seconds: sorted and distinct."""

    video_id: str
    times_seconds: tuple[float, ...]

    def __post_init__(self) -> None:
        if any(a >= b for a, b in zip(self.times_seconds, self.times_seconds[1:], strict=False)):
            raise ValueError(f"times must be sorted and distinct, got {self.times_seconds}")


@dataclass(slots=True)
class Counts:
    """What work cost, as counted where it is done; every result carries its own."""

    frames_decoded: int = 0
    pairs_encoded: int = 0
    tokens_prefilled: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(*map(operator.add, astuple(self), astuple(other)))

    def __sub__(self, other: Counts) -> Counts:
        return Counts(*map(operator.sub, astuple(self), astuple(other)))


@dataclass(frozen=True, slots=True)
class Cost:
    """What one piece of work cost."""

    counts: Counts = field(default_factory=Counts)
    seconds: float = 0.0
    """Wall time."""

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.counts + other.counts, self.seconds + other.seconds)


QUESTION_KINDS = ("moment", "order", "whole")
"""What a question may be about: one moment of the video, the order of several events, the whole video."""


@dataclass(frozen=True, slots=True)
class QuestionKind:
    """What a question is about, as the model takes it."""

    probabilities: tuple[float, ...]
    """One for each of QUESTION_KINDS."""
    cost: Cost = field(default_factory=Cost, compare=False)
    """What asking the model cost when it was done. Questions that were asked about together have even shares of it."""

    @property
    def text(self) -> str:
        """The probabilities in words, "moment 0.90, order 0.08, whole 0.02"."""
        return ", ".join(f"{name} {p:.2f}" for name, p in zip(QUESTION_KINDS, self.probabilities, strict=True))


@dataclass(frozen=True, slots=True, eq=False)
class Ranking:
    """All clips of a video, ranked for one question."""

    candidates: tuple[Candidate, ...]
    """The reranked pool, best first, then the rest in the embedding's order; none that overlaps a better one."""
    query: np.ndarray
    """(dim,) float32, unit length: the question's vector."""
    cost: Cost = field(default_factory=Cost)
    """What ranking cost when it was done. Questions that were ranked together have even shares of it."""


@dataclass(frozen=True, slots=True)
class ModelOutput:
    """What the model answered to one question."""

    text: str
    """The option's text, or the generated text, unchanged."""
    option: str | None
    """The letter, or None if there is none."""
    option_scores: tuple[float, ...]
    """The probability of each option; empty where text was generated."""
    tokens: int = 0
    """How many tokens the prompt had."""
    visual_tokens: int = 0
    """How many of them showed the frames, or let the voice be heard."""
    cost: Cost = field(default_factory=Cost, compare=False)
    """What answering cost when it was done: an even share of what all questions cost that were answered together, but
    for the tokens, which are those of its own prompt, shared or not."""


@dataclass(frozen=True, slots=True)
class IndexUse:
    """Which index served a question, and whether it was there before this call."""

    reused: bool
    clips: int
    path: Path | None
    """Its file; None if it could not be saved, and serves this process alone."""
    frames: int = 0
    """How many frames of the video the index was made from: its whole frame grid."""
    frames_substituted: int = 0
    """How many of them are damaged, so that the nearest good ones stand in for them."""
    unsaved: str | None = None
    """Why this call could not save it, in one line."""
    cost: Cost = field(default_factory=Cost, compare=False)
    """What building it cost, with all indexes that were built together; nothing if it was reused."""


@dataclass(frozen=True, slots=True)
class Caveats:
    """What a reader must know of a result."""

    warnings: tuple[str, ...] = ()
    """What is wrong with the video, the model or the evidence, one line each."""
    frames_substituted: int = 0
    """How many frames are damaged: of the whole frame grid where there is an index, else of the answer's frames."""
    substituted_seconds: tuple[float, ...] = ()
    """The times of those frames of the answer that are damaged, so that the model saw the nearest good ones."""


@dataclass(frozen=True, slots=True)
class SearchResult:
    """The clips of one video that match a query best."""

    candidates: tuple[Candidate, ...]
    """The best first."""
    caveats: Caveats


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
    """The times of the frames that the model saw, in seconds."""
    evidence: tuple[Candidate, ...]
    """All clips, best first; empty for methods that search for none."""
    index: IndexUse | None
    counts: Counts
    """What this call cost, or this answer's even share of it; what earlier calls did and this one reused costs
    nothing."""
    seconds: dict[str, float]
    """Wall time of this call by stage, or this answer's even share of it."""
    ranking_cost: Cost | None = None
    """What ranking the clips cost when it was done, in this call or an earlier one; None without a ranking."""
    answer_cost: Cost = field(default_factory=Cost)
    """What answering from these frames cost when it was done, in this call or an earlier one."""
    answer_tokens: int = 0
    """How many tokens the prompt of the answer had."""
    answer_visual_tokens: int = 0
    """How many of them showed the frames, or let the voice be heard."""
    time_read: str | None = None
    """What the method was told of the question's time: "21:40", "" if the question names none; None where nothing was
    read, since the method does not use it or `selection.read_times` is off."""
    question_kind: QuestionKind | None = None
    """What the model takes the question to be about; None for a method that does not use it, and with
    `selection.gate` off."""
    looked_again: bool | None = None
    """Whether the model, unsure after some of the frames, saw more; None where it saw all at once."""
    caveats: Caveats = Caveats()

    @property
    def parsed(self) -> Any:
        """What the answer says, of a question with a schema: an object, as Python has it. None without a schema."""
        return None if self.question.schema is None else json.loads(self.text)

    def frames_of(self, candidate: Candidate) -> tuple[float, ...]:
        """Return the times of those frames that lie in a clip; without any, the model saw nothing of it."""
        return tuple(t for t in self.frames if candidate.start_seconds <= t < candidate.end_seconds)

    def __repr__(self) -> str:
        """Return what matters of the answer on one short line."""
        letter = "" if self.option is None else f"{self.option}, "
        best = f", best evidence at {self.evidence[0].start_seconds:g} s" if self.evidence else ""
        frames = counted(len(self.frames), "frame")
        return f"Answer({letter}{shorten(self.text)}: {self.model}, {self.method}, {frames}{best})"

    @classmethod
    def of(
        cls,
        question: Question,
        output: ModelOutput,
        selection: FrameSelection,
        ranking: Ranking | None,
        caveats: Caveats,
        **call: Any,
    ) -> Self:
        """Return the answer that these make; `call` are the fields that all answers of one call share."""
        return cls(
            question=question,
            text=output.text,
            option=output.option,
            option_scores=output.option_scores,
            frames=selection.times_seconds,
            evidence=ranking.candidates if ranking else (),
            ranking_cost=ranking.cost if ranking else None,
            answer_cost=output.cost,
            answer_tokens=output.tokens,
            answer_visual_tokens=output.visual_tokens,
            caveats=caveats,
            **call,
        )

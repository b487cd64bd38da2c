"""What pictures and pages of an answer share: texts, frames grouped by clip, and thumbnails."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from lvqa.records import Answer, Candidate, Video
from lvqa.video import read_frames

Span = tuple[float, float]
"""The start and the end of a time span, in seconds."""


def clock(seconds: float) -> str:
    """Return a time as a video player displays it: 725 -> "12:05", 3725 -> "1:02:05"."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def span_text(candidate: Candidate) -> str:
    """Return the start and end of a candidate: "12:05-12:21"."""
    return f"{clock(candidate.clip.start_seconds)}-{clock(candidate.clip.end_seconds)}"


def scores_text(candidate: Candidate) -> str:
    """Return the scores of a candidate: "rerank 0.98, embedding 0.41"."""
    rerank = "" if candidate.rerank_score is None else f"rerank {candidate.rerank_score:.2f}, "
    return f"{rerank}embedding {candidate.embed_score:.2f}"


def answer_text(answer: Answer) -> str:
    """Return the answer, and whether it is correct where that is known: "B. red (wrong)"."""
    text = answer.text if answer.option is None else f"{answer.option}. {answer.text}"
    return text if answer.question.answer is None else f"{text} ({'correct' if is_correct(answer) else 'wrong'})"


def is_correct(answer: Answer) -> bool:
    """Return whether the answer is the known correct option."""
    return answer.question.answer is not None and answer.option == answer.question.answer


def num_inside(answer: Answer, span: Span) -> int:
    """Return how many of the answer's frames lie in the span."""
    return sum(span[0] <= seconds < span[1] for seconds in answer.frames)


@dataclass(frozen=True, slots=True)
class ClipFrames:
    """The selected frames of one clip."""

    times_seconds: tuple[float, ...]
    """The times of the frames, ascending."""
    candidate: Candidate | None = None
    """The clip with its scores; None for frames of no clip that was scored."""
    rank: int = 0
    """The clip's rank among the candidates: 1 for the best one."""


def frames_by_clip(answer: Answer) -> list[ClipFrames]:
    """Return the selected frames, grouped by the clip that they are from.

    The best clip comes first. Frames of no scored clip are the last group; uniform frames are that group alone.
    """
    remaining = list(answer.frames)
    groups = []
    for rank, candidate in enumerate(answer.evidence, start=1):
        times = tuple(t for t in remaining if candidate.start_seconds <= t < candidate.end_seconds)
        if times:
            groups.append(ClipFrames(times, candidate, rank))
            remaining = [seconds for seconds in remaining if seconds not in times]
    return [*groups, ClipFrames(tuple(remaining))] if remaining else groups


def thumbnails(video: Video, times_seconds: Sequence[float], *, max_height: int) -> Iterator[np.ndarray]:
    """Yield small pictures of the frames at these ascending times, each (height, width, 3) uint8 RGB."""
    height, width = thumbnail_size(video.height, video.width, max_height=max_height)
    for batch in read_frames(video, times_seconds, height=height, width=width):
        yield from batch.pixels


def thumbnail_size(height: int, width: int, *, max_height: int) -> tuple[int, int]:
    """Return the height and width of a thumbnail with the same aspect ratio; a small picture keeps its size."""
    thumbnail_height = min(max_height, height)
    return thumbnail_height, max(1, round(thumbnail_height * width / height))

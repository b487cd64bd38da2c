"""What a reader must know of a result: that the video is damaged, the model knows no such videos, the evidence is weak.

A caveat is one line. It stands in the result, and so on stderr, in JSON, on the page and in the rows of an evaluation.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from lvqa.models import Model
from lvqa.records import Candidate, Caveats, FrameSelection, IndexUse, Ranking, Video, counted

if TYPE_CHECKING:
    from lvqa.session import VideoSession

NO_CONFIDENCE = "all frames were shown at once: answer.look_again needs a confidence, and a generated answer has none"
WEAK = "weak evidence"
WEAK_EVIDENCE = 0.5
"""Evidence is weak where the reranker gives no clip a probability of so much: each is more likely wrong than right."""


def find_caveats(
    model: Model,
    session: VideoSession,
    use: IndexUse | None,
    ranking: Ranking | None,
    selection: FrameSelection | None = None,
    notes: Sequence[str] = (),
    *,
    has_probabilities: bool,
) -> Caveats:
    """Return what a reader must know of a result.

    Args:
        model: The model that gave it.
        session: The open video.
        use: The index that was used; damaged frames are then counted in the whole frame grid, else in the answer's.
        ranking: The ranking of the clips, if there is one.
        selection: The answer's frames; None for a search.
        notes: What else a reader must know, one line each.
        has_probabilities: Whether the scores of the ranking are probabilities.
    """
    times = () if selection is None else selection.times_seconds
    substituted = tuple(t for t in times if session.grid.frame_at(t) in session.tokens.substituted)
    num_frames, num_substituted = len(times), len(substituted)
    if use is not None:
        num_frames, num_substituted = use.frames, max(use.frames_substituted, num_substituted)
    warnings = [*session.video.warnings, *describe_damage(num_frames, num_substituted)]
    warnings += [] if use is None else _describe_unsaved(use)
    warnings += describe_model(model, session.video)
    if ranking is not None and has_probabilities:
        warnings += describe_evidence(ranking.candidates)
    warnings += notes
    return Caveats(tuple(warnings), num_substituted, substituted)


def describe_damage(num_frames: int, num_substituted: int) -> Iterator[str]:
    """Yield a line if some of the frames that were read are damaged."""
    if num_substituted == 1:
        yield f"1 of {counted(num_frames, 'frame')} is damaged; the nearest good one stands in for it"
    elif num_substituted:
        yield f"{num_substituted} of {num_frames} frames are damaged; the nearest good ones stand in for them"


def _describe_unsaved(use: IndexUse) -> Iterator[str]:
    """Yield a line if the index serves this process alone."""
    if use.path is None:
        yield f"its index is not kept: {use.unsaved or 'it could not be saved'}"


def describe_model(model: Model, video: Video) -> Iterator[str]:
    """Yield a line if the model knows the synthetic videos alone, and this is another one."""
    if model.is_for_synthetic and not video.is_synthetic:
        yield (
            f"model {model.name} knows only the world of lvqa make-videos, and this video is not from there: "
            "its answers and scores mean nothing"
        )


def describe_evidence(candidates: Sequence[Candidate]) -> Iterator[str]:
    """Yield a line if the best of the reranked clips is below WEAK_EVIDENCE; none if nothing was reranked."""
    scores = [candidate.rerank_score for candidate in candidates if candidate.rerank_score is not None]
    if scores and max(scores) < WEAK_EVIDENCE:
        yield (
            f"{WEAK}: the reranker gives no clip {WEAK_EVIDENCE:.2f} or more; "
            "what the question is about may not be in the video"
        )


def is_about_question(warning: str) -> bool:
    """Return whether a line is about one question, and not about its video or the model."""
    return warning.startswith((WEAK, NO_CONFIDENCE))

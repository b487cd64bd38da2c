"""Join clips that follow each other into moments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from lvqa.records import Candidate, Clip


def join_moments(candidates: Sequence[Candidate], top: int) -> list[Candidate]:
    """Return the best moments: runs of clips of a video that touch each other.

    Clips are taken in their order. One that touches a moment makes it longer; another one begins a moment, of which
    there are no more than `top`: so no moment grows by clips that are worse than what was left out.

    Args:
        candidates: Clips of any videos, best first.
        top: How many moments to return.

    Returns:
        The best first, each with the scores of its best clip.
    """
    moments = list[Candidate]()
    for candidate in candidates:
        touching = [moment for moment in moments if _touch(moment.clip, candidate.clip)]
        if touching:
            joined = replace(touching[0], clip=_hull([candidate.clip, *(moment.clip for moment in touching)]))
            moments = [joined if m is touching[0] else m for m in moments if m is touching[0] or m not in touching]
        elif len(moments) == top:
            break
        else:
            moments.append(candidate)
    return moments


def _touch(one: Clip, other: Clip) -> bool:
    is_apart = one.end_seconds < other.start_seconds or other.end_seconds < one.start_seconds
    return one.video_id == other.video_id and not is_apart


def _hull(clips: Sequence[Clip]) -> Clip:
    start, end = min(clip.start_seconds for clip in clips), max(clip.end_seconds for clip in clips)
    return Clip(clips[0].video_id, start, end)

"""Find what is wrong with a file's clock, and count on where it is broken, so that its frames keep a place in time."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

MIN_GAP_SECONDS = 3600.0
"""How long a gap between two frames is at least if it is no pause: a slide is rarely on screen for an hour."""

_MIN_GAP_STEPS = 1000
"""How many times the usual step a gap is at least, so that a time-lapse of few pictures is left as it is."""

_MIN_JUMP_SECONDS = 1.0
"""How far a clock jumps at least before the user is told."""

_RAW_FORMATS = ("h264", "hevc", "vvc", "obu")
"""The containers that hold bare pictures; the times that FFmpeg gives them follow from an assumed rate."""


def has_clock(format_name: str) -> bool:
    """Return whether a container, by FFmpeg's name of it, stores times at all."""
    return format_name not in _RAW_FORMATS


def usual_step(ticks: np.ndarray) -> int:
    """Return how many ticks one frame usually lasts."""
    steps = np.diff(ticks)
    steps = steps[steps > 0]
    return max(1, int(np.median(steps))) if len(steps) else 1


def join_fields(ticks: np.ndarray, durations: np.ndarray, field_ticks: int) -> np.ndarray:
    """Return packets' ticks in decode order, where the second field of a picture has the tick of the first one."""
    joined = ticks.copy()
    is_field = durations == field_ticks
    follows = is_field[1:] & is_field[:-1] & (ticks[1:] == ticks[:-1] + field_ticks)
    is_second = np.zeros(len(ticks), dtype=bool)
    for i in (np.flatnonzero(follows) + 1).tolist():
        is_second[i] = not is_second[i - 1]
    seconds = np.flatnonzero(is_second)
    joined[seconds] = ticks[seconds - 1]
    return joined


def max_step(ticks: np.ndarray, tick_seconds: Fraction) -> int:
    """Return how many ticks a frame may last if the clock is not broken."""
    limit = max(int(MIN_GAP_SECONDS / tick_seconds), _MIN_GAP_STEPS * usual_step(ticks))
    return min(limit, 2**62 // len(ticks))  # the sum is an int64


def find_gaps(ticks: np.ndarray, tick_seconds: Fraction) -> np.ndarray:
    """Return the positions in ascending ticks after which the clock jumps so far that it must be broken."""
    steps = np.diff(ticks)
    return np.flatnonzero((steps > max_step(ticks, tick_seconds)) | (steps < 0))  # below 0: more than an int64 holds


def close_gaps(ticks: np.ndarray, tick_seconds: Fraction) -> np.ndarray:
    """Return how many ticks ascending ticks lie after the first one, without the gaps.

    The frame before a gap lasts as long as frames usually do.
    """
    steps, gaps = np.diff(ticks), find_gaps(ticks, tick_seconds)
    steps[gaps] = min(usual_step(ticks), max_step(ticks, tick_seconds))
    return np.cumsum(np.r_[0, steps])


def continue_clock(ticks: list[int], tick_seconds: Fraction) -> tuple[np.ndarray, tuple[str, ...]]:
    """Make the ticks of frames in the order of presentation ascend, from 0.

    A single broken tick is replaced by one between its neighbours. Where the clock goes on elsewhere, all that follow
    are moved, so that they go on after the frame before.

    Returns:
        The (frames,) int64 ticks, ascending, and what is wrong with the clock: one line, or none.
    """
    given = np.array(ticks, dtype=np.int64)
    limit = max_step(given, tick_seconds)
    step = min(usual_step(given), limit)
    repaired, jumps, offset = [0], [], -ticks[0]
    for i in range(1, len(ticks)):
        before, tick = repaired[-1], ticks[i] + offset
        after = ticks[i + 1] + offset if i + 1 < len(ticks) else before
        returns = before < after <= before + limit
        if before < tick <= before + limit and not (returns and after <= tick):
            repaired.append(tick)
            continue
        if returns:
            repaired.append(before + max(1, min(step, (after - before) // 2)))
        else:
            repaired.append(before + step)
            offset += repaired[-1] - tick
        jumps.append((before, tick - before))
    return np.array(repaired, dtype=np.int64), describe_jumps(jumps, tick_seconds)


def describe_gaps(ticks: np.ndarray, tick_seconds: Fraction) -> tuple[str, ...]:
    """Return what is wrong with the clock of ascending ticks: one line, or none."""
    gaps, closed = find_gaps(ticks, tick_seconds), close_gaps(ticks, tick_seconds)
    jumps = [(int(closed[i]), int(ticks[i + 1]) - int(ticks[i])) for i in gaps]
    return describe_jumps(jumps, tick_seconds)


def describe_jumps(jumps: list[tuple[int, int]], tick_seconds: Fraction) -> tuple[str, ...]:
    """Return one line about jumps of a clock, or none if all are small.

    Args:
        jumps: For each one the tick of the frame before it, from the first frame, and by how many ticks it goes.
        tick_seconds: How long a tick is.
    """
    seconds = [(float(at * tick_seconds), float(jump * tick_seconds)) for at, jump in jumps]
    seconds = [(at, jump) for at, jump in seconds if abs(jump) >= _MIN_JUMP_SECONDS]
    if not seconds:
        return ()
    at, jump = seconds[0]
    more = f", the first of {len(seconds)} jumps" if len(seconds) > 1 else ""
    return (f"its clock jumps by {jump:,.0f} s at {at:.2f} s{more}; the frames after it are taken to follow at once",)

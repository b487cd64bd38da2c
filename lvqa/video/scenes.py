"""Detect where a new scene starts."""

from __future__ import annotations

import itertools

import numpy as np

from lvqa.concurrency import check_stop
from lvqa.records import Video
from lvqa.video.prefetch import read_frames
from lvqa.video.sampling import FrameGrid

_BATCH_FRAMES = 64
_THUMBNAIL = {"height": 36, "width": 64}

_NEIGHBOURS = 8
"""How many differences before and after one tell what is usual there."""

_MIN_RATIO = 3
"""How many times the usual difference a scene change has at least, so that a shot with motion is not cut."""


def scene_changes(
    video: Video,
    grid: FrameGrid,
    *,
    decoder: str = "pyav",
    threads: int | None = None,
    stall_seconds: float = 30.0,
    min_difference: float = 0.08,
) -> list[float]:
    """Return the grid times at which a new scene starts. Decodes the whole grid once, as thumbnails.

    Args:
        video: The video.
        grid: Its frames.
        decoder: A name in DECODERS.
        threads: How many threads decode, as for `read_frames`.
        stall_seconds: How long to wait for one frame, as for `read_frames`.
        min_difference: The least mean difference between neighbouring thumbnails, as a share of the full range. A
            change also has three times the difference that is usual around it.

    Returns:
        The seconds, ascending.
    """
    times = grid.times_seconds
    differences = np.zeros(grid.num_frames)
    previous: np.ndarray | None = None
    batches = read_frames(
        video,
        times,
        **_THUMBNAIL,
        decoder=decoder,
        threads=threads,
        stall_seconds=stall_seconds,
        batch_frames=_BATCH_FRAMES,
    )
    for start, batch in zip(itertools.count(0, _BATCH_FRAMES), batches, strict=False):
        check_stop()
        pixels = batch.pixels.astype(np.float32) / 255
        with_previous = pixels if previous is None else np.concatenate([previous[None], pixels])
        steps = np.abs(np.diff(with_previous, axis=0)).mean(axis=(1, 2, 3))
        differences[start + len(pixels) - len(steps) : start + len(pixels)] = steps
        previous = pixels[-1]
    padded = np.pad(differences, _NEIGHBOURS, mode="reflect" if grid.num_frames > _NEIGHBOURS else "edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * _NEIGHBOURS + 1)
    usual = np.median(windows, axis=1)
    changes: list[float] = times[(differences > min_difference) & (differences > _MIN_RATIO * usual)].tolist()
    return changes

"""Where another scene begins."""

from __future__ import annotations

import itertools

import numpy as np

from lvqa.records import Video
from lvqa.video.prefetch import read_frames
from lvqa.video.sampling import FrameGrid


def scene_changes(
    video: Video,
    grid: FrameGrid,
    *,
    decoder: str = "pyav",
    threads: int | None = None,
    stall_seconds: float = 30.0,
    least: float = 0.08,
) -> list[float]:
    """The grid times at which another scene is on, ascending. Decodes the whole grid once, as thumbnails.

    A change is where neighbouring thumbnails differ in the mean by `least` of the full range, and by three times as
    much as is usual around them, so that a film in motion is not cut to pieces.
    """
    times = grid.times_seconds
    differences = np.zeros(grid.num_frames)
    before: np.ndarray | None = None
    frames = read_frames(
        video, times, height=36, width=64, decoder=decoder, threads=threads, stall_seconds=stall_seconds
    )
    for start, batch in zip(itertools.count(0, 64), frames, strict=False):
        pixels = batch.pixels.astype(np.float32) / 255
        both = pixels if before is None else np.concatenate([before[None], pixels])
        steps = np.abs(np.diff(both, axis=0)).mean(axis=(1, 2, 3))
        differences[start + len(pixels) - len(steps) : start + len(pixels)] = steps
        before = pixels[-1]
    padded = np.pad(differences, 8, mode="reflect" if grid.num_frames > 8 else "edge")
    usual = np.median(np.lib.stride_tricks.sliding_window_view(padded, 17), axis=1)
    changes: list[float] = times[(differences > least) & (differences > 3 * usual)].tolist()
    return changes

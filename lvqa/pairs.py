"""Which two frames are a pair: the unit of Qwen's vision tower, where they share a temporal patch.

A frame without a partner is the pair (k, k), as Qwen encodes an image: it is one frame.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby, pairwise, zip_longest

import numpy as np

from lvqa.records import Clip
from lvqa.video import FrameGrid

Pair = tuple[int, int]
"""The grid frames of a pair; twice the same frame if it has no partner."""


def pairs_of_clip(clip: Clip, grid: FrameGrid) -> list[Pair]:
    """Return the pairs that lie in a clip."""
    inside = slice(*np.searchsorted(grid.times_seconds, [clip.start_seconds, clip.end_seconds]))
    return [grid.pair(pair_id) for pair_id in np.unique(grid.pair_ids[inside]).tolist()]


def aligned_pairs(frames: Iterable[int], grid: FrameGrid) -> list[Pair]:
    """Return grid frames as pairs of the grid: a frame whose partner is not among them is encoded twice."""
    by_pair = (list(group) for _, group in groupby(sorted(set(frames)), key=grid.pair_ids.__getitem__))
    return [(group[0], group[-1]) for group in by_pair]


def sampled_pairs(frames: Iterable[int], _grid: FrameGrid) -> list[Pair]:
    """Return grid frames as pairs of frames that follow each other among them, as Qwen's video processor does.

    They may lie minutes apart. Of an odd number the last one is encoded twice.
    """
    ordered = sorted(set(frames))
    return [(first, first if second is None else second) for first, second in zip_longest(ordered[::2], ordered[1::2])]


PACKINGS: Mapping[str, Callable[[Iterable[int], FrameGrid], list[Pair]]] = {
    "sampled": sampled_pairs,
    "aligned": aligned_pairs,
}
"""How chosen frames become pairs, by the names that `answer.packing` takes."""


def is_split(pair: Pair, grid: FrameGrid) -> bool:
    """Return whether the frames of a pair do not follow each other on the grid; no one time stands for both."""
    return pair[0] != pair[1] and not grid.are_neighbours(*pair)


def runs_of_pairs(pairs: Sequence[Pair], grid: FrameGrid) -> list[list[Pair]]:
    """Return the runs of pairs that follow each other on the grid; a run is presented as one clip.

    A pair that is split is a run by itself.
    """
    runs: list[list[Pair]] = [[pairs[0]]] if pairs else []
    for before, pair in pairwise(pairs):
        if grid.are_neighbours(before[1], pair[0]) and not is_split(before, grid) and not is_split(pair, grid):
            runs[-1].append(pair)
        else:
            runs.append([pair])
    return runs

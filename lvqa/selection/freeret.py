"""FreeRet's selection (arXiv 2509.24621): few clips, several neighbouring frames of each."""

from __future__ import annotations

from dataclasses import dataclass

from lvqa.records import FrameSelection
from lvqa.selection.protocol import ByScores, SelectorInput, evenly_spaced
from lvqa.validation import is_whole, require


@dataclass(frozen=True, slots=True, kw_only=True)
class FreeRetSelector(ByScores):
    """Frames of the best clips, best clip first, until the budget is full.

    Of a clip `frames_per_clip` frames, as whole grid pairs (2p, 2p + 1) at the middles of equal parts of it: the model
    encodes two frames at the price of one. None takes a quarter of the budget, 4 at least: 4, 8, 16 of 16, 32, 64, so
    that a larger budget shows the best four clips more closely instead of adding worse ones. Where the clips run out
    before the budget, they are gone through again, best first, for the pairs that are left. An odd budget ends with the
    first frame of a pair.
    """

    frames_per_clip: int | None = None

    def __post_init__(self) -> None:
        value = self.frames_per_clip
        fine = value is None or (is_whole(value) and value >= 2 and value % 2 == 0)
        require(fine, "frames_per_clip", value, "an even number, 2 or more")

    def select(self, grid: SelectorInput) -> FrameSelection:
        clips = [_pairs_of(frames) for frames in _clips_best_first(grid)]
        frames_per_clip = self.frames_per_clip or max(4, 2 * (grid.num_frames // 8))
        chosen: list[int] = []
        while len(chosen) < grid.budget:
            for pairs in clips:
                wanted = min(frames_per_clip, grid.budget - len(chosen))
                taken = [pairs[place] for place in evenly_spaced(len(pairs), (wanted + 1) // 2)] if pairs else []
                chosen += [frame for pair in taken for frame in pair][:wanted]
                pairs[:] = [pair for pair in pairs if pair not in taken]
        return grid.selection(chosen)


def _clips_best_first(grid: SelectorInput) -> list[list[int]]:
    """The frames of each clip. A clip is as good as its best frame; of equal ones the earlier is first."""
    clips: dict[int, list[int]] = {int(clip_id): [] for clip_id in grid.clip_ids[grid.best_first()]}
    for frame, clip_id in enumerate(grid.clip_ids.tolist()):
        clips[clip_id].append(frame)
    return list(clips.values())


def _pairs_of(frames: list[int]) -> list[list[int]]:
    """A clip's frames as grid pairs: [4, 5, 6] -> [[4, 5], [6]]."""
    pairs: dict[int, list[int]] = {}
    for frame in frames:
        pairs.setdefault(frame // 2, []).append(frame)
    return list(pairs.values())

"""FreeRet's selection (arXiv 2509.24621): few clips, several neighbouring frames of each."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby

from lvqa.records import FrameSelection
from lvqa.selection.protocol import ScoreBased, SelectorInput, evenly_spaced
from lvqa.validation import is_whole, require


@dataclass(frozen=True, slots=True, kw_only=True)
class FreeRetSelector(ScoreBased):
    """Frames of the best clips, best clip first, until the budget is full.

    A clip gives `frames_per_clip` frames, as whole pairs at the middles of equal parts of it: the model encodes two
    frames at the price of one. Where the clips run out before the budget, they are visited again, best
    first, for the pairs that are left. An odd budget ends with the first frame of a pair.
    """

    frames_per_clip: int | None = None
    """An even number. None is a quarter of the budget, 4 at least: 4, 8, 16 of 16, 32, 64, so that a larger budget
    shows the best four clips more closely instead of adding worse ones."""

    def __post_init__(self) -> None:
        value = self.frames_per_clip
        is_valid = value is None or (is_whole(value) and value >= 2 and value % 2 == 0)
        require(is_valid, "frames_per_clip", value, "an even number, 2 or more")

    def select(self, inputs: SelectorInput) -> FrameSelection:
        clips = [_pairs_of(frames, inputs) for frames in _clips_best_first(inputs)]
        frames_per_clip = self.frames_per_clip or max(4, 2 * (inputs.num_frames // 8))
        chosen: list[int] = []
        while len(chosen) < inputs.budget:
            for pairs in clips:
                wanted = min(frames_per_clip, inputs.budget - len(chosen))
                spread = [pairs[index] for index in evenly_spaced(len(pairs), (wanted + 1) // 2)] if pairs else []
                chosen += [frame for pair in spread for frame in pair][:wanted]
                pairs[:] = [pair for pair in pairs if pair not in spread]
        return inputs.selection(chosen)


def _clips_best_first(inputs: SelectorInput) -> list[list[int]]:
    """Return the frames of each clip. A clip is as good as its best frame; of equal ones the earlier is first."""
    clips: dict[int, list[int]] = {int(clip_id): [] for clip_id in inputs.clip_ids[inputs.best_first()]}
    for frame, clip_id in enumerate(inputs.clip_ids.tolist()):
        clips[clip_id].append(frame)
    return list(clips.values())


def _pairs_of(frames: list[int], inputs: SelectorInput) -> list[list[int]]:
    """Return a clip's frames as pairs: [4, 5, 6] -> [[4, 5], [6]]."""
    return [list(pair) for _, pair in groupby(frames, key=inputs.pair_ids.__getitem__)]

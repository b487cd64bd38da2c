"""The start of a video, or noise, prepared for the tasks."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lvqa.models.prompt import ClipTokens
from lvqa.models.qwen_vl import Qwen25VL
from lvqa.pairs import pairs_of_clip
from lvqa.records import Clip, LvqaError, Question, Video
from lvqa.video import FrameGrid, cut_clips, read_frames
from lvqa.visual_tokens import VisualTokens

CLIP_SECONDS = 16.0
"""The length of a measured clip."""
CLIP_PAIRS = 8
"""How many frame pairs a measured clip has, at a frame a second."""


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """The start of a video as the tasks need it, at a frame a second."""

    video: Video
    is_noise: bool
    """Whether the frames are noise, so that there is no file to read."""
    tokens: VisualTokens
    times_seconds: tuple[float, ...]
    """The times of the frames that are read."""
    clips: tuple[Clip, ...]
    pixels: tuple[np.ndarray, ...]
    """The pixels of each clip: (pairs, 2, height, width, 3) uint8."""
    blocks: tuple[ClipTokens, ...]
    """The visual tokens of each clip."""

    @classmethod
    def load(
        cls, model: Qwen25VL, video: Video | None, *, num_clips: int, minutes: float, max_pixels: int | None
    ) -> Sample:
        """Read and encode the first whole clips of a video, or noise of the usual frame size if there is none.

        Raises:
            LvqaError: The video has fewer whole clips.
        """
        source = video or Video(Path("noise"), "noise", CLIP_SECONDS * num_clips, 360, 640, 25.0)
        grid = FrameGrid.exact(video, 1.0) if video else FrameGrid(np.arange(source.duration_seconds))
        tokens = VisualTokens(source, grid, model, max_pixels=max_pixels, memory_bytes=4 << 30)
        clips = _whole_clips(source, grid, num_clips)
        times = [grid.seconds_of(k) for k in range(grid.num_frames) if grid.seconds_of(k) < minutes * 60]
        shape = (num_clips, CLIP_PAIRS, 2, tokens.height, tokens.width, 3)
        if video is None:
            pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        else:
            in_clips = [grid.seconds_of(k) for k in range(2 * CLIP_PAIRS * num_clips)]
            batches = read_frames(video, in_clips, height=tokens.height, width=tokens.width)
            pixels = np.concatenate([batch.pixels for batch in batches]).reshape(shape)
        groups = [pairs_of_clip(clip, grid) for clip in clips]
        encoded = model.encode_pairs(pixels.reshape(-1, *shape[2:]))
        tokens.keep(dict(zip(itertools.chain.from_iterable(groups), encoded, strict=True)))
        blocks = tuple(tokens.clips(groups))
        return cls(source, video is None, tokens, tuple(times), clips, tuple(pixels), blocks)

    @property
    def num_pairs(self) -> int:
        return sum(len(pixels) for pixels in self.pixels)

    def read(self, decoder: str = "pyav") -> None:
        """Read the frames at `times_seconds` by one of lvqa's decoders, and drop them."""
        size = {"height": self.tokens.height, "width": self.tokens.width}
        for _ in read_frames(self.video, self.times_seconds, decoder=decoder, **size):
            pass


def _whole_clips(video: Video, grid: FrameGrid, num_clips: int) -> tuple[Clip, ...]:
    """Return the first clips that have all their pairs."""
    whole = [clip for clip in cut_clips(video, grid, CLIP_SECONDS) if len(pairs_of_clip(clip, grid)) == CLIP_PAIRS]
    if len(whole) < num_clips:
        raise LvqaError(f"{video.path}: has {len(whole)} clips of {CLIP_SECONDS:g} s, {num_clips} are to be measured")
    return tuple(whole[:num_clips])


def sample_questions(num: int) -> Sequence[Question]:
    """Return so many questions with three options each."""
    things = ("door", "car", "letter", "dog", "window", "boat", "sign", "hat")
    return [
        Question(f"What happened to the {things[i % len(things)]} after minute {i}?", ("nothing", "it left", "it fell"))
        for i in range(num)
    ]

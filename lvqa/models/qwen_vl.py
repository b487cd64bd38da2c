"""Qwen2-VL, Qwen2.5-VL and Qwen3-VL: what tells them from each other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor

from lvqa.models.chat import Shown, Special
from lvqa.models.decoder import Decoder
from lvqa.models.positions import Cells
from lvqa.models.prompt import ClipTokens
from lvqa.models.vision import CLIP_COLOURS, Block, Colours, encode_pixels, target_size, through_block

MAX_CELLS = 128
"""A frame's default size limit: Qwen's own cap for LVBench. A config's `video_max_pixels` goes first."""


class Qwen2VL(Decoder):
    """Positions count pairs, whatever the time between them."""

    model_type: ClassVar[str] = "qwen2_vl"
    start, end = Special("<|vision_start|>"), Special("<|vision_end|>")
    pad: ClassVar[Special] = Special("<|video_pad|>")
    delimiters: ClassVar[tuple[Special, ...]] = (start, end)
    colours: ClassVar[Colours] = CLIP_COLOURS

    def __init__(self, model: Any, tokenizer: Any, **about: Any) -> None:
        super().__init__(model, tokenizer, **about)
        self._through_block: Block = through_block
        vision = model.config.vision_config
        self.cell_pixels = int(vision.patch_size * vision.spatial_merge_size)
        self.max_pixels = int(getattr(model.config, "video_max_pixels", MAX_CELLS * self.cell_pixels**2))

    def frame_size(self, height: int, width: int, *, max_pixels: int) -> tuple[int, int]:
        """Multiples of a cell's side, at most `max_pixels` together, the aspect nearly kept."""
        least = min(4 * self.cell_pixels**2, max_pixels)
        return target_size(height, width, max_pixels=max_pixels, min_pixels=least, factor=self.cell_pixels)

    def token_grid(self, height: int, width: int) -> tuple[int, int]:
        """A cell is a square of two by two patches."""
        return height // self.cell_pixels, width // self.cell_pixels

    def encode(self, pixels: Tensor) -> Tensor:
        """The two frames of a pair become the same tokens."""
        return encode_pixels(self._model.model.visual, pixels, colours=self.colours, through=self._through_block)

    def compile(self) -> None:
        """The vision tower's too."""
        super().compile()
        self._through_block = torch.compile(through_block, dynamic=True)

    def show(self, block: ClipTokens) -> Iterator[Shown]:
        """All pairs between one pair of delimiters."""
        yield from (self.start, Cells(self.temporal(block), block.rows, block.cols), self.end)

    def temporal(self, block: ClipTokens) -> tuple[int, ...]:
        """Temporal position of each pair, counted from the block's start."""
        return tuple(range(block.num_pairs))


class Qwen25VL(Qwen2VL):
    """Positions go by the seconds; without them, one a pair."""

    model_type: ClassVar[str] = "qwen2_5_vl"

    @property
    def positions_per_second(self) -> float:
        """How fast the temporal axis goes."""
        return self._model.config.vision_config.tokens_per_second  # type: ignore[no-any-return]

    def temporal(self, block: ClipTokens) -> tuple[int, ...]:
        """Temporal position of each pair, by when its first frame is shown."""
        rate = self.positions_per_second
        return tuple(int(rate * first + 1e-6) for first, _ in block.seconds) or super().temporal(block)


class Qwen3VL(Qwen2VL):
    """Each pair stands between delimiters of its own, with its seconds in words before it (where they are known).

    The words are the library's: the mean of the two frames' times, "<12.5 seconds>".
    """

    model_type: ClassVar[str] = "qwen3_vl"
    colours: ClassVar[Colours] = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    time_encoding = "mrope"

    def show(self, block: ClipTokens) -> Iterator[Shown]:
        """Pair by pair."""
        for pair in range(block.num_pairs):
            if block.seconds:
                yield f"<{sum(block.seconds[pair]) / 2:.1f} seconds>"
            yield from (self.start, Cells((0,), block.rows, block.cols), self.end)

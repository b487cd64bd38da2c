"""InternVL and LLaVA-OneVision, which see single frames: a pair is two frames that are encoded one by one.

A frame without a partner is shown once. Frames are drawn to the one square that the tower knows, as these models'
video processors do it; `model.max_pixels` changes nothing. Text and frames have a single axis of positions.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor

from lvqa.models.chat import Shown, Special
from lvqa.models.decoder import Decoder
from lvqa.models.positions import Cells
from lvqa.models.prompt import ClipTokens
from lvqa.models.vision import Colours


class FrameByFrame(Decoder):
    """What the two have in common. An adapter adds `sizes`, `see` and `show`."""

    after_block = "\n"
    colours: ClassVar[Colours]

    def __init__(self, model: Any, tokenizer: Any, **about: Any) -> None:
        super().__init__(model, tokenizer, **about)
        self.frame_side, self.cells = self.sizes(model.config)
        self.max_pixels = self.frame_side**2

    @staticmethod
    @abstractmethod
    def sizes(config: Any) -> tuple[int, int]:
        """Side of a frame in pixels, and how many tokens it becomes."""

    def frame_size(self, height: int, width: int, *, max_pixels: int) -> tuple[int, int]:
        """The tower's square."""
        return self.frame_side, self.frame_side

    def token_grid(self, height: int, width: int) -> tuple[int, int]:
        """The second frame's rows lie below the first's."""
        side = math.isqrt(self.cells)
        return 2 * side, side

    def encode(self, pixels: Tensor) -> Tensor:
        """(n, 2 * cells, dim), the first frame's tokens before the second's."""
        mean, std = (torch.tensor(values, device=pixels.device)[:, None, None] for values in self.colours)
        frames = (pixels.flatten(0, 1).permute(0, 3, 1, 2).float() / 255 - mean) / std  # (2 * n, 3, side, side)
        return self.see(frames.to(self._model.dtype)).reshape(len(pixels), 2 * self.cells, self.dim)

    @abstractmethod
    def see(self, frames: Tensor) -> Tensor:
        """(frames, cells, dim) of (frames, 3, side, side), normalised."""

    def rows(self, block: ClipTokens) -> Tensor:
        """(frames * cells, dim)."""
        frames = block.tokens.view(block.num_pairs, 2, self.cells, self.dim)
        return frames[self.is_shown(block)].flatten(0, 1)

    def is_shown(self, block: ClipTokens) -> Tensor:
        """(pairs, 2) bool: false for the second of two frames that are the same."""
        alone = [first == second for first, second in block.seconds] or [block.is_image] * block.num_pairs
        return torch.tensor([[True, not is_alone] for is_alone in alone])

    def _axes(self, positions: Tensor) -> Tensor:
        return positions[-1]


class InternVL(FrameByFrame):
    """InternVL 2.5 and 3 in the library's format (`-hf`). The frames of a block are numbered, "Frame1: "."""

    model_type: ClassVar[str] = "internvl"
    start, end = Special("<img>"), Special("</img>")
    pad, delimiters = Special("<IMG_CONTEXT>"), (start, end)
    colours: ClassVar[Colours] = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))

    @staticmethod
    def sizes(config: Any) -> tuple[int, int]:
        """448 and 16 x 16, as published."""
        side, patch = config.vision_config.image_size[0], config.vision_config.patch_size[0]
        return side, int(side // patch * config.downsample_ratio) ** 2

    def see(self, frames: Tensor) -> Tensor:
        """As the library sees images that are not cut up."""
        return self._model.model.get_image_features(frames).pooler_output  # type: ignore[no-any-return]

    def show(self, block: ClipTokens) -> Iterator[Shown]:
        """Frame by frame, each on a line."""
        for number in range(int(self.is_shown(block).sum())):
            yield ("\n" if number else "") + ("" if block.is_image else f"Frame{number + 1}: ")
            yield from (self.start, Cells((0,), 1, self.cells), self.end)


class LlavaOnevision(FrameByFrame):
    """LLaVA-OneVision in the library's format. A block ends with the learnt row that the model has for a line's end.

    A picture is shown as a film of one frame, not cut up into tiles.
    """

    model_type: ClassVar[str] = "llava_onevision"
    pad, delimiters = Special("<video>"), ()
    colours: ClassVar[Colours] = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))

    @staticmethod
    def sizes(config: Any) -> tuple[int, int]:
        """384 and 14 x 14, as published."""
        side, patch = config.vision_config.image_size, config.vision_config.patch_size
        return side, math.ceil(side // patch / 2) ** 2

    def see(self, frames: Tensor) -> Tensor:
        """As the library sees films of one frame, without the line's end."""
        return self._model.model.get_video_features(frames[:, None]).pooler_output[:, :-1]  # type: ignore[no-any-return]

    def show(self, block: ClipTokens) -> Iterator[Shown]:
        """All frames without a delimiter, and a place for the line's end."""
        yield Cells((0,), 1, int(self.is_shown(block).sum()) * self.cells + 1)

    def rows(self, block: ClipTokens) -> Tensor:
        """(frames * cells + 1, dim)."""
        frames = super().rows(block)
        return torch.cat([frames, self._model.model.image_newline[None].to(frames)])

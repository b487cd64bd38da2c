"""InternVL and LLaVA-OneVision, which see single frames: a pair is two frames that are encoded one by one.

A frame without a partner is in the sequence once. Frames are scaled to the one square that the tower knows, as these
models' video processors do it; `model.max_pixels` changes nothing. No frames share a token, so that frames are packed
"aligned", each with its own time; "sampled" has the same tokens. Text and frames have a single axis of positions.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor

from lvqa.models.chat import PromptPart, SpecialToken
from lvqa.models.decoder import Decoder
from lvqa.models.positions import VisualTokenSpan
from lvqa.models.prompt import ClipTokens
from lvqa.models.vision import Channels


class FrameByFrame(Decoder):
    """What the two have in common. An adapter defines `sizes`, `encode_frames` and `lay_out`."""

    text_after_clip = "\n"
    default_packing: ClassVar[str] = "aligned"
    video_in_template: ClassVar[str] = "<video>"
    image_mean: ClassVar[Channels]
    image_std: ClassVar[Channels]

    def __init__(self, library: Any, tokenizer: Any, **options: Any) -> None:
        super().__init__(library, tokenizer, **options)
        self.frame_side, self.cells = self.sizes(library.config)
        self.max_pixels = self.frame_side**2

    @staticmethod
    @abstractmethod
    def sizes(config: Any) -> tuple[int, int]:
        """Return the side of a frame in pixels, and how many tokens it becomes."""

    def frame_size(self, height: int, width: int, *, max_pixels: int) -> tuple[int, int]:
        """Return the tower's square."""
        return self.frame_side, self.frame_side

    def token_grid(self, height: int, width: int) -> tuple[int, int]:
        """Return rows and columns; the second frame's rows lie below the first's."""
        side = math.isqrt(self.cells)
        return 2 * side, side

    def encode(self, pixels: Tensor) -> Tensor:
        """Return (n, 2 * cells, dim), the first frame's tokens before the second's."""
        channels = (self.image_mean, self.image_std)
        mean, std = (torch.tensor(values, device=pixels.device)[:, None, None] for values in channels)
        frames = (pixels.flatten(0, 1).permute(0, 3, 1, 2).float() / 255 - mean) / std  # (2 * n, 3, side, side)
        return self.encode_frames(frames.to(self.library.dtype)).reshape(len(pixels), 2 * self.cells, self.dim)

    @abstractmethod
    def encode_frames(self, frames: Tensor) -> Tensor:
        """Return (frames, cells, dim) of normalised (frames, 3, side, side)."""

    def embedding_rows(self, clip: ClipTokens) -> Tensor:
        """Return the tokens of the frames that are in the sequence, (frames * cells, dim)."""
        frames = clip.tokens.view(clip.num_pairs, 2, self.cells, self.dim)
        return frames[self.frame_mask(clip)].flatten(0, 1)

    def frame_mask(self, clip: ClipTokens) -> Tensor:
        """Return whether each frame is in the sequence, (pairs, 2) bool: false for a copy of its partner."""
        alone = [first == second for first, second in clip.seconds] or [clip.is_image] * clip.num_pairs
        return torch.tensor([[True, not is_alone] for is_alone in alone])

    def position_axes(self, positions: Tensor) -> Tensor:
        """Return the last axis alone, which counts tokens."""
        return positions[-1]


class InternVL(FrameByFrame):
    """InternVL 2.5 and 3 in the library's format (`-hf`). The frames of a clip are numbered, "Frame1: "."""

    model_type: ClassVar[str] = "internvl"
    start, end = SpecialToken("<img>"), SpecialToken("</img>")
    pad, delimiters = SpecialToken("<IMG_CONTEXT>"), (start, end)
    image_mean: ClassVar[Channels] = (0.485, 0.456, 0.406)
    image_std: ClassVar[Channels] = (0.229, 0.224, 0.225)

    @staticmethod
    def sizes(config: Any) -> tuple[int, int]:
        """Return 448 and 16 x 16, as published."""
        side, patch = config.vision_config.image_size[0], config.vision_config.patch_size[0]
        return side, int(side // patch * config.downsample_ratio) ** 2

    def encode_frames(self, frames: Tensor) -> Tensor:
        """Return the tokens as the library makes them of images that are not cut up."""
        return self.library.model.get_image_features(frames).pooler_output  # type: ignore[no-any-return]

    def lay_out(self, clip: ClipTokens) -> Iterator[PromptPart]:
        """Return the clip frame by frame, each on a line."""
        for i in range(int(self.frame_mask(clip).sum())):
            yield ("\n" if i else "") + ("" if clip.is_image else f"Frame{i + 1}: ")
            yield from (self.start, VisualTokenSpan((0,), 1, self.cells), self.end)


class LlavaOnevision(FrameByFrame):
    """LLaVA-OneVision in the library's format. A clip ends with the model's learned row for the end of a line.

    A picture is laid out as a video of one frame, not cut up into tiles.
    """

    model_type: ClassVar[str] = "llava_onevision"
    pad, delimiters = SpecialToken("<video>"), ()
    image_mean: ClassVar[Channels] = (0.5, 0.5, 0.5)
    image_std: ClassVar[Channels] = (0.5, 0.5, 0.5)

    @staticmethod
    def sizes(config: Any) -> tuple[int, int]:
        """Return 384 and 14 x 14, as published."""
        side, patch = config.vision_config.image_size, config.vision_config.patch_size
        return side, math.ceil(side // patch / 2) ** 2

    def encode_frames(self, frames: Tensor) -> Tensor:
        """Return the tokens as the library makes them of videos of one frame, without the line's end."""
        return self.library.model.get_video_features(frames[:, None]).pooler_output[:, :-1]  # type: ignore[no-any-return]

    def lay_out(self, clip: ClipTokens) -> Iterator[PromptPart]:
        """Return all frames without a delimiter, and one token more for the line's end."""
        yield VisualTokenSpan((0,), 1, int(self.frame_mask(clip).sum()) * self.cells + 1)

    def embedding_rows(self, clip: ClipTokens) -> Tensor:
        """Return the tokens of the frames and the line's end, (frames * cells + 1, dim)."""
        frames = super().embedding_rows(clip)
        return torch.cat([frames, self.library.model.image_newline[None].to(frames)])

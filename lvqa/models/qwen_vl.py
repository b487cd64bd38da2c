"""Qwen2-VL, Qwen2.5-VL and Qwen3-VL, and how they differ."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

from torch import Tensor

from lvqa.models.chat import PromptPart, SpecialToken
from lvqa.models.decoder import Decoder
from lvqa.models.positions import VisualTokenSpan
from lvqa.models.prompt import ClipTokens
from lvqa.models.vision import (
    CLIP_IMAGE_MEAN,
    CLIP_IMAGE_STD,
    Channels,
    VisionLayer,
    compiled_vision_layer,
    encode_pixels,
    run_vision_layer,
    target_size,
)

MAX_MEAN_SECONDS = 4.0
"""How far apart the frames of a pair may be, for Qwen3-VL to read the mean of their times."""
MAX_CELLS = 128
"""A frame has so many tokens at most: Qwen's own cap for LVBench. A config's `video_max_pixels` goes before it."""


class Qwen2VL(Decoder):
    """Qwen2-VL. Positions count pairs, whatever the time between them."""

    model_type: ClassVar[str] = "qwen2_vl"
    start, end = SpecialToken("<|vision_start|>"), SpecialToken("<|vision_end|>")
    pad: ClassVar[SpecialToken] = SpecialToken("<|video_pad|>")
    delimiters: ClassVar[tuple[SpecialToken, ...]] = (start, end)
    video_in_template: ClassVar[str] = start.text + pad.text + end.text
    image_mean: ClassVar[Channels] = CLIP_IMAGE_MEAN
    image_std: ClassVar[Channels] = CLIP_IMAGE_STD

    def __init__(self, library: Any, tokenizer: Any, **options: Any) -> None:
        super().__init__(library, tokenizer, **options)
        self._run_vision_layer: VisionLayer = run_vision_layer
        vision = library.config.vision_config
        self.cell_pixels = int(vision.patch_size * vision.spatial_merge_size)
        """The side in pixels of the square that becomes one visual token."""
        self.max_pixels = int(getattr(library.config, "video_max_pixels", MAX_CELLS * self.cell_pixels**2))

    def frame_size(self, height: int, width: int, *, max_pixels: int) -> tuple[int, int]:
        """Return multiples of a cell's side, at most `max_pixels` together, the aspect nearly kept."""
        min_pixels = min(4 * self.cell_pixels**2, max_pixels)
        return target_size(height, width, max_pixels=max_pixels, min_pixels=min_pixels, factor=self.cell_pixels)

    def token_grid(self, height: int, width: int) -> tuple[int, int]:
        """Return how many rows and columns of cells there are; a cell is a square of two by two patches."""
        return height // self.cell_pixels, width // self.cell_pixels

    def encode(self, pixels: Tensor) -> Tensor:
        """Return the visual tokens; the two frames of a pair become the same tokens."""
        return encode_pixels(
            self.library.model.visual,
            pixels,
            image_mean=self.image_mean,
            image_std=self.image_std,
            run_layer=self._run_vision_layer,
        )

    def compile(self) -> None:
        """Have the layers compiled when they are first used, the vision tower's too."""
        super().compile()
        self._run_vision_layer = compiled_vision_layer()

    def lay_out(self, clip: ClipTokens) -> Iterator[PromptPart]:
        """Return all pairs between one pair of delimiters."""
        yield from (self.start, VisualTokenSpan(self.temporal(clip), clip.rows, clip.cols), self.end)

    def temporal(self, clip: ClipTokens) -> tuple[int, ...]:
        """Return the temporal position of each pair, counted from the clip's start."""
        return tuple(range(clip.num_pairs))


class Qwen25VL(Qwen2VL):
    """Qwen2.5-VL. Positions go by the seconds; without them, one a pair."""

    model_type: ClassVar[str] = "qwen2_5_vl"

    @property
    def positions_per_second(self) -> float:
        """How many temporal positions a second has."""
        return self.library.config.vision_config.tokens_per_second  # type: ignore[no-any-return]

    def temporal(self, clip: ClipTokens) -> tuple[int, ...]:
        """Return the temporal position of each pair, by the time of its first frame."""
        rate = self.positions_per_second
        return tuple(int(rate * first + 1e-6) for first, _ in clip.seconds) or super().temporal(clip)


class Qwen3VL(Qwen2VL):
    """Qwen3-VL. Each pair stands between delimiters of its own, behind its time as text where that is known.

    The text is the library's: the mean of the two frames' times, "<12.5 seconds>". Where they lie apart, nothing was
    seen at that time, and both are written.
    """

    model_type: ClassVar[str] = "qwen3_vl"
    image_mean: ClassVar[Channels] = (0.5, 0.5, 0.5)
    image_std: ClassVar[Channels] = (0.5, 0.5, 0.5)
    time_encoding = "mrope"

    def lay_out(self, clip: ClipTokens) -> Iterator[PromptPart]:
        """Return the clip pair by pair."""
        for pair in range(clip.num_pairs):
            if clip.seconds:
                first, second = clip.seconds[pair]
                times = ((first + second) / 2,) if second - first <= MAX_MEAN_SECONDS else (first, second)
                yield "".join(f"<{seconds:.1f} seconds>" for seconds in times)
            yield from (self.start, VisualTokenSpan((0,), clip.rows, clip.cols), self.end)


class Qwen3VLMoe(Qwen3VL):
    """Qwen3-VL whose language model is a mixture of experts."""

    model_type: ClassVar[str] = "qwen3_vl_moe"

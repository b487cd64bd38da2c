"""Read the frames of a grid one by one, decoded in batches as they are needed, or ahead by another thread."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Event

import numpy as np

from lvqa.concurrency import check_stop
from lvqa.records import Video
from lvqa.video.prefetch import Frames, read_frames

AHEAD_BYTES = 256 << 20
"""How much memory frames that are decoded ahead may take: nearly 900 of 448 x 224 pixels."""


@dataclass(frozen=True, slots=True)
class DecodeOptions:
    """How frames are decoded, as `read_frames` takes it."""

    decoder: str
    threads: int | None
    stall_seconds: float


class PixelReader:
    """Frames in ascending order. The file is opened for the first one."""

    def __init__(
        self,
        video: Video,
        frames: Sequence[int],
        times_seconds: np.ndarray,
        *,
        size: tuple[int, int],
        options: DecodeOptions,
        on_batch: Callable[[Sequence[int], np.ndarray], None],
    ) -> None:
        """Prepare to read.

        Args:
            video: The video.
            frames: What the frames are called, ascending.
            times_seconds: Their times.
            size: The height and width at which they are decoded.
            options: How they are decoded.
            on_batch: Called with frames that are about to be used first, and which of them are substitutes.
        """
        height, width = size
        self.frames = frames
        self._batches = read_frames(
            video,
            times_seconds,
            height=height,
            width=width,
            decoder=options.decoder,
            threads=options.threads,
            stall_seconds=options.stall_seconds,
        )
        self._on_batch = on_batch
        self._num_read = 0
        self._recent: dict[int, np.ndarray] = {}
        self._ahead: deque[Frames] = deque()

    def read_ahead(self, stop: Event, max_bytes: int = AHEAD_BYTES) -> None:
        """Decode the first frames, until `stop` is set or they take so much memory.

        Another thread may do it, if no other method is called meanwhile.
        """
        num_bytes = 0
        while num_bytes < max_bytes and not stop.is_set() and (batch := next(self._batches, None)) is not None:
            self._ahead.append(batch)
            num_bytes += batch.pixels.nbytes

    def frame(self, frame: int) -> np.ndarray:
        """Return (height, width, 3) of a frame; of the earlier ones only the last few can be read again."""
        while frame not in self._recent:
            check_stop()
            batch = self._ahead.popleft() if self._ahead else next(self._batches)
            frames = self.frames[self._num_read : self._num_read + len(batch.pixels)]
            self._num_read += len(batch.pixels)
            # The batch before stays: a pair may lie across two.
            before = dict(list(self._recent.items())[-len(frames) :])
            self._recent = before | dict(zip(frames, batch.pixels, strict=True))
            self._on_batch(frames, batch.substituted)
        return self._recent[frame]

    def close(self) -> None:
        """Stop decoding."""
        self._batches.close()

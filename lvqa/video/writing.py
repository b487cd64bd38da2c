"""Write frames into a file, without loss."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import numpy as np


def write_frames(path: Path, frames: Iterable[np.ndarray], *, frames_per_second: float) -> None:
    """Write frames as a video that decodes to the same pixels. The same frames give the same bytes.

    Args:
        path: The file to write, in Matroska's format.
        frames: At least one, each (height, width, 3) uint8 RGB, all of one size.
        frames_per_second: How many there are a second, at an even step.
    """
    import av

    rate = Fraction(frames_per_second).limit_denominator(1000)
    with av.open(str(path), "w", format="matroska", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("ffv1", rate=rate)
        stream.pix_fmt, stream.time_base = "bgr0", 1 / rate  # the one RGB of 8 bits that FFV1 has
        stream.codec_context.thread_count = 1
        for i, pixels in enumerate(frames):
            if i == 0:
                stream.height, stream.width = pixels.shape[:2]
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))

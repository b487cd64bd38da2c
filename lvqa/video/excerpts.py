"""Parts of a video for a reader: a clip that browsers play."""

from __future__ import annotations

import tempfile
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lvqa.records import Video
from lvqa.startup import num_threads
from lvqa.video.container import VideoError
from lvqa.video.prefetch import read_frames
from lvqa.video.sound import SAMPLES_PER_SECOND, read_sound

if TYPE_CHECKING:
    import av

MAX_CLIP_SECONDS = 120.0
"""A clip is no longer."""
MAX_CLIP_RATE = 30.0
"""It has so many frames a second at most."""
AAC_SAMPLES = 1024
"""AAC encodes so many samples at a time."""


def clip_bytes(video: Video, start_seconds: float, end_seconds: float, *, max_height: int = 480) -> bytes:
    """Return a video from one time to another as an MP4 file: H.264, and AAC if it has sound.

    The pictures are as a player shows them: turned, and in square pixels.

    Args:
        video: The inspected file.
        start_seconds: Where the clip begins.
        end_seconds: Where it ends; the end of the video, if that comes first.
        max_height: A larger picture is made so high.

    Raises:
        VideoError: The times are not in the video, the clip is longer than MAX_CLIP_SECONDS, or it can't be read.
    """
    import av

    end_seconds = min(end_seconds, video.duration_seconds)
    if not 0 <= start_seconds < end_seconds or end_seconds - start_seconds > MAX_CLIP_SECONDS:
        raise VideoError(
            f"{video.path.name}: a clip from {start_seconds:g} s to {end_seconds:g} s; allowed: up to "
            f"{MAX_CLIP_SECONDS:g} s, inside 0 to {video.duration_seconds:g} s"
        )
    rate = Fraction(min(video.frames_per_second, MAX_CLIP_RATE)).limit_denominator(1000)
    num_frames = max(1, int((end_seconds - start_seconds) * rate))
    times = np.minimum(start_seconds + np.arange(num_frames) / float(rate), np.nextafter(video.duration_seconds, 0))
    height, width = _even_size(video, max_height)
    sound = read_sound(video, start_seconds, start_seconds + num_frames / float(rate))
    with tempfile.TemporaryDirectory(prefix="lvqa-") as folder:
        path = Path(folder, "clip.mp4")  # a file: only there the index can be moved to the front when all is written
        with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
            stream = container.add_stream("libx264", rate=rate, options={"preset": "veryfast", "crf": "23"})
            stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
            stream.codec_context.thread_count = num_threads()  # x264 takes half as many again as the machine has cores
            if sound is not None:  # before the first picture: all streams are known then
                _write_sound(container, sound)
            for batch in read_frames(video, times, height=height, width=width):
                for pixels in batch.pixels:
                    container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            container.mux(stream.encode(None))
        return path.read_bytes()


def _write_sound(container: av.container.OutputContainer, samples: np.ndarray) -> None:
    """Add a stereo track, (2, samples) float32."""
    import av

    stream = container.add_stream("aac", rate=SAMPLES_PER_SECOND, layout="stereo")
    for first in range(0, samples.shape[1], AAC_SAMPLES):
        piece = np.ascontiguousarray(samples[:, first : first + AAC_SAMPLES])
        frame = av.AudioFrame.from_ndarray(piece, format="fltp", layout="stereo")
        frame.sample_rate, frame.pts = SAMPLES_PER_SECOND, first
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


def _even_size(video: Video, max_height: int) -> tuple[int, int]:
    """Return the height and width of a clip's pictures: even, as H.264 wants them."""
    scale = min(1.0, max_height / video.height)
    height, width = (max(2, round(side * scale / 2) * 2) for side in (video.height, video.width))
    return height, width

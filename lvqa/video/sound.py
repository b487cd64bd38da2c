"""The sound of a part of a video, by the clock of its pictures."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from lvqa.records import Video
from lvqa.video.container import convert_errors, demux, open_stream
from lvqa.video.metadata import timeline_of

if TYPE_CHECKING:
    import av

SAMPLES_PER_SECOND = 48_000
SECONDS_BEFORE = 1.0
"""Decoding begins so much earlier: codecs need a few packets until they are right."""


def read_sound(video: Video, start_seconds: float, end_seconds: float) -> np.ndarray | None:
    """Return what is heard from one time to another, (2, samples) float32; None if the video has no sound.

    Where the file has no sound, or it is damaged, there is silence.

    Args:
        video: The inspected file.
        start_seconds: Where the part begins, in seconds from the first frame.
        end_seconds: Where it ends.
    """
    timeline = timeline_of(video.path)
    ticks = timeline.ticks_at(np.array([start_seconds]))
    # A sound has the file's own time, in which gaps of a broken clock are open and the first frame may come late.
    origin = float(int(ticks[0]) * timeline.tick_seconds) + start_seconds - float(timeline.seconds_of(ticks)[0])
    samples = np.zeros((2, round((end_seconds - start_seconds) * SAMPLES_PER_SECOND)), dtype=np.float32)
    with convert_errors(video.path), open_stream(video.path) as stream:
        container = cast("av.container.InputContainer", stream.container)
        sound = container.streams.best("audio")
        if sound is None or sound.codec_context is None:
            return None
        for seconds, piece in _pieces(container, sound, origin):
            first = round((seconds - origin) * SAMPLES_PER_SECOND)
            if first >= samples.shape[1]:
                break
            piece = piece[:, max(0, -first) :]
            place = samples[:, max(0, first) :][:, : piece.shape[1]]
            place[:] = piece[:, : place.shape[1]]
    return samples


def _pieces(
    container: av.container.InputContainer, sound: Any, from_seconds: float
) -> Iterator[tuple[float, np.ndarray]]:
    """Yield the file's time of each piece of the sound, and its samples, beginning at a time or before."""
    import av

    seek_tick = int((from_seconds - SECONDS_BEFORE) / sound.time_base)
    if seek_tick > (sound.start_time or 0):
        container.seek(seek_tick, stream=sound)
    resampler = av.AudioResampler(format="fltp", layout="stereo", rate=SAMPLES_PER_SECOND)
    for packet in demux(sound):
        with suppress(av.error.FFmpegError):  # a damaged packet is silent
            for frame in packet.decode():
                for piece in resampler.resample(cast("av.AudioFrame", frame)):
                    if piece.time is not None:
                        yield piece.time, piece.to_ndarray()

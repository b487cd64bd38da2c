"""The sound of clips: it is heard with the pictures that it belongs to."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import video_files

from lvqa.video import clip_bytes, inspect_video

RATE = 48_000
FORMS = {".mp4": "aac", ".mkv": "flac", ".webm": "libopus", ".ts": "mp2"}


def write_tone(path: Path, codec: str, late_seconds: float = 0.0) -> Path:
    """Write a video of 8 s with a tone from 4 s to 5 s; its clock begins late."""
    with av.open(str(path), "w", options={"avoid_negative_ts": "disabled"}) as container:
        pictures: Any = container.add_stream("libvpx" if path.suffix == ".webm" else "libx264", rate=10)
        sound: Any = container.add_stream(codec, rate=RATE, layout="stereo")
        pictures.width, pictures.height, pictures.pix_fmt = 160, 96, "yuv420p"
        form = sound.codec_context.format.name
        times = np.arange(8 * RATE) / RATE
        tone = np.where((times >= 4) & (times < 5), 0.5 * np.sin(2 * np.pi * 440 * times), 0.0).astype(np.float32)
        resampler = av.AudioResampler(format=form, layout="stereo", rate=RATE)
        for first in range(0, len(tone), RATE // 10):
            image = av.VideoFrame.from_ndarray(video_files.picture(first * 10 // RATE), format="rgb24")
            image.pts = first * 10 // RATE + round(late_seconds * 10)
            container.mux(pictures.encode(image))
            samples = np.repeat(tone[None, first : first + RATE // 10], 2, axis=0)
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), format="fltp", layout="stereo")
            frame.sample_rate, frame.pts = RATE, first + round(late_seconds * RATE)
            for piece in resampler.resample(frame):
                container.mux(sound.encode(piece))
        container.mux(pictures.encode(None))
        container.mux(sound.encode(None))
    return path


def heard(content: bytes) -> tuple[float, float]:
    """Return from when to when a file is loud, by its own clock."""
    with av.open(io.BytesIO(content)) as container:
        frames = [frame for frame in container.decode(audio=0) if frame.time is not None]
    loud = [frame.time for frame in frames if np.abs(frame.to_ndarray()).max() > 0.2]
    return min(loud), max(loud) + 1024 / RATE


@pytest.mark.slow
@pytest.mark.parametrize("late_seconds", [0.0, 30.0])
@pytest.mark.parametrize("suffix", FORMS)
def test_a_clip_sounds_when_the_video_does(suffix: str, late_seconds: float, tmp_path: Path) -> None:
    video = inspect_video(write_tone(tmp_path / f"a{suffix}", FORMS[suffix], late_seconds))
    for start, end, expected in ((0.0, 8.0, (4.0, 5.0)), (3.5, 7.0, (0.5, 1.5)), (4.5, 6.0, (0.0, 0.5))):
        assert heard(clip_bytes(video, start, end)) == pytest.approx(expected, abs=0.06)


def test_a_clip_of_a_silent_video_has_no_track(tmp_path: Path) -> None:
    with av.open(io.BytesIO(clip_bytes(inspect_video(video_files.write_video(tmp_path / "a.mp4")), 0, 1))) as clip:
        assert not clip.streams.audio and len(clip.streams.video) == 1


def test_a_clip_after_the_sound_has_ended_is_silent(tmp_path: Path) -> None:
    video = inspect_video(write_tone(tmp_path / "a.mp4", "aac"))
    with av.open(io.BytesIO(clip_bytes(video, 6, 8))) as clip:
        peaks = [np.abs(frame.to_ndarray()).max() for frame in clip.decode(audio=0)]
    assert len(peaks) > 80 and max(peaks) < 0.01

"""Small videos that tests write and read. Every frame carries its number, so that a test can read which one came back.

The number is a strip of 16 black or white cells, lowest bit first, along the top; below it a disc moves over a
gradient, so that the codecs have something to predict.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lvqa.records import Video
from lvqa.video import read_frames
from lvqa.video.display import SCALING

AV1_FILES = Path(__file__).parent / "data" / "av1"
"""70 pictures each, of libaom, rav1e and SVT-AV1, whose encoder would give itself real-time priority in a test."""

HEIGHT, WIDTH, CELLS, STRIP = 96, 160, 16, 16


def picture(number: int) -> np.ndarray:
    """Return the frame with a number: (HEIGHT, WIDTH, 3) uint8."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    pixels = np.stack([rows * 255 // HEIGHT, columns * 255 // WIDTH, np.full_like(rows, number * 7 % 256)], axis=-1)
    disc = (rows - 60) ** 2 + (columns - number * 3 % WIDTH) ** 2 < 200
    pixels[disc] = (240, 200, 40)
    bits = number >> (columns[0] * CELLS // WIDTH) & 1
    pixels[:STRIP] = 255 * bits[None, :, None]
    return pixels.astype(np.uint8)


def number_of(pixels: np.ndarray) -> int:
    """Read the number that `picture` drew into a frame, whatever size it has now."""
    height, width, _ = pixels.shape
    row = pixels[STRIP * height // HEIGHT // 2].mean(axis=-1)
    centres = (np.arange(CELLS) * 2 + 1) * width // (2 * CELLS)
    return int(((row[centres] > 127) << np.arange(CELLS)).sum())


def write_video(
    path: Path,
    num_frames: int = 50,
    *,
    fps: int = 25,
    codec: str = "libx264",
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
    times: Sequence[float] | None = None,
    rotation: int = 0,
    pixel_aspect: Fraction | None = None,
    format: str | None = None,
    metadata: dict[str, str] | None = None,
) -> Path:
    """Write a video of the pictures 0, 1, ... in groups of 10 frames with B-frames, and return its path.

    Args:
        path: The file.
        num_frames: How many pictures.
        fps: The constant rate.
        codec: FFmpeg's name of the encoder.
        options: Options of the encoder, in place of `coding_options`.
        container_options: Options of the container.
        times: The second from which each picture is presented, in place of a constant rate.
        rotation: By how many degrees a player turns the stored picture, anticlockwise.
        pixel_aspect: The width of a pixel over its height; None does not say it.
        format: FFmpeg's name of the container, in place of the one that the path's suffix implies.
        metadata: Tags of the file.
    """
    import av

    with av.open(f"file:{path}", "w", format=format, container_options=container_options or {}) as container:
        stream: Any = container.add_stream(codec, rate=fps, options=options or coding_options(codec))
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "rgb8" if codec == "gif" else "yuv420p"
        stream.codec_context.thread_count = 1
        stream.codec_context.time_base = Fraction(1, 1000) if times else Fraction(1, fps)
        if pixel_aspect is not None:
            stream.codec_context.sample_aspect_ratio = pixel_aspect
        container.metadata.update(metadata or {})
        if rotation:
            if not hasattr(stream, "set_display_rotation"):
                pytest.skip("PyAV writes no display matrix before 17.1")
            stream.set_display_rotation(rotation)
        for i in range(num_frames):
            frame = av.VideoFrame.from_ndarray(picture(i), format="rgb24")
            frame.pts = round(times[i] * 1000) if times else i
            frame.time_base = stream.codec_context.time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def coding_options(codec: str) -> dict[str, str]:
    """Return the encoder's options for groups of 10 frames, with B-frames where the codec has them."""
    x264 = {"g": "10", "bf": "2", "preset": "veryfast", "x264-params": "scenecut=0:b-adapt=0"}
    vpx = {"g": "10", "cpu-used": "8", "deadline": "realtime"}
    return {
        "libx264": x264,
        "libx265": {"preset": "ultrafast", "x265-params": "keyint=10:bframes=2:log-level=none:pools=1"},
        "libvpx": {**vpx, "deadline": "good", "auto-alt-ref": "1", "lag-in-frames": "16", "b": "200k"},
        "libvpx-vp9": vpx,
    }.get(codec, {"g": "10"})


def write_sound(path: Path, seconds: float = 1.0) -> Path:
    """Write a file with a tone and no pictures, and return its path."""
    import av

    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("aac", rate=16000, layout="mono")
        samples = np.sin(np.arange(1024, dtype=np.float32) * 0.1)[None]
        for i in range(int(seconds * 16000 / 1024)):
            frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 16000, i * 1024
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def remuxed(source: Path, target: Path, *, shift_seconds: float = 0.0) -> Path:
    """Write the same packets into another container, and return its path.

    Args:
        source: The file to read.
        target: The file to write.
        shift_seconds: How much later every packet comes. What a negative shift moves to before 0 is hidden by an edit
            list in mp4.
    """
    import av

    options = {"avoid_negative_ts": "disabled", "use_editlist": "1"} if shift_seconds < 0 else {}
    with av.open(str(source)) as reading, av.open(str(target), "w", container_options=options) as writing:
        stream = writing.add_stream_from_template(reading.streams.video[0], opaque=True)
        for packet in reading.demux(video=0):
            if packet.pts is None or packet.dts is None:
                continue
            shift = round(shift_seconds / packet.time_base)
            packet.pts, packet.dts, packet.stream = packet.pts + shift, packet.dts + shift, stream
            writing.mux(packet)
    return target


def cut_at_keyframe(source: Path, target: Path, number: int) -> Path:
    """Write the packets from a keyframe on into another container, as programs that cut without decoding do."""
    import av

    with av.open(str(source)) as reading, av.open(str(target), "w") as writing:
        stream = writing.add_stream_from_template(reading.streams.video[0])
        packets = [packet for packet in reading.demux(video=0) if packet.size]
        first = [i for i, packet in enumerate(packets) if packet.is_keyframe][number]
        for packet in packets[first:]:
            packet.stream = stream
            writing.mux(packet)
    return target


def truncated(source: Path, target: Path, share: float = 0.5) -> Path:
    """Write the first share of a file's bytes, and return its path."""
    data = source.read_bytes()
    target.write_bytes(data[: int(len(data) * share)])
    return target


def damaged(source: Path, target: Path, *, start: float = 0.45, end: float = 0.55, seed: int = 0) -> Path:
    """Write a file whose bytes from `start` to `end`, as shares of its length, are noise, and return its path."""
    data = bytearray(source.read_bytes())
    first, last = int(len(data) * start), int(len(data) * end)
    data[first:last] = np.random.default_rng(seed).bytes(last - first)
    target.write_bytes(data)
    return target


_STEPS = np.random.default_rng(0).choice([0.02, 0.04, 0.1, 0.4], 50)
_OPEN_GROUPS = {"g": "10", "bf": "3", "x264-params": "scenecut=0:open-gop=1:b-adapt=0"}
_OPEN_GROUPS_265 = {"preset": "ultrafast", "x265-params": "keyint=10:bframes=3:open-gop=1:log-level=none:pools=1"}
_REFRESHED = {"g": "10", "bf": "0", "x264-params": "scenecut=0:intra-refresh=1"}

SIMPLE_VIDEOS: dict[str, Callable[[Path], Path]] = {
    "constant.mp4": write_video,
    "irregular.mp4": lambda path: write_video(path, times=np.cumsum(_STEPS).tolist()),
    "later.mkv": lambda path: remuxed(write_video(path.with_name("source.mp4")), path, shift_seconds=7.5),
    "turned.mp4": lambda path: write_video(path, rotation=90),
    "upside_down.mp4": lambda path: write_video(path, rotation=180),
    "hevc.mp4": lambda path: write_video(path, codec="libx265"),
    "vp9.webm": lambda path: write_video(path, codec="libvpx-vp9"),
    "one_frame.mp4": lambda path: write_video(path, 1),
    "concat:a b|\N{GRINNING FACE} Фильм.mp4": write_video,
}
"""How to write the videos that every decoder must read correctly."""

_HIDDEN = {"g": "40", "deadline": "good", "cpu-used": "5", "auto-alt-ref": "6", "lag-in-frames": "25", "b": "60k"}

UNUSUAL_VIDEOS: dict[str, Callable[[Path], Path]] = {
    "av1.mkv": lambda path: Path(shutil.copy(AV1_FILES / "grain.mkv", path)),
    "av1.mp4": lambda path: remuxed(AV1_FILES / "grain.mkv", path),
    "hidden_vp9.webm": lambda path: write_video(path, 80, codec="libvpx-vp9", options=_HIDDEN),
    "hidden_vp9.mp4": lambda path: write_video(path, 80, codec="libvpx-vp9", options=_HIDDEN),
    "stream.ts": write_video,
    "cut.mp4": lambda path: remuxed(write_video(path.with_name("source.mp4")), path, shift_seconds=-0.2),
    "open_groups.mp4": lambda path: write_video(path, options=_OPEN_GROUPS),
    "open_groups.ts": lambda path: write_video(path, options=_OPEN_GROUPS),
    "open_groups_hevc.mp4": lambda path: write_video(path, codec="libx265", options=_OPEN_GROUPS_265),
    "vp8.webm": lambda path: write_video(path, codec="libvpx"),
    "mpeg4.avi": lambda path: write_video(path, codec="mpeg4", options={"g": "10", "bf": "2"}),
    "h264.avi": write_video,
    "raw.h264": lambda path: write_video(path, format="h264"),
    "mpeg2.mpg": lambda path: write_video(path, codec="mpeg2video"),
    "pictures.gif": lambda path: write_video(path, codec="gif"),
    "refreshed.ts": lambda path: write_video(path, options=_REFRESHED),
}
"""How to write the videos that only the default decoder reads correctly."""


def decode_fully(path: Path) -> tuple[list[float], list[np.ndarray]]:
    """Return the seconds and pixels of every frame, by plain full decoding: the reference for the decoders.

    Where packets have no usable times, the frames follow each other at the constant rate.
    """
    import av

    with av.open(f"file:{path}") as container:
        stream = container.streams.video[0]
        frames = list(container.decode(stream))
        assert stream.time_base is not None
        has_times = path.name not in ("h264.avi", "raw.h264")
        ticks = [(frame.pts or 0) - (frames[0].pts or 0) for frame in frames] if has_times else range(len(frames))
        tick_seconds = float(stream.time_base) if has_times else 1 / 25
    pixels = [
        np.rot90(
            frame.reformat(frame.width, frame.height, format="rgb24", interpolation=SCALING).to_ndarray(),
            frame.rotation // 90,
        )
        for frame in frames
    ]
    return [tick * tick_seconds for tick in ticks], pixels


def cached_video(name: str, folder: Path) -> Path:
    """Return the path of one of SIMPLE_VIDEOS or UNUSUAL_VIDEOS; the first call writes it."""
    path = folder / name
    if not path.exists():
        {**SIMPLE_VIDEOS, **UNUSUAL_VIDEOS}[name](path)
    return path


def indices_at(times: Sequence[float], starts: Sequence[float]) -> list[int]:
    """Return which frame is on screen at each time: the last one that starts at or before it."""
    return [max(i for i, start in enumerate(starts) if start <= seconds + 1e-6) for seconds in times]


def read_pixels(
    video: Video, seconds: Sequence[float], decoder: str = "pyav", threads: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Return the pixels at all times in the video's own size, and whether each frame is a substitute."""
    size = {"height": video.height, "width": video.width}
    batches = list(read_frames(video, seconds, **size, decoder=decoder, threads=threads, batch_frames=7))
    assert np.concatenate([batch.times_seconds for batch in batches]).tolist() == list(seconds)
    return np.concatenate([batch.pixels for batch in batches]), np.concatenate([batch.substituted for batch in batches])


def frame_numbers(pixels: np.ndarray) -> list[int]:
    """Return the number of each frame."""
    return [number_of(frame) for frame in pixels]

"""Small films that tests write and read. Every frame carries its number, so that a test reads which one came back.

The number is a strip of 16 black or white cells, lowest bit first, along the top; below it a disc moves over a
gradient, so that the codecs have something to predict.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

HEIGHT, WIDTH, CELLS, STRIP = 96, 160, 16, 16


def picture(number: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """(height, width, 3) uint8: frame `number`."""
    rows, columns = np.mgrid[:height, :width]
    pixels = np.stack([rows * 255 // height, columns * 255 // width, np.full_like(rows, number * 7 % 256)], axis=-1)
    disc = (rows - 60) ** 2 + (columns - number * 3 % width) ** 2 < 200
    pixels[disc] = (240, 200, 40)
    bits = number >> (columns[0] * CELLS // width) & 1
    pixels[:STRIP] = 255 * bits[None, :, None]
    return pixels.astype(np.uint8)


def number_of(pixels: np.ndarray) -> int:
    """The number drawn into a frame of any size, by `picture`."""
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
    format: str | None = None,
    metadata: dict[str, str] | None = None,
    with_sound: bool = False,
) -> Path:
    """A film of pictures 0, 1, ... at a constant rate, or each shown from its second in `times` on.

    Groups of 10 frames with B-frames between, unless `options` says otherwise. `rotation` is by how many degrees a
    player turns the stored picture anticlockwise.
    """
    import av

    with av.open(f"file:{path}", "w", format=format, container_options=container_options or {}) as container:
        stream: Any = container.add_stream(codec, rate=fps, options=options or coding_options(codec))
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "rgb8" if codec == "gif" else "yuv420p"
        stream.codec_context.thread_count = 1
        stream.codec_context.time_base = Fraction(1, 1000) if times else Fraction(1, fps)
        container.metadata.update(metadata or {})
        if rotation:
            stream.set_display_rotation(rotation)
        if with_sound:
            container.add_stream("aac", rate=16000)
        for number in range(num_frames):
            frame = av.VideoFrame.from_ndarray(picture(number), format="rgb24")
            frame.pts = round(times[number] * 1000) if times else number
            frame.time_base = stream.codec_context.time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def coding_options(codec: str) -> dict[str, str]:
    """Groups of 10 frames, with B-frames where the codec has them."""
    x264 = {"g": "10", "bf": "2", "preset": "veryfast", "x264-params": "scenecut=0:b-adapt=0"}
    vpx = {"g": "10", "cpu-used": "8", "deadline": "realtime"}
    return {
        "libx264": x264,
        "libx265": {"preset": "ultrafast", "x265-params": "keyint=10:bframes=2:log-level=none:pools=1"},
        "libvpx": {**vpx, "deadline": "good", "auto-alt-ref": "1", "lag-in-frames": "16", "b": "200k"},
        "libvpx-vp9": vpx,
        "libsvtav1": {"g": "10", "preset": "12", "svtav1-params": "lp=1"},
    }.get(codec, {"g": "10"})


def write_sound(path: Path, seconds: float = 1.0) -> Path:
    """A file with a tone and no pictures."""
    import av

    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("aac", rate=16000, layout="mono")
        samples = np.sin(np.arange(1024, dtype=np.float32) * 0.1)[None]
        for place in range(int(seconds * 16000 / 1024)):
            frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 16000, place * 1024
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def remuxed(source: Path, target: Path, *, shift_seconds: float = 0.0, drop: Iterable[int] = ()) -> Path:
    """The same packets in another container, `shift_seconds` later; the packets numbered in `drop` are left out.

    What a negative shift moves to before 0 is hidden by an edit list in mp4.
    """
    import av

    drop = set(drop)
    options = {"avoid_negative_ts": "disabled", "use_editlist": "1"} if shift_seconds < 0 else {}
    with av.open(str(source)) as reading, av.open(str(target), "w", container_options=options) as writing:
        stream = writing.add_stream_from_template(reading.streams.video[0])
        for place, packet in enumerate(reading.demux(video=0)):
            if packet.pts is None or packet.dts is None or place in drop:
                continue
            shift = round(shift_seconds / packet.time_base)
            packet.pts, packet.dts, packet.stream = packet.pts + shift, packet.dts + shift, stream
            writing.mux(packet)
    return target


def truncated(source: Path, target: Path, part: float = 0.5) -> Path:
    """The first `part` of a file's bytes."""
    data = source.read_bytes()
    target.write_bytes(data[: int(len(data) * part)])
    return target


def damaged(source: Path, target: Path, *, start: float = 0.45, end: float = 0.55, seed: int = 0) -> Path:
    """A file whose bytes from `start` to `end`, as parts of its length, are noise."""
    data = bytearray(source.read_bytes())
    first, last = int(len(data) * start), int(len(data) * end)
    data[first:last] = np.random.default_rng(seed).bytes(last - first)
    target.write_bytes(data)
    return target

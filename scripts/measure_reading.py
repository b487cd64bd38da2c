"""Measure what reading a video takes, beside what can't be less: `python scripts/measure_reading.py [VIDEO]`.

Without VIDEO the script makes one and keeps it in `--folder`: 360p H.264 at 25 frames a second, groups of 250 with 3
B-frames, about 400 kb/s. Every method yields the frames of the grid at one a second (or what its name says), scaled to
448 x 252, and reads with one thread, on one core, unless its name says otherwise. Every run is a fresh process; the
methods take turns, and the table has the median of `--runs`. "CPU" is the time of all threads; the ratios are of CPU
time where the number of threads is the same, since other programs disturb it less.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from lvqa.video import FrameGrid, inspect_video, read_frames
from lvqa.video.display import SCALING

HEIGHT, WIDTH = 252, 448
SIZE = {"height": HEIGHT, "width": WIDTH}

Work = Callable[[], int]
"""The work that is timed; it returns how many frames it has read."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video", nargs="?", type=Path, help="a video of your own")
    parser.add_argument(
        "--folder",
        type=Path,
        default=Path("runs/measure_decoding"),
        help="the folder of the video that the script makes",
    )
    parser.add_argument("--minutes", type=float, default=60, help="the length of the video that the script makes")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=METHODS, metavar="METHOD", help=f"some of: {', '.join(METHODS)}")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    arguments = parser.parse_args()

    path = arguments.video or make_video(arguments.folder, arguments.minutes)
    names = arguments.only or list(METHODS)
    costs: dict[str, list[tuple[float, float, int]]] = {name: [] for name in names}
    for _ in range(arguments.runs):
        for name in names:
            with ProcessPoolExecutor(1, get_context("spawn")) as process:  # it knows nothing about the video yet
                costs[name].append(process.submit(measure, name, path).result())
            print("{}: {:.3f} s, CPU {:.3f} s, {} frames".format(name, *costs[name][-1]), file=sys.stderr, flush=True)
    medians: dict[str, dict[str, float]] = {
        name: dict(
            zip(("wall_seconds", "cpu_seconds", "frames"), map(statistics.median, zip(*runs, strict=True)), strict=True)
        )
        for name, runs in costs.items()
    }
    ratios = {
        title: medians[numerator][unit] / medians[denominator][unit]
        for title, (numerator, denominator, unit, _) in RATIOS.items()
        if {numerator, denominator} <= medians.keys()
    }
    if arguments.json:
        settings = {"video": str(path), "runs": arguments.runs, "full": FULL}
        print(json.dumps({**settings, "methods": medians, "ratios": ratios}))
        return
    print(f"{path}, {arguments.runs} runs; full decode by {FULL}\n")
    print(f"{'':38}{'wall s':>9}{'CPU s':>9}{'frames':>8}")
    for name, cost in medians.items():
        print(f"{name:38}{cost['wall_seconds']:9.3f}{cost['cpu_seconds']:9.3f}{cost['frames']:8.0f}")
    print()
    for title, ratio in ratios.items():
        print(f"{title:58}{ratio:7.2f}   (expected: {RATIOS[title][-1]})")


def measure(name: str, path: Path) -> tuple[float, float, int]:
    """Return the wall seconds, the CPU seconds of this process and its children, and the number of frames."""
    if not name.endswith("2 threads") and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    work = METHODS[name](path)
    wall, cpu = time.perf_counter(), sum(os.times()[:4])
    frames = work()
    return time.perf_counter() - wall, sum(os.times()[:4]) - cpu, frames


# --- the methods ----------------------------------------------------------------------------------------------------


def count(frames: Iterator[Any]) -> int:
    return sum(1 for _ in frames)


def full_decode(path: Path) -> Work:
    """Decode all frames, and scale none."""
    if FULL == "ffmpeg":
        command = ["ffmpeg", "-v", "error", "-threads", "1", "-i", str(path), "-map", "0:v:0", "-f", "null", "-"]
        return lambda: subprocess.run(command, check=True).returncode
    return lambda: count(decode(path))


def full_decode_and_scale(path: Path) -> Work:
    """Decode all frames, and scale those of the grid."""
    from av.video.reformatter import VideoReformatter

    reformatter = VideoReformatter()

    def work() -> int:
        num_scaled = 0
        for frame in decode(path):
            if frame.time is not None and frame.time >= num_scaled - 1e-6:
                reformatter.reformat(frame, WIDTH, HEIGHT, "rgb24", interpolation=SCALING).to_ndarray()
                num_scaled += 1
        return num_scaled

    return work


def decode(path: Path) -> Iterator[Any]:
    import av

    with av.open(str(path)) as container:
        container.streams.video[0].codec_context.thread_count = 1
        yield from container.decode(container.streams.video[0])


def frame_grid(make_grid: Callable[..., FrameGrid], *, threads: int = 1) -> Callable[[Path], Work]:
    """Read the frame grid as lvqa does, with all that it has to find out about the video."""

    def method(path: Path) -> Work:
        def work() -> int:
            video = inspect_video(path)
            return read(video, make_grid(video, 1.0).times_seconds, threads=threads)

        return work

    return method


def read(video: Any, times: np.ndarray, *, threads: int) -> int:
    return sum(len(batch.pixels) for batch in read_frames(video, times, **SIZE, threads=threads))


def scattered_times(video: Any) -> np.ndarray:
    """Return 64 times of the video, the same in every run."""
    return np.sort(np.random.default_rng(0).uniform(0, video.duration_seconds, 64))


def scattered(*, threads: int = 1, is_inspected: bool = True) -> Callable[[Path], Work]:
    """Read 64 frames all over the video, which is inspected before, as it is before a question is answered, or not."""

    def method(path: Path) -> Work:
        inspected = inspect_video(path) if is_inspected else None

        def work() -> int:
            video = inspected or inspect_video(path)
            return read(video, scattered_times(video), threads=threads)

        return work

    return method


def scattered_lower_bound(path: Path) -> Work:
    """Only decode from the key frame before each of the frames, and scale, with the packets in memory.

    Frames that no other frame refers to are skipped here too, so the bound is as low as it can be.
    """
    import av
    from av.video.reformatter import VideoReformatter

    container = av.open(str(path))
    stream = container.streams.video[0]
    stream.codec_context.thread_count = 1
    packets = [packet for packet in container.demux(stream) if packet.size]
    ticks = np.array([packet.pts for packet in packets])
    keys = np.flatnonzero([packet.is_keyframe for packet in packets])
    presented = np.sort(ticks)
    seconds = (presented - presented[0]) * float(stream.time_base or 1)
    wanted = set(
        presented[np.searchsorted(seconds, scattered_times(inspect_video(path)) + 1e-6, side="right") - 1].tolist()
    )
    groups: dict[int, int] = {}
    """The position of a key frame -> the position of the last wanted packet of its group."""
    for target in np.flatnonzero([tick in wanted for tick in ticks.tolist()]).tolist():
        groups[int(keys[np.searchsorted(keys, target, side="right") - 1])] = target
    reformatter = VideoReformatter()

    def work() -> int:
        codec, num_scaled = stream.codec_context, 0
        for key, last in groups.items():
            codec.flush_buffers()
            for packet in [*packets[key : last + 1], None]:
                if packet is not None:
                    codec.skip_frame = "DEFAULT" if packet.pts in wanted or packet.is_keyframe else "NONREF"
                for frame in codec.decode(packet):
                    if frame.pts in wanted:
                        reformatter.reformat(frame, WIDTH, HEIGHT, "rgb24", interpolation=SCALING).to_ndarray()
                        num_scaled += 1
        return num_scaled

    return work


def opening(path: Path) -> Work:
    """Open the container ten times."""
    import av

    def work() -> int:
        for _ in range(10):
            av.open(str(path)).close()
        return 0

    return work


def inspecting(path: Path) -> Work:
    """Read all packets and decode one frame, which is done once for each video."""

    def work() -> int:
        inspect_video(path)
        return 1

    return work


FULL = "ffmpeg" if shutil.which("ffmpeg") else "PyAV"

METHODS: dict[str, Callable[[Path], Work]] = {
    "full decode": full_decode,
    "full decode and scale": full_decode_and_scale,
    "exact": frame_grid(FrameGrid.exact),
    "exact, 2 threads": frame_grid(FrameGrid.exact, threads=2),
    "keyframes": frame_grid(FrameGrid.keyframes),
    "keyframes, 2 threads": frame_grid(FrameGrid.keyframes, threads=2),
    "64 scattered, lower bound": scattered_lower_bound,
    "64 scattered": scattered(),
    "64 scattered, 2 threads": scattered(threads=2),
    "64 scattered, video not yet inspected": scattered(is_inspected=False),
    "opening, 10 times": opening,
    "inspecting": inspecting,
}

RATIOS = {
    "full decode to exact": ("full decode", "exact", "cpu_seconds", "1.4 or more"),
    "full decode to keyframes": ("full decode", "keyframes", "cpu_seconds", "15 or more"),
    "exact, 1 core to 2, wall": ("exact", "exact, 2 threads", "wall_seconds", "1.7 or more"),
    "exact, 2 threads to 1, CPU": ("exact, 2 threads", "exact", "cpu_seconds", "near 1"),
    "64 scattered to their lower bound": ("64 scattered", "64 scattered, lower bound", "cpu_seconds", "1.15 or less"),
    "64 scattered, 1 core to 2, wall": ("64 scattered", "64 scattered, 2 threads", "wall_seconds", "1.7 or more"),
}
"""Title -> the numerator, the denominator, their unit, and the ratio that is expected."""


# --- the video ------------------------------------------------------------------------------------------------------


def make_video(folder: Path, minutes: float, *, height: int = 360, width: int = 640, fps: int = 25) -> Path:
    """Make a video of panning textures, moving discs and grain, with a cut every 3 to 9 s, unless it exists."""
    import av

    path = folder / f"video_{minutes:g}m_{height}p.mp4"
    if path.exists():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    textures = [texture(rng, 2 * height, 2 * width) for _ in range(8)]
    grain = rng.normal(0, 2, (4 * height, width)).astype(np.int16)
    rows, columns = np.mgrid[:height, :width]
    unfinished = path.with_suffix(".part.mp4")
    with av.open(str(unfinished), "w") as container:
        options = {"preset": "veryfast", "g": "250", "bf": "3", "sc_threshold": "0", "b": "400k"}
        stream: Any = container.add_stream("libx264", rate=fps, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        frames_left = 0
        for i in range(round(minutes * 60 * fps)):
            if not frames_left:
                frames_left = int(rng.integers(3 * fps, 9 * fps))
                scene = textures[rng.integers(len(textures))]
                position, step = rng.uniform(0, 1, 2), rng.uniform(-2, 2, 2)
                disc, disc_step = rng.uniform(0, 1, 2) * (height, width), rng.uniform(-4, 4, 2)
            frames_left -= 1
            position, disc = position + step / 400, (disc + disc_step) % (height, width)
            top, left = (np.abs((position % 2) - 1) * (height, width)).astype(int)  # there and back
            first = int(rng.integers(3 * height))
            luma = scene[top : top + height, left : left + width] + grain[first : first + height]
            luma[(rows - disc[0]) ** 2 + (columns - disc[1]) ** 2 < 900] = 220
            planes = np.full((height * 3 // 2, width), 128, dtype=np.uint8)
            planes[:height] = luma.clip(16, 235)
            frame = av.VideoFrame.from_ndarray(planes, format="yuv420p")
            frame.pts = i
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return unfinished.rename(path)


def texture(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Return noise of many scales, smooth between its points: (height, width) int16."""
    import cv2

    layers = [
        cv2.resize(
            rng.normal(0, 40 / 2**scale, (3 << scale, 5 << scale)), (width, height), interpolation=cv2.INTER_CUBIC
        )
        for scale in range(6)
    ]
    return (128 + np.sum(layers, axis=0)).astype(np.int16)


if __name__ == "__main__":
    main()

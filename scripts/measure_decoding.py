"""Measure how fast films are read, against other ways to do it: `python scripts/measure_decoding.py [FILM]`.

Without FILM one is made and kept in `--folder`: 360p H.264 at 25 frames a second, groups of 250 with 3 B-frames,
about 400 kb/s. Every way gives the frames of the grid at one a second (or what its name says), scaled to 448 x 252,
and reads with one thread, on one core, unless its name says otherwise. Every run is a fresh process; the ways take
turns, and the table has the median of `--runs`. "CPU" is that of all threads; the ratios are of CPU time where the
number of threads is the same, since it suffers less from what else the machine does.
"""

from __future__ import annotations

import argparse
import itertools
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

HEIGHT, WIDTH = 252, 448
SIZE = {"height": HEIGHT, "width": WIDTH}

Work = Callable[[], int]
"""What is timed; tells how many frames it gave."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("film", nargs="?", type=Path, help="a film of your own")
    parser.add_argument(
        "--folder", type=Path, default=Path("runs/measure_decoding"), help="where the made film is kept"
    )
    parser.add_argument("--minutes", type=float, default=60, help="how long the made film is")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=WAYS, metavar="WAY", help=f"some of: {', '.join(WAYS)}")
    parser.add_argument("--json", action="store_true", help="print one JSON object in place of the table")
    arguments = parser.parse_args()

    film = arguments.film or made_film(arguments.folder, arguments.minutes)
    names = arguments.only or list(WAYS)
    costs: dict[str, list[tuple[float, float, int]]] = {name: [] for name in names}
    for _ in range(arguments.runs):
        for name in names:
            with ProcessPoolExecutor(1, get_context("spawn")) as process:  # knows nothing of the film yet
                costs[name].append(process.submit(measured, name, film).result())
            print("{}: {:.3f} s, CPU {:.3f} s, {} frames".format(name, *costs[name][-1]), file=sys.stderr, flush=True)
    found: dict[str, dict[str, float]] = {
        name: dict(
            zip(("wall_seconds", "cpu_seconds", "frames"), map(statistics.median, zip(*runs, strict=True)), strict=True)
        )
        for name, runs in costs.items()
    }
    found_ratios = {
        title: found[over][unit] / found[under][unit]
        for title, (over, under, unit, _) in RATIOS.items()
        if {over, under} <= found.keys()
    }
    if arguments.json:
        told = {"film": str(film), "runs": arguments.runs, "full": FULL, "ways": found, "ratios": found_ratios}
        print(json.dumps(told))
        return
    print(f"{film}, {arguments.runs} runs; full decode by {FULL}\n")
    print(f"{'':34}{'wall s':>9}{'CPU s':>9}{'frames':>8}")
    for name, cost in found.items():
        print(f"{name:34}{cost['wall_seconds']:9.3f}{cost['cpu_seconds']:9.3f}{cost['frames']:8.0f}")
    print()
    for title, ratio in found_ratios.items():
        print(f"{title:58}{ratio:7.2f}   (wanted: {RATIOS[title][-1]})")


def measured(name: str, film: Path) -> tuple[float, float, int]:
    """Wall seconds, CPU seconds of this process and its children, and the number of frames."""
    if not name.endswith("2 threads") and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    work = WAYS[name](film)
    wall, cpu = time.perf_counter(), sum(os.times()[:4])
    frames = work()
    return time.perf_counter() - wall, sum(os.times()[:4]) - cpu, frames


# --- the ways -------------------------------------------------------------------------------------------------------


def counted(frames: Iterator[Any]) -> int:
    return sum(1 for _ in frames)


def full_decode(film: Path) -> Work:
    """All frames, none of them scaled."""
    if FULL == "ffmpeg":
        command = ["ffmpeg", "-v", "error", "-threads", "1", "-i", str(film), "-map", "0:v:0", "-f", "null", "-"]
        return lambda: subprocess.run(command, check=True).returncode
    return lambda: counted(decoded(film))


def full_decode_and_scale(film: Path) -> Work:
    """All frames are decoded, and those of the grid scaled."""
    from av.video.reformatter import VideoReformatter

    reformatter = VideoReformatter()

    def work() -> int:
        num_scaled = 0
        for frame in decoded(film):
            if frame.time is not None and frame.time >= num_scaled - 1e-6:
                reformatter.reformat(frame, WIDTH, HEIGHT, "rgb24", interpolation="BILINEAR").to_ndarray()
                num_scaled += 1
        return num_scaled

    return work


def decoded(film: Path) -> Iterator[Any]:
    import av

    with av.open(str(film)) as container:
        container.streams.video[0].codec_context.thread_count = 1
        yield from container.decode(container.streams.video[0])


def decord_batches(film: Path) -> Work:
    import decord

    def work() -> int:
        reader = decord.VideoReader(str(film), width=WIDTH, height=HEIGHT, num_threads=1)
        wanted = np.arange(0, len(reader), round(reader.get_avg_fps()))
        return sum(
            len(reader.get_batch(wanted[first : first + 64].tolist()).asnumpy()) for first in range(0, len(wanted), 64)
        )

    return work


def opencv_loop(film: Path) -> Work:
    os.environ["OPENCV_FFMPEG_CAPTURE_OPTIONS"] = "threads;1"
    import cv2

    cv2.setNumThreads(1)

    def work() -> int:
        capture = cv2.VideoCapture(str(film))
        step, num_scaled = round(capture.get(cv2.CAP_PROP_FPS)), 0
        for place in itertools.count():
            if not capture.grab():
                return num_scaled
            if place % step == 0:
                _, pixels = capture.retrieve()
                cv2.cvtColor(cv2.resize(pixels, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA), cv2.COLOR_BGR2RGB)
                num_scaled += 1
        raise AssertionError

    return work


def token_grid(kind: Callable[..., FrameGrid], *, threads: int = 1) -> Callable[[Path], Work]:
    """The grid as lvqa reads it, with all that it has to find out about the film."""

    def way(film: Path) -> Work:
        def work() -> int:
            video = inspect_video(film)
            return frames_read(video, kind(video, 1.0).times_seconds, threads=threads)

        return work

    return way


def frames_read(video: Any, times: np.ndarray, *, threads: int) -> int:
    return sum(len(batch.pixels) for batch in read_frames(video, times, **SIZE, threads=threads))


def scattered_times(video: Any) -> np.ndarray:
    """64 seconds of the film, the same in every run."""
    return np.sort(np.random.default_rng(0).uniform(0, video.duration_seconds, 64))


def scattered(*, threads: int = 1, again: bool = True) -> Callable[[Path], Work]:
    """64 frames all over the film; `again`: of a film that has been probed, as it has when it is asked about."""

    def way(film: Path) -> Work:
        video = inspect_video(film) if again else None

        def work() -> int:
            known = video or inspect_video(film)
            return frames_read(known, scattered_times(known), threads=threads)

        return work

    return way


def scattered_floor(film: Path) -> Work:
    """Nothing but decoding from the key frame before each and scaling, with the packets in memory.

    What no other frame leans on is skipped here, too, so the floor is as low as it can be.
    """
    import av
    from av.video.reformatter import VideoReformatter

    container = av.open(str(film))
    stream = container.streams.video[0]
    stream.codec_context.thread_count = 1
    packets = [packet for packet in container.demux(stream) if packet.size]
    ticks = np.array([packet.pts for packet in packets])
    keys = np.flatnonzero([packet.is_keyframe for packet in packets])
    shown = np.sort(ticks)
    seconds = (shown - shown[0]) * float(stream.time_base or 1)
    wanted = set(
        shown[np.searchsorted(seconds, scattered_times(inspect_video(film)) + 1e-6, side="right") - 1].tolist()
    )
    groups: dict[int, int] = {}
    """Place of a key frame -> place of the last packet that is wanted of its group."""
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
                        reformatter.reformat(frame, WIDTH, HEIGHT, "rgb24", interpolation="BILINEAR").to_ndarray()
                        num_scaled += 1
        return num_scaled

    return work


def opening(film: Path) -> Work:
    """The container is opened ten times."""
    import av

    def work() -> int:
        for _ in range(10):
            av.open(str(film)).close()
        return 0

    return work


def probing(film: Path) -> Work:
    """All packets are looked at, and one frame decoded: what is done once for a film."""

    def work() -> int:
        inspect_video(film)
        return 1

    return work


FULL = "ffmpeg" if shutil.which("ffmpeg") else "PyAV"

WAYS: dict[str, Callable[[Path], Work]] = {
    "full decode": full_decode,
    "full decode and scale": full_decode_and_scale,
    "decord": decord_batches,
    "opencv": opencv_loop,
    "exact": token_grid(FrameGrid.exact),
    "exact, 2 threads": token_grid(FrameGrid.exact, threads=2),
    "keyframes": token_grid(FrameGrid.keyframes),
    "keyframes, 2 threads": token_grid(FrameGrid.keyframes, threads=2),
    "64 scattered, floor": scattered_floor,
    "64 scattered": scattered(),
    "64 scattered, 2 threads": scattered(threads=2),
    "64 scattered, film not yet probed": scattered(again=False),
    "opening, 10 times": opening,
    "probing": probing,
}

RATIOS = {
    "full decode to exact": ("full decode", "exact", "cpu_seconds", "1.4 or more"),
    "decord to exact": ("decord", "exact", "cpu_seconds", "3 or more"),
    "opencv to exact": ("opencv", "exact", "cpu_seconds", "1.4 or more"),
    "full decode to keyframes": ("full decode", "keyframes", "cpu_seconds", "15 or more"),
    "exact, 1 core to 2, wall": ("exact", "exact, 2 threads", "wall_seconds", "1.7 or more"),
    "exact, 2 threads to 1, CPU": ("exact, 2 threads", "exact", "cpu_seconds", "near 1"),
    "64 scattered to their floor": ("64 scattered", "64 scattered, floor", "cpu_seconds", "1.15 or less"),
    "64 scattered, 1 core to 2, wall": ("64 scattered", "64 scattered, 2 threads", "wall_seconds", "1.7 or more"),
}
"""Title: what is divided by what, in which unit, and what is hoped for."""


# --- the film -------------------------------------------------------------------------------------------------------


def made_film(folder: Path, minutes: float, *, height: int = 360, width: int = 640, fps: int = 25) -> Path:
    """Textures that pan, discs that move, grain, and cuts every 3 to 9 s; made once."""
    import av

    path = folder / f"film_{minutes:g}m_{height}p.mp4"
    if path.exists():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    lots = np.random.default_rng(0)
    textures = [texture(lots, 2 * height, 2 * width) for _ in range(8)]
    grain = lots.normal(0, 2, (4 * height, width)).astype(np.int16)
    rows, columns = np.mgrid[:height, :width]
    unfinished = path.with_suffix(".part.mp4")
    with av.open(str(unfinished), "w") as container:
        options = {"preset": "veryfast", "g": "250", "bf": "3", "sc_threshold": "0", "b": "400k"}
        stream: Any = container.add_stream("libx264", rate=fps, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        frames_left = 0
        for number in range(round(minutes * 60 * fps)):
            if not frames_left:
                frames_left = int(lots.integers(3 * fps, 9 * fps))
                scene = textures[lots.integers(len(textures))]
                place, step = lots.uniform(0, 1, 2), lots.uniform(-2, 2, 2)
                disc, disc_step = lots.uniform(0, 1, 2) * (height, width), lots.uniform(-4, 4, 2)
            frames_left -= 1
            place, disc = place + step / 400, (disc + disc_step) % (height, width)
            top, left = (np.abs((place % 2) - 1) * (height, width)).astype(int)  # there and back
            first = int(lots.integers(3 * height))
            luma = scene[top : top + height, left : left + width] + grain[first : first + height]
            luma[(rows - disc[0]) ** 2 + (columns - disc[1]) ** 2 < 900] = 220
            planes = np.full((height * 3 // 2, width), 128, dtype=np.uint8)
            planes[:height] = luma.clip(16, 235)
            frame = av.VideoFrame.from_ndarray(planes, format="yuv420p")
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return unfinished.rename(path)


def texture(lots: np.random.Generator, height: int, width: int) -> np.ndarray:
    """(height, width) int16: noise of many scales, smooth between its points."""
    import cv2

    layers = [
        cv2.resize(
            lots.normal(0, 40 / 2**scale, (3 << scale, 5 << scale)), (width, height), interpolation=cv2.INTER_CUBIC
        )
        for scale in range(6)
    ]
    return (128 + np.sum(layers, axis=0)).astype(np.int16)


if __name__ == "__main__":
    main()

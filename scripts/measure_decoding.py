"""Compare how fast libraries read frames of many codecs: `python scripts/measure_decoding.py [VIDEO ...]`.

Without VIDEO the script makes its own and keeps them in `--folder`: one source (see `measure_reading.py`) in H.264
(High, B-frames that refer to B-frames), HEVC, VP9 (hidden frames) and AV1 (layers of frames), at each of `--heights`,
of `--minutes`, repeated `--times` times without coding it again.

Three jobs, each from a path alone: "grid" is a frame a second, "scattered" are 64 frames at random times, "keyframes"
are all keyframes; all are scaled to 448 x 252: by PyAV and ffmpeg with lvqa's filter (bicubic, whole chroma), by the
others with their own, which are cheaper. Every run is a fresh process on one core with one thread, its libraries
loaded before; the methods take turns, and a cell is the median processor time of `--runs`. `right` is how many of up to
24 of the job's frames are nearer to lvqa's frame of that time than to those before and after it; it is left out where
all are. A method that is not installed, or that refuses a file, has no cell.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from lvqa.video import FrameGrid, inspect_video, read_frames
from lvqa.video.display import SCALING
from measure_reading import HEIGHT, SIZE, WIDTH, make_video, scattered_times

JOBS = ("grid", "scattered", "keyframes")
NUM_CHECKED = 24

Frames = Iterator[np.ndarray]
"""(HEIGHT, WIDTH, 3) uint8 of each wanted frame, in order."""
Method = Callable[[Path, str, np.ndarray], Frames]
"""Takes a file, a job, and (n,) seconds from the first frame; the seconds are of no use to it for "keyframes"."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", nargs="*", type=Path, metavar="VIDEO", help="videos of your own")
    parser.add_argument("--folder", type=Path, default=Path("runs/measure_decoding"), help="where made videos are kept")
    parser.add_argument("--minutes", type=float, default=1, help="how long a video is before it is repeated")
    parser.add_argument("--times", type=int, default=60, help="how many times it is repeated")
    parser.add_argument("--heights", nargs="+", type=int, default=[360, 720])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--jobs", nargs="+", choices=JOBS, default=JOBS)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    arguments = parser.parse_args()
    videos = arguments.videos or [
        make_coded(arguments.folder, codec, height, arguments.minutes, arguments.times)
        for height in arguments.heights
        for codec in CODECS
    ]
    for video in videos:
        print(f"\n{video.name}, {arguments.runs} runs\n\n| | " + " | ".join(arguments.methods) + " |")
        print("|---" * (len(arguments.methods) + 1) + "|", flush=True)
        for job in arguments.jobs:
            runs: dict[str, list[tuple[float, int, int]]] = {name: [] for name in arguments.methods}
            seconds = in_new_process(find_seconds, video, job)
            for run in range(arguments.runs):
                for name in [name for name in arguments.methods if len(runs[name]) == run]:  # the others have failed
                    try:
                        runs[name].append(in_new_process(measure, name, video, job, seconds, not run))
                    except Exception as error:
                        print(f"{video.name}, {job}, {name}: {error!r}"[:300], file=sys.stderr)
            first = statistics.median(cost for cost, _, _ in next(iter(runs.values())))
            print(
                f"| {job} | " + " | ".join(cell(costs, first, arguments.runs) for costs in runs.values()) + " |",
                flush=True,
            )


def cell(runs: list[tuple[float, int, int]], first: float, num_runs: int) -> str:
    """Return a cell of the table: seconds, their ratio to the first method's, and how many frames are right."""
    if len(runs) < num_runs:
        return "-"
    cost, (_, right, checked) = statistics.median(run[0] for run in runs), runs[0]
    return f"{cost:.2f} s ({cost / first:.2f})" + (f", right {right} of {checked}" if right < checked else "")


def in_new_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """Return what a function returns in a process that knows nothing about the videos yet."""
    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        return process.submit(function, *arguments).result()


def measure(name: str, path: Path, job: str, seconds: np.ndarray, is_checked: bool) -> tuple[float, int, int]:
    """Return the processor seconds of this process and its children, how many frames are right, and how many of."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    checked = np.unique(np.linspace(0, len(seconds) - 1, NUM_CHECKED * is_checked).astype(int))
    kept: dict[int, np.ndarray] = {}
    work = METHODS[name](path, job, seconds)
    begin = processor_seconds()
    for i, pixels in enumerate(work):
        if i in checked:
            kept[i] = pixels
    cost = processor_seconds() - begin
    print(f"{path.name}, {job}, {name}: {cost:.3f} s", file=sys.stderr, flush=True)
    return cost, sum(count_right(path, seconds, kept)), len(checked)


def processor_seconds() -> float:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def find_seconds(path: Path, job: str) -> np.ndarray:
    """Return the times of a job."""
    video = inspect_video(path)
    if job == "scattered":
        return scattered_times(video)
    return (FrameGrid.exact if job == "grid" else FrameGrid.keyframes)(video, 1.0).times_seconds


def count_right(path: Path, seconds: np.ndarray, kept: dict[int, np.ndarray]) -> Iterator[bool]:
    """Yield for each frame that was kept whether it is the one of its time, and not the one before or after."""
    video = inspect_video(path)
    for i, pixels in kept.items():
        times = seconds[i] + np.array([-1.0, 0.0, 1.0]) / video.frames_per_second
        near = times[(times >= 0) & (times < video.duration_seconds)]
        (batch,) = read_frames(video, near, **SIZE, threads=1)
        distances = np.abs(batch.pixels.astype(np.int16) - pixels).mean(axis=(1, 2, 3))
        yield bool(distances.min() == distances[near == times[1]][0])


# --- the methods ----------------------------------------------------------------------------------------------------


def with_lvqa(path: Path, job: str, seconds: np.ndarray) -> Frames:
    import av  # noqa: F401 - loaded before, as the others are

    def work() -> Frames:
        video = inspect_video(path)
        times = FrameGrid.keyframes(video, 1.0).times_seconds if job == "keyframes" else seconds
        for batch in read_frames(video, times, **SIZE, threads=1):
            yield from batch.pixels

    return work()


def with_torchcodec(path: Path, job: str, seconds: np.ndarray) -> Frames:
    from torchcodec.decoders import VideoDecoder
    from torchcodec.transforms import Resize

    def work() -> Frames:
        decoder = VideoDecoder(path, num_ffmpeg_threads=1, transforms=[Resize((HEIGHT, WIDTH))], dimension_order="NHWC")
        if job == "keyframes":
            for index in decoder._get_key_frame_indices():
                yield decoder.get_frame_at(int(index)).data.numpy()
            return
        start = decoder.metadata.begin_stream_seconds or 0
        for first in range(0, len(seconds), 64):
            yield from decoder.get_frames_played_at((seconds[first : first + 64] + start + 1e-6).tolist()).data.numpy()

    return work()


def with_pyav(path: Path, job: str, seconds: np.ndarray) -> Frames:
    import av
    from av.video.reformatter import VideoReformatter

    reformatter = VideoReformatter()

    def work() -> Frames:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1
            for frame in wanted_by_pyav(container, stream, job, seconds):
                yield reformatter.reformat(frame, WIDTH, HEIGHT, "rgb24", interpolation=SCALING).to_ndarray()

    return work()


def wanted_by_pyav(container: Any, stream: Any, job: str, seconds: np.ndarray) -> Iterator[Any]:
    """Yield the frames of a job: all are decoded, or the keyframes only, or those after a seek for each."""
    if job == "keyframes":
        for packet in container.demux(stream):  # not all decoders skip frames
            if packet.is_keyframe or not packet.size:
                yield from packet.decode()
        return
    targets = (seconds + float((stream.start_time or 0) * stream.time_base) + 1e-6).tolist()
    if job == "grid":
        yield from covering(container.decode(stream), targets)
        return
    for target in targets:
        container.seek(int(target / stream.time_base), stream=stream)
        yield from covering(container.decode(stream), [target])


def covering(frames: Iterator[Any], targets: list[float]) -> Iterator[Any]:
    """Yield the frame on screen at each of some ascending times."""
    last, i = None, 0
    for frame in frames:
        while last is not None and i < len(targets) and frame.time > targets[i]:
            yield last
            i += 1
        if i == len(targets):
            return
        last = frame
    yield from [last] * (len(targets) - i)


def with_decord(path: Path, job: str, seconds: np.ndarray) -> Frames:
    import decord

    def work() -> Frames:
        reader = decord.VideoReader(str(path), width=WIDTH, height=HEIGHT, num_threads=1)
        if job == "keyframes":
            wanted = np.array(reader.get_key_indices())
        else:
            starts = reader.get_frame_timestamp(range(len(reader)))[:, 0]
            wanted = np.searchsorted(starts - starts[0], seconds + 1e-3, side="right") - 1
        for first in range(0, len(wanted), 64):
            yield from reader.get_batch(wanted[first : first + 64].tolist()).asnumpy()

    return work()


def with_opencv(path: Path, job: str, seconds: np.ndarray) -> Frames:
    os.environ["OPENCV_FFMPEG_CAPTURE_OPTIONS"] = "threads;1"
    import cv2

    cv2.setNumThreads(1)
    if job == "keyframes":
        raise ValueError("OpenCV tells no keyframes")

    def work() -> Frames:
        capture = cv2.VideoCapture(str(path))
        rate, position = capture.get(cv2.CAP_PROP_FPS), 0
        for second in seconds:
            if job == "scattered":
                capture.set(cv2.CAP_PROP_POS_MSEC, second * 1000)
            while job == "grid" and position < int(second * rate + 1e-3):
                position += capture.grab()
            is_read, pixels = capture.read()
            if not is_read:
                raise ValueError(f"nothing at {second} s")
            position += 1
            yield cv2.cvtColor(cv2.resize(pixels, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA), cv2.COLOR_BGR2RGB)

    return work()


def with_ffmpeg(path: Path, job: str, seconds: np.ndarray) -> Frames:
    def frames(*options: str, filters: str = "") -> Frames:
        scale = f"{filters}scale={WIDTH}:{HEIGHT}:flags=bicubic+full_chroma_int"  # as SCALING
        command = ["ffmpeg", "-v", "error", "-threads", "1", *options, "-map", "0:v:0", "-vf", scale]
        command += ["-fps_mode", "passthrough", "-pix_fmt", "rgb24", "-f", "rawvideo", "-"]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            while data := process.stdout.read(HEIGHT * WIDTH * 3):
                yield np.frombuffer(data, dtype=np.uint8).reshape(HEIGHT, WIDTH, 3)

    def work() -> Frames:
        if job == "grid":
            yield from frames("-i", str(path), filters="fps=1:round=up:start_time=0,")
        elif job == "keyframes":
            yield from frames("-discard:v", "nokey", "-i", str(path))
        else:
            for second in seconds:
                yield from frames("-ss", f"{second:.6f}", "-i", str(path), "-frames:v", "1")

    return work()


METHODS: dict[str, Method] = {
    "lvqa": with_lvqa,
    "torchcodec": with_torchcodec,
    "PyAV": with_pyav,
    "decord": with_decord,
    "OpenCV": with_opencv,
    "ffmpeg": with_ffmpeg,
}


# --- the videos -----------------------------------------------------------------------------------------------------

CODECS = {
    "h264.mp4": "libx264 -preset veryfast -profile:v high -bf 3 -x264-params b-pyramid=normal:scenecut=0 -g 250",
    "hevc.mp4": "libx265 -preset superfast -x265-params pools=1:bframes=4:b-pyramid=1:keyint=250:log-level=none",
    "vp9.webm": "libvpx-vp9 -deadline good -cpu-used 5 -auto-alt-ref 1 -lag-in-frames 25 -g 128",
    "av1.mp4": "libsvtav1 -preset 10 -g 128 -svtav1-params lp=1",
}
"""The end of a file's name -> its encoder for ffmpeg, with options."""


def make_coded(folder: Path, codec: str, height: int, minutes: float, times: int) -> Path:
    """Make a video of one codec, unless it exists, and return its path."""
    path = folder / f"{minutes:g}m_x{times}_{height}p_{codec}"
    if path.exists():
        return path
    source = make_video(folder, minutes, height=height, width=height * 16 // 9)
    part, whole = path.with_stem(f"{path.stem}_part"), path.with_stem(f"{path.stem}_whole")
    rate = "" if codec == "av1.mp4" else f"-b:v {height * height // 400}k"
    run = ["ffmpeg", "-v", "error", "-y"]
    coding = f"-c:v {CODECS[codec]} {rate}".split()
    subprocess.run([*run, "-i", str(source), "-threads", "1", *coding, str(part)], check=True)
    listing = path.with_suffix(".txt")
    listing.write_text(f"file '{part.resolve()}'\n" * times, encoding="utf-8")
    subprocess.run([*run, "-f", "concat", "-safe", "0", "-i", str(listing), "-c", "copy", str(whole)], check=True)
    part.unlink()
    listing.unlink()
    return whole.rename(path)


if __name__ == "__main__":
    main()

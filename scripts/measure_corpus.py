"""Compare what lvqa reads of all files in a folder with other ways to read them.

`python scripts/measure_corpus.py DIR` reads each file with `lvqa.video`: the grid of one frame a second, frames at
random times in any order, and the grid of keyframes. Two references decode all frames in turn: PyAV, and the program
ffmpeg (Debian's package ffmpeg; without it the script says so). Compared are the number of frames, the duration, and
the picture at each time. Each reading has a process of its own and a time limit. With `--mutate N` the files are N
copies with random damage instead. The verdicts:

    right       lvqa agrees with the references, and has no warning
    warned      lvqa has a warning, or marks frames as substitutes
    refused     lvqa refuses the file in one line
    wrong       lvqa differs, without a warning, from references that agree with each other
    ambiguous   the references disagree with each other, so that nobody knows what is right
    unread      lvqa reads a file that no reference reads
    traceback   lvqa raises something else than an LvqaError of one line
    hang        lvqa is not ready in time
    crash       lvqa's process dies

The exit code is 1 if there is one of: wrong, traceback, hang, crash.
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import random
import shutil
import subprocess
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np

from lvqa.records import LvqaError, Video
from lvqa.video import FrameGrid, inspect_video, read_frames

SIDE, BLOCK = 128, 16
"""Pixels of a side of the compared pictures, and of their blocks. A block's mean hardly depends on how a picture is
scaled, but shows a damaged macroblock."""
MAX_DIFFERENCE = 15.0
"""How far the means of a block, 0 to 255, may lie apart in equal pictures."""
MAX_GRID_FRAMES, NUM_SEEKS = 300, 12
CLOCK_SECONDS = 2e-3
"""How far two clocks may lie apart: some containers count milliseconds."""


@dataclass(frozen=True)
class Reference:
    """All frames of a file in the order of presentation."""

    seconds: np.ndarray | None
    """(n,) seconds from the first frame; None: the file has no clock."""
    pictures: np.ndarray
    """(n, blocks, blocks, 3) means of blocks."""
    last_seconds: float = 0.0
    """How long the last frame lasts; 0: not known, as ffmpeg's output does not say it."""
    is_turned: bool = False
    """Whether pictures are as a player shows them, not as they are stored."""


@dataclass(frozen=True)
class Reading:
    """What lvqa reads of a file: a refusal, or the rest."""

    refusal: str = ""
    warning: str = ""
    num_frames: int = 0
    duration_seconds: float = 0.0
    seconds: tuple[float, ...] = ()
    """The times of the frames that were read."""
    pictures: tuple[np.ndarray, ...] = ()


@dataclass(frozen=True)
class Result:
    file: str
    verdict: str
    reason: str = ""
    num_frames: int = 0
    """How many frames the file has, as lvqa says."""
    num_compared: int = 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="DIR")
    parser.add_argument("--mutate", type=int, default=0, metavar="N", help="read N damaged copies of the files instead")
    parser.add_argument("--seed", type=int, default=0, help="the seed of the damage and of the random times")
    parser.add_argument("--limit-seconds", type=float, default=60.0, help="the time that each reading of a file has")
    parser.add_argument("--copies", type=Path, help="keep the damaged copies in this folder")
    parser.add_argument("--json", action="store_true", help="print one JSON object for each file, and no table")
    arguments = parser.parse_args()

    files = sorted(path for path in arguments.folder.rglob("*") if path.is_file())
    if not files:
        parser.error(f"{arguments.folder} holds no files; expected a folder of videos")
    if shutil.which("ffmpeg") is None:
        print("ffmpeg is not there (Debian: apt install ffmpeg); the only reference is PyAV", file=sys.stderr)
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder
        if arguments.mutate:
            folder = Path(arguments.copies or temporary)
            files = damaged_copies(files, arguments.mutate, arguments.seed, folder)
        for path in files:
            result = check(path, str(path.relative_to(folder)), arguments.seed, arguments.limit_seconds)
            counts[result.verdict] += 1
            if arguments.json:
                print(json.dumps(asdict(result)), flush=True)
            elif result.verdict != "right":
                print(f"{result.verdict:10}{result.file}: {result.reason}", flush=True)
    summary = ", ".join(f"{count} {verdict}" for verdict, count in counts.most_common())
    print(f"{counts.total()} files: {summary}", file=sys.stderr if arguments.json else sys.stdout)
    return int(any(counts[verdict] for verdict in ("wrong", "traceback", "hang", "crash")))


def check(path: Path, name: str, seed: int, limit_seconds: float) -> Result:
    """Read a file in every way, and compare."""
    try:
        reading = in_child(limit_seconds, read_with_lvqa, path, seed)
    except ChildError as error:
        return Result(name, error.verdict, str(error))
    references = []
    for read in (read_with_pyav, read_with_ffmpeg):
        try:
            reference = in_child(limit_seconds, read, path)
        except ChildError as error:
            if error.verdict == "hang":
                return Result(name, "ambiguous", f"{read.__name__} is not ready in time", reading.num_frames)
        else:
            references += [reference] if reference and len(reference.pictures) else []
    return Result(name, *judge(reading, references), reading.num_frames, len(reading.seconds))


def judge(reading: Reading, references: list[Reference]) -> tuple[str, str]:
    """Return the verdict about a reading, and its reason."""
    if reading.refusal:
        return "refused", reading.refusal + " (a reference reads it)" * bool(references)
    differences = [difference(reading, reference) for reference in references]
    if reading.warning:
        return "warned", "; ".join([reading.warning, *filter(None, differences[-1:])])
    if not references:
        return "unread", f"lvqa reads {reading.num_frames} frames"
    if not any(differences):
        return "right", ""
    disagreement = disagreement_of(*references) if len(references) == 2 else ""
    if disagreement:
        agrees = [name for name, differs in zip(("PyAV", "ffmpeg"), differences, strict=True) if not differs]
        return "ambiguous", f"{disagreement}; lvqa agrees with {' and '.join(agrees) or 'neither'}"
    return "wrong", differences[-1] or differences[0]


def difference(reading: Reading, reference: Reference) -> str:
    """Return how a reading differs from a reference, or nothing."""
    num_frames, seconds = len(reference.pictures), reference.seconds
    wrong_number = f"{reading.num_frames} frames, expected {num_frames}" * (reading.num_frames != num_frames)
    if seconds is None:
        if wrong_number:
            return wrong_number
        seconds = np.arange(num_frames) * reading.duration_seconds / num_frames
    if reference.last_seconds:
        duration = seconds[-1] + reference.last_seconds
        if abs(reading.duration_seconds - duration) > max(reference.last_seconds, 0.1):
            return f"{reading.duration_seconds:.3f} s, expected {duration:.3f} s"
    for at, picture in zip(reading.seconds, reading.pictures, strict=True):
        # Where the time lies between two frames as some clock rounds it, each is right.
        first, last = np.searchsorted(seconds, [at - CLOCK_SECONDS, at + CLOCK_SECONDS], side="right") - 1
        least = distances(picture, reference.pictures[max(0, first) : last + 1], reference.is_turned).min()
        if least > MAX_DIFFERENCE:
            apart = distances(picture, reference.pictures, reference.is_turned)
            return f"not frame {last} at {at:.3f} s (off by {least:.0f}), but {apart.argmin()} ({apart.min():.0f})"
    return wrong_number  # last, since a lost frame beside right pictures matters less


def disagreement_of(a: Reference, b: Reference) -> str:
    """Return how PyAV and ffmpeg differ, or nothing."""
    if len(a.pictures) != len(b.pictures):
        return f"PyAV decodes {len(a.pictures)} frames, ffmpeg {len(b.pictures)}"
    seconds = 0.0 if a.seconds is None or b.seconds is None else float(np.abs(a.seconds - b.seconds).max())
    if seconds > CLOCK_SECONDS:
        return f"their clocks differ by {seconds:.3f} s"
    apart = np.array([distances(one, other[None]) for one, other in zip(a.pictures, b.pictures, strict=True)])
    num_other = int((apart > MAX_DIFFERENCE).sum())
    return f"{num_other} of their frames differ" if num_other else ""


def distances(picture: np.ndarray, others: np.ndarray, is_turned: bool = False) -> np.ndarray:
    """Return by how much a picture differs from others, (n,), where it differs most from each.

    Args:
        picture: The means of a picture's blocks.
        others: Those of other pictures.
        is_turned: Whether the pictures are as a player shows them; if not, the best of all orientations counts.
    """
    turned = (
        [picture] if is_turned else [np.rot90(one, turns) for one in (picture, picture[:, ::-1]) for turns in range(4)]
    )
    return np.min([np.abs(others - one).max(axis=(1, 2, 3)) for one in turned], axis=0)


# --- the readings, each in a process of its own -----------------------------------------------------------------------


def read_with_lvqa(path: Path, seed: int) -> Reading:
    """Read a file as a user of lvqa does."""
    try:
        video = inspect_video(path)
        batches = [FrameGrid.exact(video, 1.0).times_seconds]
        batches[0] = batches[0][:: -(-len(batches[0]) // MAX_GRID_FRAMES)]
        rng = random.Random(seed)
        batches += [np.array([rng.random() * video.duration_seconds * (1 - 1e-9)]) for _ in range(NUM_SEEKS)]
        try:
            batches.append(FrameGrid.keyframes(video, 1.0).times_seconds[:MAX_GRID_FRAMES])
        except LvqaError as error:
            if "use video.sampling: exact" not in str(error):  # too few keyframes are no fault of the file
                raise
        return read_batches(video, batches)
    except LvqaError as error:
        if "\n" in str(error):
            raise
        return Reading(refusal=str(error).removeprefix(f"{path}: "))


def read_batches(video: Video, batches: list[np.ndarray]) -> Reading:
    """Read frames, each batch by itself."""
    frames = [part for times in batches for part in read_frames(video, times, height=SIDE, width=SIDE, threads=1)]
    num_substituted = sum(int(part.substituted.sum()) for part in frames)
    return Reading(
        warning="; ".join([*video.warnings, *[f"{num_substituted} substitutes"] * bool(num_substituted)]),
        num_frames=round(video.frames_per_second * video.duration_seconds),
        duration_seconds=video.duration_seconds,
        seconds=tuple(seconds for part in frames for seconds in part.times_seconds.tolist()),
        pictures=tuple(block_means(pixels) for part in frames for pixels in part.pixels),
    )


def read_with_pyav(path: Path) -> Reference | None:
    """Decode a file from its start with a fresh decoder."""
    with av.open(str(path), metadata_errors="replace") as container:
        stream = container.streams.best("video")
        return reference_of(container.decode(stream)) if stream else None


def read_with_ffmpeg(path: Path) -> Reference | None:
    """Let ffmpeg decode a file: the frames that it shows, at their times."""
    if shutil.which("ffmpeg") is None:
        return None
    command = ["ffmpeg", "-nostdin", "-v", "quiet", "-y", "-i", f"file:{path}", "-an", "-sn", "-dn"]
    command += ["-vf", f"scale={SIDE}:{SIDE}", "-pix_fmt", "rgb24", "-c:v", "rawvideo", "-fps_mode", "passthrough"]
    with tempfile.NamedTemporaryFile(suffix=".nut") as file:
        for own_clock in ("demux", "-1"):  # its name since ffmpeg 6.1, and before
            if not Path(file.name).stat().st_size:
                subprocess.run([*command, "-enc_time_base", own_clock, file.name], check=False)
        with av.open(file.name) as container:
            return reference_of(container.decode(video=0), is_turned=True)


def reference_of(frames: Iterator[av.VideoFrame], is_turned: bool = False) -> Reference:
    """Return the reference of decoded frames, up to the first error."""
    seconds: list[float | None] = []
    pictures, last = [], 0.0
    try:
        for frame in frames:
            pictures.append(block_means(frame.reformat(SIDE, SIDE, "rgb24", interpolation="BICUBIC").to_ndarray()))
            seconds.append(frame.time)
            last = 0.0 if is_turned else float((frame.duration or 0) * (frame.time_base or 0))
    except av.error.FFmpegError:
        pass
    if None in seconds or not seconds:
        return Reference(None, np.array(pictures), is_turned=is_turned)
    times = np.array(seconds, dtype=np.float64)
    order = np.argsort(times, kind="stable")
    order = order[np.append(np.diff(times[order]) > 0, True)]  # of frames at one time only the last is seen
    return Reference(times[order] - times.min(), np.array(pictures)[order], last, is_turned)


def block_means(pixels: np.ndarray) -> np.ndarray:
    """Return the (blocks, blocks, 3) means of the blocks of (SIDE, SIDE, 3) pixels."""
    num = SIDE // BLOCK
    return pixels.reshape(num, BLOCK, num, BLOCK, 3).mean(axis=(1, 3), dtype=np.float32)


# --- processes and damage ---------------------------------------------------------------------------------------------


class ChildError(Exception):
    """A process did not return what it should: the verdict says why."""

    def __init__(self, verdict: str, message: str) -> None:
        super().__init__(message)
        self.verdict = verdict


def in_child(limit_seconds: float, work: Callable[..., Any], *arguments: Any) -> Any:
    """Return what a function returns in a process of its own.

    Raises:
        ChildError: The function raised an error, the process died, or the time is over.
    """
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_send_result, args=(sender, work, arguments))
    child.start()
    sender.close()
    try:
        if not receiver.poll(limit_seconds):
            raise ChildError("hang", f"not ready after {limit_seconds:g} s")
        error, result = receiver.recv()
    except EOFError:
        child.join()
        raise ChildError("crash", f"its process ended with {child.exitcode}") from None
    finally:
        child.kill()
        child.join()
    if error:
        raise ChildError("traceback", error)
    return result


def _send_result(sender: Any, work: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    logging.disable()  # what lvqa logs is in its results, too
    try:
        message = ("", work(*arguments))
    except Exception:
        message = (" | ".join(traceback.format_exc().splitlines()[-3:]), None)
    sender.send(message)


def damaged_copies(files: list[Path], num_copies: int, seed: int, folder: Path) -> Iterable[Path]:
    """Write copies of random files with random damage, one by one; yield each."""
    rng = random.Random(seed)
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(num_copies):
        source, kind = rng.choice(files), rng.choice(["zero", "flip", "cut", "remove", "splice"])
        path = folder / f"{i:04d}-{kind}-{source.name}"
        path.write_bytes(damage(bytearray(source.read_bytes()), kind, rng))
        yield path


def damage(data: bytearray, kind: str, rng: random.Random) -> bytes:
    """Return data with damage of a kind, at a random place and of a random size."""
    first = rng.randrange(len(data))
    part = slice(first, first + max(1, int(len(data) * rng.random() / 5)))
    if kind == "zero":
        data[part] = bytes(len(data[part]))
    elif kind == "flip":
        for _ in range(rng.choice([1, 10, 100])):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    elif kind == "cut":
        del data[max(1, first) :]
    elif kind == "remove":
        del data[part]
    else:
        at = rng.randrange(len(data))
        data[at:at] = data[part]
    return bytes(data)


if __name__ == "__main__":
    sys.exit(main())

"""Fetch LVBench's videos from YouTube: `python scripts/get_lvbench.py FOLDER`. A second run goes on where one stopped.

The script needs yt-dlp (a command, or a module of this Python) and the internet. FOLDER gets the annotations and
`videos/KEY.mp4`: a file there is whole, parts lie in `videos/.parts`. Only the pictures are fetched, no sound, and
H.264 before other codecs, since some decoders can't read AV1. Some of the videos are gone from YouTube; they are listed
and not tried, unless you ask for it. With `--copies`, what is gone or fails is taken from public copies on the hub
(lmms-eval/LVBench, AIWinter/LVBench): of their archives, which have 60 GB each, only the videos that are lacking are
fetched. What follows `--` goes to yt-dlp as it is, for instance

    python scripts/get_lvbench.py data/lvbench -- --cookies-from-browser firefox

Exit code 0: every video is there; 3: some are not, gone or failed; 1: something that you can fix first. LVBench is for
academic use (CC BY-NC-SA 4.0).
"""

from __future__ import annotations

import argparse
import bisect
import functools
import importlib.util
import io
import itertools
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from lvqa.datasets import VideoTask, load_dataset
from lvqa.records import LvqaError

REPOSITORY = "zai-org/LVBench"
ANNOTATIONS = "video_info.meta.jsonl"
GONE = frozenset(
    {
        "idZkam9zqAs",
        "aJI8XTa_DII",
        "IsdbCjlZ5cQ",
        "EpMLAQbSYAw",
        "Z4HGQL_McDQ",
        "QWXlvx1GoTY",
        "28CIeC8cZks",
        "t-RtDI2RWQs",
        "qYMnM5blZIE",
        "gXnhqF0TqqI",
        "QgWRyDV9Ozs",
    }
)
"""Videos that issue 2 of the benchmark's repository (zai-org/LVBench) reports as gone, July 2024 and November 2025."""
COPIES = (
    ("lmms-eval/LVBench", "video_chunks/*.zip", False),
    ("AIWinter/LVBench", "all_videos_split.zip.*", True),
)
"""Copies of the videos on the hub: dataset, its archives, and whether they are one that was split."""
BLOCK_BYTES = 8 << 20
"""So much is fetched at once."""
YOUTUBE_ID = re.compile(r"[A-Za-z0-9_-]{11}")


def main() -> int:
    parser = argparse.ArgumentParser(
        usage="%(prog)s [options] FOLDER [-- YT_DLP_OPTION ...]",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path, help="the folder of the benchmark, made if need be")
    parser.add_argument("--annotations", type=Path, help=f"{ANNOTATIONS}; default: FOLDER's, else the hub's")
    parser.add_argument(
        "--height", type=int, choices=(144, 240, 360, 480, 720), default=360, help="most lines of a picture"
    )
    parser.add_argument("--try-gone", action="store_true", help="try the videos that were reported as gone, too")
    parser.add_argument("--copies", action="store_true", help="take what is gone or fails from copies on the hub")
    end = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    arguments = parser.parse_args(sys.argv[1:end])
    try:
        command = [*find_yt_dlp(), *yt_dlp_options(arguments.height), *sys.argv[end + 1 :]]
        tasks = install_annotations(arguments.folder, arguments.annotations)
        # A part of one height must not be completed at another.
        parts = arguments.folder / "videos" / ".parts" / f"{arguments.height}p"
        gone = frozenset() if arguments.try_gone else GONE
        return fetch_all(tasks, parts, command, gone, Copies() if arguments.copies else None)
    except LvqaError as error:
        print(f"error: {error}", file=sys.stderr)
    except OSError as error:
        print(f"error: {error.filename or arguments.folder}: {error.strerror or error}", file=sys.stderr)
    except KeyboardInterrupt:
        print("\nstopped; run the same command again to go on", file=sys.stderr)
        return 130
    return 1


def find_yt_dlp() -> list[str]:
    """Return the command that runs yt-dlp. Raise LvqaError if there is none."""
    if command := shutil.which("yt-dlp"):
        return [command]
    if importlib.util.find_spec("yt_dlp"):
        return [sys.executable, "-m", "yt_dlp"]
    raise LvqaError("there is no yt-dlp, neither a command nor a module; install it: python -m pip install yt-dlp")


def yt_dlp_options(height: int) -> list[str]:
    """Return the options for one file with pictures in it: nothing has to be merged, and ffmpeg is not needed."""
    pictures = f"bv*[height<={height}][ext=mp4]"
    return ["--ignore-config", "--no-playlist", "--no-progress", "--format", f"{pictures}[vcodec^=avc1]/{pictures}"]


def install_annotations(folder: Path, source: Path | None) -> tuple[VideoTask, ...]:
    """Put the annotations into the folder, if they are whole and readable, and return the benchmark's videos."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / ANNOTATIONS
    if source is not None or not path.exists():
        source = source or from_hub()
        with tempfile.TemporaryDirectory(prefix=".annotations-", dir=folder) as tmp_path:
            copied = Path(shutil.copyfile(source, Path(tmp_path) / ANNOTATIONS))
            try:
                load_dataset("lvbench", Path(tmp_path))
            except LvqaError as error:
                raise LvqaError(str(error).replace(str(copied), str(source))) from error
            copied.replace(path)
    return load_dataset("lvbench", folder).tasks


def from_hub() -> Path:
    """Return the annotations in the local cache of the Hugging Face hub, fetched if need be."""
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(REPOSITORY, ANNOTATIONS, repo_type="dataset"))
    except OSError as error:  # all of the hub's errors are
        reason = " ".join(str(error).split())
        raise LvqaError(f"{REPOSITORY} on the hub: {reason}; or give the file: --annotations FILE") from error


class JoinedFile(io.RawIOBase):
    """One file to read of several that follow each other."""

    def __init__(self, files: Sequence[IO[bytes]]) -> None:
        self.files = files
        self.starts = [0, *itertools.accumulate(file.seek(0, io.SEEK_END) for file in files)]
        self.position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self.position, io.SEEK_END: self.starts[-1]}[whence]
        self.position = base + offset
        return self.position

    def readinto(self, buffer: Any) -> int:
        if not 0 <= self.position < self.starts[-1]:
            return 0
        i = bisect.bisect_right(self.starts, self.position) - 1
        self.files[i].seek(self.position - self.starts[i])
        content = self.files[i].read(min(len(buffer), self.starts[i + 1] - self.position))
        buffer[: len(content)] = content
        self.position += len(content)
        return len(content)


class Copies:
    """The copies of the videos on the hub, in ZIP archives that are read where they lie."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        """Why a copy can't be read."""

    def fetch(self, task: VideoTask, parts: Path) -> str:
        """Take one video from the first copy that has it; return what went wrong in a line, or ""."""
        part = parts / f"{task.video_id}.copy"
        for archive, name in self.members.get(task.video_id, ()):
            try:
                with archive.open(name) as source, part.open("wb") as target:
                    shutil.copyfileobj(source, target, 4 << 20)  # the archive's checksum is checked at the end
            except Exception as error:  # the network's, and those of a damaged archive, have no common class
                self.problems.append(f"{type(error).__name__}: {error}")
                part.unlink(missing_ok=True)
                continue
            part.replace(task.path)
            return ""
        return "; ".join(["not in a copy on the hub", *self.problems[:1]])

    @functools.cached_property
    def members(self) -> dict[str, list[tuple[zipfile.ZipFile, str]]]:
        """Key of a video -> the archives that have it, and its name there."""
        members: dict[str, list[tuple[zipfile.ZipFile, str]]] = {}
        for repository, pattern, is_split in COPIES:
            try:
                for archive in open_archives(repository, pattern, is_split=is_split):
                    for name in archive.namelist():
                        members.setdefault(Path(name).stem, []).append((archive, name))
            except Exception as error:  # as above
                self.problems.append(f"{repository}: {' '.join(str(error).split()) or type(error).__name__}")
        return members


def open_archives(repository: str, pattern: str, *, is_split: bool) -> list[zipfile.ZipFile]:
    """Open the archives of a dataset on the hub: each file is one, or all of them together are one that was split."""
    from huggingface_hub import HfFileSystem

    hub = HfFileSystem()
    paths = sorted(hub.glob(f"datasets/{repository}/{pattern}"))
    files = [hub.open(path, "rb", block_size=BLOCK_BYTES, cache_type="readahead") for path in paths]
    if is_split:
        return [zipfile.ZipFile(io.BufferedReader(JoinedFile(files), BLOCK_BYTES))] if files else []
    return [zipfile.ZipFile(file) for file in files]


def fetch_all(
    tasks: Sequence[VideoTask], parts: Path, command: Sequence[str], gone: frozenset[str], copies: Copies | None
) -> int:
    """Fetch what is not there, one after the other, and print how it ended. Return the exit code."""
    parts.mkdir(parents=True, exist_ok=True)
    ended: dict[str, list[str]] = {"done": [], "gone": [], "failed": []}
    for i, task in enumerate(tasks, start=1):
        key = task.video_id
        if task.path.is_file():
            end, remark = "done", "is there"
        elif key in gone:
            end, remark = "gone", "reported as gone from YouTube"
        else:
            problem = fetch(task, parts, command)
            end, remark = ("failed", problem) if problem else ("done", "fetched")
        if end != "done" and copies is not None:
            problem = copies.fetch(task, parts)
            end, remark = (end, f"{remark}; {problem}") if problem else ("done", "taken from a copy on the hub")
        ended[end].append(key)
        print(f"{i}/{len(tasks)} {key}: {remark}", flush=True)
    print()
    for end, keys in ended.items():
        print(f"{end:6} {len(keys):4}  {'' if end == 'done' else ' '.join(keys)}".rstrip())
    return 0 if len(ended["done"]) == len(tasks) else 3


def fetch(task: VideoTask, parts: Path, command: Sequence[str]) -> str:
    """Fetch one video; return what went wrong in a line, or "". yt-dlp itself goes on with the part that it left."""
    key = task.video_id
    if not YOUTUBE_ID.fullmatch(key):
        return "not a YouTube id, which has 11 letters, digits, - or _"
    part = parts / f"{key}.mp4"
    output = str(part).replace("%", "%%")  # in yt-dlp's template a % begins a field
    address = f"https://www.youtube.com/watch?v={key}"
    process = subprocess.run([*command, "--output", output, address], stdin=subprocess.DEVNULL, capture_output=True)
    if process.returncode:
        lines = process.stderr.decode(errors="replace").splitlines()
        return next((line for line in lines if line.startswith("ERROR")), f"yt-dlp ended with {process.returncode}")
    if not part.is_file() or not part.stat().st_size:
        return "yt-dlp ended well, but wrote no video"
    part.replace(task.path)
    return ""


if __name__ == "__main__":
    sys.exit(main())

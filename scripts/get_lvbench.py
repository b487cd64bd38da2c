"""Fetch LVBench's videos from YouTube: `python scripts/get_lvbench.py FOLDER`. Run again, it goes on where it stopped.

Needs yt-dlp (a command, or a module of this Python) and the internet. FOLDER gets the annotations and
`videos/KEY.mp4`: a file that is there is whole, parts lie in `videos/.parts`. Only the pictures are fetched, no sound,
and H.264 before other codecs, since some decoders can't read AV1. Some of the videos are gone from YouTube; they
are listed and not tried, unless you ask for it. What follows `--` goes to yt-dlp as it is, for instance

    python scripts/get_lvbench.py data/lvbench -- --cookies-from-browser firefox

Exit code 0: every video is there; 3: some are not, gone or failed; 1: something that you can mend first. LVBench is for
academic use (CC BY-NC-SA 4.0).
"""

from __future__ import annotations

import argparse
import importlib.util
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from lvqa.datasets import VideoTask, load_benchmark
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
"""Reported as gone in issue 2 of the benchmark's repository (zai-org/LVBench), July 2024 and November 2025."""
YOUTUBE_ID = re.compile(r"[A-Za-z0-9_-]{11}")


def main() -> int:
    parser = argparse.ArgumentParser(
        usage="%(prog)s [options] FOLDER [-- YT_DLP_OPTION ...]",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path, help="the benchmark's folder, made if need be")
    parser.add_argument("--annotations", type=Path, help=f"{ANNOTATIONS}; default: FOLDER's, else the hub's")
    parser.add_argument("--height", type=int, choices=(144, 240, 360, 480, 720), default=360, help="at most")
    parser.add_argument("--try-gone", action="store_true", help="try those that were reported as gone, too")
    end = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    arguments = parser.parse_args(sys.argv[1:end])
    try:
        command = [*find_yt_dlp(), *yt_dlp_options(arguments.height), *sys.argv[end + 1 :]]
        tasks = place_annotations(arguments.folder, arguments.annotations)
        # A part of one height is never gone on with at another.
        parts = arguments.folder / "videos" / ".parts" / f"{arguments.height}p"
        return fetch_all(tasks, parts, command, frozenset() if arguments.try_gone else GONE)
    except LvqaError as error:
        print(f"error: {error}", file=sys.stderr)
    except OSError as error:
        print(f"error: {error.filename or arguments.folder}: {error.strerror or error}", file=sys.stderr)
    except KeyboardInterrupt:
        print("\nstopped; run the same command again to go on", file=sys.stderr)
        return 130
    return 1


def find_yt_dlp() -> list[str]:
    """The beginning of a command line. Raises LvqaError if there is no yt-dlp."""
    if command := shutil.which("yt-dlp"):
        return [command]
    if importlib.util.find_spec("yt_dlp"):
        return [sys.executable, "-m", "yt_dlp"]
    raise LvqaError("there is no yt-dlp, neither a command nor a module; install it: python -m pip install yt-dlp")


def yt_dlp_options(height: int) -> list[str]:
    """One file with pictures in it, so that nothing has to be merged and ffmpeg is not needed."""
    pictures = f"bv*[height<={height}][ext=mp4]"
    return ["--ignore-config", "--no-playlist", "--no-progress", "--format", f"{pictures}[vcodec^=avc1]/{pictures}"]


def place_annotations(folder: Path, given: Path | None) -> tuple[VideoTask, ...]:
    """The benchmark's videos, once its annotations lie in the folder. Only whole and readable ones are put there."""
    folder.mkdir(parents=True, exist_ok=True)
    place = folder / ANNOTATIONS
    if given is not None or not place.exists():
        source = given or from_hub()
        with tempfile.TemporaryDirectory(prefix=".annotations-", dir=folder) as beside:
            copied = Path(shutil.copyfile(source, Path(beside) / ANNOTATIONS))
            try:
                load_benchmark("lvbench", Path(beside))
            except LvqaError as error:
                raise LvqaError(str(error).replace(str(copied), str(source))) from error
            copied.replace(place)
    return load_benchmark("lvbench", folder).tasks


def from_hub() -> Path:
    """The annotations in the local cache of the Hugging Face hub, fetched if need be."""
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(REPOSITORY, ANNOTATIONS, repo_type="dataset"))
    except OSError as error:  # all of the hub's errors are
        reason = " ".join(str(error).split())
        raise LvqaError(f"{REPOSITORY} on the hub: {reason}; or give the file: --annotations FILE") from error


def fetch_all(tasks: Sequence[VideoTask], parts: Path, command: Sequence[str], gone: frozenset[str]) -> int:
    """Fetch what is not there, one after the other, and print how it ended. The exit code."""
    parts.mkdir(parents=True, exist_ok=True)
    ended: dict[str, list[str]] = {"done": [], "gone": [], "failed": []}
    for number, task in enumerate(tasks, start=1):
        key = task.video_id
        if task.path.is_file():
            end, remark = "done", "is there"
        elif key in gone:
            end, remark = "gone", "reported as gone from YouTube"
        else:
            problem = fetch(task, parts, command)
            end, remark = ("failed", problem) if problem else ("done", "fetched")
        ended[end].append(key)
        print(f"{number}/{len(tasks)} {key}: {remark}", flush=True)
    print()
    for end, keys in ended.items():
        print(f"{end:6} {len(keys):4}  {'' if end == 'done' else ' '.join(keys)}".rstrip())
    return 0 if len(ended["done"]) == len(tasks) else 3


def fetch(task: VideoTask, parts: Path, command: Sequence[str]) -> str:
    """Fetch one video; what went wrong in a line, or nothing. yt-dlp itself goes on with the part that it left."""
    key = task.video_id
    if not YOUTUBE_ID.fullmatch(key):
        return "not a YouTube id, which has 11 letters, digits, - or _"
    part = parts / f"{key}.mp4"
    output = str(part).replace("%", "%%")  # in yt-dlp's template a % begins a field
    address = f"https://www.youtube.com/watch?v={key}"
    ran = subprocess.run([*command, "--output", output, address], stdin=subprocess.DEVNULL, capture_output=True)
    if ran.returncode:
        said = ran.stderr.decode(errors="replace").splitlines()
        return next((line for line in said if line.startswith("ERROR")), f"yt-dlp ended with {ran.returncode}")
    if not part.is_file() or not part.stat().st_size:
        return "yt-dlp ended well, but wrote no video"
    part.replace(task.path)
    return ""


if __name__ == "__main__":
    sys.exit(main())

"""Runs as files that open from the disk, or from any web server: one page, one script, and data as scripts."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from lvqa.evaluation import read_run
from lvqa.records import LvqaError, Video, counted
from lvqa.report.page import write_file
from lvqa.video import inspect_video
from lvqa.web.notes import read_notes
from lvqa.web.pages import page, pictures_of, relative_address
from lvqa.web.script import classic_script, style
from lvqa.web.views import Json, RunView

PICTURE_HEIGHT = 90
MAX_MIB = 36
"""A bundle's pictures are so many that it is not larger, if its answers leave room."""
SAMPLE = 12
"""So many pictures of a video tell how large its pictures are."""

Progress = Callable[[str, int, int], None]


def write_bundle(
    runs: Sequence[Path], folder: Path, *, max_mib: float = MAX_MIB, progress: Progress = lambda *_: None
) -> list[str]:
    """Write the pages of runs as static files, with small pictures of the frames; the videos themselves are linked.

    Args:
        runs: The run folders.
        folder: Where the files are written; it must be new or empty.
        max_mib: The bound on the size of all files: as many pictures are written as there is room for, those of frames
            that most answers are from first.
        progress: Called as pictures are written: "pictures", how many videos are through, of how many.

    Returns:
        A line for each thing that a reader must know: a video that is not there, pictures that had no room.

    Raises:
        LvqaError: A folder is not a run folder, two have the same name, or the files can't be written.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise LvqaError(f"{folder} is there already, and not empty: name a new folder for the bundle")
    views = {path.resolve().name: RunView(read_run(path)) for path in runs}
    if len(views) < len(runs):
        raise LvqaError(f"two of the {len(runs)} runs have the same name; rename one's folder")
    bundle, (videos, remarks) = _Bundle(folder), _videos(views.values())
    for number, (name, view) in enumerate(views.items()):
        bundle.write_run(number, name, view, videos)
    bundle.write_pages(list(views))
    room, wanted, num_written = max(0.0, max_mib * (1 << 20) - bundle.size), _wanted_times(views.values()), 0
    for number, (video_id, video) in enumerate(videos.items()):
        progress("pictures", number, len(videos))
        size, num_pictures = bundle.write_pictures(video_id, video, wanted[video_id], room / (len(videos) - number))
        room, num_written = room - size, num_written + num_pictures
    progress("pictures", len(videos), len(videos))
    total = sum(len(wanted[video_id]) for video_id in videos)
    if num_written < total:
        remarks.append(f"{num_written} of {counted(total, 'frame')} have a picture; more need a larger --max-mib")
    return remarks


class _Bundle:
    """The files of a bundle, as they are written."""

    def __init__(self, folder: Path) -> None:
        self._folder, self.size = folder, 0
        self._scripts: list[str] = []

    def _write(self, name: str, content: bytes | str) -> int:
        data = content.encode("utf-8", errors="backslashreplace") if isinstance(content, str) else content
        write_file(self._folder / name, data)
        self.size += len(data)
        return len(data)

    def _write_data(self, name: str, target: str, value: object) -> int:
        """Write a script that puts a value into a global one: `lvqa.pictures["..."] = {...};`."""
        text = json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        return self._write(name, f"{target} = {text};\n")

    def write_run(self, number: int, name: str, view: RunView, videos: Mapping[str, Video]) -> None:
        """Write a run: all questions in short, and a script for each."""
        known = {video_id: {"pictures": _pictures_file(video_id)} for video_id in videos}
        files = [f"data/{number}/{index}.js" for index in range(len(view))]
        summary = {**view.summary, "name": name, "notes": read_notes(view.run.folder), "files": files, "videos": known}
        key = json.dumps(name)
        for index, file in enumerate(files):
            video = view.video_of(index)
            if (there := videos.get(video["id"])) is not None:
                video["media"] = relative_address(there.path, self._folder)
            self._write_data(file, f"lvqa.questions[{key}][{index}]", view.question(index, video))
        self._scripts.append(f"data/{number}.js")
        self._write_data(self._scripts[-1], f"lvqa.questions[{key}] = {{}}; lvqa.runs[{key}]", summary)

    def write_pictures(self, video_id: str, video: Video, times: Sequence[float], room: float) -> tuple[int, int]:
        """Write the pictures of a video, the first ones for which there is room; returns their bytes and how many."""
        sample = pictures_of(video, times[:: max(1, len(times) // SAMPLE)], max_height=PICTURE_HEIGHT)
        size = max(1.0, sum(map(len, sample.values())) / max(1, len(sample)) + len('"1234":"",'))
        chosen = times[: int(room / size)]
        pictures = pictures_of(video, chosen, max_height=PICTURE_HEIGHT) if chosen else {}
        return self._write_data(_pictures_file(video_id), f"lvqa.pictures[{json.dumps(video_id)}]", pictures), len(
            chosen
        )

    def write_pages(self, names: Sequence[str]) -> None:
        """Write the page, its style and its script."""
        self._write("style.css", style())
        self._write("lvqa.js", classic_script())
        self._write("data/start.js", "window.lvqa = {runs: {}, questions: {}, pictures: {}};\n")
        files = ("data/start.js", *self._scripts, "lvqa.js")
        stored: Json = {"globals": None, "style": None, "script": None, "files": files}
        self._write("index.html", page(", ".join(names)[:80], "stored_runs", stored=stored))


def _videos(views: Iterable[RunView]) -> tuple[dict[str, Video], list[str]]:
    """Return the videos that are as they were when the questions were asked, and a line for each other one."""
    videos, remarks = {}, []
    for video_id, path in {key: path for view in views for key, path in view.paths.items()}.items():
        try:
            video = inspect_video(Path(path))
        except LvqaError as error:
            remarks.append(f"{error}; its questions have no pictures")
            continue
        if video.id == video_id:
            videos[video_id] = video
        else:
            remarks.append(f"{path} has other content now; its questions have no pictures")
    return videos, remarks


def _wanted_times(views: Iterable[RunView]) -> dict[str, list[float]]:
    """Return the times of each video's frames: those that most answers are from first, then in the order of time."""
    uses: dict[str, Counter[float]] = defaultdict(Counter)
    for view in views:
        for row in view.run.rows:
            uses[row["content_id"] or ""].update(row["times_seconds"])
    return {
        video_id: sorted(counter, key=lambda seconds, n=counter: (-n[seconds], seconds))  # type: ignore[misc]
        for video_id, counter in uses.items()
    }


def _pictures_file(video_id: str) -> str:
    return f"data/pictures-{video_id}.js"

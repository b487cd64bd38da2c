"""The videos that a server has: what lies in its folders, and what was uploaded."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from lvqa.index import Store
from lvqa.library import Library
from lvqa.output import video_json
from lvqa.places import as_path, files_by_folder
from lvqa.records import VIDEO_SUFFIXES, LvqaError, Video, shorten
from lvqa.server.errors import ApiError
from lvqa.server.folders import ServedFolders
from lvqa.server.settings import ServerSettings
from lvqa.video import inspect_video, store_metadata

_log = logging.getLogger(__name__)


class VideoRegistry:
    """Knows the videos of a server by their ids. Its methods read files, and are called in one thread."""

    def __init__(self, settings: ServerSettings) -> None:
        self.store = Store(settings.config.store.folder)
        self._uploads, self._paths = settings.uploads, settings.paths
        self.folders = ServedFolders((*settings.paths, settings.uploads))
        self._videos: dict[str, Video] = {}
        self._offered: dict[str, Path] = {}
        self.failures: dict[str, str] = {}
        """Path of a file that could not be read as a video -> why."""

    def scan(self) -> None:
        """Add all videos in the folders. One that can't be read is noted."""
        self.store.prepare()
        self._uploads.mkdir(parents=True, exist_ok=True)
        for path in (*self._paths, self._uploads):
            for file in _video_files(path):
                try:
                    self.add(file)
                except (LvqaError, ApiError) as error:
                    self.failures[str(file)] = str(error)
                    _log.warning("%s", error)

    def add(self, path: Path) -> Video:
        """Add a video by its file, which must lie in the folders. The same content is one video."""
        video = self._inspect(path)
        known = self._videos.get(video.id)
        if known is not None and known.path != video.path and self.folders.inside(known.path) and known.path.is_file():
            return known
        self._videos[video.id] = video
        self.failures.pop(str(video.path), None)
        return video

    def _inspect(self, path: Path) -> Video:
        video = inspect_video(path, metadata_folder=self.store.folder)
        self.folders.resolve(str(video.path))  # where it leads now that it was read
        store_metadata(video.path, self.store.folder)
        return video

    def get(self, video_id: str) -> Video:
        """Return a video whose file is as it was.

        Raises:
            ApiError: There is no such video, or its file is gone or has other content now.
        """
        known = self._videos.get(video_id)
        if known is None and video_id in self._offered:
            return self._get_offered(video_id)
        if known is None:
            raise ApiError(404, f"there is no video {shorten(video_id)} here; GET /api/videos lists all")
        video = self._inspect(self.folders.resolve(str(known.path)))
        if video.id != known.id:
            raise ApiError(404, f"video {video_id}: its file has other content now; add it again")
        return video

    def offer(self, paths: Mapping[str, Path]) -> None:
        """Let the videos of a run be seen where they lie: whoever started the server named the run.

        Args:
            paths: The id of each video -> its file. They are not listed, and nothing can be asked about them.
        """
        self._offered |= {video_id: path for video_id, path in paths.items() if video_id not in self._videos}

    def _get_offered(self, video_id: str) -> Video:
        video = inspect_video(self._offered[video_id], metadata_folder=self.store.folder)
        if video.id != video_id:
            raise ApiError(404, f"video {video_id}: its file has other content now")
        return video

    def find(self, reference: str) -> Video:
        """Return the video that a client means: by id, by path, or by an address that ends with an id.

        Args:
            reference: "0123456789abcdef", "/videos/a.mp4", "file:///videos/a.mp4", "s3://bucket/a.mp4",
                ".../api/videos/0123456789abcdef".
        """
        if reference in self._videos:
            return self.get(reference)
        if reference.startswith("/") or self.folders.inside(as_path(reference)) is not None:
            return self.add(self.folders.resolve(reference))
        url = urlsplit(reference)
        if url.scheme == "file" and url.netloc in ("", "localhost"):
            return self.add(self.folders.resolve(unquote(url.path)))
        ids = [part for part in url.path.split("/") if part in self._videos]
        return self.get(ids[-1] if ids else reference)

    def knows(self, video_id: str) -> bool:
        """Return whether there is a video of this id."""
        return video_id in self._videos

    def only(self) -> Video | None:
        """Return the video if there is one alone."""
        return self.get(next(iter(self._videos))) if len(self._videos) == 1 else None

    def list(self, spec: dict[str, Any]) -> list[dict[str, Any]]:
        """Return all videos as JSON, by path; `spec` says which index makes one indexed."""
        videos = sorted(self._videos.values(), key=lambda video: str(video.path))
        return [self.to_json(video, spec) for video in videos]

    def to_json(self, video: Video, spec: dict[str, Any]) -> dict[str, Any]:
        """Return a video as JSON."""
        return {
            **video_json(video),
            "name": video.path.name,
            "width": video.width,
            "height": video.height,
            "frames_per_second": video.frames_per_second,
            "warnings": list(video.warnings),
            "is_synthetic": video.is_synthetic,
            "is_there": video.path.is_file(),
            "is_upload": self._is_upload(video),
            "is_indexed": self.store.path_of(video.id, spec).is_file(),
        }

    def remove(self, video_id: str) -> None:
        """Forget a video and all that is kept of it. Its file is deleted only if it was uploaded here."""
        video = self._videos.pop(video_id, None)
        if video is None:
            raise ApiError(404, f"there is no video {shorten(video_id)} here; GET /api/videos lists all")
        with suppress(LvqaError):  # the store knows nothing of it
            Library(self.store).forget(video_id)
        if self._is_upload(video):
            video.path.unlink(missing_ok=True)

    def _is_upload(self, video: Video) -> bool:
        return video.path.is_relative_to(self._uploads.resolve())


def _video_files(path: Path) -> Iterator[Path]:
    """Yield the video files of a folder and of its subfolders, by name; a file is one whatever its name is."""
    if path.is_file():
        yield path.absolute()
        return
    for files in files_by_folder(path.absolute()):
        yield from (file for file in files if file.suffix.lower() in VIDEO_SUFFIXES and not file.name.startswith("."))

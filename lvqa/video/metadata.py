"""Find out what a file holds, once in a process, and store it in a folder for the next process."""

from __future__ import annotations

import io
import stat
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from lvqa.files import write_atomically
from lvqa.records import Video
from lvqa.video.container import VideoError, convert_errors, decode_stream, open_stream, quarter_turns
from lvqa.video.identity import FileState, identify, store_id
from lvqa.video.timeline import Timeline, read_timeline

METADATA_FORMAT = 1
"""The version of stored metadata. Raise it when what is stored, or how it is read from a video file, changes."""

_OPTIONAL_COLUMNS = ("packet_ticks", "packet_sizes", "keyframe_positions")


def inspect_video(path: str | Path, *, metadata_folder: Path | None = None) -> Video:
    """Return what a video file holds: its identity, duration, size and frame rate.

    The first call in a process hashes the file, reads every packet's header and decodes one frame, which takes 0.4 s
    for an hour of video, and the hash 0.7 s a gigabyte; later calls for the same file are free. Nothing is written.

    Args:
        path: The file.
        metadata_folder: A folder where another process may have stored the metadata with `store_metadata`; if they are
            there, the file is neither hashed nor are its packets read.

    Returns:
        The video. Height and width are the stored pixels after rotation; pixels that are not square are left as they
        are. The duration of a truncated file is that of the bytes that are there.

    Raises:
        VideoError: The path leads to nothing that can be read as a video.
    """
    path = _regular_file(path)
    with convert_errors(path):
        file = FileState.of(path, metadata_folder)
        video_id, metadata = identify(file).id, read_metadata(file)
    timeline = metadata.timeline
    return Video(
        path=path,
        id=video_id,
        duration_seconds=timeline.duration_seconds,
        height=metadata.height,
        width=metadata.width,
        frames_per_second=len(timeline.frame_ticks) / timeline.duration_seconds,
    )


def store_metadata(path: Path, metadata_folder: Path) -> None:
    """Store id and metadata of a video file for `inspect_video` in another process, unless they are already there.

    Nothing is stored, and nothing is raised, where the folder or the disk refuses it.

    Raises:
        VideoError, av.error.FFmpegError: The file can't be read as a video.
    """
    with suppress(OSError, OverflowError):
        keep_metadata(FileState.of(path, metadata_folder), metadata_folder)


@lru_cache(maxsize=256)  # every question about a video calls it; where the folder refused it, it is tried again
def keep_metadata(file: FileState, metadata_folder: Path) -> None:
    """Do what `store_metadata` does, for a file in this state; OSError where the folder refuses it."""
    video_id, metadata = identify(file).id, read_metadata(file)
    store_id(file)
    if metadata.source_folder == metadata_folder or _load_metadata(metadata_folder, video_id, file.modified_ns):
        return
    content = _encode_metadata(metadata, video_id, file.modified_ns)
    write_atomically(_metadata_path(metadata_folder, video_id), content)


@dataclass(frozen=True, slots=True, eq=False)
class VideoMetadata:
    """What it takes to read a file as a video."""

    height: int
    """Pixels, after rotation."""
    width: int
    """Pixels, after rotation."""
    timeline: Timeline
    source_folder: Path | None = None
    """The folder from which the metadata were loaded; None if they were read from the file itself."""


def timeline_of(path: Path) -> Timeline:
    """Return the timeline of the file as it is now."""
    return read_metadata(FileState.of(path)).timeline


@lru_cache(maxsize=4)  # every question about a video inspects it, and every batch of frames needs its timeline
def read_metadata(file: FileState) -> VideoMetadata:
    """Load the metadata from the folder, or read them from the file itself.

    Raises:
        VideoError, av.error.FFmpegError: The file can't be read as a video.
        OSError: The file can't be read at all.
    """
    if file.metadata_folder is not None:
        stored = _load_metadata(file.metadata_folder, identify(file).id, file.modified_ns)
        if stored is not None:
            return stored
    timeline = read_timeline(file.path)
    return VideoMetadata(*_display_size(file.path), timeline)


def _regular_file(path: str | Path) -> Path:
    """Return the absolute path of a regular file that is not empty, or raise VideoError."""
    try:
        path = Path(path).expanduser().resolve()
        status = path.stat()
    except (OSError, RuntimeError, ValueError) as error:  # not there, a loop of links, a NUL in the name
        reason = getattr(error, "strerror", None) or str(error)
        raise VideoError(f"{path}: {reason}; expected a video file") from error
    # Opening a FIFO would wait for its writer for ever, so the kind is checked before anything is opened.
    if not stat.S_ISREG(status.st_mode):
        kind = "a folder" if stat.S_ISDIR(status.st_mode) else "not a regular file"
        raise VideoError(f"{path}: this is {kind}; expected a video file")
    if status.st_size == 0:
        raise VideoError(f"{path}: the file is empty; expected a video file")
    return path


def _display_size(path: Path) -> tuple[int, int]:
    """Return height and width in pixels, after rotation."""
    with open_stream(path) as stream:
        frame = next(decode_stream(stream), None)
    if frame is None:
        raise VideoError(f"{path}: not one frame can be decoded; expected a video file that plays")
    return (frame.width, frame.height) if quarter_turns(frame) % 2 else (frame.height, frame.width)


def _metadata_path(metadata_folder: Path, video_id: str) -> Path:
    return metadata_folder / f"{video_id}.metadata.npz"


def _fingerprint(video_id: str, modified_ns: int) -> str:
    """Return all that stored metadata depend on; what FFmpeg's libraries report of a file may change with them."""
    return f"metadata format {METADATA_FORMAT}, av {version('av')}, {video_id} of {modified_ns}"


def _encode_metadata(metadata: VideoMetadata, video_id: str, modified_ns: int) -> bytes:
    """Return the content of a metadata file."""
    timeline = metadata.timeline
    ratios = (*timeline.end_tick.as_integer_ratio(), *timeline.tick_seconds.as_integer_ratio())
    columns: dict[str, Any] = {
        "fingerprint": np.array(_fingerprint(video_id, modified_ns)),
        "scalars": np.array([metadata.height, metadata.width, *ratios], dtype=np.int64),
        "frame_ticks": timeline.frame_ticks,
    }
    if timeline.packet_ticks is not None:
        columns |= {name: getattr(timeline, name) for name in _OPTIONAL_COLUMNS}
    file = io.BytesIO()
    np.savez(file, **columns)
    return file.getvalue()


def _load_metadata(metadata_folder: Path, video_id: str, modified_ns: int) -> VideoMetadata | None:
    """Return the metadata stored for this very file, or None. The content is checked: anyone may have written it."""
    path = _metadata_path(metadata_folder, video_id)
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # opening a FIFO would wait for its writer for ever
            return None
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:  # np.load verifies the checksums
            unpacked_size = sum(member.file_size for member in file.zip.infolist())
            if unpacked_size > path.stat().st_size or file["fingerprint"] != _fingerprint(video_id, modified_ns):
                return None
            height, width, *ratios = file["scalars"].tolist()
            timeline = Timeline(
                frame_ticks=file["frame_ticks"],
                end_tick=Fraction(*ratios[:2]),
                tick_seconds=Fraction(*ratios[2:]),
                **{name: file[name] for name in _OPTIONAL_COLUMNS if name in file},
            )
            is_valid = timeline.is_valid() and height > 0 and width > 0
    except Exception:  # no file, or one that is no metadata file in one of many ways
        return None
    return VideoMetadata(height, width, timeline, source_folder=metadata_folder) if is_valid else None

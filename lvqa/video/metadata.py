"""Find out what a file holds, once in a process, and store it in a folder for the next process."""

from __future__ import annotations

import dataclasses
import io
import logging
import re
import stat
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache, partial
from importlib.metadata import version
from pathlib import Path
from threading import Condition
from typing import Any

import numpy as np
from cachetools import LRUCache, cached

from lvqa.files import write_atomically
from lvqa.places import PlaceError, as_path, in_use
from lvqa.records import MAX_ASPECT, Video
from lvqa.video.container import VideoError, convert_errors, decode_stream, open_stream
from lvqa.video.display import Orientation, display_size, orientation_of, warnings_of
from lvqa.video.header import read_header
from lvqa.video.holes import describe_holes
from lvqa.video.identity import FileState, identify, store_id
from lvqa.video.record import VideoRecord, keep_record
from lvqa.video.refusal import certain_refusal, likely_refusal, refusal_of_one_frame
from lvqa.video.timeline import Timeline, read_timeline

_log = logging.getLogger(__name__)

METADATA_FORMAT = 4
"""The version of stored metadata. Raise it when what is stored, or how it is read from a video file, changes."""

MAX_TIMELINES = 8
"""The metadata of so many files are in memory: 3 MB for an hour at 30 frames a second."""

_OPTIONAL_COLUMNS = ("packet_ticks", "packet_sizes", "keyframe_positions")


def inspect_video(path: str | Path, *, metadata_folder: Path | None = None) -> Video:
    """Return what a video file holds: its identity, duration, size and frame rate.

    The first call in a process lists all packets and decodes one frame, which takes 0.1 to 0.6 s for an hour of video;
    later calls for the same file are free. The file is hashed when `id` is first used, 0.7 s a gigabyte. Nothing is
    written.

    Args:
        path: The file; a URL that begins with s3://, gs:// or https:// is one, too.
        metadata_folder: A folder where another process may have stored the metadata with `store_metadata`; if they are
            there, the file is neither hashed nor are its packets read.

    Returns:
        The video. Height and width are those at which a player shows it: turned, and in square pixels. The duration of
        a truncated file is that of the bytes that are there.

    Raises:
        VideoError: The path leads to nothing that can be read as a video, or the frames are too narrow for a model.
    """
    path = _regular_file(path)
    with convert_errors(path), in_use(path):
        file = FileState.of(path, metadata_folder)
        metadata = read_metadata(file)
        # To find what is stored, the file was identified already.
        video_id = partial(_id_of, file) if metadata_folder is None else identify(file).id
    height, width = metadata.height, metadata.width
    if max(height, width) > MAX_ASPECT * min(height, width):
        raise VideoError(
            f"{path}: a frame is {width} pixels wide and {height} high; "
            f"one side may be {MAX_ASPECT} times the other at most"
        )
    timeline = metadata.timeline
    return Video(
        path=path,
        id=video_id,  # type: ignore[arg-type]  # a function, until it is used
        duration_seconds=timeline.duration_seconds,
        height=height,
        width=width,
        frames_per_second=len(timeline.frame_ticks) / timeline.duration_seconds,
        warnings=timeline.warnings,
        is_synthetic=metadata.is_synthetic,
    )


def _id_of(file: FileState) -> str:
    """Return the id of a file that is in the state in which it was inspected.

    Raises:
        VideoError: The file can't be read, or is in another state.
    """
    with convert_errors(file.path), in_use(file.path):
        video_id = identify(file).id
        if FileState.of(file.path) != file:
            raise VideoError(f"{file.path}: the file was changed after it was inspected; inspect it again")
    return video_id


def store_metadata(path: Path, metadata_folder: Path) -> None:
    """Store id and metadata of a video file for `inspect_video` in another process, and where it was seen.

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
    duration = metadata.timeline.duration_seconds
    keep_record(metadata_folder, VideoRecord(video_id, file.size, duration, (file.path,)))
    if metadata.source_folder == metadata_folder or _load_metadata(metadata_folder, video_id, file.modified_ns):
        return
    content = _encode_metadata(metadata, video_id, file.modified_ns)
    write_atomically(_metadata_path(metadata_folder, video_id), content)


@dataclass(frozen=True, slots=True, eq=False)
class VideoMetadata:
    """What it takes to read a file as a video."""

    height: int
    """Pixels, as shown."""
    width: int
    """Pixels, as shown."""
    timeline: Timeline
    is_synthetic: bool
    """Whether `lvqa make-videos` made the file."""
    source_folder: Path | None = None
    """The folder from which the metadata were loaded; None if they were read from the file itself."""


def timeline_of(path: Path) -> Timeline:
    """Return the timeline of the file as it is now."""
    return read_metadata(FileState.of(path)).timeline


@dataclass(frozen=True, slots=True)
class FirstFrame:
    """What the first frame that can be decoded tells of all frames."""

    height: int
    """Pixels, as shown."""
    width: int
    """Pixels, as shown."""
    orientation: Orientation
    """How a player turns the stored picture."""
    warnings: tuple[str, ...] = ()
    """What a model sees of all frames is not what a player shows: why, in one line each."""


def first_frame(path: Path) -> FirstFrame:
    """Decode the first frame that can be decoded.

    Raises:
        VideoError, av.error.FFmpegError: The file can't be read as a video.
    """
    with open_stream(path) as stream:
        frame = next(decode_stream(stream), None)
        # The container's own word comes first, then the codec's, which some codecs say only with a frame.
        pixel_aspect = stream.sample_aspect_ratio or stream.codec_context.sample_aspect_ratio
        warnings = warnings_of(stream.codec_context)
    if frame is None:
        raise VideoError(f"{path}: not one frame can be decoded; expected a video file that plays")
    return FirstFrame(*display_size(frame, pixel_aspect), orientation_of(frame), warnings)


# Every question about a video inspects it, and every batch of frames needs its timeline.
@cached(LRUCache(MAX_TIMELINES), condition=Condition())
def read_metadata(file: FileState) -> VideoMetadata:
    """Load the metadata from the folder, or read them from the file itself.

    Raises:
        VideoError, av.error.FFmpegError: The file can't be read as a video.
        OSError: The file can't be read at all.
    """
    if file.metadata_folder is not None:
        stored = _load_metadata(file.metadata_folder, identify(file).id, file.modified_ns)
        if stored is not None:
            _log_warnings(file.path, stored.timeline)
            return stored
    timeline, first = _read_file(file.path)
    header = read_header(file.path, timeline)
    warnings = (*timeline.warnings, *describe_holes(file.path, timeline), *header.warnings, *first.warnings)
    timeline = dataclasses.replace(timeline, warnings=warnings)
    _log_warnings(file.path, timeline)
    return VideoMetadata(first.height, first.width, timeline, header.is_synthetic)


def _read_file(path: Path) -> tuple[Timeline, FirstFrame]:
    """Read a file's packets and its first frame, or say what the file is instead of a video."""
    _refuse(path, certain_refusal)
    try:
        timeline, first = read_timeline(path), first_frame(path)
    except Exception:
        _refuse(path, likely_refusal)
        raise
    if len(timeline.frame_ticks) == 1:
        _refuse(path, refusal_of_one_frame)
    return timeline, first


def _refuse(path: Path, find_reason: Callable[[Path], str | None]) -> None:
    """Raise VideoError if there is a reason to refuse the file."""
    reason = find_reason(path)
    if reason is not None:
        raise VideoError(f"{path}: {reason}") from None


def _log_warnings(path: Path, timeline: Timeline) -> None:
    """Tell the user what is wrong with the file."""
    for warning in timeline.warnings:
        _log.warning("%s: %s", path, warning)


def _regular_file(path: str | Path) -> Path:
    """Return the absolute path of a regular file that is not empty, or raise VideoError."""
    if url := re.match(r"(?i)(ftps?|rtsp|rtmp|file):/+(.*)", str(path), re.DOTALL):
        is_file = url[1].lower() == "file"
        address = f"{url[1]}://{'/' if is_file else ''}{url[2]}"  # a path has lost slashes of it
        advice = "give the path alone" if is_file else "download it to a file first"
        raise VideoError(f"{address} is an address that lvqa does not read (it reads s3, gs and https); {advice}")
    try:
        path = as_path(path).expanduser().resolve()
        status = path.stat()
    except PlaceError as error:
        raise VideoError(str(error)) from error
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


def _metadata_path(metadata_folder: Path, video_id: str) -> Path:
    return metadata_folder / f"{video_id}.metadata.npz"


def _formats() -> str:
    """Return how a fingerprint begins; what FFmpeg's libraries report of a file may change with them."""
    return f"metadata format {METADATA_FORMAT}, av {version('av')}, "


def _fingerprint(video_id: str, modified_ns: int) -> str:
    """Return all that stored metadata depend on."""
    return f"{_formats()}{video_id} of {modified_ns}"


def is_current_metadata(path: Path) -> bool:
    """Return whether a file of metadata can be read by this format, and with these libraries."""
    try:
        if stat.S_ISREG(path.stat().st_mode):
            with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
                return str(file["fingerprint"]).startswith(_formats())
    except Exception:  # it is no metadata file in one of many ways
        return False
    return False


def reread_metadata() -> None:
    """Have what is stored be looked for again: files of it were deleted."""
    read_metadata.cache_clear()
    keep_metadata.cache_clear()


def _encode_metadata(metadata: VideoMetadata, video_id: str, modified_ns: int) -> bytes:
    """Return the content of a metadata file."""
    timeline = metadata.timeline
    ratios = (*timeline.end_tick.as_integer_ratio(), *timeline.tick_seconds.as_integer_ratio())
    columns: dict[str, Any] = {
        "fingerprint": np.array(_fingerprint(video_id, modified_ns)),
        "scalars": np.array([metadata.height, metadata.width, *ratios], dtype=np.int64),
        "is_synthetic": np.array([metadata.is_synthetic]),
        "frame_ticks": timeline.frame_ticks,
        "warnings": np.array(timeline.warnings, dtype=str),
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
        content = path.read_bytes()
        with np.load(io.BytesIO(content), allow_pickle=False) as file:  # np.load verifies the checksums
            unpacked_size = sum(member.file_size for member in file.zip.infolist())
            if unpacked_size > len(content) or file["fingerprint"] != _fingerprint(video_id, modified_ns):
                return None
            height, width, *ratios = file["scalars"].tolist()
            (is_synthetic,) = file["is_synthetic"].tolist()
            timeline = Timeline(
                frame_ticks=file["frame_ticks"],
                end_tick=Fraction(*ratios[:2]),
                tick_seconds=Fraction(*ratios[2:]),
                warnings=tuple(file["warnings"].tolist()),
                **{name: file[name] for name in _OPTIONAL_COLUMNS if name in file},
            )
            is_valid = timeline.is_valid() and height > 0 and width > 0 and isinstance(is_synthetic, bool)
    except Exception:  # no file, or one that is no metadata file in one of many ways
        return None
    return VideoMetadata(height, width, timeline, is_synthetic, metadata_folder) if is_valid else None

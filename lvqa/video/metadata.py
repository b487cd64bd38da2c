"""What a file holds: found out once in a process, and kept in a folder for the next one."""

from __future__ import annotations

import io
import stat
from contextlib import suppress
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache
from hashlib import blake2b
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

import lvqa
from lvqa.files import write_atomically
from lvqa.records import Video
from lvqa.video.container import VideoError, all_frames, naming, opened, quarter_turns
from lvqa.video.timeline import Timeline, read_timeline


def inspect_video(path: str | Path, *, kept_in: Path | None = None) -> Video:
    """What `path` holds. Reads every packet's header and decodes one frame, once in a process: 0.4 s an hour.

    Or in another one, if `store_metadata` has kept it in the folder `kept_in`. Height and width are the stored pixels
    after rotation; pixels that are not square are left as they are. Of a truncated file the
    duration is that of the part that is there. Raises VideoError for whatever is not a film.
    """
    path = _regular_file(path)
    with naming(path):
        film = metadata_of(path, kept_in)
    timeline = film.timeline
    return Video(
        path=path,
        id=film.id,
        duration_seconds=timeline.duration_seconds,
        height=film.height,
        width=film.width,
        frames_per_second=len(timeline.shown) / timeline.duration_seconds,
    )


def _regular_file(path: str | Path) -> Path:
    try:
        path = Path(path).expanduser().resolve()
        status = path.stat()
    except (OSError, RuntimeError, ValueError) as error:  # not there, a loop of links, a NUL in the name
        reason = getattr(error, "strerror", None) or str(error)
        raise VideoError(f"{path}: {reason}; expected a video file") from error
    # Opening a FIFO would wait for its writer for ever, so the kind is asked before anything is opened.
    if not stat.S_ISREG(status.st_mode):
        kind = "a folder" if stat.S_ISDIR(status.st_mode) else "not a regular file"
        raise VideoError(f"{path}: this is {kind}; expected a video file")
    if status.st_size == 0:
        raise VideoError(f"{path}: the file is empty; expected a video file")
    return path


def _fingerprint(path: Path, block: int = 1 << 20, blocks: int = 8) -> str:
    """16 hexadecimal digits of the size and of blocks spread from the first to the last byte: quick at any length."""
    size = path.stat().st_size
    offsets = {(size - block) * i // (blocks - 1) for i in range(blocks)} if size > block else {0}
    digest = blake2b(str(size).encode(), digest_size=8)
    with path.open("rb") as file:
        for offset in sorted(offsets):
            file.seek(offset)
            digest.update(file.read(block))
    return digest.hexdigest()


def _shown_size(path: Path) -> tuple[int, int]:
    with opened(path) as stream:
        frame = next(all_frames(stream), None)
    if frame is None:
        raise VideoError(f"{path}: not one frame can be decoded; expected a video file that plays")
    return (frame.width, frame.height) if quarter_turns(frame) % 2 else (frame.height, frame.width)


@dataclass(frozen=True, slots=True, eq=False)
class Film:
    """What it takes to read a file as a film."""

    id: str
    height: int
    width: int
    timeline: Timeline
    kept_in: Path | None = None
    """The folder that it was found in."""


@dataclass(frozen=True, slots=True)
class _File:
    """A file as it is now: one that was changed is another."""

    path: Path
    size: int
    modified_ns: int
    kept_in: Path | None = field(default=None, compare=False)


def metadata_of(path: Path, kept_in: Path | None = None) -> Film:
    """Of the file as it is now. Raises VideoError, or what FFmpeg and the system say."""
    status = path.stat()
    return _read_metadata(_File(path, status.st_size, status.st_mtime_ns, kept_in))


def timeline_of(path: Path) -> Timeline:
    """Of the file as it is now."""
    return metadata_of(path).timeline


@lru_cache(maxsize=4)  # each question on a film probes it, and scattered reads demux it once
def _read_metadata(file: _File) -> Film:
    video_id = _fingerprint(file.path)
    if file.kept_in is not None and (kept := _load_metadata(file.kept_in, video_id, file.modified_ns)):
        return kept
    timeline = read_timeline(file.path)
    return Film(video_id, *_shown_size(file.path), timeline)


def store_metadata(path: Path, folder: Path) -> None:
    """Keep what is known of a film, for `probe` in another process. Where there is no room it is not kept."""
    with suppress(OSError, OverflowError):
        film, modified_ns = metadata_of(path, folder), path.stat().st_mtime_ns
        if film.kept_in == folder or _load_metadata(folder, film.id, modified_ns):
            return  # every pipeline over the film asks for it
        timeline = film.timeline
        numbers = [film.height, film.width, *timeline.end.as_integer_ratio(), *timeline.tick_seconds.as_integer_ratio()]
        columns: dict[str, Any] = {"shown": timeline.shown}
        if timeline.packets is not None:
            columns |= {"packets": timeline.packets, "sizes": timeline.sizes, "keys": timeline.keys}
        file = io.BytesIO()
        stamp = np.array(_stamp(film.id, modified_ns))
        np.savez(file, stamp=stamp, numbers=np.array(numbers, dtype=np.int64), **columns)
        write_atomically(folder / f"{film.id}.film", file.getvalue())


def _stamp(video_id: str, modified_ns: int) -> str:
    """What FFmpeg's libraries say of a file may change with them."""
    return f"lvqa {lvqa.__version__}, av {version('av')}, {video_id} of {modified_ns}"


def _load_metadata(folder: Path, video_id: str, modified_ns: int) -> Film | None:
    """What was kept of this very file. It may be anyone's, so it counts only if it is whole and makes sense."""
    path, stamp = folder / f"{video_id}.film", _stamp(video_id, modified_ns)
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # opening a FIFO would wait for its writer for ever
            return None
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:  # which tells damage by its checksums
            if sum(part.file_size for part in file.zip.infolist()) > path.stat().st_size or file["stamp"] != stamp:
                return None
            height, width, *ratios = file["numbers"].tolist()
            end, tick_seconds = Fraction(*ratios[:2]), Fraction(*ratios[2:])
            columns = {name: file[name] for name in ("shown", "packets", "sizes", "keys") if name in file}
            timeline = Timeline(end=end, tick_seconds=tick_seconds, **columns)
            is_sound = timeline.is_sound() and height > 0 and width > 0
    except Exception:  # no file, or one that is no such file in one of many ways
        return None
    return Film(video_id, height, width, timeline, kept_in=folder) if is_sound else None

"""From a file to pixels: probe it, lay the frame grid, cut clips, decode the frames shown at given seconds.

The one rule of time: t counts from the first presented frame, and the frame shown at t is the last one that starts at
or before t. The files' own clocks (pts, time bases, start offsets, edit lists) stay in this room.
"""

from __future__ import annotations

import atexit
import itertools
import math
import os
import queue
import re
import stat
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache, partial
from hashlib import blake2b
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self, cast

import numpy as np

import lvqa
from lvqa.records import Clip, Frames, LvqaError, Video, num_cores

if TYPE_CHECKING:
    import av

# A frame that starts this little after t is the one meant: k / fps and pts * time_base round differently.
_TOLERANCE_SECONDS = 1e-6

_NO_TICK = np.iinfo(np.int64).min  # as FFmpeg writes it

# Containers that hold their own frames. Playlists (hls, concat, dash, sdp) are left out on purpose: they open other
# files and the network. So are still pictures.
_CONTAINERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,asf,ogg,mxf,nut,ivf,gif,rm,dv,wtv,nsv,"
    "h264,hevc,vvc,av1,obu,m4v,vc1,mjpeg,yuv4mpegpipe"
)


class VideoError(LvqaError):
    """A file that can't be read as a film, or a time that lies outside it."""


# --- probing -------------------------------------------------------------------------------------------------------


def probe(path: str | Path, *, kept_in: Path | None = None) -> Video:
    """What `path` holds. Reads every packet's header and decodes one frame, once in a process: 0.4 s an hour.

    Once for all processes with a folder to keep it in. Height and width are the stored pixels after rotation; pixels
    that are not square are left as they are. Of a truncated file the duration is that of the part that is there. Raises
    VideoError for whatever is not a film.
    """
    path = _regular_file(path)
    with _naming(path):
        film = _film(path, kept_in)
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
    with _opened(path) as stream:
        frame = next(_all_frames(stream), None)
    if frame is None:
        raise VideoError(f"{path}: not one frame can be decoded; expected a video file that plays")
    return (frame.width, frame.height) if _quarter_turns(frame) % 2 else (frame.height, frame.width)


# --- the grid and the clips ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Grid:
    """The frames that a video is known by, and all that is ever shown of it.

    Pair p is frames (2p, 2p + 1); the last pair of an odd grid shows its frame twice.
    """

    times_seconds: np.ndarray
    """(num_frames,) float64, ascending and distinct: grid frame k is what is shown at the k-th of them."""

    @classmethod
    def of(cls, video: Video, frames_per_second: float) -> Self:
        """All k / frames_per_second < duration, from k = 0: 10 s at 1 fps are 10 frames, 10.1 s are 11."""
        _check_rate(frames_per_second)
        # Rounded, since 0.1 s * 30 is 3.0000000000000004 and must not make a fourth frame.
        num_frames = math.ceil(round(video.duration_seconds * frames_per_second, 6))
        return cls(np.arange(max(1, num_frames)) / frames_per_second)

    @classmethod
    def of_key_frames(cls, video: Video, frames_per_second: float) -> Self:
        """The film's own key frames, at their true times, at most `frames_per_second` of them.

        Each is decoded by itself, which makes a quick look at a long film: the coarse filter of FreeRet's appendix A.5.
        Raises VideoError if they are too few to stand for the film.
        """
        _check_rate(frames_per_second)
        with _naming(video.path):
            times = _timeline(video.path).key_seconds()
        gap = np.diff([*times, video.duration_seconds]).max(initial=0.0)
        if not len(times) or gap > _SKIPPED_SECONDS:
            told = f"lie {gap:.0f} s apart, more than {_SKIPPED_SECONDS:g}" if len(times) else "are not marked"
            raise VideoError(f"{video.path}: its key frames {told}; use video.grid: exact for this film")
        kept = [times[0]]
        for seconds in times[1:]:
            if seconds - kept[-1] >= 1 / frames_per_second - _TOLERANCE_SECONDS:
                kept.append(seconds)
        return cls(np.array(kept))

    @property
    def num_frames(self) -> int:
        return len(self.times_seconds)

    @property
    def num_pairs(self) -> int:
        return (self.num_frames + 1) // 2

    def seconds_of(self, frame: int) -> float:
        """When grid frame `frame` is shown. Raises IndexError outside the grid."""
        if not 0 <= frame < self.num_frames:
            raise IndexError(f"frame {frame} of a grid of {self.num_frames}")
        return float(self.times_seconds[frame])

    def frame_at(self, seconds: float) -> int:
        """The last grid frame at or before `seconds`, or the grid's first or last beyond its ends."""
        return max(0, int(np.searchsorted(self.times_seconds, seconds, side="right")) - 1)


_SKIPPED_SECONDS = 60.0
"""More of a film than this is not passed over without a word. Encoders set a key frame every 2 to 10 s or so."""


def _check_rate(frames_per_second: float) -> None:
    if not 0 < frames_per_second < math.inf:
        raise LvqaError(f"frames_per_second is {frames_per_second}; expected a number above 0")


GRIDS: dict[str, Callable[[Video, float], Grid]] = {"exact": Grid.of, "keyframes": Grid.of_key_frames}


def cut_clips(video: Video, grid: Grid, clip_seconds: float, boundaries: Sequence[float] = ()) -> list[Clip]:
    """Runs of whole pairs that cover [0, duration) without a gap, in order.

    Each ends at the pair nearest to `clip_seconds` after its start, and has at least one; the last may be shorter.
    `boundaries` are scene changes in seconds: at the pair nearest to each a clip ends, and the next one begins with its
    full length ahead of it.
    """
    if not 0 < clip_seconds < math.inf:
        raise LvqaError(f"clip_seconds is {clip_seconds}; expected a number above 0")
    edges = np.append(grid.times_seconds[::2], video.duration_seconds)
    edges[0] = 0.0  # the first key frame may come later

    # Of two edges as near the first, though both be rounded: clips of an even grid are equally long.
    middles = (edges[1:] + edges[:-1]) / 2 + _TOLERANCE_SECONDS

    def nearest(seconds: float) -> int:
        return int(np.searchsorted(middles, seconds))

    cuts = [0]
    for end in sorted({*map(nearest, boundaries), grid.num_pairs} - {0}):
        while cuts[-1] < end:
            cuts.append(min(end, max(cuts[-1] + 1, nearest(edges[cuts[-1]] + clip_seconds))))
    return [Clip(video.id, start, end) for start, end in itertools.pairwise(edges[cuts].tolist())]


def scene_changes(
    video: Video,
    grid: Grid,
    *,
    decoder: str = "pyav",
    threads: int | None = None,
    stall_seconds: float = 30.0,
    least: float = 0.08,
) -> list[float]:
    """The grid times at which another scene is on, ascending. Decodes the whole grid once, as thumbnails.

    A change is where neighbouring thumbnails differ in the mean by `least` of the full range, and by three times as
    much as is usual around them, so that a film in motion is not cut to pieces.
    """
    times = grid.times_seconds
    differences = np.zeros(grid.num_frames)
    before: np.ndarray | None = None
    frames = read_frames(
        video, times, height=36, width=64, decoder=decoder, threads=threads, stall_seconds=stall_seconds
    )
    for start, batch in zip(itertools.count(0, 64), frames, strict=False):
        pixels = batch.pixels.astype(np.float32) / 255
        both = pixels if before is None else np.concatenate([before[None], pixels])
        steps = np.abs(np.diff(both, axis=0)).mean(axis=(1, 2, 3))
        differences[start + len(pixels) - len(steps) : start + len(pixels)] = steps
        before = pixels[-1]
    padded = np.pad(differences, 8, mode="reflect" if grid.num_frames > 8 else "edge")
    usual = np.median(np.lib.stride_tricks.sliding_window_view(padded, 17), axis=1)
    changes: list[float] = times[(differences > least) & (differences > 3 * usual)].tolist()
    return changes


# --- decoding ------------------------------------------------------------------------------------------------------


class Decoder(Protocol):
    """Turns seconds into pixels. A new one is a class with these methods and a line in DECODERS."""

    def runs(self, video: Video, times_seconds: np.ndarray) -> list[np.ndarray]:
        """The times, at least one and ascending, cut where it costs nothing: no run needs what another one decodes.

        They depend on the film and the times alone. Raises VideoError for a file that can't be read.
        """
        ...

    def frames(
        self, video: Video, runs: Iterable[np.ndarray], *, height: int, width: int
    ) -> Iterator[tuple[np.ndarray, bool]]:
        """For each time the frame shown then, (height, width, 3) uint8 RGB, and whether it stands in for a damaged one.

        Runs ascend, perhaps with others between them that another thread decodes; each is decoded for itself.
        A lost frame is replaced by the nearest earlier one that was decoded for its run, or the next where none was, or
        a key frame near it where all of the run is lost. One that leans on damage is shown as the decoder mends it.
        Both are flagged. Raises VideoError for an unreadable file.
        """
        ...


class PyAVDecoder:
    """FFmpeg's libraries. Decodes no more than the wanted frames need, bit-identical to decoding everything."""

    def runs(self, video: Video, times_seconds: np.ndarray) -> list[np.ndarray]:
        with _naming(video.path):
            return _timeline(video.path).runs(times_seconds)

    def frames(
        self, video: Video, runs: Iterable[np.ndarray], *, height: int, width: int
    ) -> Iterator[tuple[np.ndarray, bool]]:
        with _naming(video.path):
            timeline = _timeline(video.path)
            render = _renderer(height=height, width=width)
            with _reader(video.path, timeline) as reader:
                for times in runs:
                    found = _found(reader, timeline.ticks_at(times))
                    for seconds, (frame, substitute) in zip(times, found, strict=True):
                        if frame is None:
                            raise VideoError(f"{video.path}: no frame up to {seconds:g} s can be decoded")
                        yield render(frame), substitute


class DecordDecoder:
    """decord 0.6, for comparison: right for most mp4, mkv and webm files of constant or variable rate.

    It reads neither AV1 nor GIF, gives up at damage, returns wrong frames for edit lists, open groups of pictures and
    MPEG streams, and hangs on some MPEG-TS files, which `read_frames` notices.
    """

    batch = 8
    """It holds all frames of a batch at once."""

    def runs(self, video: Video, times_seconds: np.ndarray) -> list[np.ndarray]:
        return [times_seconds]

    def frames(
        self, video: Video, runs: Iterable[np.ndarray], *, height: int, width: int
    ) -> Iterator[tuple[np.ndarray, bool]]:
        times = np.concatenate(list(runs))
        try:
            import decord
        except ImportError as error:
            raise LvqaError(f"decoder 'decord' is not installed here; available: pyav ({error})") from error
        decord.logging.set_level(decord.logging.QUIET)
        try:
            reader = decord.VideoReader(str(video.path), width=width, height=height, num_threads=1)
            starts = reader.get_frame_timestamp(list(range(len(reader))))[:, 0].astype(np.float64)
            # Its timestamps are float32, good to 0.25 ms an hour into a film.
            tolerance = _TOLERANCE_SECONDS + np.spacing(times.astype(np.float32))
            indices = np.searchsorted(starts - starts[0], times + tolerance, side="right") - 1
            for first in range(0, len(indices), self.batch):
                for pixels in reader.get_batch(indices[first : first + self.batch].tolist()).asnumpy():
                    yield pixels, False
        except (decord.DECORDError, RuntimeError) as error:
            reason = re.sub(r".*\.cc:\d+: ", "", str(error).partition("\n")[0])  # without its own source line
            raise VideoError(f"{video.path}: decord fails: {reason}; decoder 'pyav' reads more files") from error


def _found(reader: _Reader, wanted: np.ndarray) -> Iterator[tuple[av.VideoFrame | None, bool]]:
    """What `_matched` tells of each wanted tick, looked at twice before it is called damaged."""
    done = 0
    for lead in (0, 1):  # groups before the one that holds a frame
        for frame, substitute in _matched(reader.frames(wanted[done:], lead), wanted[done:]):
            # Perhaps not damaged: streams that refresh the picture bit by bit lean on the group before.
            if substitute and not lead:
                break
            if frame is None:  # nor will there be another: the rest of the run is lost
                frame = reader.key_frame_near(int(wanted[done]))
                yield from [(frame, True)] * (len(wanted) - done)
                return
            yield frame, substitute
            done += 1
        else:
            return


def _matched(
    frames: Iterable[tuple[int, av.VideoFrame, bool]], wanted: np.ndarray
) -> Iterator[tuple[av.VideoFrame | None, bool]]:
    """For each wanted tick the frame, or what stands in for it (None: nothing does), and whether damage hurt it."""
    good: av.VideoFrame | None = None
    ticks = wanted.tolist()
    done = 0
    for tick, frame, hurt in frames:
        while done < len(ticks) and ticks[done] < tick:  # the decoder is past it: lost to damage
            yield (frame if good is None else good), True
            done += 1
        while done < len(ticks) and ticks[done] == tick:
            yield frame, hurt
            done += 1
        if done == len(ticks):
            return
        if good is None or not hurt:
            good = frame
    yield from ((good, True) for _ in ticks[done:])


def _renderer(*, height: int, width: int) -> Callable[[av.VideoFrame], np.ndarray]:
    """Scales straight to the target size: whole frames never become RGB."""
    from av.video.reformatter import VideoReformatter

    reformatter = VideoReformatter()

    def render(frame: av.VideoFrame) -> np.ndarray:
        turns = _quarter_turns(frame)
        size = {"width": height, "height": width} if turns % 2 else {"width": width, "height": height}
        scaled = reformatter.reformat(frame, **size, format="rgb24", interpolation="BILINEAR")
        return np.ascontiguousarray(np.rot90(scaled.to_ndarray(), turns))

    return render


def _quarter_turns(frame: av.VideoFrame) -> int:
    """How often to turn the stored picture by 90 degrees, anticlockwise as `np.rot90` does."""
    return round(frame.rotation / 90) % 4


def decode_all(video: Video, until_seconds: float = math.inf) -> int:
    """Decode every frame up to a time and keep none: FFmpeg's own rate, in one thread. Returns how many there were."""
    num_frames = 0
    with _naming(video.path), _opened(video.path) as stream:
        for _ in _all_frames(stream):
            num_frames += 1
            if num_frames > until_seconds * video.frames_per_second:
                break
    return num_frames


# --- what a file holds -----------------------------------------------------------------------------------------------


_no_ticks = partial(np.zeros, 0, dtype=np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class _Timeline:
    """Every frame's place in time, known before anything is decoded. A tick is the file's own unit of time."""

    shown: np.ndarray
    """(frames,) int64 ticks of the presented frames, ascending and distinct."""
    end: Fraction
    """The tick at which the last of them ends."""
    tick_seconds: Fraction
    packets: np.ndarray | None = None
    """(packets,) int64 ticks in decode order; None if only decoding tells the times."""
    sizes: np.ndarray = field(default_factory=_no_ticks)
    """(packets,) int64 bytes, which tell packets of the same tick apart."""
    keys: np.ndarray = field(default_factory=_no_ticks)
    """Ascending places in `packets` where decoding can begin."""
    by_tick: np.ndarray = field(init=False)
    """The places in `packets`, by tick."""

    def __post_init__(self) -> None:
        by_tick = _no_ticks() if self.packets is None else np.argsort(self.packets, kind="stable")
        object.__setattr__(self, "by_tick", by_tick)

    def is_sound(self) -> bool:
        """Whether it can be that of a film."""
        columns = [column for column in (self.shown, self.packets, self.sizes, self.keys) if column is not None]
        if any(column.dtype != np.int64 or column.ndim != 1 for column in columns) or not len(self.shown):
            return False
        if self.tick_seconds <= 0 or self.end <= int(self.shown[-1]) or np.any(np.diff(self.shown) <= 0):
            return False
        if self.packets is None:
            return True
        first, last = (int(place) for place in self.keys[[0, -1]])
        return bool(
            len(self.sizes) == len(self.packets)
            and np.all(np.diff(self.keys) > 0)
            and 0 <= first <= last < len(self.packets)
            and np.isin(self.shown, self.packets[first:]).all()
        )

    @property
    def duration_seconds(self) -> float:
        return float((self.end - int(self.shown[0])) * self.tick_seconds)

    def seconds_of(self, ticks: np.ndarray) -> np.ndarray:
        """Seconds from the first frame."""
        seconds: np.ndarray = (ticks - self.shown[0]) * float(self.tick_seconds)
        return seconds

    def ticks_at(self, times: np.ndarray) -> np.ndarray:
        """The tick of the frame shown at each time, in seconds from the first frame."""
        places = np.searchsorted(self.seconds_of(self.shown), times + _TOLERANCE_SECONDS, side="right") - 1
        return self.shown[places]

    def key_seconds(self) -> np.ndarray:
        """(keys,) when the key frames are shown; none if only decoding tells."""
        keys = self.keys if self.packets is None else self.packets[self.keys]
        return self.seconds_of(np.intersect1d(keys, self.shown))

    def spans(self, wanted: np.ndarray, lead: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Which packets [begin, end) each wanted tick needs: from the key frame before it to itself.

        With `lead` from so many key frames before that one.
        """
        assert self.packets is not None
        first = self.by_tick[np.searchsorted(self.packets, wanted, sorter=self.by_tick)]
        last = self.by_tick[np.searchsorted(self.packets, wanted, side="right", sorter=self.by_tick) - 1]
        groups = np.searchsorted(self.keys, first, side="right") - 1
        # A picture shown before its group's key frame may lean on the group before, too (open groups).
        groups -= self.packets[first] < self.packets[self.keys[groups]]
        return self.keys[np.maximum(0, groups - lead)], last + 1

    def runs(self, times: np.ndarray) -> list[np.ndarray]:
        """The times cut between groups, in runs that cost about as much as _RUN_PACKETS packets."""
        if self.packets is None:
            return [times]
        wanted, places = np.unique(self.ticks_at(times), return_index=True)
        begins, ends = self.spans(wanted)
        read = np.maximum.accumulate(ends)
        to_come = np.minimum.accumulate(begins[::-1])[::-1]
        cost = np.cumsum(ends - np.maximum(begins, np.r_[0, read[:-1]]).clip(max=ends) + _FRAME_PACKETS)
        cuts = 1 + np.flatnonzero(read[:-1] <= to_come[1:])
        return np.split(times, places[cuts[np.diff(cost[cuts - 1] // _RUN_PACKETS, prepend=0) > 0]])


_RUN_PACKETS, _FRAME_PACKETS = 512, 8
"""Two groups of pictures of the usual length: small enough to share out the 64 frames of an answer, large enough for
what a run costs of its own. A frame that is scaled and handed on costs as much as so many packets."""


@dataclass(frozen=True, slots=True, eq=False)
class _Film:
    """What it takes to read a file as a film."""

    id: str
    height: int
    width: int
    timeline: _Timeline


@dataclass(frozen=True, slots=True)
class _File:
    """A file as it is now: one that was changed is another."""

    path: Path
    size: int
    modified_ns: int
    kept_in: Path | None = field(default=None, compare=False)


def _film(path: Path, kept_in: Path | None = None) -> _Film:
    status = path.stat()
    return _read_film(_File(path, status.st_size, status.st_mtime_ns, kept_in))


def _timeline(path: Path) -> _Timeline:
    return _film(path).timeline


@lru_cache(maxsize=4)  # each question on a film probes it, and scattered reads demux it once
def _read_film(file: _File) -> _Film:
    video_id = _fingerprint(file.path)
    # What FFmpeg's libraries say of a file may change with them.
    stamp = f"lvqa {lvqa.__version__}, av {version('av')}, {video_id} of {file.modified_ns}"
    kept = file.kept_in and file.kept_in / f"{video_id}.film"
    if kept is not None and (known := _kept_film(kept, video_id, stamp)):
        return known
    timeline = _read_timeline(file.path)
    film = _Film(video_id, *_shown_size(file.path), timeline)
    if kept is not None:
        _keep(film, kept, stamp)
    return film


def _keep(film: _Film, path: Path, stamp: str) -> None:
    """For other processes, whole or not at all; where there is no room for it they read the film again."""
    timeline = film.timeline
    numbers = [film.height, film.width, *timeline.end.as_integer_ratio(), *timeline.tick_seconds.as_integer_ratio()]
    columns: dict[str, Any] = {"shown": timeline.shown}
    if timeline.packets is not None:
        columns |= {"packets": timeline.packets, "sizes": timeline.sizes, "keys": timeline.keys}
    beside = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    with suppress(OSError, OverflowError):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with beside.open("xb") as file:
                np.savez(file, stamp=np.array(stamp), numbers=np.array(numbers, dtype=np.int64), **columns)
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)


def _kept_film(path: Path, video_id: str, stamp: str) -> _Film | None:
    """What was kept under this stamp. The file may be anyone's, so it counts only if it is whole and makes sense."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # opening a FIFO would wait for its writer for ever
            return None
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:  # which tells damage by its checksums
            if sum(part.file_size for part in file.zip.infolist()) > path.stat().st_size or file["stamp"] != stamp:
                return None
            height, width, *ratios = file["numbers"].tolist()
            end, tick_seconds = Fraction(*ratios[:2]), Fraction(*ratios[2:])
            columns = {name: file[name] for name in ("shown", "packets", "sizes", "keys") if name in file}
            timeline = _Timeline(end=end, tick_seconds=tick_seconds, **columns)
            is_sound = timeline.is_sound() and height > 0 and width > 0
    except Exception:  # no file, or one that is no such file in one of many ways
        return None
    return _Film(video_id, height, width, timeline) if is_sound else None


def _read_timeline(path: Path) -> _Timeline:
    with _opened(path) as stream:
        timeline = _timeline_of_packets(stream)
    if timeline is None:
        with _opened(path) as stream:
            timeline = _timeline_by_decoding(stream)
    if timeline is None:
        raise VideoError(f"{path}: not one frame can be decoded; expected a video file that plays")
    return timeline


def _timeline_of_packets(stream: av.VideoStream) -> _Timeline | None:
    """The timeline from the packets' own times; None if they have none, or if their clock jumps back."""
    columns = [("tick", "i8"), ("clock", "i8"), ("length", "i8"), ("size", "i8"), ("key", "?"), ("shown", "?")]
    packets = np.fromiter((_packet_row(packet) for packet in _demuxed(stream)), dtype=columns)
    ticks, clock = packets["tick"], packets["clock"][packets["clock"] != _NO_TICK]
    # AVI stores no times: for H.264 with B-frames FFmpeg makes some up, in decode order.
    made_up = stream.container.format.name == "avi" and stream.codec_context.has_b_frames and np.all(np.diff(ticks) > 0)
    if made_up or np.any(ticks == _NO_TICK) or np.any(np.diff(clock) < 0):
        return None
    packets["key"][:1] |= not packets["key"].any()  # a stream with no key frame marked can only begin at its first
    keys = np.flatnonzero(packets["key"])
    # Nothing that lies before the first key frame, in the file or in time, can be decoded.
    places = np.flatnonzero(
        packets["shown"] & (ticks >= ticks[keys[:1]].sum()) & np.cumsum(packets["key"]).astype(bool)
    )
    if not len(places):
        return None
    tick_seconds = stream.time_base or Fraction(1)
    shown = np.unique(ticks[places])
    last = places[np.argmax(ticks[places])]
    end = _end_of(shown, int(packets["length"][last]), stream, tick_seconds)
    return _Timeline(shown, end, tick_seconds, ticks, packets["size"], keys)


def _packet_row(packet: av.Packet[av.VideoStream]) -> tuple[int, int, int, int, bool, bool]:
    # VP8 keeps pictures to predict from in packets of their own: bit 4 of the first byte says whether it is shown.
    hidden = packet.stream.codec_context.name == "vp8" and not memoryview(packet)[0] & 0x10
    return (
        _NO_TICK if packet.pts is None else packet.pts,
        _NO_TICK if packet.dts is None else packet.dts,
        packet.duration or 0,
        packet.size,
        packet.is_keyframe,
        not (packet.is_discard or hidden),  # an edit list discards what it cuts off
    )


def _end_of(shown: np.ndarray, last_length: int, stream: av.VideoStream, tick_seconds: Fraction) -> Fraction:
    """The tick at which the last frame ends; where the file does not say, it is as long as the others."""
    usual = Fraction(int(shown[-1] - shown[0]), max(1, len(shown) - 1))
    length = max(0, last_length) or usual or 1 / (Fraction(stream.average_rate or 25) * tick_seconds)
    return int(shown[-1]) + Fraction(length)


def _timeline_by_decoding(stream: av.VideoStream) -> _Timeline | None:
    """For packets without times: those of the frames, in order, or their count at the usual rate. None for no frame."""
    ticks = [frame.pts for frame in _all_frames(stream)]
    if not ticks:
        return None
    tick_seconds = stream.time_base or Fraction(1)
    shown = np.array(sorted(tick for tick in set(ticks) if tick is not None), dtype=np.int64)
    if len(shown) < len(ticks):
        shown, tick_seconds = np.arange(len(ticks)), 1 / Fraction(stream.average_rate or 25)
    return _Timeline(shown, _end_of(shown, 0, stream, tick_seconds), tick_seconds)


# --- FFmpeg ----------------------------------------------------------------------------------------------------------


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Whatever FFmpeg or the system say about the file becomes one line with its name."""
    try:
        yield
    except Exception as error:
        import av  # only now: of a film that is known nothing need be read

        if not isinstance(error, av.error.FFmpegError | OSError):
            raise
        reason = f"not readable as video ({error.strerror or error})"
        raise VideoError(
            f"{path}: {reason}; expected a video file (mp4, mkv, webm, ...), no playlist and no picture"
        ) from error


@contextmanager
def _opened(path: Path) -> Iterator[av.VideoStream]:
    """The film's stream. Nothing but this one file is opened, whatever its name or its text say."""
    import av

    # "file:" keeps a name from being read as a protocol.
    options = {"protocol_whitelist": "file", "format_whitelist": _CONTAINERS}
    with av.open(f"file:{path}", container_options=options, metadata_errors="replace") as container:
        cover = av.stream.Disposition.attached_pic
        films = [stream for stream in container.streams.video if not stream.disposition & cover]
        if not films:
            raise VideoError(f"{path}: holds no video stream; expected a film with pictures")
        if films[0].codec_context is None:
            raise VideoError(f"{path}: FFmpeg has no decoder for its video stream; expected H.264, HEVC, VP9, AV1, ...")
        # Frame threads cost a fifth more for the same frames; films are read in parallel instead.
        films[0].codec_context.thread_count = 1
        yield films[0]


def _demuxed(stream: av.VideoStream, patience: int = 100) -> Iterator[av.Packet[av.VideoStream]]:
    """The packets in decode order. Goes on behind damage, until `patience` reads in a row have failed."""
    import av

    container = cast("av.container.InputContainer", stream.container)
    failures = 0
    while failures < patience:
        try:
            for packet in container.demux(stream):
                failures = 0
                if packet.size:  # the last one is empty: a call to flush
                    yield packet
            return
        except av.error.FFmpegError:
            failures += 1


def _decoded(codec: av.VideoCodecContext, packet: av.Packet[av.VideoStream] | None) -> list[av.VideoFrame] | None:
    """The frames that come out when `packet` goes in, or None if it is damaged. No packet flushes the decoder."""
    import av

    try:
        return codec.decode(packet)
    except av.error.FFmpegError:
        return None


def _all_frames(stream: av.VideoStream) -> Iterator[av.VideoFrame]:
    for packet in itertools.chain(_demuxed(stream), [None]):
        yield from _decoded(stream.codec_context, packet) or []


def _stretches(begins: np.ndarray, ends: np.ndarray) -> Iterator[tuple[int, int]]:
    """What the spans [begin, end) cover together, as few spans without overlap, ascending."""
    order = np.argsort(begins, kind="stable")
    begins, ends = begins[order], np.maximum.accumulate(ends[order])
    gaps = np.flatnonzero(begins[1:] > ends[:-1])
    return zip(begins[np.r_[0, gaps + 1]].tolist(), ends[np.r_[gaps, -1]].tolist(), strict=True)


_NEAR_PACKETS, _STRANGE_PACKETS = 50, 50
"""So many packets are read over sooner than a seek is made, and looked at behind it to find out where it has led."""


class _Reader:
    """A film that is open, and where in its packets it is. Reading on is free; elsewhere it goes by a seek."""

    def __init__(self, path: Path, timeline: _Timeline) -> None:
        self._path, self.timeline = path, timeline
        self._file = ExitStack()
        self._place = 0
        self._rest: Iterator[av.Packet[av.VideoStream]] = iter(())
        """The packets from `_place` on."""
        self._seeks = True
        """Until a seek leads astray: MPEG-TS, for one, has no index of its key frames."""

        self._open()

    def close(self) -> None:
        self._file.close()

    def frames(self, wanted: np.ndarray, lead: int) -> Iterator[tuple[int, av.VideoFrame, bool]]:
        """(tick, frame, whether damage hurt it) as presented: all wanted ones, and those decoded on the way."""
        frames: Iterable[tuple[int, av.VideoFrame, bool]]
        if self.timeline.packets is None:
            self._open()
            shown = self.timeline.shown.tolist()
            frames = ((tick, frame, False) for tick, frame in zip(shown, _all_frames(self._stream), strict=False))
        else:
            frames = self._needed_frames(wanted, lead)
        hurt = False
        for tick, frame, suspect in frames:
            # What follows a corrupt frame leans on it, mostly without a word from the decoder.
            hurt = frame.is_corrupt or suspect or (hurt and not frame.key_frame)
            yield tick, frame, hurt

    def key_frame_near(self, tick: int) -> av.VideoFrame | None:
        """The last key frame before a tick that can be decoded, or else the first one after it."""
        if self.timeline.packets is None:
            return None
        ticks = self.timeline.packets[self.timeline.keys]
        for key in [*ticks[ticks < tick][::-1], *ticks[ticks >= tick]]:
            for found, frame, hurt in self.frames(np.array([key]), lead=0):
                if found == key and not hurt:
                    return frame
        return None

    def _needed_frames(self, wanted: np.ndarray, lead: int) -> Iterator[tuple[int, av.VideoFrame, bool]]:
        """Decodes the needed packets: (tick, frame, whether a packet that it may lean on was refused)."""
        targets = set(wanted.tolist())
        suspects: set[int | None] = set()
        for begin, end in _stretches(*self.timeline.spans(wanted, lead)):
            is_hurt = False
            # Emptied at the end: over a gap, the decoder would put the frames of open groups in a wrong order.
            for packet in itertools.chain(self._packets(begin, end), [None]):
                if packet is not None:
                    # Frames that no other one leans on are dropped undecoded, which changes no pixel of the rest.
                    is_whole = packet.pts in targets or packet.is_keyframe
                    self._stream.codec_context.skip_frame = "DEFAULT" if is_whole else "NONREF"
                frames = _decoded(self._stream.codec_context, packet)
                if packet is not None:
                    is_hurt = frames is None or (is_hurt and not packet.is_keyframe)
                    suspects.update([packet.pts] * is_hurt)
                yield from (
                    (frame.pts, frame, frame.pts in suspects) for frame in frames or [] if frame.pts is not None
                )

    def _packets(self, begin: int, end: int) -> Iterator[av.Packet[av.VideoStream]]:
        """Those at the places [begin, end), for a decoder that remembers nothing."""
        self._go_to(begin)
        self._stream.codec_context.flush_buffers()
        for packet in itertools.islice(self._rest, end - begin):
            self._place += 1
            yield packet

    def _go_to(self, place: int) -> None:
        if self._seeks and not 0 <= place - self._place <= _NEAR_PACKETS:
            self._seeks = self._sought(place)
            if not self._seeks:
                self._open()
        if place < self._place:
            self._open()
        for _ in itertools.islice(self._rest, place - self._place):
            self._place += 1

    def _sought(self, place: int) -> bool:
        """Whether a seek led to that packet, or to one before it that is no step back."""
        import av

        ticks, sizes = self.timeline.packets, self.timeline.sizes
        assert ticks is not None
        container = cast("av.container.InputContainer", self._stream.container)
        try:
            container.seek(int(ticks[place]), stream=self._stream)
        except av.error.FFmpegError:
            return False
        rest = _demuxed(self._stream)
        for packet in itertools.islice(rest, _STRANGE_PACKETS):
            (same,) = np.nonzero((ticks == packet.pts) & (sizes == packet.size))
            if len(same) == 1:
                before, self._place = self._place, int(same[0])
                self._rest = itertools.chain([packet], rest)
                return self._place <= place and (before <= self._place or place < before)
        return False

    def _open(self) -> None:
        """At the first packet, again if need be."""
        self._file.close()
        self._stream = self._file.enter_context(_opened(self._path))
        self._place, self._rest = 0, _demuxed(self._stream)


_idle: deque[_Reader] = deque()
_idle_lock = threading.Lock()
_MOST_IDLE = 8
"""Files that are held open for the next reading: for a few threads that read one film."""


@contextmanager
def _reader(path: Path, timeline: _Timeline) -> Iterator[_Reader]:
    """The film, open: as an earlier reading left it, or anew. A file that was changed has another timeline."""
    with _idle_lock:
        reader = next((idle for idle in _idle if idle.timeline is timeline), None)
        if reader is not None:
            _idle.remove(reader)
    reader = reader or _Reader(path, timeline)
    try:
        yield reader
    except GeneratorExit:  # no more is wanted
        _put_aside(reader)
        raise
    except BaseException:
        reader.close()
        raise
    else:
        _put_aside(reader)


@atexit.register
def _close_idle() -> None:
    """While the libraries are still there."""
    while _idle:
        _idle.popleft().close()


def _put_aside(reader: _Reader) -> None:
    with _idle_lock:
        _idle.append(reader)
        if len(_idle) > _MOST_IDLE:
            _idle.popleft().close()


DECODERS: dict[str, type[Decoder]] = {"pyav": PyAVDecoder, "decord": DecordDecoder}


# --- reading -------------------------------------------------------------------------------------------------------


def read_frames(
    video: Video,
    times_seconds: Sequence[float] | np.ndarray,
    *,
    height: int,
    width: int,
    decoder: str = "pyav",
    threads: int | None = None,
    stall_seconds: float = 30.0,
    batch_frames: int = 64,
) -> Generator[Frames]:
    """The frames shown at ascending times, in batches of `batch_frames`, the last one smaller.

    Decoding runs in `threads`, by default as many as OMP_NUM_THREADS allows or this process has cores, and each is at
    most one batch ahead: it overlaps with the model, and memory does not grow with the film. The frames do not depend
    on the number of threads. Closing the generator ends them. Raises LvqaError for an unknown decoder; ValueError for
    times that descend; VideoError for one outside [0, duration), a file that can't be read, or no frame within
    `stall_seconds`: a decoder that hangs is left behind.
    """
    if decoder not in DECODERS:
        raise LvqaError(f"decoder {decoder!r} is unknown; allowed: {', '.join(sorted(DECODERS))}")
    return _batches(
        DECODERS[decoder](),
        video,
        np.asarray(times_seconds, dtype=np.float64),
        height=height,
        width=width,
        threads=threads or usual_threads(),
        stall_seconds=stall_seconds,
        batch_frames=batch_frames,
    )


def usual_threads() -> int:
    """What the libraries that compute go by, so that a worker which has a share of the cores keeps to it."""
    given = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return max(1, int(given)) if given.isdecimal() else num_cores()


def _batches(
    decoder: Decoder,
    video: Video,
    times: np.ndarray,
    *,
    height: int,
    width: int,
    threads: int,
    stall_seconds: float,
    batch_frames: int,
) -> Generator[Frames]:
    _check_times(video, times)
    if not len(times):
        return
    runs = decoder.runs(video, times)
    decode = partial(decoder.frames, video, height=height, width=width)
    place = 0
    try:
        with closing(_ahead(decode, runs, threads=threads, most=batch_frames, stall_seconds=stall_seconds)) as frames:
            for first in range(0, len(times), batch_frames):
                batch = times[first : first + batch_frames]
                pixels = np.empty((len(batch), height, width, 3), dtype=np.uint8)
                substituted = np.zeros(len(batch), dtype=bool)
                for place in range(first, first + len(batch)):
                    pixels[place - first], substituted[place - first] = next(frames)
                yield Frames(batch, pixels, substituted)
    except queue.Empty as error:
        raise VideoError(
            f"{video.path}: the decoder gave nothing for {stall_seconds:g} s at {times[place]:g} s of the film; "
            f"expected a frame; another decoder may read it ({', '.join(sorted(DECODERS))})"
        ) from error


def _check_times(video: Video, times: np.ndarray) -> None:
    if np.any(np.diff(times) < 0):
        raise ValueError(f"times must ascend, got {times.tolist()}")
    outside = times[~((times >= 0) & (times < video.duration_seconds))]
    if len(outside):
        raise VideoError(f"{video.path}: no frame at {outside[0]:g} s; allowed: 0 to {video.duration_seconds:g} s")


def _ahead(
    decode: Callable[[list[np.ndarray]], Iterator[Any]],
    runs: list[np.ndarray],
    *,
    threads: int,
    most: int,
    stall_seconds: float,
) -> Generator[Any]:
    """The frames of all runs in order. With n threads each decodes every n-th run, at most `most` frames ahead.

    Raises queue.Empty if one is late.
    """
    # A thread that is done with a run begins its next one, and no more: the others are as far.
    most = min(most, 2 * max(map(len, runs)))
    stop = threading.Event()
    shares = [runs[first::threads] for first in range(min(threads, len(runs)))]
    crew = [_DecodingThread(partial(decode, share), most, stop) for share in shares]
    try:
        for run, thread in zip(runs, itertools.cycle(crew), strict=False):
            for _ in run:
                yield thread.next(stall_seconds)
    finally:
        stop.set()
        patient_until = time.monotonic() + 1.0
        for thread in crew:
            thread.leave(patient_until)


class _DecodingThread:
    """Makes items in a thread, and holds them until they are asked for."""

    def __init__(self, make: Callable[[], Iterator[Any]], most: int, stop: threading.Event) -> None:
        self._make, self._stop = make, stop
        self._ready: queue.Queue[Any] = queue.Queue(maxsize=most)
        self._thread = threading.Thread(target=self._work, name="lvqa-decode", daemon=True)
        self._thread.start()

    def _work(self) -> None:
        failed: Exception = RuntimeError("the decoder gave fewer frames than it was asked for")
        try:
            for item in self._make():
                self._ready.put(item)
                if self._stop.is_set():
                    return
        except Exception as error:  # raised again where the frames are read
            failed = error
        if not self._stop.is_set():
            self._ready.put(_Failure(failed))

    def next(self, stall_seconds: float) -> Any:
        item = self._ready.get(timeout=stall_seconds)
        if isinstance(item, _Failure):
            raise item.error
        return item

    def leave(self, patient_until: float) -> None:
        with suppress(queue.Empty):  # a thread that waits for room finds it, and sees that it is to stop
            while True:
                self._ready.get_nowait()
        self._thread.join(timeout=max(0.0, patient_until - time.monotonic()))  # bounded: one may hang


@dataclass(frozen=True, slots=True)
class _Failure:
    error: Exception

"""From a file to pixels: probe it, lay the frame grid, cut clips, decode the frames shown at given seconds.

The one rule of time: t counts from the first presented frame, and the frame shown at t is the last one that starts at
or before t. The files' own clocks (pts, time bases, start offsets, edit lists) stay in this room.
"""

from __future__ import annotations

import itertools
import math
import queue
import re
import stat
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self, cast

import numpy as np

from lvqa.records import Clip, Frames, LvqaError, Video

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


def probe(path: str | Path) -> Video:
    """What `path` holds. Reads every packet's header and decodes one frame: 0.4 s for an hour of film.

    Height and width are the stored pixels after rotation; pixels that are not square are left as they are. Of a
    truncated file the duration is that of the part that is there. Raises VideoError for whatever is not a film.
    """
    path = _regular_file(path)
    with _naming(path):
        timeline = _timeline(path)
        height, width = _shown_size(path)
        return Video(
            path=path,
            id=_fingerprint(path),
            duration_seconds=timeline.duration_seconds,
            height=height,
            width=width,
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


@dataclass(frozen=True, slots=True)
class Grid:
    """Evenly spaced frames: grid frame k is what is shown at k / frames_per_second seconds.

    Pair p is frames (2p, 2p + 1); the last pair of an odd grid shows its frame twice.
    """

    frames_per_second: float
    num_frames: int

    @classmethod
    def of(cls, video: Video, frames_per_second: float) -> Self:
        """All k >= 0 with k / frames_per_second < duration: 10 s at 1 fps are 10 frames, 10.1 s are 11."""
        if not 0 < frames_per_second < math.inf:
            raise LvqaError(f"frames_per_second is {frames_per_second}; expected a number above 0")
        # Rounded, since 0.1 s * 30 is 3.0000000000000004 and must not make a fourth frame.
        num_frames = math.ceil(round(video.duration_seconds * frames_per_second, 6))
        return cls(frames_per_second=frames_per_second, num_frames=max(1, num_frames))

    @property
    def num_pairs(self) -> int:
        return (self.num_frames + 1) // 2

    def seconds_of(self, frame: int) -> float:
        """When grid frame `frame` is shown. Raises IndexError outside the grid."""
        if not 0 <= frame < self.num_frames:
            raise IndexError(f"frame {frame} of a grid of {self.num_frames}")
        return frame / self.frames_per_second

    def frame_at(self, seconds: float) -> int:
        """The last grid frame at or before `seconds`, or the grid's first or last beyond its ends."""
        if seconds >= self.num_frames / self.frames_per_second:
            return self.num_frames - 1
        # From one above, since the product may round to either side of the k with k / fps == seconds.
        frame = math.floor(seconds * self.frames_per_second) + 1
        while frame > 0 and frame / self.frames_per_second > seconds:
            frame -= 1
        return min(max(0, frame), self.num_frames - 1)


def cut_clips(video: Video, grid: Grid, clip_seconds: float, boundaries: Sequence[float] = ()) -> list[Clip]:
    """Runs of whole pairs that cover [0, duration) without a gap, in order.

    Each is `clip_seconds` long, rounded to pairs, at least one; the last may be shorter. `boundaries` are scene changes
    in seconds: at the pair nearest to each a clip ends, and the next one begins with its full length ahead of it.
    """
    if not 0 < clip_seconds < math.inf:
        raise LvqaError(f"clip_seconds is {clip_seconds}; expected a number above 0")
    pairs_per_second = grid.frames_per_second / 2
    pairs_per_clip = max(1, round(clip_seconds * pairs_per_second))
    cuts = {min(max(0, round(seconds * pairs_per_second)), grid.num_pairs) for seconds in boundaries}
    scenes = itertools.pairwise(sorted({0, *cuts, grid.num_pairs}))
    starts = [grid.seconds_of(2 * pair) for start, end in scenes for pair in range(start, end, pairs_per_clip)]
    ends = [*starts[1:], video.duration_seconds]
    return [Clip(video.id, start, end) for start, end in zip(starts, ends, strict=True)]


def scene_changes(
    video: Video, grid: Grid, *, decoder: str = "pyav", stall_seconds: float = 30.0, least: float = 0.08
) -> list[float]:
    """The grid times at which another scene is on, ascending. Decodes the whole grid once, as thumbnails.

    A change is where neighbouring thumbnails differ in the mean by `least` of the full range, and by three times as
    much as is usual around them, so that a film in motion is not cut to pieces.
    """
    times = [grid.seconds_of(frame) for frame in range(grid.num_frames)]
    differences = np.zeros(grid.num_frames)
    before: np.ndarray | None = None
    frames = read_frames(video, times, height=36, width=64, decoder=decoder, stall_seconds=stall_seconds)
    for start, batch in zip(itertools.count(0, 64), frames, strict=False):
        pixels = batch.pixels.astype(np.float32) / 255
        both = pixels if before is None else np.concatenate([before[None], pixels])
        steps = np.abs(np.diff(both, axis=0)).mean(axis=(1, 2, 3))
        differences[start + len(pixels) - len(steps) : start + len(pixels)] = steps
        before = pixels[-1]
    padded = np.pad(differences, 8, mode="reflect" if grid.num_frames > 8 else "edge")
    usual = np.median(np.lib.stride_tricks.sliding_window_view(padded, 17), axis=1)
    return [times[frame] for frame in np.flatnonzero((differences > least) & (differences > 3 * usual))]


# --- decoding ------------------------------------------------------------------------------------------------------


class Decoder(Protocol):
    """Turns seconds into pixels. A new one is a class with this method and a line in DECODERS."""

    def frames(
        self, video: Video, times_seconds: Sequence[float], *, height: int, width: int
    ) -> Iterator[tuple[np.ndarray, bool]]:
        """For each time the frame shown then, (height, width, 3) uint8 RGB, and whether it stands in for a damaged one.

        A lost frame is replaced by the nearest earlier one that was decoded, or the next at the start of a film. One
        that leans on damage is shown as the decoder mends it. Both are flagged.
        Raises ValueError for times that descend, VideoError for one outside [0, duration) or an unreadable file.
        """
        ...


class PyAVDecoder:
    """FFmpeg's libraries. Decodes no more than the wanted frames need, bit-identical to decoding everything."""

    def frames(
        self, video: Video, times_seconds: Sequence[float], *, height: int, width: int
    ) -> Iterator[tuple[np.ndarray, bool]]:
        times = _checked_times(video, times_seconds)
        if not len(times):
            return
        with _naming(video.path):
            timeline = _timeline(video.path)
            wanted = timeline.ticks_at(times)
            render = _renderer(height=height, width=width)
            done = 0
            for lead in (0, 1):  # groups before the one that holds a frame
                with _opened(video.path) as stream:
                    frames = _frames_for(stream, timeline, wanted[done:], lead)
                    for frame, substitute in _matched(frames, wanted[done:]):
                        # Perhaps not damaged: streams that refresh the picture bit by bit lean on the group before.
                        if substitute and not lead:
                            break
                        if frame is None:
                            raise VideoError(f"{video.path}: no frame up to {times[done]:g} s can be decoded")
                        yield render(frame), substitute
                        done += 1
                    else:
                        return


class DecordDecoder:
    """decord 0.6, for comparison: right for most mp4, mkv and webm files of constant or variable rate.

    It reads neither AV1 nor GIF, gives up at damage, returns wrong frames for edit lists, open groups of pictures and
    MPEG streams, and hangs on some MPEG-TS files, which `read_frames` notices.
    """

    batch = 8
    """It holds all frames of a batch at once."""

    def frames(
        self, video: Video, times_seconds: Sequence[float], *, height: int, width: int
    ) -> Iterator[tuple[np.ndarray, bool]]:
        times = _checked_times(video, times_seconds)
        if not len(times):
            return
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


def _checked_times(video: Video, times_seconds: Sequence[float]) -> np.ndarray:
    times = np.asarray(times_seconds, dtype=np.float64)
    if np.any(np.diff(times) < 0):
        raise ValueError(f"times must ascend, got {times_seconds}")
    outside = times[~((times >= 0) & (times < video.duration_seconds))]
    if len(outside):
        raise VideoError(f"{video.path}: no frame at {outside[0]:g} s; allowed: 0 to {video.duration_seconds:g} s")
    return times


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


@dataclass(frozen=True, slots=True, eq=False)
class _Timeline:
    """Every frame's place in time, known before anything is decoded. A tick is the file's own unit of time."""

    shown: np.ndarray
    """(frames,) int64 ticks of the presented frames, ascending and distinct."""
    end: Fraction
    """The tick at which the last of them ends."""
    tick_seconds: Fraction
    packets: np.ndarray | None
    """(packets,) int64 ticks in decode order; None if only decoding tells the times."""
    keys: np.ndarray
    """Ascending places in `packets` where decoding can begin."""

    @property
    def duration_seconds(self) -> float:
        return float((self.end - int(self.shown[0])) * self.tick_seconds)

    def ticks_at(self, times: np.ndarray) -> np.ndarray:
        """The tick of the frame shown at each time, in seconds from the first frame."""
        starts = (self.shown - self.shown[0]) * float(self.tick_seconds)
        places = np.searchsorted(starts, times + _TOLERANCE_SECONDS, side="right") - 1
        return self.shown[places]

    def needed(self, wanted: np.ndarray, lead: int) -> np.ndarray:
        """Which packets the wanted ticks need: from the key frame before each, or `lead` key frames more, to itself.

        Ends with the last of them.
        """
        assert self.packets is not None
        needed = np.zeros(len(self.packets), dtype=bool)
        targets = np.flatnonzero(np.isin(self.packets, wanted))
        for target in targets:
            group = int(np.searchsorted(self.keys, target, side="right")) - 1
            # A picture shown before its group's key frame may lean on the group before, too (open groups).
            group -= bool(self.packets[target] < self.packets[self.keys[group]])
            needed[self.keys[max(0, group - lead)] : target + 1] = True
        return needed[: targets[-1] + 1]


def _timeline(path: Path) -> _Timeline:
    status = path.stat()
    return _read_timeline(path, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=4)  # scattered reads of one film demux it once
def _read_timeline(path: Path, size: int, modified_ns: int) -> _Timeline:
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
    columns = [("tick", "i8"), ("clock", "i8"), ("length", "i8"), ("key", "?"), ("shown", "?")]
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
    return _Timeline(shown, end, tick_seconds, ticks, keys)


def _packet_row(packet: av.Packet[av.VideoStream]) -> tuple[int, int, int, bool, bool]:
    # VP8 keeps pictures to predict from in packets of their own: bit 4 of the first byte says whether it is shown.
    hidden = packet.stream.codec_context.name == "vp8" and not memoryview(packet)[0] & 0x10
    return (
        _NO_TICK if packet.pts is None else packet.pts,
        _NO_TICK if packet.dts is None else packet.dts,
        packet.duration or 0,
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
    return _Timeline(shown, _end_of(shown, 0, stream, tick_seconds), tick_seconds, None, np.zeros(0, dtype=np.int64))


# --- FFmpeg ----------------------------------------------------------------------------------------------------------


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Whatever FFmpeg or the system say about the file becomes one line with its name."""
    import av

    try:
        yield
    except (av.error.FFmpegError, OSError) as error:
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


def _decoded(stream: av.VideoStream, packet: av.Packet[av.VideoStream] | None) -> list[av.VideoFrame] | None:
    """The frames that come out when `packet` goes in, or None if it is damaged. No packet flushes the decoder."""
    import av

    try:
        return stream.codec_context.decode(packet)
    except av.error.FFmpegError:
        return None


def _all_frames(stream: av.VideoStream) -> Iterator[av.VideoFrame]:
    for packet in itertools.chain(_demuxed(stream), [None]):
        yield from _decoded(stream, packet) or []


def _frames_for(
    stream: av.VideoStream, timeline: _Timeline, wanted: np.ndarray, lead: int
) -> Iterator[tuple[int, av.VideoFrame, bool]]:
    """(tick, frame, whether damage hurt it) as presented: all wanted ones, and those decoded on the way."""
    frames: Iterable[tuple[int, av.VideoFrame, bool]]
    if timeline.packets is None:
        frames = (
            (tick, frame, False) for tick, frame in zip(timeline.shown.tolist(), _all_frames(stream), strict=False)
        )
    else:
        needed = timeline.needed(wanted, lead)
        frames = _needed_frames(stream, timeline.packets[: len(needed)], needed, targets=set(wanted.tolist()))
    hurt = False
    for tick, frame, suspect in frames:
        # What follows a corrupt frame leans on it, mostly without a word from the decoder.
        hurt = frame.is_corrupt or suspect or (hurt and not frame.key_frame)
        yield tick, frame, hurt


def _needed_frames(
    stream: av.VideoStream, ticks: np.ndarray, needed: np.ndarray, *, targets: set[int]
) -> Iterator[tuple[int, av.VideoFrame, bool]]:
    """Decodes the needed packets: (tick, frame, whether a packet that it may lean on was refused)."""
    codec = stream.codec_context
    suspects: set[int] = set()
    is_open = is_hurt = False
    steps = zip(ticks.tolist(), needed.tolist(), _demuxed(stream), strict=False)
    for tick, is_needed, packet in itertools.chain(steps, [(0, False, None)]):
        frames = None
        if is_needed and packet is not None:
            # Frames that no other one leans on are dropped undecoded, which changes no pixel of the rest.
            codec.skip_frame = "DEFAULT" if tick in targets or packet.is_keyframe else "NONREF"
            frames = _decoded(stream, packet)
            is_hurt = frames is None or (is_hurt and not packet.is_keyframe)
            suspects.update([tick] * is_hurt)
        elif is_open:
            # Without a clean start behind a gap, the decoder would put the frames of open groups in a wrong order.
            frames = _decoded(stream, None)
            codec.flush_buffers()
        is_open = is_needed
        yield from ((frame.pts, frame, frame.pts in suspects) for frame in frames or [] if frame.pts is not None)


DECODERS: dict[str, type[Decoder]] = {"pyav": PyAVDecoder, "decord": DecordDecoder}


# --- reading -------------------------------------------------------------------------------------------------------


def read_frames(
    video: Video,
    times_seconds: Sequence[float],
    *,
    height: int,
    width: int,
    decoder: str = "pyav",
    stall_seconds: float = 30.0,
    batch_frames: int = 64,
) -> Generator[Frames]:
    """The frames shown at ascending times, in batches of `batch_frames`, the last one smaller.

    Decoding runs in a thread, at most one batch ahead: it overlaps with the model, and memory does not grow with the
    film. Closing the generator ends it. Raises LvqaError for an unknown decoder; VideoError for a time outside
    the film, a file that can't be read, or no frame within `stall_seconds`: a decoder that hangs is left behind.
    """
    if decoder not in DECODERS:
        raise LvqaError(f"decoder {decoder!r} is unknown; allowed: {', '.join(sorted(DECODERS))}")
    return _batches(
        lambda: DECODERS[decoder]().frames(video, times_seconds, height=height, width=width),
        video=video,
        times=np.asarray(times_seconds, dtype=np.float64),
        shape=(height, width, 3),
        stall_seconds=stall_seconds,
        batch_frames=batch_frames,
    )


def _batches(
    decode: Callable[[], Iterator[tuple[np.ndarray, bool]]],
    *,
    video: Video,
    times: np.ndarray,
    shape: tuple[int, int, int],
    stall_seconds: float,
    batch_frames: int,
) -> Generator[Frames]:
    place = 0
    try:
        with closing(_ahead(decode, depth=batch_frames, stall_seconds=stall_seconds)) as frames:
            for first in range(0, len(times), batch_frames):
                batch = times[first : first + batch_frames]
                pixels = np.empty((len(batch), *shape), dtype=np.uint8)
                substituted = np.zeros(len(batch), dtype=bool)
                for place in range(first, first + len(batch)):
                    pixels[place - first], substituted[place - first] = next(frames)
                yield Frames(batch, pixels, substituted)
    except queue.Empty as error:
        raise VideoError(
            f"{video.path}: the decoder gave nothing for {stall_seconds:g} s at {times[place]:g} s of the film; "
            f"expected a frame; another decoder may read it ({', '.join(sorted(DECODERS))})"
        ) from error


def _ahead(make: Callable[[], Iterator[Any]], *, depth: int, stall_seconds: float) -> Generator[Any]:
    """The items of `make()`, made in a thread at most `depth` ahead. Raises queue.Empty if one is late."""
    ready: queue.Queue[Any] = queue.Queue(maxsize=depth)
    stop = threading.Event()

    def work() -> None:
        last = _Last()
        try:
            for item in make():
                if stop.is_set():
                    return
                ready.put(item)
        except Exception as error:  # raised again where the frames are read
            last = _Last(error)
        if not stop.is_set():
            ready.put(last)

    thread = threading.Thread(target=work, name="lvqa-decode", daemon=True)
    thread.start()
    try:
        while not isinstance(item := ready.get(timeout=stall_seconds), _Last):
            yield item
        if item.error is not None:
            raise item.error
    finally:
        stop.set()
        with suppress(queue.Empty):  # a thread that waits for room finds it, and sees that it is to stop
            while True:
                ready.get_nowait()
        thread.join(timeout=1.0)  # bounded: one that hangs is left behind


@dataclass(frozen=True, slots=True)
class _Last:
    error: Exception | None = None

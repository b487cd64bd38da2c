"""Decode and scale the frames at given times."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from lvqa.records import LvqaError, Video
from lvqa.video.container import VideoError, convert_errors, decode_stream, open_stream
from lvqa.video.display import FieldMerger, orientation_of
from lvqa.video.frame_reader import FrameReader, FrameState, open_reader
from lvqa.video.metadata import first_frame, timeline_of
from lvqa.video.timeline import TOLERANCE_SECONDS

if TYPE_CHECKING:
    import av


MAX_PACKETS_BEFORE = 1024
"""How many packets before a frame are searched for a true keyframe: no more, since of damage there may be no end."""


class Decoder(Protocol):
    """Turns seconds into pixels. A new decoder is a class with these methods and a line in DECODERS."""

    def split_times(self, video: Video, times_seconds: np.ndarray) -> list[np.ndarray]:
        """Split times where it costs nothing, so that threads can share them: no chunk needs what another decodes.

        Args:
            video: The video.
            times_seconds: (n,) times, at least one, ascending.

        Returns:
            The chunks, in order. They depend on the video and the times alone.

        Raises:
            VideoError: The file can't be read.
        """
        ...

    def frames(
        self, video: Video, chunks: Iterable[np.ndarray], *, height: int, width: int
    ) -> Iterator[tuple[np.ndarray, bool]]:
        """Yield the frame at each time, and whether it is a substitute for a damaged one.

        A lost frame is replaced by the nearest earlier one that was decoded for its chunk; or by the next one where
        there is none; or by a keyframe near it where all of the chunk is lost. A frame that depends on damage comes as
        the decoder conceals it. All of these count as substitutes.

        Args:
            video: The video.
            chunks: Some of the chunks of `split_times`, in order; each is decoded for itself, since another thread may
                decode those between them.
            height: Pixels of a frame.
            width: Pixels of a frame.

        Yields:
            (height, width, 3) uint8 RGB, and whether it is a substitute.

        Raises:
            VideoError: The file can't be read.
        """
        ...


class PyAVDecoder:
    """FFmpeg's libraries. Decodes no more than the frames need, with the same pixels as decoding everything."""

    def split_times(self, video: Video, times_seconds: np.ndarray) -> list[np.ndarray]:
        """Split times between groups of pictures."""
        with convert_errors(video.path):
            return timeline_of(video.path).split_times(times_seconds)

    def frames(
        self, video: Video, chunks: Iterable[np.ndarray], *, height: int, width: int
    ) -> Iterator[tuple[np.ndarray, bool]]:
        """Yield the frame at each time, and whether it is a substitute."""
        with convert_errors(video.path):
            timeline = timeline_of(video.path)
            render = _make_renderer(height=height, width=width)
            with open_reader(video.path, timeline) as reader:
                for times in chunks:
                    frames = _frames_at(reader, timeline.ticks_at(times))
                    for seconds, (frame, is_substitute) in zip(times, frames, strict=True):
                        if frame is None:
                            raise VideoError(f"{video.path}: no frame up to {seconds:g} s can be decoded")
                        yield render(frame), is_substitute


class DecordDecoder:
    """decord 0.6, for comparison: right for most mp4, mkv and webm files of constant or variable rate.

    It reads neither AV1 nor GIF, gives up at damage, returns wrong frames for edit lists, open groups of pictures and
    MPEG streams, and hangs on some MPEG-TS files, which `read_frames` notices. It mirrors no picture: files that ask
    for that are refused.
    """

    batch_size = 8
    """How many frames decord decodes in one call; it holds all of them in memory at once."""

    def split_times(self, video: Video, times_seconds: np.ndarray) -> list[np.ndarray]:
        """Return all times as one chunk."""
        return [times_seconds]

    def frames(
        self, video: Video, chunks: Iterable[np.ndarray], *, height: int, width: int
    ) -> Iterator[tuple[np.ndarray, bool]]:
        """Yield the frame at each time; none is ever a substitute."""
        times = np.concatenate(list(chunks))
        try:
            import decord
        except ImportError as error:
            raise LvqaError(f"decoder 'decord' is not installed here; available: pyav ({error})") from error
        decord.logging.set_level(decord.logging.QUIET)
        with convert_errors(video.path):
            orientation = first_frame(video.path).orientation
        if orientation.is_reflection:
            raise VideoError(f"{video.path}: decord does not show pictures mirrored; decoder 'pyav' reads this file")
        try:
            reader = decord.VideoReader(str(video.path), width=width, height=height, num_threads=1)
            starts = reader.get_frame_timestamp(list(range(len(reader))))[:, 0].astype(np.float64)
            # Its timestamps are float32, accurate to 0.25 ms at one hour.
            tolerance = TOLERANCE_SECONDS + np.spacing(times.astype(np.float32))
            indices = np.searchsorted(starts - starts[0], times + tolerance, side="right") - 1
            for first in range(0, len(indices), self.batch_size):
                for pixels in reader.get_batch(indices[first : first + self.batch_size].tolist()).asnumpy():
                    yield pixels, False
        except (decord.DECORDError, RuntimeError) as error:
            reason = re.sub(r".*\.cc:\d+: ", "", str(error).partition("\n")[0])  # without its own source line
            raise VideoError(f"{video.path}: decord fails: {reason}; decoder 'pyav' reads more files") from error


DECODERS: dict[str, type[Decoder]] = {"pyav": PyAVDecoder, "decord": DecordDecoder}
"""The decoders by the names that `video.decoder` takes."""


def decode_all(video: Video, until_seconds: float = math.inf) -> int:
    """Decode every frame up to a time, in one thread, and keep none: the speed of FFmpeg itself.

    Returns:
        How many frames were decoded.
    """
    num_frames = 0
    with convert_errors(video.path), open_stream(video.path) as stream:
        for _ in decode_stream(stream):
            num_frames += 1
            if num_frames > until_seconds * video.frames_per_second:
                break
    return num_frames


def _frames_at(reader: FrameReader, ticks: np.ndarray) -> Iterator[tuple[av.VideoFrame | None, bool]]:
    """Yield what `_match_frames` does for each tick, but look further back before a frame counts as damaged."""
    num_done, extra_groups = 0, 0
    while True:
        rest = ticks[num_done:]
        for frame, state in _match_frames(reader.frames(rest, extra_groups), rest):
            # Perhaps it is not damaged: streams that refresh the picture bit by bit depend on the group before, and
            # containers mark packets as keyframes that are none.
            if _is_worth_more(reader, int(ticks[num_done]), state, extra_groups):
                break
            if frame is None:  # nor will there be another: the rest of the chunk is lost
                frame = reader.nearest_keyframe(int(ticks[num_done]))
                yield from [(frame, True)] * (len(ticks) - num_done)
                return
            yield frame, state is not FrameState.GOOD
            num_done += 1
        else:
            return
        extra_groups = max(1, 2 * extra_groups)


def _is_worth_more(reader: FrameReader, tick: int, state: FrameState, extra_groups: int) -> bool:
    """Return whether a frame may become good if more groups of pictures before it are decoded."""
    timeline = reader.timeline
    if state is FrameState.GOOD or timeline.packet_ticks is None or not extra_groups:
        return state is not FrameState.GOOD and not extra_groups
    (begin,), (end,) = timeline.packet_spans(np.array([tick]), extra_groups)
    is_first = begin <= timeline.keyframe_positions[0]
    return state is FrameState.UNCONFIRMED and not is_first and end - begin < MAX_PACKETS_BEFORE


def _match_frames(
    frames: Iterable[tuple[int, av.VideoFrame | None, FrameState]], ticks: np.ndarray
) -> Iterator[tuple[av.VideoFrame | None, FrameState]]:
    """Yield for each tick its frame, or the last good one, or None where there is none; and the state of the frame."""
    good: av.VideoFrame | None = None
    targets = ticks.tolist()
    num_done = 0
    unconfirmed_until = -math.inf

    def lost_state() -> FrameState:
        return FrameState.UNCONFIRMED if targets[num_done] <= unconfirmed_until else FrameState.DAMAGED

    for tick, frame, state in frames:
        if state is FrameState.UNCONFIRMED:
            unconfirmed_until = tick
        if frame is None:
            continue
        while num_done < len(targets) and targets[num_done] < tick:  # the decoder is past it: lost
            yield (frame if good is None else good), lost_state()
            num_done += 1
        while num_done < len(targets) and targets[num_done] == tick:
            yield frame, state
            num_done += 1
        if num_done == len(targets):
            return
        if good is None or state is FrameState.GOOD:
            good = frame
    while num_done < len(targets):
        yield good, lost_state()
        num_done += 1


def _make_renderer(*, height: int, width: int) -> Callable[[av.VideoFrame], np.ndarray]:
    """Return a function that scales a frame straight to the target size, so that no whole frame becomes RGB."""
    import av
    from av.video.reformatter import VideoReformatter

    reformatter, fields = VideoReformatter(), FieldMerger()
    options: dict[str, Any] = {"format": "rgb24", "interpolation": "BILINEAR"}
    if int(av.__version__.partition(".")[0]) >= 17:
        # The scaler's own threads would not survive a fork, and readers work in parallel already.
        options["threads"] = 1

    def render(frame: av.VideoFrame) -> np.ndarray:
        orientation = orientation_of(frame)
        rows, columns = orientation.swap(height, width)
        scaled = reformatter.reformat(fields.merge(frame), height=rows, width=columns, **options)
        return np.ascontiguousarray(orientation.apply(scaled.to_ndarray()))

    return render

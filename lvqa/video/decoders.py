"""Decode and scale the frames at given times."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Protocol

import numpy as np

from lvqa.places import in_use
from lvqa.records import LvqaError, Video
from lvqa.video.container import MATROSKA, MP4, VideoError, convert_errors, decode_stream, open_stream
from lvqa.video.display import make_renderer
from lvqa.video.frame_reader import FrameReader, FrameState, open_reader
from lvqa.video.metadata import timeline_of

if TYPE_CHECKING:
    import av


MAX_PACKETS_BEFORE = 1024
"""How many packets before a frame are searched for a true keyframe: no more, since of damage there may be no end."""


MAX_DIFFERENCE = 1.0
"""By how much decord's frame may differ from PyAV's on average, of 255; right ones are equal, or rounded otherwise."""

_DECORD_SCALING = 0x2
"""FFmpeg's SWS_BILINEAR, with which decord turns a frame into RGB."""

_DECORD_CONTAINERS = (MP4, MATROSKA)
_DECORD_CODECS = ("h264", "hevc", "mpeg4", "vp8", "vp9")


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
        render = make_renderer(height=height, width=width)
        for frame, is_substitute in _decode(video, chunks):
            yield render(frame), is_substitute


class DecordDecoder:
    """decord 0.6, for comparison, on the files that it reads right: all others are refused by name.

    Of many files it returns wrong frames without a word: edit lists, open groups of pictures, keyframes that are none,
    fields, mirrored pictures, MPEG streams, damage. So each frame is checked against PyAV's, which also finds what is
    damaged. It hangs on some files, which `read_frames` notices.
    """

    batch_size = 8
    """How many frames decord decodes in one call; it holds all of them in memory at once."""

    def split_times(self, video: Video, times_seconds: np.ndarray) -> list[np.ndarray]:
        """Return all times as one chunk."""
        return [times_seconds]

    def frames(
        self, video: Video, chunks: Iterable[np.ndarray], *, height: int, width: int
    ) -> Iterator[tuple[np.ndarray, bool]]:
        """Yield the frame at each time; none is ever a substitute.

        Raises:
            VideoError: decord fails, or gives a frame other than PyAV, or PyAV finds a frame damaged.
        """
        import av

        times, render = np.concatenate(list(chunks)), make_renderer(height=height, width=width)
        expected = _decode(video, PyAVDecoder().split_times(video, times))
        for seconds, pixels, (frame, is_substitute) in zip(times, self._pixels(video, times), expected, strict=True):
            whole = make_renderer(height=pixels.shape[0], width=pixels.shape[1], scaling=_DECORD_SCALING)(frame)
            if is_substitute or np.abs(pixels.astype(np.float32) - whole).mean() > MAX_DIFFERENCE:
                raise _decord_error(video, f"the frame at {seconds:g} s is {'damaged' if is_substitute else 'wrong'}")
            yield render(av.VideoFrame.from_ndarray(pixels, format="rgb24")), False

    def _pixels(self, video: Video, times: np.ndarray) -> Iterator[np.ndarray]:
        """Yield the frame at each time in its full size, since decord would scale with another filter than PyAV."""
        try:
            import decord
        except ImportError as error:
            raise LvqaError(f"decoder 'decord' is not installed here; available: pyav ({error})") from error
        decord.logging.set_level(decord.logging.QUIET)
        _refuse_unknown_streams(video)
        timeline = timeline_of(video.path)
        indices = np.searchsorted(timeline.frame_ticks, timeline.ticks_at(times))
        try:
            with in_use(video.path):
                reader = decord.VideoReader(os.fspath(video.path), num_threads=1)
            if len(reader) != len(timeline.frame_ticks):
                raise _decord_error(video, f"it has {len(reader)} frames of {len(timeline.frame_ticks)}")
            for first in range(0, len(indices), self.batch_size):
                yield from reader.get_batch(indices[first : first + self.batch_size].tolist()).asnumpy()
        except (decord.DECORDError, RuntimeError) as error:
            reason = re.sub(r".*\.cc:\d+: ", "", str(error).partition("\n")[0])  # without its own source line
            raise _decord_error(video, reason) from error


def _refuse_unknown_streams(video: Video) -> None:
    """Raise VideoError for containers and codecs on which decord is known to hang or to fail."""
    with convert_errors(video.path), open_stream(video.path) as stream:
        container, codec = stream.container.format.name, stream.codec_context.name
        num_streams = len(stream.container.streams.video)
    if container not in _DECORD_CONTAINERS or codec not in _DECORD_CODECS:
        raise _decord_error(video, f"{codec} in {container}, and not {', '.join(_DECORD_CODECS)} in mp4, mkv or webm")
    if num_streams > 1:
        raise _decord_error(video, f"there are {num_streams} video streams, covers included")


def _decord_error(video: Video, reason: str) -> VideoError:
    return VideoError(f"{video.path}: decord does not read this file right ({reason}); video.decoder: pyav reads it")


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


def _decode(video: Video, chunks: Iterable[np.ndarray]) -> Iterator[tuple[av.VideoFrame, bool]]:
    """Yield the stored frame at each time of some chunks, and whether it is a substitute."""
    with convert_errors(video.path):
        timeline = timeline_of(video.path)
        with open_reader(video.path, timeline) as reader:
            for times in chunks:
                frames = _frames_at(reader, timeline.ticks_at(times))
                for seconds, (frame, is_substitute) in zip(times, frames, strict=True):
                    if frame is None:
                        raise VideoError(f"{video.path}: no frame up to {seconds:g} s can be decoded")
                    yield frame, is_substitute


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

"""From seconds to pixels: the frames shown at given times, decoded and scaled."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Protocol

import numpy as np

from lvqa.records import LvqaError, Video
from lvqa.video.container import VideoError, all_frames, naming, opened, quarter_turns
from lvqa.video.frame_reader import Reader, reader_of
from lvqa.video.metadata import timeline_of
from lvqa.video.timeline import TOLERANCE_SECONDS

if TYPE_CHECKING:
    import av


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
        with naming(video.path):
            return timeline_of(video.path).runs(times_seconds)

    def frames(
        self, video: Video, runs: Iterable[np.ndarray], *, height: int, width: int
    ) -> Iterator[tuple[np.ndarray, bool]]:
        with naming(video.path):
            timeline = timeline_of(video.path)
            render = _renderer(height=height, width=width)
            with reader_of(video.path, timeline) as reader:
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
            tolerance = TOLERANCE_SECONDS + np.spacing(times.astype(np.float32))
            indices = np.searchsorted(starts - starts[0], times + tolerance, side="right") - 1
            for first in range(0, len(indices), self.batch):
                for pixels in reader.get_batch(indices[first : first + self.batch].tolist()).asnumpy():
                    yield pixels, False
        except (decord.DECORDError, RuntimeError) as error:
            reason = re.sub(r".*\.cc:\d+: ", "", str(error).partition("\n")[0])  # without its own source line
            raise VideoError(f"{video.path}: decord fails: {reason}; decoder 'pyav' reads more files") from error


def _found(reader: Reader, wanted: np.ndarray) -> Iterator[tuple[av.VideoFrame | None, bool]]:
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
        turns = quarter_turns(frame)
        size = {"width": height, "height": width} if turns % 2 else {"width": width, "height": height}
        scaled = reformatter.reformat(frame, **size, format="rgb24", interpolation="BILINEAR")
        return np.ascontiguousarray(np.rot90(scaled.to_ndarray(), turns))

    return render


def decode_all(video: Video, until_seconds: float = math.inf) -> int:
    """Decode every frame up to a time and keep none: FFmpeg's own rate, in one thread. Returns how many there were."""
    num_frames = 0
    with naming(video.path), opened(video.path) as stream:
        for _ in all_frames(stream):
            num_frames += 1
            if num_frames > until_seconds * video.frames_per_second:
                break
    return num_frames


DECODERS: dict[str, type[Decoder]] = {"pyav": PyAVDecoder, "decord": DecordDecoder}

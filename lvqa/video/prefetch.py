"""Decode frames ahead in threads, and hand them on in batches."""

from __future__ import annotations

import itertools
import os
import queue
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from lvqa.records import LvqaError, Video
from lvqa.startup import num_threads
from lvqa.video.container import ReadPackets, VideoError, count_packets
from lvqa.video.decoders import DECODERS, Decoder
from lvqa.video.frame_reader import BEGUN_ELSEWHERE

MAX_AHEAD_BYTES = 1 << 30
"""How much memory the frames may take that all threads decode ahead, where nothing says how many threads there are."""
_JOIN_SECONDS = 1.0
"""How long closing waits for all threads together; a decoder that hangs is left behind."""


@dataclass(frozen=True, slots=True, eq=False)
class Frames:
    """Decoded frames with the times for which they were read."""

    times_seconds: np.ndarray
    """(n,) float64, counted from the first presented frame."""
    pixels: np.ndarray = field(repr=False)
    """(n, height, width, 3) uint8, RGB."""
    substituted: np.ndarray
    """(n,) bool: the file's own frame is damaged, and the nearest good one stands in for it."""

    def __post_init__(self) -> None:
        n = len(self.times_seconds)
        if self.pixels.shape != (n, *self.pixels.shape[1:3], 3) or self.substituted.shape != (n,):
            raise ValueError(f"{n} times for pixels of shape {self.pixels.shape}")


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
    """Read the frames at ascending times, in batches.

    Threads decode ahead, each at most one batch, so that decoding overlaps with the model and memory does not grow
    with the video. The frames do not depend on the number of threads. Closing the generator ends the threads.

    Args:
        video: The video.
        times_seconds: (n,) times in [0, duration), ascending; a time may come twice.
        height: Pixels of a frame.
        width: Pixels of a frame.
        decoder: A name in DECODERS.
        threads: How many threads decode; by default `num_threads()`, or fewer that keep within MAX_AHEAD_BYTES.
        stall_seconds: A decoder that gives no frame and reads no packet for so long hangs. It is left behind.
        batch_frames: How many frames a batch has; the last one may be smaller.

    Yields:
        Batches of (batch_frames, height, width, 3) uint8 RGB, with their times.

    Raises:
        LvqaError: The decoder is unknown.
        ValueError: The times do not ascend.
        VideoError: A time lies outside the video, the file can't be read, or a decoder hangs.
    """
    if decoder not in DECODERS:
        raise LvqaError(f"decoder {decoder!r} is unknown; allowed: {', '.join(sorted(DECODERS))}")
    return _read_batches(
        DECODERS[decoder](),
        video,
        np.asarray(times_seconds, dtype=np.float64),
        height=height,
        width=width,
        threads=threads,
        stall_seconds=stall_seconds,
        batch_frames=batch_frames,
    )


def _read_batches(
    decoder: Decoder,
    video: Video,
    times: np.ndarray,
    *,
    height: int,
    width: int,
    threads: int | None,
    stall_seconds: float,
    batch_frames: int,
) -> Generator[Frames]:
    """Check the times, and yield their frames in batches."""
    _check_times(video, times)
    if not len(times):
        return
    chunks = decoder.split_times(video, times)
    # A thread that has finished a chunk starts its next one and no third: the other threads are as far.
    max_ahead = min(batch_frames, 2 * max(map(len, chunks)))
    threads = threads or max(1, min(num_threads(), MAX_AHEAD_BYTES // (max_ahead * height * width * 3)))
    decode = partial(decoder.frames, video, height=height, width=width)
    ahead = _decode_ahead(decode, chunks, threads=threads, max_ahead=max_ahead, stall_seconds=stall_seconds)
    i, process_id = 0, os.getpid()
    try:
        with closing(ahead) as frames:
            for first in range(0, len(times), batch_frames):
                if os.getpid() != process_id:
                    raise VideoError(f"{video.path}: {BEGUN_ELSEWHERE}")
                batch = times[first : first + batch_frames]
                pixels = np.empty((len(batch), height, width, 3), dtype=np.uint8)
                substituted = np.zeros(len(batch), dtype=bool)
                for i in range(first, first + len(batch)):
                    pixels[i - first], substituted[i - first] = next(frames)
                yield Frames(batch, pixels, substituted)
    except queue.Empty as error:
        raise VideoError(
            f"{video.path}: the decoder gave nothing for {stall_seconds:g} s at {times[i]:g} s of the video; "
            f"expected a frame; another decoder may read it ({', '.join(sorted(DECODERS))})"
        ) from error


def _check_times(video: Video, times: np.ndarray) -> None:
    """Raise ValueError for times that do not ascend, and VideoError for one outside the video."""
    if np.any(np.diff(times) < 0):
        raise ValueError(f"times must ascend, got {times.tolist()}")
    outside = times[~((times >= 0) & (times < video.duration_seconds))]
    if len(outside):
        raise VideoError(f"{video.path}: no frame at {outside[0]:g} s; allowed: 0 to {video.duration_seconds:g} s")


def _decode_ahead(
    decode: Callable[[list[np.ndarray]], Iterator[Any]],
    chunks: list[np.ndarray],
    *,
    threads: int,
    max_ahead: int,
    stall_seconds: float,
) -> Generator[Any]:
    """Yield the frames of all chunks in order. Each of n threads decodes every n-th chunk.

    Args:
        decode: Yields the frames of some chunks.
        chunks: All chunks.
        threads: How many threads decode.
        max_ahead: How many frames a thread decodes before they are needed.
        stall_seconds: How long a thread may give no frame and read no packet.

    Raises:
        queue.Empty: A thread hangs.
    """
    stop = threading.Event()
    shares = [chunks[first::threads] for first in range(min(threads, len(chunks)))]
    workers = [_DecodingThread(partial(decode, share), max_ahead, stop) for share in shares]
    try:
        for chunk, worker in zip(chunks, itertools.cycle(workers), strict=False):
            for _ in chunk:
                yield worker.next(stall_seconds)
    finally:
        stop.set()
        deadline = time.monotonic() + _JOIN_SECONDS
        for worker in workers:
            worker.join(deadline)


class _DecodingThread:
    """Produces items in a thread, and queues them until they are needed."""

    def __init__(self, produce: Callable[[], Iterator[Any]], queue_size: int, stop: threading.Event) -> None:
        self._produce, self._stop = produce, stop
        self._process_id = os.getpid()
        self._queue: queue.Queue[Any] = queue.Queue(maxsize=queue_size)
        self._read = ReadPackets()
        self._thread = threading.Thread(target=self._work, name="lvqa-decode", daemon=True)
        self._thread.start()

    def _work(self) -> None:
        """Queue all items, and after them an error: what the decoder raised, or that there is no further item."""
        count_packets(self._read)
        failure: Exception = RuntimeError("the decoder gave fewer frames than requested")
        try:
            for item in self._produce():
                self._queue.put(item)
                if self._stop.is_set():
                    return
        except Exception as error:  # raised again where the frames are read
            failure = error
        if not self._stop.is_set():
            self._queue.put(_Failure(failure))

    def next(self, stall_seconds: float) -> Any:
        """Return the next item, or raise the thread's error, or queue.Empty if the thread hangs."""
        num_read = self._read.num
        while True:
            try:
                item = self._queue.get(timeout=stall_seconds)
            except queue.Empty:  # a frame may need hundreds of others, and a slow machine seconds for some of them
                if self._read.num == num_read:
                    raise
                num_read = self._read.num
                continue
            if isinstance(item, _Failure):
                raise item.error
            return item

    def join(self, deadline: float) -> None:
        """Wait until the thread has ended, or until the deadline, since a decoder may hang."""
        if self._process_id != os.getpid():  # a forked process has none of its parent's threads, but all their locks
            return
        with suppress(queue.Empty):  # a thread that waits for room in the queue gets it, and sees that it must stop
            while True:
                self._queue.get_nowait()
        self._thread.join(timeout=max(0.0, deadline - time.monotonic()))


@dataclass(frozen=True, slots=True)
class _Failure:
    """An error as an item of the queue."""

    error: Exception

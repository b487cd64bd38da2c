"""Frames in batches, decoded ahead in threads."""

from __future__ import annotations

import itertools
import os
import queue
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from lvqa.records import Frames, LvqaError, Video
from lvqa.startup import num_cores
from lvqa.video.container import VideoError
from lvqa.video.decoders import DECODERS, Decoder


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

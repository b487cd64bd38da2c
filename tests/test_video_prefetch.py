"""Threads decode ahead: order, memory, errors, and their end."""

from __future__ import annotations

import itertools
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import video_files
from processes import PATIENCE_SECONDS
from video_files import read_pixels

import lvqa.video
from lvqa.records import LvqaError, Video
from lvqa.startup import num_cores
from lvqa.video import DECODERS, DecordDecoder, VideoError, frame_reader, inspect_video, read_frames
from lvqa.video.container import decode


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("videos")


@pytest.fixture(scope="module")
def video(folder: Path) -> Video:
    return inspect_video(video_files.write_video(folder / "video.mp4"))


def decoding_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "lvqa-decode"]


wake, slept = threading.Event(), threading.Event()


class Sleeper(DecordDecoder):
    """Yields two frames and then nothing."""

    def frames(
        self, video: Video, chunks: Iterable[np.ndarray], *, height: int, width: int
    ) -> Iterator[tuple[np.ndarray, bool]]:
        for _ in range(2):
            yield np.zeros((height, width, 3), np.uint8), False
        wake.wait(PATIENCE_SECONDS)
        slept.set()


class Counter:
    """Counts the frames that it makes. Splits times anywhere; fails at `fails_at`."""

    num_made = 0
    fails_at = np.inf

    def split_times(self, video: Video, times_seconds: np.ndarray) -> list[np.ndarray]:
        return np.array_split(times_seconds, 100)

    def frames(
        self, video: Video, chunks: Iterable[np.ndarray], *, height: int, width: int
    ) -> Iterator[tuple[np.ndarray, bool]]:
        for seconds in itertools.chain.from_iterable(chunks):
            if seconds >= self.fails_at:
                raise VideoError(f"broken at {seconds:g} s")
            Counter.num_made += 1
            yield np.full((height, width, 3), round(seconds * 100), np.uint8), False


class Failing(Counter):
    fails_at = 1.0


class Short(Counter):
    """Forgets the last frame."""

    def frames(self, video: Video, chunks: Iterable[np.ndarray], **size: int) -> Iterator[tuple[np.ndarray, bool]]:
        *first_chunks, last_chunk = chunks
        return super().frames(video, [*first_chunks, last_chunk[:-1]], **size)


@pytest.mark.slow
def test_a_decoder_that_hangs_is_reported(video: Video, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DECODERS, "sleeper", Sleeper)
    with pytest.raises(VideoError, match=r"video\.mp4: the decoder gave nothing for 0\.2 s at 1\.5 s of the video"):
        list(read_frames(video, [0, 1, 1.5], height=8, width=8, decoder="sleeper", stall_seconds=0.2))
    assert not slept.is_set()  # nobody waits for it
    wake.set()


@pytest.mark.slow
def test_a_decoder_that_is_slow_is_waited_for(video: Video, monkeypatch: pytest.MonkeyPatch) -> None:
    def slow_decode(codec: Any, packet: Any) -> Any:
        time.sleep(0.05)
        return decode(codec, packet)

    (expected,) = read_frames(video, [1.9], height=8, width=8)
    monkeypatch.setattr(frame_reader, "decode", slow_decode)
    begin = time.monotonic()
    (batch,) = read_frames(video, [1.9], height=8, width=8, stall_seconds=0.2)
    assert time.monotonic() - begin > 0.4, "the frame took several times as long as a decoder may be silent"
    np.testing.assert_array_equal(batch.pixels, expected.pixels)


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_memory_is_bounded_and_closing_ends_the_threads(
    threads: int, video: Video, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(DECODERS, "counter", Counter)
    monkeypatch.setattr(Counter, "num_made", 0)
    times = np.linspace(0, 1.9, 1000)
    batches = read_frames(video, times, height=8, width=8, decoder="counter", threads=threads, batch_frames=4)
    with closing(batches):
        np.testing.assert_array_equal(next(batches).times_seconds, times[:4])
        time.sleep(0.2)
        assert len(decoding_threads()) == threads
        assert Counter.num_made <= 4 + threads * (4 + 1)  # the batch; of each thread the queue and one in its hand
    assert decoding_threads() == []


@pytest.mark.parametrize("threads", [1, 2, 7, 1000])
def test_threads_deliver_in_order(threads: int, video: Video, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DECODERS, "counter", Counter)
    times = np.linspace(0, 1.9, 333)
    batches = read_frames(video, times, height=8, width=8, decoder="counter", threads=threads, batch_frames=10)
    values = [round(frame.mean()) for batch in batches for frame in batch.pixels]
    assert values == [round(seconds * 100) for seconds in times]


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_an_error_in_a_thread_comes_after_the_frames_before_it(
    threads: int, video: Video, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(DECODERS, "failing", Failing)
    times: list[float] = []
    with pytest.raises(VideoError, match=r"^broken at 1 s$"):
        for batch in read_frames(
            video, np.arange(200) / 100, height=8, width=8, decoder="failing", threads=threads, batch_frames=10
        ):
            times += batch.times_seconds.tolist()
    assert times == (np.arange(100) / 100).tolist()
    assert decoding_threads() == []


def test_a_decoder_that_forgets_a_frame_is_reported(video: Video, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DECODERS, "short", Short)
    with pytest.raises(RuntimeError, match="fewer frames than requested"):
        list(read_frames(video, np.linspace(0, 1, 200), height=8, width=8, decoder="short", threads=2))
    assert decoding_threads() == []


@pytest.mark.parametrize(("value", "threads"), [("3", 3), ("2,1", 2), ("0", 1), ("", None), ("many", None)])
def test_the_number_of_threads_follows_the_environment(
    value: str, threads: int | None, video: Video, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(DECODERS, "counter", Counter)
    monkeypatch.setenv("OMP_NUM_THREADS", value)
    with closing(read_frames(video, np.linspace(0, 1, 100), height=8, width=8, decoder="counter")) as batches:
        next(batches)
        assert len(decoding_threads()) == (threads or num_cores())


@pytest.mark.parametrize(
    ("own", "batch_frames", "height", "threads"),
    [(None, 8, 8, 16), (None, 8, 64, 10), (None, 64, 64, 4), (None, 64, 4096, 1), (16, 64, 64, 16)],
)
def test_fewer_threads_decode_where_what_they_hold_would_be_large(
    own: int | None, batch_frames: int, height: int, threads: int, video: Video, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(DECODERS, "counter", Counter)
    monkeypatch.setenv("OMP_NUM_THREADS", "16")
    monkeypatch.setattr(lvqa.video.prefetch, "MAX_AHEAD_BYTES", 1 << 20)
    options = {"height": height, "width": 64, "decoder": "counter", "threads": own, "batch_frames": batch_frames}
    with closing(read_frames(video, np.linspace(0, 1, 1000), **options)) as batches:
        next(batches)
        assert len(decoding_threads()) == threads


@pytest.mark.parametrize(("decoder", "threads"), [*((name, 1) for name in DECODERS), ("pyav", 3)])
@pytest.mark.parametrize("batches_read", [0, 1])
def test_closing_early_leaves_no_thread(
    decoder: str, threads: int, batches_read: int, video: Video, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lvqa.video.timeline, "CHUNK_PACKETS", 1)
    times = [frame / 25 for frame in range(50)]
    batches = read_frames(video, times, height=48, width=80, decoder=decoder, threads=threads, batch_frames=2)
    for _ in range(batches_read):
        next(batches)
    batches.close()
    assert decoding_threads() == []


def test_an_unknown_decoder_is_refused_by_name(video: Video) -> None:
    with pytest.raises(LvqaError, match="decoder 'ffmpeg' is unknown; allowed: decord, pyav"):
        read_frames(video, [0.0], height=8, width=8, decoder="ffmpeg")


@pytest.mark.parametrize("decoder", DECODERS)
def test_a_file_that_has_gone_is_reported_in_one_line(decoder: str, folder: Path) -> None:
    video = inspect_video(video_files.write_video(folder / "leaving.mp4", 5))
    video.path.unlink()
    with pytest.raises(VideoError, match=r"leaving\.mp4: .+; ") as caught:
        read_pixels(video, [0.0], decoder)
    assert "\n" not in str(caught.value)


def test_the_package_imports_no_heavy_library() -> None:
    code = "import sys, lvqa.video; print(sorted({'av', 'decord', 'torch', 'cv2'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"

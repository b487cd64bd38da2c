"""A process that was forked reads the right frames, and so does its parent."""

from __future__ import annotations

import os
import pickle
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import video_files
from video_files import frame_numbers

from lvqa.records import Video
from lvqa.video import PyAVDecoder, VideoError, inspect_video, read_frames

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*use of fork\\(\\) may lead to deadlocks:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning"),
]

NUM_FRAMES = 100
CHILD_SECONDS = 60.0
LOSSLESS = {"g": "10", "bf": "2", "preset": "ultrafast", "qp": "0", "x264-params": "scenecut=0:b-adapt=0"}
"""Options of the encoder for a file that is larger than what a reader has in memory."""


@pytest.fixture(scope="module", params=["video.mp4", "video.ts"])
def video(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Video:
    path = tmp_path_factory.mktemp("videos") / request.param
    video = inspect_video(video_files.write_video(path, NUM_FRAMES, options=LOSSLESS))
    assert path.stat().st_size > 300_000
    return video


def numbers_of(video: Video, frames: Sequence[int], threads: int = 1) -> list[int]:
    """Read frames by their positions, and return the numbers in their pictures; -1 for a substitute."""
    times = np.asarray(frames) / 25.0
    size = {"height": video.height, "width": video.width}
    numbers: list[int] = []
    for batch in read_frames(video, times, **size, threads=threads, batch_frames=4):
        read = frame_numbers(batch.pixels)
        numbers += [-1 if substituted else number for number, substituted in zip(read, batch.substituted, strict=True)]
    return numbers


class Child:
    """A forked process that computes one value."""

    def __init__(self, compute: Callable[[], Any]) -> None:
        reading, writing = os.pipe()
        self._pid = os.fork()
        if not self._pid:
            try:
                os.write(writing, pickle.dumps(compute()))
            finally:
                os._exit(0)
        os.close(writing)
        self._pipe = reading

    def value(self) -> Any:
        """Return what it computed; a child that hangs is killed."""
        killer = threading.Timer(CHILD_SECONDS, os.kill, (self._pid, 9))
        killer.start()
        with os.fdopen(self._pipe, "rb") as file:
            content = file.read()
        killer.cancel()
        os.waitpid(self._pid, 0)
        return pickle.loads(content)


@pytest.mark.slow
def test_parent_and_children_read_the_right_frames(video: Video) -> None:
    """Of 400 frames none is wrong, while four processes read the file that the parent has read before they began."""
    frames = list(range(NUM_FRAMES))
    assert numbers_of(video, [0, 50]) == [0, 50]

    def read_one_by_one() -> list[int]:
        return [number for frame in frames for number in numbers_of(video, [frame])]

    children = [Child(read_one_by_one) for _ in range(3)]
    assert read_one_by_one() == frames
    assert [child.value() for child in children] == [frames] * 3


@pytest.mark.slow
def test_a_fork_while_frames_are_decoded_does_no_harm(video: Video) -> None:
    frames = list(range(NUM_FRAMES))
    stop = threading.Event()

    def read_until_stopped() -> None:
        while not stop.is_set():
            numbers_of(video, [3, 70])

    threads = [threading.Thread(target=read_until_stopped) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(10):
            assert Child(lambda: numbers_of(video, frames, threads=2)).value() == frames
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def read_in_threads(video: Video) -> Iterator[np.ndarray]:
    """Yield all frames in batches, which threads decode."""
    size = {"height": video.height, "width": video.width}
    for batch in read_frames(video, np.arange(NUM_FRAMES) / 25.0, **size, threads=2, batch_frames=4):
        yield batch.pixels


def read_in_this_thread(video: Video) -> Iterator[np.ndarray]:
    """Yield all frames, one by one."""
    times = np.arange(NUM_FRAMES) / 25.0
    for pixels, _ in PyAVDecoder().frames(video, [times], height=video.height, width=video.width):
        yield pixels[None]


@pytest.mark.parametrize("read", [read_in_threads, read_in_this_thread])
def test_frames_that_were_begun_before_a_fork_are_refused_in_the_child(
    read: Callable[[Video], Iterator[np.ndarray]], video: Video
) -> None:
    batches = read(video)
    first = frame_numbers(next(batches))

    def go_on() -> str:
        try:
            next(batches)
        except VideoError as error:
            return str(error)
        return "no error"

    message = Child(go_on).value()
    assert "was begun in another process" in message and "\n" not in message
    assert first + [number for batch in batches for number in frame_numbers(batch)] == list(range(NUM_FRAMES))


class FrameDataset:
    """The numbers of a video's frames, read in whatever process asks for one."""

    def __init__(self, video: Video) -> None:
        self._video = video

    def __len__(self) -> int:
        return 400

    def __getitem__(self, position: int) -> int:
        return numbers_of(self._video, [position % NUM_FRAMES])[0]


@pytest.mark.slow
def test_workers_of_a_data_loader_read_the_right_frames(video: Video) -> None:
    from torch.utils.data import DataLoader

    dataset: Any = FrameDataset(video)
    assert [dataset[0], dataset[50]] == [0, 50]
    loader: Iterator[Any] = iter(DataLoader(dataset, batch_size=8, num_workers=3, multiprocessing_context="fork"))
    mine = [dataset[position] for position in range(NUM_FRAMES)]
    read = [number for batch in loader for number in batch.tolist()]
    assert mine == list(range(NUM_FRAMES))
    assert read == [position % NUM_FRAMES for position in range(400)]

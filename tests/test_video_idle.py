"""Files that wait for the next reading, while garbage collection ends readings that nobody finished."""

import gc
import shutil
import threading

import numpy as np
import pytest

from lvqa.video import inspect_video
from lvqa.video.decoders import DECODERS

NUM_PLACES = 60
NUM_IDLE = 8
"""So many files stay open for the next reading."""


def decoded(video, *times):
    """The frames at some times, in the thread that reads them."""
    decoder = DECODERS["pyav"]()
    return decoder.frames(video, decoder.split_times(video, np.array(times)), height=56, width=56)


def abandon_a_reading(video):
    """Leave a reading in a cycle that only garbage collection ends; its file then becomes idle."""
    reading = decoded(video, 0.0, 1.0, 2.0)
    next(reading)
    cycle = [reading]
    cycle.append(cycle)


@pytest.mark.slow
@pytest.mark.parametrize("num_others", [0, NUM_IDLE])
def test_garbage_collection_may_end_a_reading_anywhere_in_another_one(synthetic_video, tmp_path, num_others):
    """It once ran while a thread took an idle file, in the same thread, which waited for itself for ever, or failed.

    The interpreter has spare tuples, without which making one may collect; so they are used up.
    """
    for number in range(num_others):
        other = shutil.copy(synthetic_video(), tmp_path / f"{number}.mp4")
        list(decoded(inspect_video(other), 3.0))
    spare = [tuple([None] * size) for size in range(1, 20) for _ in range(2000)]
    video, finished = inspect_video(synthetic_video()), []

    def read_with_collections():
        for number in range(NUM_PLACES):
            gc.disable()
            abandon_a_reading(video)
            reading = decoded(video, 3.0, 4.0)
            gc.set_threshold(gc.get_count()[0] + number)
            gc.enable()
            finished.append(len(list(reading)))

    thresholds = gc.get_threshold()
    thread = threading.Thread(target=read_with_collections, daemon=True)
    try:
        thread.start()
        thread.join(timeout=90)  # a thread that waits for itself never ends; a busy machine takes a while
    finally:
        gc.set_threshold(*thresholds)
        gc.enable()
    assert spare and finished == [2] * NUM_PLACES

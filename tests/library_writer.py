"""A process that saves made indexes, adds them to the library's table, and says which are saved; tests kill it."""

from __future__ import annotations

import sys
from pathlib import Path

from indexes import SPEC, make_index

from lvqa.index import Store
from lvqa.library.indexed import indexed_states
from lvqa.library.table import BusyError, ClipTable
from lvqa.records import Video


def save_video(store: Store, number: int, *, num_clips: int = 12, dim: int = 32) -> str:
    """Save the index of a made video, and return its id."""
    video_id = f"{number:016x}"
    index = make_index(num_clips, dim, seed=number, video_id=video_id)
    store.save(index, Video(Path(f"/videos/{number % 3}/{number}.mp4"), video_id, 16.0 * num_clips, 48, 64, 25.0))
    return video_id


def write_videos(folder: Path, first: int, last: int, *, at_once: int) -> None:
    """Save videos and add them to the table, so many at once; print the id of each that is saved."""
    store = Store(folder)
    for number in range(first, last):
        sys.stdout.write(save_video(store, number) + "\n")
        sys.stdout.flush()
        if number % at_once == 0:
            try:
                ClipTable(store, SPEC).update(indexed_states(store, SPEC))
            except BusyError:
                continue


if __name__ == "__main__":
    write_videos(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), at_once=int(sys.argv[4]))

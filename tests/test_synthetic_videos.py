"""Synthetic videos as files."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from synthetic_truth import mean_difference

from lvqa.records import LvqaError
from lvqa.synthetic.drawing import draw
from lvqa.synthetic.script import Variety, write_script
from lvqa.synthetic.videos import make_videos, write_video
from lvqa.synthetic.world import HEIGHT, WIDTH
from lvqa.video import inspect_video, read_frames

SEED, MINUTES = 5, 3
PASSING = 1.25
"""Seconds after an event in which something may still leave or enter."""


@pytest.mark.slow
def test_a_video_file_shows_its_script(synthetic_video):
    video, script = inspect_video(synthetic_video(seed=SEED, minutes=MINUTES)), write_script(SEED, MINUTES)
    assert (video.height, video.width, video.frames_per_second) == (HEIGHT, WIDTH, 8)
    assert video.duration_seconds == script.duration_seconds
    assert sum(take.event is not None for take in script.takes) >= 3
    moments = sorted(
        (seconds, shot, take)
        for take in script.takes
        for shot in take.shots
        for seconds in (
            shot.start_seconds + (PASSING if shot is not take.shots[0] else 0),
            (shot.start_seconds + shot.end_seconds) // 2,
            shot.end_seconds - 1 / 8,
        )
    )
    times = [seconds for seconds, _, _ in moments]
    pixels = np.concatenate([batch.pixels for batch in read_frames(video, times, height=HEIGHT, width=WIDTH)])
    for (seconds, shot, take), frame in zip(moments, pixels, strict=True):
        assert mean_difference(frame, draw(shot.scene, seconds - shot.start_seconds)) < 6, seconds
        others = [other for other in script.takes if other is not take]
        assert all(mean_difference(frame, draw(other.shots[0].scene, 1)) > 12 for other in others), seconds


def some_frames(path: Path) -> np.ndarray:
    batches = read_frames(inspect_video(path), [0, 20, 40, 59], height=HEIGHT, width=WIDTH)
    return np.concatenate([batch.pixels for batch in batches])


@pytest.mark.slow
def test_a_video_file_that_exists_is_kept(tmp_path):
    def make() -> list[Path]:
        return make_videos(tmp_path, num_videos=2, minutes=1, num_questions=2, seed=6)

    first, second = make()
    modified, frames = first.stat().st_mtime_ns, some_frames(second)
    second.unlink()
    assert make() == [first, second]
    assert first.stat().st_mtime_ns == modified
    assert mean_difference(some_frames(second), frames) < 1  # x264 does not always write the same bytes
    lines = [json.loads(line) for line in (tmp_path / "video_info.meta.jsonl").read_text().splitlines()]
    assert [line["key"] for line in lines] == [first.stem, second.stem]
    assert [[item["uid"] for item in line["qa"]] for line in lines] == [["6-0", "6-1"], ["7-0", "7-1"]]


def test_an_interrupted_video_leaves_no_file(tmp_path):
    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_video(write_script(0, 1), tmp_path / "video.mp4", interrupt)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_videos": 0}, "videos must be 1 or more, got 0"),
        ({"minutes": 0.5}, "minutes must be 1 or more, got 0.5"),
        ({"minutes": -1}, "minutes must be 1 or more, got -1"),
        ({"minutes": float("nan")}, "minutes must be 1 or more, got nan"),
        ({"minutes": float("inf")}, "minutes must be 1 to 1440, got inf"),
        ({"minutes": 1441}, "minutes must be 1 to 1440, got 1441"),
        ({"num_questions": 0}, "questions must be 1 or more, got 0"),
        pytest.param({"num_questions": 3000, "seed": 8}, "room for", marks=pytest.mark.slow),
        ({"seed": -1}, "seed must be 0 or more, got -1"),
        ({"variety": Variety((5, 4))}, "take_seconds must be the shortest and the longest in seconds"),
        ({"variety": Variety((float("nan"), 4))}, "take_seconds must be"),
        ({"variety": Variety((0.5, 4))}, "the shortest at least 2, got 0.5 and 4"),
        ({"variety": Variety(lookalikes=-1)}, "lookalikes must be 0 to 10, got -1"),
    ],
)
def test_bad_numbers_are_refused_before_anything_is_written(tmp_path, changes, message):
    arguments = {"num_videos": 1, "minutes": 1, "num_questions": 1, "seed": 0} | changes
    with pytest.raises(LvqaError, match=re.escape(message)):
        make_videos(tmp_path / "videos", **arguments)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "dataset").write_text("")
    with pytest.raises(LvqaError, match=r"cannot write videos into .*dataset"):
        make_videos(tmp_path / "dataset", num_videos=1, minutes=1, num_questions=1, seed=0)

"""The script that compares what is read of a folder of videos with other ways to read them."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from video_files import write_video

import measure_corpus
from measure_corpus import ChildError, damage, in_child, judge, read_with_lvqa, read_with_pyav

# The other threads of the tests' process, if there are any, hold no lock that the script needs.
pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork\\(\\) may lead to deadlocks:DeprecationWarning")


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("corpus") / "video.mp4", 60, options={"g": "20"})


def run(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *options: str) -> Any:
    monkeypatch.setattr(sys, "argv", ["measure_corpus.py", str(folder), "--json", *options])
    exit_code = measure_corpus.main()
    return exit_code, {row["file"]: row["verdict"] for row in map(json.loads, capsys.readouterr().out.splitlines())}


@pytest.mark.slow
def test_every_file_has_a_verdict(video, monkeypatch, capsys):
    (video.parent / "text.mp4").write_text("no video")
    assert run(video.parent, monkeypatch, capsys) == (0, {"text.mp4": "refused", "video.mp4": "right"})


@pytest.mark.slow
def test_damaged_copies_depend_on_the_seed_alone(video, monkeypatch, capsys, tmp_path):
    for name in ("a", "b"):
        exit_code, verdicts = run(
            video.parent,
            monkeypatch,
            capsys,
            "--mutate",
            "3",
            "--copies",
            str(tmp_path / name),
            "--limit-seconds",
            "20",
        )
        assert exit_code == 0 and len(verdicts) == 3
    assert [path.read_bytes() for path in sorted((tmp_path / "a").iterdir())] == [
        path.read_bytes() for path in sorted((tmp_path / "b").iterdir())
    ]


@pytest.mark.parametrize("kind", ["zero", "flip", "cut", "remove", "splice"])
def test_damage_changes_the_bytes(kind):
    data = bytes(range(1, 256)) * 4
    damaged = damage(bytearray(data), kind, random.Random(0))
    assert damaged != data and (len(damaged) == len(data)) == (kind in ("zero", "flip"))


@pytest.mark.slow
def test_what_is_wrong_is_called_so(video):
    reading, reference = read_with_lvqa(video, seed=0), read_with_pyav(video)
    assert not reading.refusal and reference is not None
    assert judge(reading, [reference]) == ("right", "")
    late = dataclasses.replace(reading, seconds=tuple(seconds + 0.5 for seconds in reading.seconds))
    verdict, reason = judge(late, [reference])
    assert verdict == "wrong" and "not frame" in reason
    assert judge(dataclasses.replace(late, warning="a gap"), [reference])[0] == "warned"
    verdict, reason = judge(dataclasses.replace(reading, num_frames=61), [reference])
    assert (verdict, reason) == ("wrong", "61 frames, expected 60")
    backward = dataclasses.replace(reference, pictures=np.ascontiguousarray(reference.pictures[::-1]))
    verdict, reason = judge(reading, [reference, backward])
    assert verdict == "ambiguous" and reason.endswith("lvqa agrees with PyAV")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("work", "argument", "verdict"),
    [(time.sleep, 30, "hang"), (os._exit, 3, "crash"), (int, "three", "traceback")],
)
def test_a_process_that_fails_has_a_verdict(work: Callable[..., Any], argument: object, verdict: str) -> None:
    with pytest.raises(ChildError) as failure:
        in_child(0.5 if verdict == "hang" else 20.0, work, argument)
    assert failure.value.verdict == verdict
    assert in_child(20.0, int, "3") == 3

"""How long the driver takes videos to be, before it gives them out."""

import os
from pathlib import Path

import pytest
import video_files

from lvqa.evaluation.lengths import BYTES_PER_SECOND, video_lengths


@pytest.mark.slow
def test_lengths_are_those_of_headers_and_of_others_by_size(tmp_path: Path) -> None:
    long = video_files.write_video(tmp_path / "long.mp4", 80, fps=4)
    short = video_files.write_video(tmp_path / "short.mp4", 20, fps=4)
    unreadable = tmp_path / "unreadable.mp4"
    unreadable.write_bytes(os.urandom(3 * long.stat().st_size))
    missing = tmp_path / "missing.mp4"
    lengths = video_lengths([short, unreadable, long, missing])
    assert lengths[long] == pytest.approx(20) and lengths[short] == pytest.approx(5)
    rates = sorted((long.stat().st_size / 20, short.stat().st_size / 5))
    assert 3 * long.stat().st_size / rates[1] <= lengths[unreadable] <= 3 * long.stat().st_size / rates[0]
    assert lengths[missing] == 0


@pytest.mark.slow
def test_without_a_header_the_size_decides(tmp_path: Path) -> None:
    path = tmp_path / "unreadable.mp4"
    path.write_bytes(bytes(BYTES_PER_SECOND))
    assert video_lengths([path]) == {path: 1.0}

"""decord gives the frames that PyAV gives, or refuses the file by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import video_files
from video_files import SIMPLE_VIDEOS, UNUSUAL_VIDEOS, cached_video, read_pixels

from lvqa.video import VideoError, inspect_video
from lvqa.video.metadata import timeline_of

pytestmark = pytest.mark.slow

FAULTS = Path(__file__).parent / "data" / "video_faults"

REFUSED = {
    "cut.mp4": "it has 50 frames of 45",
    "open_groups.mp4": "s is wrong",
    "open_groups_hevc.mp4": "s is wrong",
    "stream.ts": "h264 in mpegts, and not",
    "mpeg2.mpg": "mpeg2video in mpeg, and not",
    "mpeg4.avi": "mpeg4 in avi, and not",
    "pictures.gif": "gif in gif, and not",
    "nostss_opengop265.mp4": "s is wrong",
    "multi_video_default2.mkv": "there are 2 video streams",
}
"""Files that decord reads wrongly -> why they are refused."""


def read_by_decord(path: Path) -> str | None:
    """Check that frames are equal to PyAV's, or that the file is refused by name; return why it was refused."""
    video = inspect_video(path)
    seconds = timeline_of(video.path).frame_seconds.tolist()
    for times in (seconds[:: 1 + len(seconds) // 50], seconds[2::7][:10], seconds[2 * len(seconds) // 3 :][:1]):
        if not times:
            continue
        expected, _ = read_pixels(video, times)
        try:
            pixels, substituted = read_pixels(video, times, "decord")
        except VideoError as error:
            start, end = f"{path}: decord does not read this file right (", "); video.decoder: pyav reads it"
            assert str(error).startswith(start) and str(error).endswith(end)
            return str(error)
        assert np.abs(pixels.astype(int) - expected).mean(axis=(1, 2, 3)).max() < 1 and not substituted.any()
    return None


@pytest.mark.parametrize("name", [*SIMPLE_VIDEOS, *UNUSUAL_VIDEOS])
def test_a_video_is_read_right_or_refused(name: str, tmp_path: Path) -> None:
    reason = read_by_decord(cached_video(name, tmp_path))
    assert REFUSED.get(name, "") in (reason or "")
    assert reason is None or name in UNUSUAL_VIDEOS


@pytest.mark.parametrize("name", sorted(path.name for path in FAULTS.iterdir()))
def test_a_faulty_video_is_read_right_or_refused(name: str) -> None:
    reason = read_by_decord(FAULTS / name)
    assert REFUSED.get(name, "") in (reason or "")


@pytest.mark.parametrize("name", ["constant.mp4", "later.mkv", "vp9.webm"])
def test_a_damaged_video_is_read_right_or_refused(name: str, tmp_path: Path) -> None:
    """decord gives frames that the codec has concealed, and does not tell which."""
    source = cached_video(name, tmp_path)
    reasons = [
        read_by_decord(
            video_files.damaged(source, tmp_path / f"damaged_{seed}_{name}", start=start, end=start + 0.004, seed=seed)
        )
        for seed, start in enumerate((0.23, 0.4, 0.49, 0.75))
    ]
    assert any(reason and "s is damaged" in reason for reason in reasons) or name == "vp9.webm"

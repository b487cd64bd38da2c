"""Encrypted files and still images are called so, in one line, before a model is loaded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import video_files
from PIL import Image

from lvqa.video import VideoError, inspect_video

KEYS = {"encryption_scheme": "cenc-aes-ctr", "encryption_key": "00" * 16, "encryption_kid": "11" * 16}


@pytest.mark.parametrize("flags", ["", "faststart", "frag_keyframe+empty_moov"])
def test_an_encrypted_mp4_is_called_so(flags: str, tmp_path: Path) -> None:
    path = video_files.write_video(
        tmp_path / "video.mp4", container_options=KEYS | {"movflags": flags} if flags else KEYS
    )
    with pytest.raises(VideoError, match=f"^{path}: it is encrypted"):
        inspect_video(path)


@pytest.mark.parametrize("packet_bytes", [188, 192])
def test_a_scrambled_broadcast_is_called_so(packet_bytes: int, tmp_path: Path) -> None:
    """All packets of the video are scrambled; those of the tables stay readable."""
    options = {"mpegts_m2ts_mode": "1" if packet_bytes == 192 else "0"}
    path = video_files.write_video(tmp_path / "video.ts", container_options=options)
    assert inspect_video(path).duration_seconds == 2.0
    data = bytearray(path.read_bytes())
    rng = np.random.default_rng(0)
    starts = range(packet_bytes - 188, len(data), packet_bytes)
    pids = [int.from_bytes(data[start + 1 : start + 3]) & 0x1FFF for start in starts]
    for start, pid in zip(starts, pids, strict=True):
        if pid == max(pids, key=pids.count):
            data[start + 3] |= 0x80
            payload = start + 4 + (1 + data[start + 4] if data[start + 3] & 0x20 else 0)
            data[payload : start + 188] = rng.bytes(start + 188 - payload)
    path.write_bytes(data)
    with pytest.raises(VideoError, match=f"^{path}: it is encrypted"):
        inspect_video(path)


def test_an_encrypted_wmv_is_called_so(tmp_path: Path) -> None:
    path = video_files.write_video(tmp_path / "video.wmv", codec="wmv2")
    assert inspect_video(path).duration_seconds == pytest.approx(2.0, abs=0.1)
    data = bytearray(path.read_bytes())
    encryption = bytes.fromhex("fbb3112223bdd211b4b700a0c955fc6e") + (40).to_bytes(8, "little") + bytes(16)
    size, count = int.from_bytes(data[16:24], "little"), int.from_bytes(data[24:28], "little")
    data[16:28] = (size + len(encryption)).to_bytes(8, "little") + (count + 1).to_bytes(4, "little")
    data[30:30] = encryption
    path.write_bytes(data)
    with pytest.raises(VideoError, match=f"^{path}: it is encrypted"):
        inspect_video(path)


@pytest.mark.parametrize("name", ["PNG", "JPEG", "WebP", "BMP", "TIFF", "GIF", "AVIF"])
@pytest.mark.parametrize("suffix", ["", ".mp4"])
def test_a_still_image_is_refused_as_one(name: str, suffix: str, tmp_path: Path) -> None:
    if name.upper() not in Image.registered_extensions().values():
        pytest.skip(f"Pillow writes no {name} here")
    path = tmp_path / f"picture.{name.lower()}{suffix}"
    Image.fromarray(np.zeros((64, 64, 3), dtype=np.uint8)).save(path, format=name)
    with pytest.raises(VideoError) as error:
        inspect_video(path)
    assert str(error.value) == f"{path}: it is a still image ({name}); expected a video"


def test_a_moving_gif_and_a_video_of_one_frame_are_videos(tmp_path: Path) -> None:
    assert inspect_video(video_files.write_video(tmp_path / "two.gif", 2, codec="gif")).duration_seconds > 0
    assert inspect_video(video_files.write_video(tmp_path / "one.mp4", 1)).duration_seconds > 0


def test_a_file_of_noise_is_not_called_encrypted(tmp_path: Path) -> None:
    path = tmp_path / "noise.ts"
    path.write_bytes(np.random.default_rng(0).bytes(300_000))
    with pytest.raises(VideoError, match="not readable as video"):
        inspect_video(path)

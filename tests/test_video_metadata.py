"""What is read from a file once, and stored; and which files are refused."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import video_files
from video_files import cached_video, frame_numbers, read_pixels

import lvqa.video
from lvqa.records import Video
from lvqa.video import METADATA_FORMAT, FrameGrid, VideoError, inspect_video, store_metadata
from lvqa.video.metadata import timeline_of


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("videos")


@pytest.fixture(scope="module")
def video(folder: Path) -> Video:
    return inspect_video(video_files.write_video(folder / "video.mp4"))


def test_inspect_video_returns_what_the_file_holds(video: Video, folder: Path) -> None:
    assert (video.duration_seconds, video.frames_per_second, video.height, video.width) == (2.0, 25.0, 96, 160)
    assert video.path.is_absolute() and len(video.id) == 16 and int(video.id, 16) >= 0


def test_the_id_depends_on_the_bytes_alone(video: Video, folder: Path) -> None:
    copy = folder / "copy.mov"
    copy.write_bytes(video.path.read_bytes())
    assert inspect_video(copy).id == video.id
    assert inspect_video(video_files.write_video(folder / "shorter.mp4", 49)).id != video.id


def test_a_file_that_has_changed_is_read_again(folder: Path) -> None:
    path = video_files.write_video(folder / "changing.mp4", 10)
    assert inspect_video(path).duration_seconds == 0.4
    assert inspect_video(video_files.write_video(path, 20)).duration_seconds == 0.8


def test_metadata_that_is_not_text_does_no_harm(folder: Path) -> None:
    path = video_files.write_video(folder / "title.mp4", 5, metadata={"title": "QQQQ"})
    path.write_bytes(path.read_bytes().replace(b"QQQQ", b"\xff\xfe\xff\xfe"))
    assert inspect_video(path).duration_seconds == 0.2


def inspect_as_new_process(path: Path, metadata_folder: Path) -> Video:
    """Inspect a file as a process does that knows of no video yet."""
    lvqa.video.metadata.read_metadata.cache_clear()
    return inspect_video(path, metadata_folder=metadata_folder)


def fail_if_called(*_: object) -> None:
    raise AssertionError("the file was read again")


@pytest.mark.parametrize("name", ["irregular.mp4", "turned.mp4", "open_groups.ts", "h264.avi", "vp9.webm"])
def test_stored_metadata_are_known_to_the_next_process(
    name: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = cached_video(name, folder)
    first, keyframes = inspect_as_new_process(path, tmp_path), timeline_of(path).keyframe_seconds().tolist()
    times = FrameGrid.exact(first, 5.0).times_seconds.tolist()
    pixels, _ = read_pixels(first, times)
    assert not list(tmp_path.iterdir()), "inspecting a file writes nothing"
    store_metadata(path, tmp_path)
    (stored,) = tmp_path.glob("*.metadata.npz")
    with monkeypatch.context() as patched:
        patched.setattr(lvqa.video.metadata, "open_stream", fail_if_called)
        patched.setattr(lvqa.video.metadata, "read_timeline", fail_if_called)
        assert inspect_as_new_process(path, tmp_path) == first
        stored_at = stored.stat().st_mtime_ns
        store_metadata(path, tmp_path)
    assert stored.stat().st_mtime_ns == stored_at
    assert timeline_of(path).keyframe_seconds().tolist() == keyframes
    again, substituted = read_pixels(first, times)
    assert np.array_equal(again, pixels) and not substituted.any()


def test_stored_metadata_are_not_those_of_a_file_that_has_changed(folder: Path, tmp_path: Path) -> None:
    path = video_files.write_video(folder / "stored_and_changed.mp4", 10)
    store_metadata(path, tmp_path)
    (stored,) = tmp_path.glob("*.metadata.npz")
    with np.load(stored) as file:
        content = dict(file)
    change_columns(stored, frame_ticks=content["frame_ticks"][:5])
    assert inspect_as_new_process(path, tmp_path).frames_per_second < 25.0, "stored metadata are believed"
    os.utime(path, ns=(1, 1))
    assert inspect_as_new_process(path, tmp_path).frames_per_second == 25.0, "but not those of a changed file"
    store_metadata(path, tmp_path)
    with np.load(stored) as file:
        assert len(file["frame_ticks"]) == 10 and file["fingerprint"] != content["fingerprint"]


def test_metadata_of_another_format_are_not_used(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = video_files.write_video(folder / "stored_in_old_format.mp4", 10)
    store_metadata(path, tmp_path)
    (stored,) = tmp_path.glob("*.metadata.npz")
    with np.load(stored) as file:
        frame_ticks = file["frame_ticks"]
    change_columns(stored, frame_ticks=frame_ticks[:5])
    monkeypatch.setattr(lvqa.video.metadata, "METADATA_FORMAT", METADATA_FORMAT + 1)
    assert inspect_as_new_process(path, tmp_path).frames_per_second == 25.0


def change_columns(path: Path, **changes: object) -> None:
    """Replace columns of a metadata file, or remove those that are None."""
    with np.load(path) as file:
        content = dict(file) | changes
    with path.open("wb") as file:
        np.savez(file, **{name: value for name, value in content.items() if value is not None})


def compress(path: Path) -> None:
    """Compress a metadata file that needs much more memory than disk."""
    with np.load(path) as file:
        content = dict(file) | {"more": np.zeros(1 << 20)}
    with path.open("wb") as file:
        np.savez_compressed(file, **content)


def flip_bit(path: Path) -> None:
    """Flip one bit of a column."""
    with np.load(path) as file:
        ticks = file["packet_ticks"].tobytes()
    content = path.read_bytes()
    i = content.index(ticks) + 8
    path.write_bytes(content[:i] + bytes([content[i] ^ 1]) + content[i + 1 :])


INVALID_METADATA: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-100]),
    "a flipped bit": flip_bit,
    "text": lambda path: path.write_text("hello"),
    "an array": lambda path: (np.save(path.with_suffix(".npy"), np.arange(9)), path.with_suffix(".npy").replace(path)),
    "objects": lambda path: change_columns(path, frame_ticks=np.array([{}, 0], dtype=object)),
    "larger than the file": compress,
    "a folder": lambda path: (path.unlink(), path.mkdir()),
    "a pipe": lambda path: (path.unlink(), os.mkfifo(path)),
    "no packet sizes": lambda path: change_columns(path, packet_sizes=None),
    "no frames": lambda path: change_columns(path, frame_ticks=np.zeros(0, dtype=np.int64)),
    "frames without a packet": lambda path: change_columns(path, frame_ticks=np.arange(7)),
    "descending times": lambda path: change_columns(path, frame_ticks=np.arange(9)[::-1] * 512),
    "fractional times": lambda path: change_columns(path, frame_ticks=np.arange(9) * 512.0),
    "keyframes outside": lambda path: change_columns(path, keyframe_positions=np.array([0, 1 << 40])),
    "no keyframes": lambda path: change_columns(path, keyframe_positions=np.zeros(0, dtype=np.int64)),
    "a tick of 0 s": lambda path: change_columns(path, scalars=np.array([96, 160, 1 << 40, 1, 0, 1])),
    "a division by 0": lambda path: change_columns(path, scalars=np.array([96, 160, 1 << 40, 1, 1, 0])),
    "no height": lambda path: change_columns(path, scalars=np.array([0, 160, 1 << 40, 1, 1, 12800])),
}


@pytest.mark.parametrize("corrupt", INVALID_METADATA.values(), ids=INVALID_METADATA)
def test_invalid_metadata_are_read_again_from_the_file(
    corrupt: Callable[[Path], object], video: Video, tmp_path: Path
) -> None:
    store_metadata(video.path, tmp_path)
    (stored,) = tmp_path.glob("*.metadata.npz")
    corrupt(stored)
    assert inspect_as_new_process(video.path, tmp_path) == video
    assert frame_numbers(read_pixels(video, [0.0, 1.0])[0]) == [0, 25]


def test_a_folder_that_refuses_files_does_no_harm(video: Video, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "nowhere"):
        store_metadata(video.path, folder)
        assert inspect_as_new_process(video.path, folder) == video
    store_metadata(tmp_path / "no_video.mp4", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def playlists(folder: Path, video: Video) -> dict[str, bytes]:
    """Return texts that FFmpeg would follow to another file or to the network."""
    name = os.fsencode(video.path)
    return {
        "list.m3u8": b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n" + name + b"\n#EXT-X-ENDLIST\n",
        "list.mp4": b"ffconcat version 1.0\nfile " + name + b"\n",
        "call.sdp": b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n"
        b"a=rtpmap:96 H264/90000\n",
    }


UNREADABLE = {
    "missing.mp4": "No such file",
    "folder.mp4": "this is a folder",
    "empty.mp4": "the file is empty",
    "pipe.mp4": "not a regular file",
    "/dev/zero": "not a regular file",
    "text.mp4": "not readable as video",
    "noise.mp4": "not readable as video",
    "no_moov.mp4": "not readable as video",
    "no_frame.mp4": "not one frame can be decoded",
    "picture.png": "it is a still image",
    "sound.m4a": "no video stream",
    "list.m3u8": "not readable as video",
    "list.mp4": "not readable as video",
    "call.sdp": "not readable as video",
    "loop.mp4": "[Ll]oop",
    "nul\0.mp4": "null",
    "concat:video.mp4|video.mp4": "No such file",
}


@pytest.fixture(scope="module")
def unreadable(tmp_path_factory: pytest.TempPathFactory, video: Video) -> Path:
    import cv2

    folder = tmp_path_factory.mktemp("unreadable")
    (folder / "folder.mp4").mkdir()
    os.mkfifo(folder / "pipe.mp4")
    (folder / "loop.mp4").symlink_to(folder / "loop.mp4")
    cv2.imwrite(str(folder / "picture.png"), video_files.picture(3))
    video_files.write_sound(folder / "sound.m4a")
    video_files.truncated(video.path, folder / "no_moov.mp4")
    video_files.damaged(video.path, folder / "no_frame.mp4", start=0.01, end=0.8)
    texts = {"empty.mp4": b"", "text.mp4": b"hello\n" * 999, "noise.mp4": np.random.default_rng(0).bytes(9999)}
    for name, data in {**texts, **playlists(folder, video)}.items():
        (folder / name).write_bytes(data)
    return folder


@pytest.mark.parametrize(("name", "reason"), UNREADABLE.items())
def test_what_is_not_a_video_is_refused_in_one_line(
    name: str, reason: str, unreadable: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(unreadable)
    with pytest.raises(VideoError, match=reason) as caught:
        inspect_video(name)
    message = str(caught.value)
    assert "\n" not in message and Path(name).name in message and "; expected a " in message


def test_an_address_that_nothing_here_reads_is_refused() -> None:
    with pytest.raises(VideoError, match=r"^rtsp://127\.0\.0\.1:9/a\.mp4 is an address that lvqa does not read \(it"):
        inspect_video("rtsp://127.0.0.1:9/a.mp4")

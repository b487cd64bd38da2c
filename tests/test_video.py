"""Which frames are read, and with which pixels, from whole and damaged files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import video_files
from video_files import (
    SIMPLE_VIDEOS,
    UNUSUAL_VIDEOS,
    cached_video,
    decode_fully,
    frame_numbers,
    indices_at,
    read_pixels,
)

import lvqa.video
from lvqa.records import Video
from lvqa.video import DECODERS, FrameGrid, VideoError, inspect_video, read_frames


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("videos")


@pytest.fixture(scope="module")
def video(folder: Path) -> Video:
    return inspect_video(video_files.write_video(folder / "video.mp4"))


CASES = [
    *((decoder, name) for decoder in DECODERS for name in SIMPLE_VIDEOS),
    *(("pyav", name) for name in UNUSUAL_VIDEOS),
]


@pytest.mark.parametrize(("decoder", "name"), CASES)
@pytest.mark.slow
def test_frames_are_those_of_a_full_decode(decoder: str, name: str, folder: Path) -> None:
    path = cached_video(name, folder)
    video = inspect_video(path)
    starts, pixels = decode_fully(path)
    assert (video.height, video.width) == pixels[0].shape[:2]
    for fps in (7.3, 1.1, 60.0):
        grid = FrameGrid.exact(video, fps)
        seconds = [grid.seconds_of(frame) for frame in range(grid.num_frames)]
        frames, substituted = read_pixels(video, seconds, decoder)
        expected = np.stack([pixels[i] for i in indices_at(seconds, starts)])
        assert not substituted.any()
        if decoder == "pyav":
            np.testing.assert_array_equal(frames, expected)  # skipping changes no pixel
        else:
            assert np.abs(frames.astype(int) - expected).mean() < 3


@pytest.mark.parametrize("name", [*SIMPLE_VIDEOS, *UNUSUAL_VIDEOS])
@pytest.mark.parametrize("max_skipped", [0, 50])
@pytest.mark.slow
def test_threads_and_seeks_change_no_frame(
    name: str, max_skipped: int, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lvqa.video.timeline, "CHUNK_PACKETS", 1)  # every group of pictures is a chunk
    monkeypatch.setattr(lvqa.video.frame_reader, "MAX_SKIPPED_PACKETS", max_skipped)
    path = cached_video(name, folder)
    video = inspect_video(path)
    starts, pixels = decode_fully(path)
    for step in (0.04, 0.37, 0.61):
        seconds = np.arange(0, video.duration_seconds - 1e-6, step).tolist()
        expected = np.stack([pixels[i] for i in indices_at(seconds, starts)])
        for threads in (1, 2, 3):
            frames, substituted = read_pixels(video, seconds, threads=threads)
            assert not substituted.any()
            np.testing.assert_array_equal(frames, expected)


@pytest.mark.parametrize("name", ["constant.mp4", "cut.mp4", "later.mkv", "vp9.webm", "mpeg4.avi"])
@pytest.mark.slow
def test_a_far_frame_is_reached_by_a_seek(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lvqa.video.frame_reader, "MAX_SKIPPED_PACKETS", 0)
    path = cached_video(name, folder)
    video, (starts, pixels) = inspect_video(path), decode_fully(path)
    num_packets = 0

    def counting_demux(*arguments: object) -> Iterator[object]:
        nonlocal num_packets
        for packet in demux(*arguments):
            num_packets += 1
            yield packet

    demux = lvqa.video.frame_reader.demux
    monkeypatch.setattr(lvqa.video.frame_reader, "demux", counting_demux)
    seconds = [video.duration_seconds - 0.02]
    np.testing.assert_array_equal(read_pixels(video, seconds)[0][0], pixels[indices_at(seconds, starts)[0]])
    assert num_packets <= 25  # of 45 or more


@pytest.mark.parametrize("decoder", DECODERS)
def test_a_far_frame_and_the_same_frame_twice(decoder: str, video: Video) -> None:
    assert frame_numbers(read_pixels(video, [1.5], decoder)[0]) == [37]
    assert frame_numbers(read_pixels(video, [0.0, 0.0, 0.01, 0.04, 1.999], decoder)[0]) == [0, 0, 0, 1, 49]
    assert list(read_frames(video, [], height=8, width=8, decoder=decoder)) == []


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("seconds", [-0.1, 2.0, 1e9, float("nan")])
def test_a_time_outside_the_video_is_refused(decoder: str, seconds: float, video: Video) -> None:
    with pytest.raises(VideoError, match=r"video\.mp4: no frame at .* s; allowed: 0 to 2 s"):
        read_pixels(video, [seconds], decoder)


@pytest.mark.parametrize("decoder", DECODERS)
def test_times_must_ascend(decoder: str, video: Video) -> None:
    with pytest.raises(ValueError, match="ascend"):
        read_pixels(video, [1.0, 0.5], decoder)


@pytest.mark.parametrize("decoder", DECODERS)
def test_frames_have_the_requested_size(decoder: str, folder: Path) -> None:
    video = inspect_video(video_files.write_video(folder / "sideways.mp4", 5, rotation=-90))
    assert (video.height, video.width) == (video_files.WIDTH, video_files.HEIGHT)
    (batch,) = read_frames(video, [0.0, 0.1], height=50, width=30, decoder=decoder)
    assert batch.pixels.shape == (2, 50, 30, 3) and batch.pixels.flags.c_contiguous


@pytest.mark.parametrize(("start", "end", "intact"), [(0.4, 0.41, 40), (0.45, 0.55, 30), (0.1, 0.3, 31)])
def test_damage_affects_only_the_damaged_frames(
    start: float, end: float, intact: int, video: Video, folder: Path
) -> None:
    damaged = inspect_video(video_files.damaged(video.path, folder / "damaged.mp4", start=start, end=end))
    assert damaged.duration_seconds == 2.0
    pixels, substituted = read_pixels(damaged, [frame / 25 for frame in range(50)])
    frames = np.array(frame_numbers(pixels))
    assert (frames == np.arange(50))[~substituted].all()  # all but the substitutes are right
    assert 0 < substituted.sum() <= 50 - intact


def test_a_substitute_is_the_nearest_earlier_frame(folder: Path, video: Video) -> None:
    damaged = inspect_video(video_files.damaged(video.path, folder / "damaged.mp4"))
    times = [0.4, 0.9, 1.0, 1.1, 1.9]
    pixels, substituted = read_pixels(damaged, times)
    assert substituted.tolist() == [False, *substituted[1:4], False] and substituted[1:4].any()
    assert all(number <= seconds * 25 for number, seconds in zip(frame_numbers(pixels), times, strict=True))


@pytest.mark.parametrize("name", ["constant.mp4", "stream.ts", "open_groups_hevc.mp4", "later.mkv", "vp9.webm"])
@pytest.mark.slow
def test_the_frames_of_a_damaged_video_do_not_depend_on_threads(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lvqa.video.timeline, "CHUNK_PACKETS", 1)
    for start in (0.15, 0.35, 0.55, 0.75):
        source = cached_video(name, folder)
        path = video_files.damaged(source, folder / f"damaged_{start}_{name}", start=start, end=start + 0.03)
        video = inspect_video(path)
        seconds = np.arange(0, video.duration_seconds - 1e-6, 0.04).tolist()
        pixels, substituted = read_pixels(video, seconds)
        for threads in (2, 3):
            again, flags = read_pixels(video, seconds, threads=threads)
            np.testing.assert_array_equal(again, pixels)
            np.testing.assert_array_equal(flags, substituted)


def test_chunks_that_are_lost_have_substitutes_too(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lvqa.video.timeline, "CHUNK_PACKETS", 1)
    whole = video_files.write_video(folder / "index_first.mp4", container_options={"movflags": "faststart"})
    video = inspect_video(video_files.damaged(whole, folder / "half_lost.mp4", start=0.45, end=0.99))
    for seconds in (np.arange(50) / 25, np.array([0.0, 0.8, 1.3, 1.9])):
        pixels, substituted = read_pixels(video, seconds.tolist(), threads=2)
        frames = np.array(frame_numbers(pixels))
        np.testing.assert_array_equal(substituted, seconds > 0.66)  # frame 17 is the first that is lost
        assert (frames == np.round(seconds * 25))[~substituted].all() and (frames[substituted] < 17).all()


def test_a_truncated_video_ends_where_its_bytes_end(folder: Path) -> None:
    # Without B-frames packets are in the order of time, so the bytes that are left hold frames without a gap.
    options = video_files.coding_options("libx264") | {"bf": "0"}
    faststart = {"movflags": "faststart"}
    whole = video_files.write_video(folder / "whole.mp4", options=options, container_options=faststart)
    video = inspect_video(video_files.truncated(whole, folder / "truncated.mp4", 0.6))
    assert 0.5 < video.duration_seconds < 1.5
    grid = FrameGrid.exact(video, 25)
    pixels, substituted = read_pixels(video, [grid.seconds_of(frame) for frame in range(grid.num_frames)])
    frames = np.array(frame_numbers(pixels))
    assert (frames == np.arange(len(frames)))[~substituted].all() and substituted.sum() < 5
    with pytest.raises(VideoError, match="allowed: 0 to"):
        read_pixels(video, [1.9])

"""The frame grid, exact or of keyframes, and the clips that are cut from it."""

from __future__ import annotations

import math
from fractions import Fraction
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
from lvqa.pairs import pairs_of_clip
from lvqa.records import Clip, LvqaError, Video
from lvqa.video import FrameGrid, VideoError, cut_clips, inspect_video
from lvqa.video.sampling import times_on_screen
from lvqa.video.timeline import Timeline


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("videos")


@pytest.fixture(scope="module")
def video(folder: Path) -> Video:
    return inspect_video(video_files.write_video(folder / "video.mp4"))


def video_of_length(seconds: float) -> Video:
    """Return a video of which nothing but the length matters."""
    return Video(Path("/video.mp4"), "0" * 16, seconds, 96, 160, 25.0)


def dense_grid(seconds: float, fps: float) -> FrameGrid:
    """Return the grid of a video of 100 frames a second."""
    end = Fraction(seconds).limit_denominator(1000) * 100
    timeline = Timeline(np.arange(math.ceil(end)), end, Fraction(1, 100))
    return FrameGrid(times_on_screen(timeline, fps), 1 / fps)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("seconds", "fps", "num_frames", "num_pairs"),
    [
        (10.0, 1, 10, 5),
        (10.1, 1, 11, 6),
        (9.9, 1, 10, 5),
        (0.04, 1, 1, 1),
        (0.1, 30, 3, 2),  # 0.1 * 30 is 3.0000000000000004
        (0.7, 10, 7, 4),
        (1.1, 10, 11, 6),  # 1.1 * 10 is 11.000000000000002
        (3.0, 0.1, 1, 1),
        (36000.0, 2, 72000, 36000),
        (3600.04, 29.97, 107894, 53947),
    ],
)
def test_grid(seconds: float, fps: float, num_frames: int, num_pairs: int) -> None:
    grid = dense_grid(seconds, fps)
    assert (grid.num_frames, grid.num_pairs) == (num_frames, num_pairs)
    assert grid.seconds_of(num_frames - 1) < seconds


@pytest.mark.slow
def test_grid_frames_and_seconds_are_inverse() -> None:
    for fps in (1, 2, 0.3, 7.3, 29.97, 60):
        grid = dense_grid(1000.0, fps)
        assert all(grid.frame_at(grid.seconds_of(frame)) == frame for frame in range(grid.num_frames))
        just_before = [np.nextafter(grid.seconds_of(frame), 0) for frame in range(1, grid.num_frames)]
        assert [grid.frame_at(seconds) for seconds in just_before] == list(range(grid.num_frames - 1))


def test_frame_at_stays_inside_the_grid() -> None:
    grid = dense_grid(10.5, 1)
    assert [grid.frame_at(seconds) for seconds in (-5, 0, 0.99, 1, 10.2, 99, float("inf"))] == [0, 0, 0, 1, 10, 10, 10]
    with pytest.raises(IndexError, match="grid of 11"):
        grid.seconds_of(11)


@pytest.mark.parametrize(
    ("seconds", "fps", "clip_seconds", "boundaries", "starts"),
    [
        (48.0, 1, 16, (), [0, 16, 32]),
        (50.5, 1, 16, (), [0, 16, 32, 48]),
        (49.0, 1, 16, (), [0, 16, 32, 48]),
        (5.0, 1, 16, (), [0]),
        (0.04, 1, 16, (), [0]),
        (8.0, 1, 0.1, (), [0, 2, 4, 6]),  # at least one pair
        (20.0, 2, 5, (), [0, 5, 10, 15]),
        (48.0, 1, 16, (20.2,), [0, 16, 20, 36]),  # 20.2 s is nearest to the pair at 20 s
        (48.0, 1, 16, (21.5, 22.4, 16.0), [0, 16, 22, 38]),
        (48.0, 1, 16, (-3.0, 0.2, 47.9, 99.0), [0, 16, 32]),  # no empty clip at the ends
    ],
)
def test_clips(
    seconds: float, fps: float, clip_seconds: float, boundaries: tuple[float, ...], starts: list[float]
) -> None:
    video = video_of_length(seconds)
    clips = cut_clips(video, dense_grid(seconds, fps), clip_seconds, boundaries)
    assert [clip.start_seconds for clip in clips] == starts
    assert [clip.end_seconds for clip in clips] == [*starts[1:], seconds]
    assert all(isinstance(clip, Clip) and clip.video_id == video.id for clip in clips)


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf")])
def test_a_rate_or_length_must_be_a_number_above_0(value: float) -> None:
    with pytest.raises(LvqaError, match=r"frames_per_second is .* above 0"):
        FrameGrid.exact(video_of_length(9), value)
    with pytest.raises(LvqaError, match=r"clip_seconds is .* above 0"):
        cut_clips(video_of_length(9), dense_grid(9, 1), value)


PICTURES = {
    "seven in a minute": [60 / 7 * i for i in range(7)],
    "slides": [0.0, 1.0, 2.0, 3.0, 600.0],
    "screen recording": [*np.arange(0, 5, 0.04).tolist(), 31.5, 90.0, *np.arange(100, 103, 0.04).tolist()],
    "time-lapse": [20.0 * i for i in range(60)],
}
"""When the pictures of some videos appear, in seconds."""


@pytest.mark.parametrize("name", PICTURES)
def test_a_grid_frame_is_one_of_the_videos_frames_once(name: str, folder: Path) -> None:
    times = PICTURES[name]
    video = inspect_video(video_files.write_video(folder / f"{name}.mp4", len(times), times=times))
    for fps in (0.4, 1.0, 5.0):
        grid = FrameGrid.exact(video, fps)
        all_times = np.arange(math.ceil(round(video.duration_seconds * fps, 6))) / fps
        on_screen = indices_at(all_times.tolist(), times)
        _, first = np.unique(on_screen, return_index=True)
        assert grid.times_seconds.tolist() == all_times[first].tolist()
        assert frame_numbers(read_pixels(video, grid.times_seconds.tolist())[0]) == sorted(set(on_screen))
        clips = cut_clips(video, grid, 16.0)
        assert (clips[0].start_seconds, clips[-1].end_seconds) == (0.0, video.duration_seconds)
        assert [clip.end_seconds for clip in clips[:-1]] == [clip.start_seconds for clip in clips[1:]]
        pairs = [pairs_of_clip(clip, grid) for clip in clips]
        frames = [k for group in pairs for pair in group for k in sorted({*pair})]
        assert all(pairs) and frames == list(range(grid.num_frames))


def test_slides_far_apart_are_in_no_clip_and_no_pair_together() -> None:
    grid = FrameGrid(np.array([0.0, 1, 2, 600, 601, 602]), 1.0)
    clips = cut_clips(video_of_length(603.0), grid, 16.0)
    assert [(clip.start_seconds, clip.end_seconds) for clip in clips] == [(0.0, 600.0), (600.0, 603.0)]
    assert [pairs_of_clip(clip, grid) for clip in clips] == [[(0, 1), (2, 2)], [(3, 4), (5, 5)]]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("num_frames", "step", "num_clips"),
    [
        (4320, 20.0, 309),  # of 72 minutes at a frame a second there are 270
        (100_000, 3600.0, 7143),  # and here 6,250
        (60, 50.0, 30),  # the slides of a talk: a pair is a clip
        (3, 20.0, 2),
    ],
)
def test_a_time_lapse_has_about_as_many_clips_as_its_frames_at_the_usual_step(
    num_frames: int, step: float, num_clips: int
) -> None:
    grid = FrameGrid(np.arange(num_frames) * step, 1.0)
    clips = cut_clips(video_of_length(num_frames * step), grid, 16.0)
    assert len(clips) == num_clips
    assert sum(len(pairs_of_clip(clip, grid)) for clip in clips) == math.ceil(num_frames / 2)


def test_slides_between_ordinary_parts_change_no_clip_there() -> None:
    times = np.r_[np.arange(1600.0), 1600 + np.arange(10) * 50, 2100 + np.arange(1600.0)]
    clips = cut_clips(video_of_length(3700.0), FrameGrid(times, 1.0), 16.0)
    starts = [clip.start_seconds for clip in clips]
    assert starts[:100] == (np.arange(100) * 16).tolist() and starts[-100:] == (2100 + np.arange(100) * 16).tolist()
    assert starts[100:-100] == [1600.0, 1700.0, 1800.0, 1900.0, 2000.0]


def keyframe_seconds(path: Path) -> list[float]:
    """Return when the keyframes are presented, by plain full decoding."""
    import av

    with av.open(f"file:{path}") as container:
        frames = list(container.decode(video=0))
    return [frame.time - frames[0].time for frame in frames if frame.key_frame]


@pytest.mark.parametrize(
    "name", sorted({*SIMPLE_VIDEOS, *UNUSUAL_VIDEOS} - {"h264.avi", "raw.h264", "cut.mp4", "refreshed.ts"})
)
@pytest.mark.slow
def test_keyframes_come_unchanged_at_their_times(name: str, folder: Path) -> None:
    path = cached_video(name, folder)
    video = inspect_video(path)
    grid = FrameGrid.keyframes(video, 100.0)
    assert grid.times_seconds.tolist() == pytest.approx(keyframe_seconds(path), abs=1e-6)
    starts, pixels = decode_fully(path)
    frames, substituted = read_pixels(video, grid.times_seconds.tolist(), threads=2)
    np.testing.assert_array_equal(frames, np.stack([pixels[i] for i in indices_at(grid.times_seconds, starts)]))
    assert not substituted.any()


def test_keyframes_are_decoded_alone(video: Video, monkeypatch: pytest.MonkeyPatch) -> None:
    packets = []
    decode = lvqa.video.frame_reader.decode
    grid = FrameGrid.keyframes(video, 100.0)
    monkeypatch.setattr(
        lvqa.video.frame_reader, "decode", lambda codec, packet: (packets.append(packet), decode(codec, packet))[1]
    )
    assert frame_numbers(read_pixels(video, grid.times_seconds.tolist())[0]) == [0, 10, 20, 30, 40]
    assert [packet.is_keyframe for packet in packets if packet is not None] == [True] * 5


@pytest.mark.parametrize(
    ("fps", "expected"), [(2.5, [0, 10, 20, 30, 40]), (1.3, [0, 20, 40]), (1.0, [0, 30]), (0.1, [0])]
)
def test_the_rate_limits_the_number_of_keyframes(fps: float, expected: list[int], video: Video) -> None:
    assert (FrameGrid.keyframes(video, fps).times_seconds * 25).tolist() == pytest.approx(expected)


def test_an_edit_list_that_starts_between_keyframes(folder: Path) -> None:
    video = inspect_video(cached_video("cut.mp4", folder))
    grid = FrameGrid.keyframes(video, 100.0)
    assert grid.times_seconds[0] > 0 and grid.frame_at(0.0) == 0
    clips = cut_clips(video, grid, 0.5)
    assert clips[0].start_seconds == 0 and clips[-1].end_seconds == video.duration_seconds


@pytest.mark.parametrize(
    ("name", "reason"), [("h264.avi", "are not marked"), ("long.mp4", "lie 70 s apart, more than 60")]
)
def test_keyframes_that_do_not_stand_for_the_video_are_refused(name: str, reason: str, folder: Path) -> None:
    path = folder / name
    if not path.exists():
        video_files.write_video(
            path, 50 if name == "h264.avi" else 70, fps=25 if name == "h264.avi" else 1, options={"g": "99"}
        )
    with pytest.raises(VideoError, match=rf"{name}: its keyframes {reason}; use video\.sampling: exact"):
        FrameGrid.keyframes(inspect_video(path), 1.0)


@pytest.mark.parametrize(
    ("clip_seconds", "boundaries", "starts"),
    [(16.0, (), [0, 4, 30, 50, 60]), (40.0, (), [0, 30, 60]), (40.0, (52.0,), [0, 30, 50]), (99.0, (), [0])],
)
def test_clips_of_keyframes(clip_seconds: float, boundaries: tuple[float, ...], starts: list[float]) -> None:
    grid = FrameGrid(np.array([0.0, 2, 4, 5, 30, 31, 50, 52, 60, 90]))  # pairs at 0, 4, 30, 50, 60
    clips = cut_clips(video_of_length(100.0), grid, clip_seconds, boundaries)
    assert [clip.start_seconds for clip in clips] == starts
    assert [clip.end_seconds for clip in clips] == [*starts[1:], 100.0]

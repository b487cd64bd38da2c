"""Files whose clock, streams or key frames are not what they say. The reference is to decode them from the start."""

from __future__ import annotations

import itertools
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import video_files
from video_files import frame_numbers, indices_at, read_pixels, write_video

import lvqa.video
from lvqa.records import Video
from lvqa.video import FrameGrid, inspect_video, store_metadata
from lvqa.video.clock import continue_clock, join_fields
from lvqa.video.display import SCALING, FieldMerger
from lvqa.video.metadata import timeline_of

DATA = Path(__file__).parent / "data" / "video_faults"
_OPEN_GROUPS_265 = {"preset": "ultrafast", "x265-params": "keyint=20:bframes=3:open-gop=1:log-level=none:pools=1"}


def decode_sequentially(path: Path, stream_index: int = 0) -> list[np.ndarray]:
    """Return the pixels of every frame, decoded from the start by a fresh decoder, in the order of presentation."""
    import av

    with av.open(str(path)) as container:
        stream: Any = container.streams[stream_index]
        stream.codec_context.thread_count = 1  # threads conceal damage in another way
        frames = []
        for packet in container.demux(stream):
            try:
                frames += stream.codec_context.decode(packet if packet.size else None)
            except av.error.FFmpegError:
                continue
            if not packet.size:
                break
    fields = FieldMerger()
    return [
        fields.merge(frame).reformat(frame.width, frame.height, format="rgb24", interpolation=SCALING).to_ndarray()
        for frame in frames
    ]


def assert_equal_to_sequential(video: Video, pixels: list[np.ndarray], *, substituted: bool = False) -> None:
    """Assert that the frames are equal: all at once, one second each, and some of them each by itself."""
    starts = timeline_of(video.path).frame_seconds.tolist()
    assert len(starts) == len(pixels)
    requests = [starts, FrameGrid.exact(video, 1.0).times_seconds.tolist(), starts[3::40]]
    for seconds in [*requests, *([start] for start in starts[1::9])]:
        frames, flags = read_pixels(video, seconds)
        np.testing.assert_array_equal(frames, np.stack([pixels[i] for i in indices_at(seconds, starts)]))
        assert substituted or not flags.any()


# --- streams ---------------------------------------------------------------------------------------------------------


def add_pictures(container: Any, codec: str, *, fps: int, size: tuple[int, int]) -> Any:
    """Add a stream to a container; all are added before the first one is encoded."""
    stream = container.add_stream(codec, rate=fps, options={"g": "25"})
    stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
    stream.codec_context.thread_count = 1
    return stream


def encode_pictures(stream: Any, num_frames: int, *, first: int = 0) -> None:
    """Encode grey pictures, and mux them."""
    import av

    shape = (stream.height * 3 // 2, stream.width)
    for i in range(num_frames):
        frame = av.VideoFrame.from_ndarray(np.full(shape, i % 200, np.uint8), format="yuv420p")
        frame.pts = first + i
        stream.container.mux(stream.encode(frame))
    stream.container.mux(stream.encode(None))


def encode_tone(stream: Any, seconds: float, *, first_second: float = 0.0) -> None:
    """Encode a tone, and mux it."""
    import av

    rate, size = stream.codec_context.sample_rate, 1152
    tone = (np.sin(np.arange(size) * 0.1)[None] * 3000).astype(np.int16)
    for i in range(int(seconds * rate / size)):
        frame = av.AudioFrame.from_ndarray(tone, format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = rate, round(first_second * rate) + i * size, Fraction(1, rate)
        stream.container.mux(stream.encode(frame))
    stream.container.mux(stream.encode(None))


def write_late_streams(folder: Path, name: str) -> Path:
    """Write a file whose sound begins after the part that FFmpeg probes, and return its path."""
    import av

    path, parts = folder / name, [folder / f"part{i}" for i in range(3)]
    if name == "late.ts":
        for i, (seconds, start) in enumerate([(100, 0), (2, 100), (40, 102)]):
            with av.open(str(parts[i]), "w", format="mpegts") as container:
                pictures = add_pictures(container, "mpeg2video", fps=25, size=(64, 48))
                sound = container.add_stream("mp2", rate=16000, layout="mono") if i == 1 else None
                encode_pictures(pictures, seconds * 25, first=start * 25 + i)  # no tick comes twice
                if sound is not None:
                    encode_tone(sound, seconds, first_second=start)
        path.write_bytes(b"".join(part.read_bytes() for part in parts))
        return path
    with av.open(str(parts[0]), "w", format="flv") as container:
        encode_pictures(add_pictures(container, "flv", fps=10, size=(64, 48)), 2000)
    with av.open(str(parts[1]), "w", format="flv") as container:
        encode_tone(container.add_stream("libmp3lame", rate=44100, layout="mono"), 1)
    path.write_bytes(parts[0].read_bytes() + parts[1].read_bytes()[13:])  # without its header
    return path


@pytest.mark.parametrize(("name", "num_frames"), [("late.flv", 2000), ("late.ts", 3550)])
def test_a_stream_that_begins_late_does_no_harm(name: str, num_frames: int, tmp_path: Path) -> None:
    video = inspect_video(write_late_streams(tmp_path, name))
    assert video.frames_per_second * video.duration_seconds == pytest.approx(num_frames)
    frames, substituted = read_pixels(video, [0.0, video.duration_seconds - 0.05])
    assert len(frames) == 2 and not substituted.any()


@pytest.mark.slow
def test_a_damaged_file_with_a_stream_that_is_none_is_read_as_far_as_it_goes() -> None:
    video = inspect_video(DATA / "h264-045-bits.flv")
    assert video.duration_seconds == pytest.approx(8.0, abs=0.1)
    assert "its clock jumps by" in "".join(video.warnings)
    assert_equal_to_sequential(video, decode_sequentially(video.path), substituted=True)


@pytest.mark.slow
def test_the_stream_marked_as_default_is_read() -> None:
    video = inspect_video(DATA / "multi_video_default2.mkv")
    assert (video.width, video.height, video.duration_seconds) == (320, 240, 6.0)
    assert_equal_to_sequential(video, decode_sequentially(video.path, 1))


@pytest.mark.parametrize("first_is_picture", [True, False])
def test_a_track_of_one_picture_is_not_the_video(first_is_picture: bool, tmp_path: Path) -> None:
    import av

    path = tmp_path / "pictures.mkv"
    sizes = [(320, 240), (64, 48)] if first_is_picture else [(64, 48), (320, 240)]
    with av.open(str(path), "w") as container:
        for stream in [add_pictures(container, "mpeg4", fps=25, size=size) for size in sizes]:
            encode_pictures(stream, 1 if stream.width == 320 else 50)
    video = inspect_video(path)
    assert (video.width, video.height, video.frames_per_second) == (64, 48, 25.0)


def test_of_streams_without_a_mark_the_largest_is_read(tmp_path: Path) -> None:
    import av

    path = tmp_path / "two.ts"
    with av.open(str(path), "w") as container:
        sizes = [(64, 48), (320, 240), (160, 120)]
        for stream in [add_pictures(container, "mpeg2video", fps=25, size=size) for size in sizes]:
            encode_pictures(stream, 25)
    assert (inspect_video(path).width, inspect_video(path).height) == (320, 240)


# --- key frames ------------------------------------------------------------------------------------------------------


def write_marked(path: Path, **options: Any) -> Path:
    """Write an mp4 that marks every packet as a key frame, and return its path."""
    data = write_video(path, 80, **options).read_bytes()
    assert data.count(b"stss") == 1
    path.write_bytes(data.replace(b"stss", b"free"))  # the list of the key frames
    return path


@pytest.mark.parametrize("name", ["h261.mkv", "nostss_opengop265.mp4", "gif_twice.gif"])
@pytest.mark.slow
def test_key_frames_that_are_none_change_no_frame(name: str) -> None:
    video = inspect_video(DATA / name)
    right = {"h261.mkv": (75, 3.0), "nostss_opengop265.mp4": (200, 8.0), "gif_twice.gif": (60, 6.0)}[name]
    assert (len(timeline_of(video.path).frame_ticks), video.duration_seconds) == right
    assert_equal_to_sequential(video, decode_sequentially(video.path))


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"codec": "mpeg4", "options": {"g": "48", "bf": "2"}},
        {"codec": "libx264", "options": {"g": "60", "bf": "2"}},
        {"codec": "libx265", "options": _OPEN_GROUPS_265},
    ],
    ids=["mpeg4", "h264", "hevc"],
)
def test_an_mp4_that_marks_every_packet_as_a_key_frame(options: Any, tmp_path: Path) -> None:
    video = inspect_video(write_marked(tmp_path / "marked.mp4", **options))
    assert_equal_to_sequential(video, decode_sequentially(video.path))


@pytest.mark.slow
@pytest.mark.parametrize(("codec", "pixel_format"), [("qtrle", "rgb24"), ("svq1", "yuv410p")])
def test_decoders_that_mark_no_key_frame_are_believed(
    codec: str, pixel_format: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import av

    path = tmp_path / "unmarked.mov"
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=25, options={"g": "20"})
        stream.width, stream.height, stream.pix_fmt = video_files.WIDTH, video_files.HEIGHT, pixel_format
        for i in range(100):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(video_files.picture(i), format="rgb24")))
        container.mux(stream.encode(None))
    video = inspect_video(path)
    monkeypatch.setattr(lvqa.video.decoders, "MAX_PACKETS_BEFORE", 0)
    assert_equal_to_sequential(video, decode_sequentially(path))
    path.write_bytes(path.read_bytes().replace(b"stss", b"free"))  # nobody tells the key frames any more
    assert_equal_to_sequential(inspect_video(path), decode_sequentially(path))


def test_the_search_for_a_key_frame_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    video = inspect_video(write_marked(tmp_path / "marked.mp4", codec="mpeg4", options={"g": "300"}))
    monkeypatch.setattr(lvqa.video.decoders, "MAX_PACKETS_BEFORE", 8)
    _, substituted = read_pixels(video, [0.0, 2.0])
    assert substituted.tolist() == [False, True]


# --- which pictures are shown ----------------------------------------------------------------------------------------


def test_pictures_that_are_only_predicted_from_are_no_frames() -> None:
    """VP9 may have them in packets of their own, with a time of their own: 4 of this file's 54 packets."""
    video = inspect_video(DATA / "hidden_vp9.nut")
    assert (video.duration_seconds, video.frames_per_second) == (2.0, 25.0)
    assert_equal_to_sequential(video, decode_sequentially(video.path))


def test_a_cut_video_begins_before_its_first_keyframe_if_that_can_be_decoded(tmp_path: Path) -> None:
    options = {"x265-params": "log-level=none:keyint=20:min-keyint=20:scenecut=0:open-gop=0:bframes=4:radl=2"}
    whole = write_video(tmp_path / "whole.mp4", 60, codec="libx265", options=options)
    path = video_files.cut_at_keyframe(whole, tmp_path / "cut.mkv", 1)
    video = inspect_video(path)
    frames = decode_sequentially(path)
    assert len(timeline_of(path).frame_ticks) == len(frames) == 42
    assert_equal_to_sequential(video, frames)


# --- clocks ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("codec", ["libx264", "libx265", "mpeg2video", "mpeg4"])
def test_bare_pictures_follow_at_the_rate_that_they_say(codec: str, tmp_path: Path) -> None:
    container = {"libx264": "h264", "libx265": "hevc", "mpeg2video": "mpeg2video", "mpeg4": "m4v"}[codec]
    path = write_video(tmp_path / f"raw.{container}", 60, fps=60, codec=codec, format=container)
    video = inspect_video(path)
    assert (video.duration_seconds, video.frames_per_second, video.warnings) == (1.0, 60.0, ())
    assert_equal_to_sequential(video, decode_sequentially(path))


@pytest.mark.slow
def test_bare_hevc_lasts_as_long_as_it_says() -> None:
    video = inspect_video(DATA / "raw60.hevc")
    assert (video.duration_seconds, video.frames_per_second) == (4.0, 60.0)
    assert_equal_to_sequential(video, decode_sequentially(video.path))


def test_bare_pictures_that_say_no_rate_are_told() -> None:
    video = inspect_video(DATA / "raw60.obu")
    assert len(timeline_of(video.path).frame_ticks) == 240
    assert video.warnings == ("it says nowhere how fast its frames follow; 25 a second are assumed",)


def test_a_rate_that_is_not_believed_is_told(tmp_path: Path) -> None:
    video = inspect_video(write_video(tmp_path / "raw.h264", 50, fps=1000, format="h264"))
    assert (video.duration_seconds, video.frames_per_second) == (2.0, 25.0)
    assert video.warnings == ("it says that 1000 frames come in a second; 25 a second are assumed",)


@pytest.mark.slow
def test_a_splice_is_closed_and_told(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    path = tmp_path / "spliced.ts"
    path.write_bytes((DATA / "concat_fwd.ts").read_bytes())
    for _ in range(2):  # from the file, and from what is stored
        caplog.clear()
        lvqa.video.metadata.read_metadata.cache_clear()
        video = inspect_video(path, metadata_folder=tmp_path)
        assert (video.duration_seconds, video.frames_per_second) == (6.0, 25.0)
        (record,) = caplog.records
        text = "its clock jumps by 19,997 s at 2.96 s; the frames after it are taken to follow at once"
        assert record.levelname == "WARNING" and record.getMessage() == f"{path}: {text}"
        assert video.warnings == (text,)
        assert_equal_to_sequential(video, decode_sequentially(path))
        store_metadata(path, tmp_path)


@pytest.mark.parametrize("shift_seconds", [-30.0, 0.4])
def test_a_clock_that_jumps_back_keeps_the_order_of_the_frames(shift_seconds: float, tmp_path: Path) -> None:
    whole = write_video(tmp_path / "whole.ts")
    later = video_files.remuxed(whole, tmp_path / "later.ts", shift_seconds=50.0)
    moved = video_files.remuxed(whole, tmp_path / "moved.ts", shift_seconds=50.0 + shift_seconds)
    path = tmp_path / "spliced.ts"
    path.write_bytes(later.read_bytes() + moved.read_bytes())
    video = inspect_video(path)
    assert video.duration_seconds == pytest.approx(4.0, abs=0.05)
    numbers = frame_numbers(read_pixels(video, timeline_of(path).frame_seconds.tolist())[0])
    assert numbers == [*range(50), *range(50)]
    assert video.warnings and "its clock jumps by -" in video.warnings[0]


@pytest.mark.slow
def test_one_broken_timestamp_is_told() -> None:
    video = inspect_video(DATA / "h264-006-bits.flv")
    assert video.duration_seconds == pytest.approx(8.0, abs=0.1)
    assert (
        len(video.warnings) == 1
        and "its clock jumps by 1,073,742 s at 0.56 s, the first of 2 jumps" in video.warnings[0]
    )
    assert_equal_to_sequential(video, decode_sequentially(video.path), substituted=True)


def test_long_pauses_are_no_broken_clock(tmp_path: Path) -> None:
    for times in ([0, 1, 2, 3, 600], [0, 7200, 14400, 21600], [0.0, 1800.0]):
        video = inspect_video(write_video(tmp_path / "slides.mkv", len(times), times=times))
        assert timeline_of(video.path).frame_seconds.tolist() == times and not video.warnings


@pytest.mark.skipif(av.library_versions["libavformat"] < (62,), reason="FFmpeg 7 itself replaces such a duration")
def test_a_last_frame_of_days_is_as_long_as_the_others(tmp_path: Path) -> None:
    times = [i / 10 for i in range(20)]  # the last one lasts 1 / 25 s, so it has an entry of its own in the table
    path = write_video(tmp_path / "video.mp4", 20, options={"g": "10", "bf": "0"}, times=times)
    assert inspect_video(path).duration_seconds == pytest.approx(1.94)
    data = bytearray(path.read_bytes())
    table = data.index(b"stts") + 8
    last = table + 8 * int.from_bytes(data[table : table + 4], "big") - 4
    assert data[last : last + 4] == bytes([0, 0, 0, 1])
    data[last + 4 : last + 8] = bytes([0x40, 0, 0, 0])
    path.write_bytes(data)
    video = inspect_video(path)
    assert video.duration_seconds == pytest.approx(2.0)
    assert video.warnings == ("its last frame is said to last 67,109 s; it is taken to be as long as the others",)


def test_ticks_that_do_not_ascend_are_replaced() -> None:
    second = Fraction(1, 25)
    cases: dict[str, tuple[list[int], list[int], int]] = {
        "nothing": ([3, 4, 5, 9], [0, 1, 2, 6], 0),
        "more than an int64 holds": ([-(2**63), 0, 2**63 - 1], [0, 2**62 // 3, 2 * (2**62 // 3)], 1),
        "one far ahead": ([0, 10, 20, 9_000_000, 40, 50], [0, 10, 20, 30, 40, 50], 1),
        "one far behind": ([0, 100, 200, -9000, 400], [0, 100, 200, 300, 400], 1),
        "the last one": ([0, 10, 20, 9_000_000], [0, 10, 20, 30], 1),
        "equal ones": ([0, 10, 10, 30, 40], [0, 5, 10, 30, 40], 0),
        "a splice": ([0, 10, 20, -500, -490, -480], [0, 10, 20, 30, 40, 50], 1),
        "one tick left": ([0, 10, 5, 11, 12], [0, 2, 5, 11, 12], 0),
    }
    for ticks, repaired, num_warnings in cases.values():
        result, warnings = continue_clock(ticks, second)
        assert (result.tolist(), len(warnings)) == (repaired, num_warnings)
    random = np.random.default_rng(0).integers(-1000, 1_000_000, (200, 30)).tolist()
    for ticks in random:
        assert all(a < b for a, b in itertools.pairwise(continue_clock(ticks, second)[0].tolist()))


# --- fields ----------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not (DATA / "paff.ts").exists(), reason="a camera's file, which is not part of the repository")
def test_two_fields_are_one_frame() -> None:
    video = inspect_video(DATA / "paff.ts")
    assert (video.duration_seconds, video.width, video.height) == (0.48, 1920, 1080)
    starts = timeline_of(video.path).frame_seconds.tolist()
    frames, substituted = read_pixels(video, starts)
    np.testing.assert_array_equal(frames, decode_sequentially(video.path)[1:])  # the first one lies before the start
    assert len(starts) == 12 and not substituted.any()


def test_second_fields_have_the_ticks_of_the_first_ones() -> None:
    cases = {
        "pairs": ([4, 5, 0, 1, 2, 3], [1] * 6, [4, 4, 0, 0, 2, 2]),
        "in order": ([0, 1, 2, 3, 4, 5], [1] * 6, [0, 0, 2, 2, 4, 4]),
        "a whole picture between": ([0, 1, 2, 4, 5], [1, 1, 2, 1, 1], [0, 0, 2, 4, 4]),
        "a lost field": ([0, 1, 3, 4, 5], [1] * 5, [0, 0, 3, 3, 5]),
        "whole pictures": ([0, 2, 4], [2, 2, 2], [0, 2, 4]),
    }
    for ticks, durations, joined in cases.values():
        assert join_fields(np.array(ticks), np.array(durations), 1).tolist() == joined


@pytest.mark.parametrize("options", [{"tff": "1"}, {}], ids=["interlaced", "progressive"])
def test_whole_pictures_are_not_taken_for_fields(options: dict[str, str], tmp_path: Path) -> None:
    coding = {
        "g": "10",
        "bf": "0",
        "preset": "veryfast",
        "x264-params": ":".join(f"{k}={v}" for k, v in options.items()),
    }
    path = write_video(tmp_path / "whole.ts", 50, fps=50, options=coding)
    video = inspect_video(path)
    assert (len(timeline_of(path).frame_ticks), video.duration_seconds) == (50, 1.0)
    assert_equal_to_sequential(video, decode_sequentially(path))

"""What containers' tables say of packets, and which frames of AV1 are not decoded because no wanted one needs them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import video_files
from test_video_faults import decode_sequentially
from video_files import AV1_FILES, cached_video, read_pixels, write_video

from lvqa.video import VideoError, file_bytes, inspect_video, matroska
from lvqa.video.container import open_stream
from lvqa.video.file_bytes import FileBytes
from lvqa.video.metadata import timeline_of
from lvqa.video.packets import demux_rows, read_tables
from lvqa.video.references import prune


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("videos")


def packets_of(path: Path) -> list[tuple[int, Any]]:
    with av.open(str(path)) as container:
        return [(packet.pts or 0, packet) for packet in container.demux(video=0) if packet.size]


# --- frames of AV1 ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", ["libaom.mkv", "rav1e.mp4", "grain.mkv", "numbered.mp4"])
def test_any_frames_of_av1_are_those_of_a_full_decode(name: str) -> None:
    video, pixels = inspect_video(AV1_FILES / name), decode_sequentially(AV1_FILES / name)
    starts = timeline_of(video.path).frame_seconds
    rng = np.random.default_rng(0)
    assert len(starts) == len(pixels) == 70
    for count in [1] * 12 + [2, 5, 20] * 4 + [70]:
        wanted = np.sort(rng.choice(70, count, replace=False))
        frames, substituted = read_pixels(video, starts[wanted].tolist())
        np.testing.assert_array_equal(frames, np.stack([pixels[i] for i in wanted]))
        assert not substituted.any()


@pytest.mark.parametrize(("name", "most"), [("libaom.mkv", 40), ("rav1e.mp4", 40), ("grain.mkv", 20)])
def test_frames_that_no_wanted_one_needs_are_left_out(name: str, most: int) -> None:
    packets = packets_of(AV1_FILES / name)
    left = list(prune(packets, {packets[20][0], packets[50][0]}))
    assert {packets[20][0], packets[50][0]} < {tick for tick, _ in left} and len(left) <= most
    assert list(prune(packets, set())) == []
    every = list(prune(packets, {tick for tick, _ in packets}))
    assert [tick for tick, _ in every] == [tick for tick, _ in packets]
    assert all(bytes(rest) == bytes(packet) for (_, rest), (_, packet) in zip(every, packets, strict=True))


def test_hidden_frames_are_cut_out_of_a_packet() -> None:
    packets = packets_of(AV1_FILES / "grain.mkv")
    sizes = {tick: packet.size for tick, packet in packets}
    left = list(prune(packets, {packets[-1][0]}))
    smaller = [packet for tick, packet in left if packet.size < sizes[tick]]
    assert smaller and {packet.pts for packet in smaller} <= sizes.keys()
    assert {packet.time_base for packet in smaller} == {packets[0][1].time_base}


def test_what_is_not_understood_is_decoded_whole() -> None:
    numbered = packets_of(AV1_FILES / "numbered.mp4")
    assert list(prune(numbered, {numbered[40][0]})) == numbered
    packets = packets_of(AV1_FILES / "grain.mkv")
    keys = [i for i, (_, packet) in enumerate(packets) if packet.is_keyframe]
    assert len(keys) == 2
    layered = av.Packet(bytes([bytes(packets[10][1])[0] | 0x04]) + bytes(packets[10][1])[1:])  # it has an extension
    changed = [*packets[:10], (packets[10][0], layered), *packets[11:]]
    left = list(prune(changed, {packets[12][0]}))
    assert left[-(keys[1] - 10) :] == changed[10 : keys[1]]  # to the end of its group
    assert list(prune(packets[5:], {packets[7][0]})) == packets[5 : keys[1]]  # it does not begin with a key frame


# --- tables of containers --------------------------------------------------------------------------------------------


def with_sound(source: Path, target: Path, **options: str) -> Path:
    """Write the packets of a video with a tone between them, and return the path."""
    tone = video_files.write_sound(target.with_name("tone.mp4"), 3.0)
    with (
        av.open(str(source)) as video,
        av.open(str(tone)) as sound,
        av.open(str(target), "w", container_options=options) as container,
    ):
        streams = [container.add_stream_from_template(part.streams[0], opaque=True) for part in (sound, video)]
        packets = [
            (packet.dts * packet.time_base, stream, packet)
            for part, stream in zip((sound, video), streams, strict=True)
            for packet in part.demux()
            if packet.dts is not None
        ]
        for _, stream, packet in sorted(packets, key=lambda entry: entry[0]):
            packet.stream = stream
            container.mux(packet)
    return target


def rows_of(path: Path, read: Any, *arguments: Any) -> np.ndarray | None:
    with open_stream(path) as stream:
        rows: np.ndarray | None = read(stream, *arguments)
        return rows


def assert_equal_rows(rows: np.ndarray, expected: np.ndarray) -> None:
    for column in ("pts", "dts", "size", "is_keyframe", "is_presented"):
        np.testing.assert_array_equal(rows[column], expected[column], err_msg=column)
    assert rows["duration"][-1] == expected["duration"][-1]


@pytest.mark.parametrize(
    "name", [name for name in {**video_files.SIMPLE_VIDEOS, **video_files.UNUSUAL_VIDEOS} if name.endswith(".mp4")]
)
def test_tables_of_mp4_tell_what_reading_all_packets_does_or_are_not_used(name: str, folder: Path) -> None:
    path = cached_video(name, folder)
    rows, expected = rows_of(path, read_tables, path), rows_of(path, demux_rows)
    assert (rows is None) == (name in ("cut.mp4", "open_groups.mp4"))
    if rows is not None:
        assert expected is not None
        assert_equal_rows(rows, expected)


@pytest.mark.parametrize("coding", ["bframes=4:b-pyramid=1:keyint=20", "open-gop=1:keyint=20", "bframes=0:keyint=20"])
@pytest.mark.parametrize("muxer", ["", "movflags=faststart", "movflags=negative_cts_offsets", "use_editlist=0"])
def test_tables_of_hevc_tell_both_times(coding: str, muxer: str, folder: Path) -> None:
    path, options = folder / f"{muxer}_{coding}.mp4", {"x265-params": f"{coding}:log-level=none:pools=1"}
    container_options = dict([muxer.split("=")]) if muxer else {}
    write_video(path, 70, codec="libx265", options=options, container_options=container_options)
    rows, expected = rows_of(path, read_tables, path), rows_of(path, demux_rows)
    assert rows is not None and expected is not None and len(rows) == 70
    assert_equal_rows(rows, expected)


H264_CODINGS = {
    "plain": ("keyint=20", True),
    "pyramid": ("bframes=4:b-pyramid=normal:keyint=20", True),
    "no_b_frames": ("bframes=0:keyint=20", True),
    "one_group": ("keyint=200", True),
    "delimiters": ("aud=1:keyint=20", True),
    "headers": ("repeat-headers=1:slices=3:keyint=20", True),
    "messages": ("nal-hrd=vbr:vbv-maxrate=200:vbv-bufsize=200:keyint=20", False),
    "fields": ("tff=1:keyint=20", False),
    "refreshed": ("intra-refresh=1:keyint=20", False),
    "open_groups": ("open-gop=1:keyint=20", False),
}
"""How H.264 is coded, and whether its tables can be used."""


@pytest.mark.parametrize("coding", H264_CODINGS)
@pytest.mark.parametrize("muxer", ["", "movflags=faststart", "movflags=negative_cts_offsets", "use_editlist=0"])
def test_packets_of_h264_say_themselves_which_are_keyframes(coding: str, muxer: str, folder: Path) -> None:
    path, (parameters, is_used) = folder / f"{muxer}_{coding}.mp4", H264_CODINGS[coding]
    container_options = dict([muxer.split("=")]) if muxer else {}
    write_video(path, 70, options={"x264-params": parameters}, container_options=container_options)
    rows, expected = rows_of(path, read_tables, path), rows_of(path, demux_rows)
    assert (rows is not None) == is_used and expected is not None and len(expected) == 70
    if rows is not None:
        assert_equal_rows(rows, expected)


@pytest.mark.parametrize("window", [1, 7, 100, 1 << 20])
def test_parts_of_a_file_are_read_wherever_they_lie(
    window: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_bytes, "_WINDOW_BYTES", window)
    rng = np.random.default_rng(0)
    content, path = rng.bytes(500), tmp_path / "file"
    path.write_bytes(content)
    with FileBytes(path) as data:
        for begins in (np.arange(0, 496, 3), rng.integers(0, 496, 50), np.array([495]), np.array([], dtype=np.int64)):
            parts = [content[begin : begin + 5] for begin in begins.tolist()]
            assert [bytes(part) for part in data.parts(begins, 5)] == parts
        with pytest.raises(IndexError):
            data.parts(np.array([3, 496]), 5)


@pytest.mark.parametrize("window", [1, 3000, 1 << 20])
@pytest.mark.parametrize("limit", ["100", "700", "5000"])
def test_clusters_of_any_length_are_read_in_windows_of_any_size(
    window: int, limit: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, path = cached_video("hidden_vp9.webm", folder), folder / f"clusters_{limit}.mkv"
    with_sound(source, path, cluster_time_limit=limit)
    monkeypatch.setattr(matroska, "_WINDOW_BYTES", window)
    rows, expected = rows_of(path, read_tables, path), rows_of(path, demux_rows)
    assert rows is not None and expected is not None
    assert_equal_rows(rows, expected)


def test_an_element_that_leads_back_to_itself_is_not_followed(folder: Path) -> None:
    source = cached_video("hidden_vp9.webm", folder)
    data = bytearray(source.read_bytes())
    room = data.index(b"\xec", data.index(bytes.fromhex("18538067")))  # FFmpeg leaves some behind the seek head
    # A size of nine bytes, of which there is none: read as a number it leads back by the ten bytes of id and size.
    data[room : room + 10] = b"\xec\x00" + ((1 << 63) - 10).to_bytes(8, "big")
    path = folder / "back.webm"
    path.write_bytes(data)
    assert rows_of(path, read_tables, path) is None
    assert timeline_of(path).frame_seconds.tolist() == timeline_of(source).frame_seconds.tolist()


@pytest.mark.parametrize("num_bytes", [3, 8, 20])
def test_a_cluster_whose_time_is_out_of_all_bounds_is_read_like_any_damage(num_bytes: int, folder: Path) -> None:
    source = cached_video("hidden_vp9.webm", folder)
    data = source.read_bytes()

    def sized(size: int) -> bytes:
        return (1 << 56 | size).to_bytes(8, "big")

    # The time of the first cluster, one byte, becomes longer; what comes after the cluster is left out.
    segment, cluster = (data.index(bytes.fromhex(kind)) for kind in ("18538067", "1f43b675"))
    time = data.index(b"\xe7\x81", cluster)
    blocks = data[time + 3 : data.index(bytes.fromhex("1f43b675"), time)]
    content = bytes([0xE7, 0x80 | num_bytes]) + b"\x7f" * num_bytes + blocks
    head = data[segment + 12 : cluster] + bytes.fromhex("1f43b675")
    path = folder / f"time_{num_bytes}.webm"
    path.write_bytes(data[: segment + 4] + sized(len(head) + 8 + len(content)) + head + sized(len(content)) + content)
    assert (rows_of(path, read_tables, path) is None) == (num_bytes > 3)
    if num_bytes > 8:  # which FFmpeg does not take
        with pytest.raises(VideoError):
            inspect_video(path)
    else:
        assert len(timeline_of(path).frame_ticks) == 40


def test_a_damaged_table_of_the_sound_does_not_end_the_reading_of_pictures(folder: Path) -> None:
    source = with_sound(cached_video("constant.mp4", folder), folder / "with_sound.mp4")
    data = bytearray(source.read_bytes())
    (first, second) = (i for i in range(len(data)) if data.startswith(b"stco", i))  # of the sound, of the pictures
    entries = int.from_bytes(data[first + 8 : first + 12], "big")
    at = first + 12 + 4 * (entries // 2)
    assert at < second
    data[at : at + 4] = (1 << 30).to_bytes(4, "big")
    path = folder / "damaged_sound.mp4"
    path.write_bytes(data)
    expected = rows_of(source, demux_rows)
    rows = rows_of(path, demux_rows)
    assert rows is not None and expected is not None
    np.testing.assert_array_equal(rows, expected)
    assert timeline_of(path).frame_seconds.tolist() == timeline_of(source).frame_seconds.tolist()


@pytest.mark.parametrize(
    "name",
    ["constant.mp4", "hevc.mp4", "open_groups_hevc.mp4", "av1.mp4", "av1.mkv", "hidden_vp9.webm", "hidden_vp9.mp4"],
)
def test_tables_of_a_damaged_file_tell_what_reading_it_does(name: str, folder: Path) -> None:
    source = cached_video(name, folder)
    data = source.read_bytes()
    rng = np.random.default_rng(0)
    num_tables = 0
    for i in range(60):
        begin, length = int(rng.integers(len(data))), int(rng.choice([1, 3, 40, 2000]))
        path = folder / f"damaged_{i}_{name}"
        path.write_bytes(data[:begin] + rng.bytes(length) + data[begin + length :])
        try:
            rows = rows_of(path, read_tables, path)
            expected = rows_of(path, demux_rows)
        except (av.error.FFmpegError, VideoError):
            continue
        if rows is not None and expected is not None:
            num_tables += 1
            assert_equal_rows(rows, expected)
    assert num_tables > 10

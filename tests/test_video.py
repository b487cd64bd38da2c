"""Probing, the grid, clips and decoding, on small films whose frames carry their numbers (`video_files.py`)."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import video_files

import lvqa.video
from lvqa.records import Clip, LvqaError, Video
from lvqa.startup import num_cores
from lvqa.video import (
    DECODERS,
    DecordDecoder,
    FrameGrid,
    VideoError,
    cut_clips,
    inspect_video,
    read_frames,
    store_metadata,
)
from lvqa.video.metadata import timeline_of

STEPS = np.random.default_rng(0).choice([0.02, 0.04, 0.1, 0.4], 50)
OPEN_GROUPS = {"g": "10", "bf": "3", "x264-params": "scenecut=0:open-gop=1:b-adapt=0"}
OPEN_GROUPS_265 = {"preset": "ultrafast", "x265-params": "keyint=10:bframes=3:open-gop=1:log-level=none:pools=1"}
REFRESHED = {"g": "10", "bf": "0", "x264-params": "scenecut=0:intra-refresh=1"}
SOON = {"movflags": "faststart"}

# Films that every decoder must read right, and those that only the default one does.
PLAIN: dict[str, Callable[[Path], Path]] = {
    "constant.mp4": video_files.write_video,
    "irregular.mp4": lambda path: video_files.write_video(path, times=np.cumsum(STEPS).tolist()),
    "later.mkv": lambda path: video_files.remuxed(
        video_files.write_video(path.with_name("source.mp4")), path, shift_seconds=7.5
    ),
    "turned.mp4": lambda path: video_files.write_video(path, rotation=90),
    "upside_down.mp4": lambda path: video_files.write_video(path, rotation=180),
    "hevc.mp4": lambda path: video_files.write_video(path, codec="libx265"),
    "vp9.webm": lambda path: video_files.write_video(path, codec="libvpx-vp9"),
    "one_frame.mp4": lambda path: video_files.write_video(path, 1),
    "concat:a b|\N{GRINNING FACE} Фильм.mp4": video_files.write_video,
}
ODD: dict[str, Callable[[Path], Path]] = {
    "stream.ts": video_files.write_video,
    "cut.mp4": lambda path: video_files.remuxed(
        video_files.write_video(path.with_name("source.mp4")), path, shift_seconds=-0.2
    ),
    "open_groups.mp4": lambda path: video_files.write_video(path, options=OPEN_GROUPS),
    "open_groups.ts": lambda path: video_files.write_video(path, options=OPEN_GROUPS),
    "open_groups_hevc.mp4": lambda path: video_files.write_video(path, codec="libx265", options=OPEN_GROUPS_265),
    "vp8.webm": lambda path: video_files.write_video(path, codec="libvpx"),
    "mpeg4.avi": lambda path: video_files.write_video(path, codec="mpeg4", options={"g": "10", "bf": "2"}),
    "h264.avi": video_files.write_video,
    "raw.h264": lambda path: video_files.write_video(path, format="h264"),
    "mpeg2.mpg": lambda path: video_files.write_video(path, codec="mpeg2video"),
    "pictures.gif": lambda path: video_files.write_video(path, codec="gif"),
    "refreshed.ts": lambda path: video_files.write_video(path, options=REFRESHED),
}


def all_frames(path: Path) -> tuple[list[float], list[np.ndarray]]:
    """Seconds and pixels of every frame, by plain full decoding: what the decoders are held against.

    Packets without usable times get the film's constant rate.
    """
    import av

    with av.open(f"file:{path}") as container:
        stream = container.streams.video[0]
        frames = list(container.decode(stream))
        assert stream.time_base is not None
        counted = path.name in ("h264.avi", "raw.h264")
        ticks = range(len(frames)) if counted else [(frame.pts or 0) - (frames[0].pts or 0) for frame in frames]
        unit = 1 / 25 if counted else float(stream.time_base)
    pixels = [
        np.rot90(
            frame.reformat(frame.width, frame.height, format="rgb24", interpolation="BILINEAR").to_ndarray(),
            frame.rotation // 90,
        )
        for frame in frames
    ]
    return [tick * unit for tick in ticks], pixels


def written(name: str, folder: Path) -> Path:
    """The film of that name, made the first time."""
    path = folder / name
    if not path.exists():
        {**PLAIN, **ODD}[name](path)
    return path


def shown_at(seconds: Sequence[float], starts: Sequence[float]) -> list[int]:
    return [max(place for place, start in enumerate(starts) if start <= at + 1e-6) for at in seconds]


def read(
    video: Video, seconds: Sequence[float], decoder: str = "pyav", threads: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    size = {"height": video.height, "width": video.width}
    batches = list(read_frames(video, seconds, **size, decoder=decoder, threads=threads, batch_frames=7))
    assert np.concatenate([batch.times_seconds for batch in batches]).tolist() == list(seconds)
    return np.concatenate([batch.pixels for batch in batches]), np.concatenate([batch.substituted for batch in batches])


def numbers(pixels: np.ndarray) -> list[int]:
    return [video_files.number_of(frame) for frame in pixels]


def decode_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "lvqa-decode"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("films")


@pytest.fixture(scope="module")
def film(folder: Path) -> Video:
    return inspect_video(video_files.write_video(folder / "film.mp4"))


# --- which frame, and which pixels ---------------------------------------------------------------------------------

CASES = [(decoder, name) for decoder in DECODERS for name in PLAIN] + [("pyav", name) for name in ODD]


@pytest.mark.parametrize(("decoder", "name"), CASES)
def test_frames_are_those_of_a_full_decode(decoder: str, name: str, folder: Path) -> None:
    path = written(name, folder)
    video = inspect_video(path)
    starts, pixels = all_frames(path)
    assert (video.height, video.width) == pixels[0].shape[:2]
    for fps in (7.3, 1.1, 60.0):
        grid = FrameGrid.of(video, fps)
        seconds = [grid.seconds_of(frame) for frame in range(grid.num_frames)]
        got, substituted = read(video, seconds, decoder)
        wanted = np.stack([pixels[place] for place in shown_at(seconds, starts)])
        assert not substituted.any()
        if decoder == "pyav":
            np.testing.assert_array_equal(got, wanted)  # skipping changes no pixel
        else:
            assert np.abs(got.astype(int) - wanted).mean() < 3


@pytest.mark.parametrize("name", [*PLAIN, *ODD])
@pytest.mark.parametrize("near_packets", [0, 50])
def test_threads_and_seeks_change_no_frame(
    name: str, near_packets: int, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lvqa.video.timeline, "_RUN_PACKETS", 1)  # every group of pictures is a run
    monkeypatch.setattr(lvqa.video.frame_reader, "_NEAR_PACKETS", near_packets)
    path = written(name, folder)
    video = inspect_video(path)
    starts, pixels = all_frames(path)
    for step in (0.04, 0.37, 0.61):
        seconds = np.arange(0, video.duration_seconds - 1e-6, step).tolist()
        wanted = np.stack([pixels[place] for place in shown_at(seconds, starts)])
        for threads in (1, 2, 3):
            got, substituted = read(video, seconds, threads=threads)
            assert not substituted.any()
            np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("name", ["constant.mp4", "cut.mp4", "later.mkv", "vp9.webm", "mpeg4.avi"])
def test_a_far_frame_is_reached_by_a_seek(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lvqa.video.frame_reader, "_NEAR_PACKETS", 0)
    path = written(name, folder)
    video, (starts, pixels) = inspect_video(path), all_frames(path)
    read_packets = 0

    def counted(*words: object) -> Iterator[object]:
        nonlocal read_packets
        for packet in demuxed(*words):
            read_packets += 1
            yield packet

    demuxed = lvqa.video.frame_reader.demuxed
    monkeypatch.setattr(lvqa.video.frame_reader, "demuxed", counted)
    seconds = [video.duration_seconds - 0.02]
    np.testing.assert_array_equal(read(video, seconds)[0][0], pixels[shown_at(seconds, starts)[0]])
    assert read_packets <= 25  # of 45 or more


@pytest.mark.parametrize("decoder", DECODERS)
def test_one_far_frame_and_the_same_frame_twice(decoder: str, film: Video) -> None:
    assert numbers(read(film, [1.5], decoder)[0]) == [37]
    assert numbers(read(film, [0.0, 0.0, 0.01, 0.04, 1.999], decoder)[0]) == [0, 0, 0, 1, 49]
    assert list(read_frames(film, [], height=8, width=8, decoder=decoder)) == []


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("seconds", [-0.1, 2.0, 1e9, float("nan")])
def test_a_time_outside_the_film_is_refused(decoder: str, seconds: float, film: Video) -> None:
    with pytest.raises(VideoError, match=r"film\.mp4: no frame at .* s; allowed: 0 to 2 s"):
        read(film, [seconds], decoder)


@pytest.mark.parametrize("decoder", DECODERS)
def test_times_must_ascend(decoder: str, film: Video) -> None:
    with pytest.raises(ValueError, match="ascend"):
        read(film, [1.0, 0.5], decoder)


@pytest.mark.parametrize("decoder", DECODERS)
def test_frames_come_in_the_size_asked_for(decoder: str, folder: Path) -> None:
    video = inspect_video(video_files.write_video(folder / "sideways.mp4", 5, rotation=-90))
    assert (video.height, video.width) == (video_files.WIDTH, video_files.HEIGHT)
    (batch,) = read_frames(video, [0.0, 0.1], height=50, width=30, decoder=decoder)
    assert batch.pixels.shape == (2, 50, 30, 3) and batch.pixels.flags.c_contiguous


# --- damage ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("start", "end", "intact"), [(0.4, 0.41, 40), (0.45, 0.55, 30), (0.1, 0.3, 31)])
def test_damage_costs_only_the_damaged_part(start: float, end: float, intact: int, film: Video, folder: Path) -> None:
    video = inspect_video(video_files.damaged(film.path, folder / "damaged.mp4", start=start, end=end))
    assert video.duration_seconds == 2.0
    pixels, substituted = read(video, [frame / 25 for frame in range(50)])
    got = np.array(numbers(pixels))
    assert (got == np.arange(50))[~substituted].all()  # what is not flagged is right
    assert 0 < substituted.sum() <= 50 - intact


def test_a_stand_in_is_the_nearest_earlier_frame(folder: Path, film: Video) -> None:
    video = inspect_video(video_files.damaged(film.path, folder / "damaged.mp4"))
    pixels, substituted = read(video, [0.4, 0.9, 1.0, 1.1, 1.9])
    assert substituted.tolist() == [False, *substituted[1:4], False] and substituted[1:4].any()
    assert all(number <= at * 25 for number, at in zip(numbers(pixels), [0.4, 0.9, 1.0, 1.1, 1.9], strict=True))


@pytest.mark.parametrize("name", ["constant.mp4", "stream.ts", "open_groups_hevc.mp4", "later.mkv", "vp9.webm"])
def test_threads_show_the_same_of_a_damaged_film(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lvqa.video.timeline, "_RUN_PACKETS", 1)
    for part in (0.15, 0.35, 0.55, 0.75):
        source = written(name, folder)
        path = video_files.damaged(source, folder / f"damaged_{part}_{name}", start=part, end=part + 0.03)
        video = inspect_video(path)
        seconds = np.arange(0, video.duration_seconds - 1e-6, 0.04).tolist()
        pixels, substituted = read(video, seconds)
        for threads in (2, 3):
            again, flags = read(video, seconds, threads=threads)
            np.testing.assert_array_equal(again, pixels)
            np.testing.assert_array_equal(flags, substituted)


def test_runs_that_are_lost_are_stood_in_for_too(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lvqa.video.timeline, "_RUN_PACKETS", 1)
    whole = video_files.write_video(folder / "index_first.mp4", container_options=SOON)
    video = inspect_video(video_files.damaged(whole, folder / "half_lost.mp4", start=0.45, end=0.99))
    for seconds in (np.arange(50) / 25, np.array([0.0, 0.8, 1.3, 1.9])):
        pixels, substituted = read(video, seconds.tolist(), threads=2)
        got = np.array(numbers(pixels))
        np.testing.assert_array_equal(substituted, seconds > 0.66)  # frame 17 is the first that is lost
        assert (got == np.round(seconds * 25))[~substituted].all() and (got[substituted] < 17).all()


def test_a_truncated_film_ends_where_the_bytes_end(folder: Path) -> None:
    whole = video_files.write_video(folder / "whole.mp4", container_options=SOON)
    video = inspect_video(video_files.truncated(whole, folder / "part.mp4", 0.6))
    assert 0.5 < video.duration_seconds < 1.5
    grid = FrameGrid.of(video, 25)
    pixels, substituted = read(video, [grid.seconds_of(frame) for frame in range(grid.num_frames)])
    got = np.array(numbers(pixels))
    assert (got == np.arange(len(got)))[~substituted].all() and substituted.sum() < 5
    with pytest.raises(VideoError, match="allowed: 0 to"):
        read(video, [1.9])


# --- probing ---------------------------------------------------------------------------------------------------------


def test_probe_tells_what_the_file_holds(film: Video, folder: Path) -> None:
    assert (film.duration_seconds, film.frames_per_second, film.height, film.width) == (2.0, 25.0, 96, 160)
    assert film.path.is_absolute() and len(film.id) == 16 and int(film.id, 16) >= 0


def test_the_fingerprint_is_that_of_the_bytes(film: Video, folder: Path) -> None:
    copy = folder / "copy.mov"
    copy.write_bytes(film.path.read_bytes())
    assert inspect_video(copy).id == film.id
    assert inspect_video(video_files.write_video(folder / "shorter.mp4", 49)).id != film.id


def test_a_film_that_changed_is_read_anew(folder: Path) -> None:
    path = video_files.write_video(folder / "changing.mp4", 10)
    assert inspect_video(path).duration_seconds == 0.4
    assert inspect_video(video_files.write_video(path, 20)).duration_seconds == 0.8


def test_metadata_that_is_not_text_does_no_harm(folder: Path) -> None:
    path = video_files.write_video(folder / "title.mp4", 5, metadata={"title": "QQQQ"})
    path.write_bytes(path.read_bytes().replace(b"QQQQ", b"\xff\xfe\xff\xfe"))
    assert inspect_video(path).duration_seconds == 0.2


@pytest.fixture
def anew() -> Callable[..., Video]:
    """Diagnostics as a new process does: what this one knows of films is forgotten."""

    def anew(path: Path, kept_in: Path) -> Video:
        lvqa.video.metadata._read_metadata.cache_clear()
        return inspect_video(path, kept_in=kept_in)

    return anew


def never(*_: object) -> None:
    raise AssertionError("the film was read again")


@pytest.mark.parametrize("name", ["irregular.mp4", "turned.mp4", "open_groups.ts", "h264.avi", "vp9.webm"])
def test_a_film_that_is_kept_is_known_to_the_next_process(
    name: str, folder: Path, tmp_path: Path, anew: Callable[..., Video], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(name, folder)
    first, keys = anew(path, tmp_path), timeline_of(path).key_seconds().tolist()
    times = FrameGrid.of(first, 5.0).times_seconds.tolist()
    pixels, _ = read(first, times)
    assert not list(tmp_path.iterdir()), "probing writes nothing"
    store_metadata(path, tmp_path)
    (kept,) = tmp_path.iterdir()
    with monkeypatch.context() as patched:
        patched.setattr(lvqa.video.metadata, "opened", never)
        patched.setattr(lvqa.video.metadata, "read_timeline", never)
        assert anew(path, tmp_path) == first
        written_at = kept.stat().st_mtime_ns
        store_metadata(path, tmp_path)
    assert kept.stat().st_mtime_ns == written_at
    assert timeline_of(path).key_seconds().tolist() == keys
    again, substituted = read(first, times)
    assert np.array_equal(again, pixels) and not substituted.any()


def test_a_film_that_changed_is_not_the_one_that_was_kept(folder: Path, tmp_path: Path, anew) -> None:
    path = video_files.write_video(folder / "kept_and_changed.mp4", 10)
    store_metadata(path, tmp_path)
    (kept,) = tmp_path.iterdir()
    with np.load(kept) as file:
        content = dict(file)
    shorter = content | {"shown": content["shown"][:5]}
    with kept.open("wb") as file:
        np.savez(file, **shorter)
    assert anew(path, tmp_path).frames_per_second < 25.0, "what is kept is believed"
    os.utime(path, ns=(1, 1))
    assert anew(path, tmp_path).frames_per_second == 25.0, "but not of a file that was changed later"
    store_metadata(path, tmp_path)
    with np.load(kept) as file:
        assert len(file["shown"]) == 10 and file["stamp"] != content["stamp"]


def kept_with(path: Path, **changes: object) -> None:
    """The file of a kept film with other content in it."""
    with np.load(path) as file:
        content = dict(file) | changes
    with path.open("wb") as file:
        np.savez(file, **{name: value for name, value in content.items() if value is not None})


def compressed(path: Path) -> None:
    with np.load(path) as file:
        content = dict(file) | {"more": np.zeros(1 << 20)}
    with path.open("wb") as file:
        np.savez_compressed(file, **content)


def flipped(path: Path) -> None:
    with np.load(path) as file:
        packets = file["packets"].tobytes()
    content = path.read_bytes()
    place = content.index(packets) + 8
    path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])


SPOILT: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-100]),
    "a flipped bit": flipped,
    "text": lambda path: path.write_text("hello"),
    "an array": lambda path: (np.save(path.with_suffix(".npy"), np.arange(9)), path.with_suffix(".npy").replace(path)),
    "objects": lambda path: kept_with(path, shown=np.array([{}, 0], dtype=object)),
    "unfolds into more": compressed,
    "a folder": lambda path: (path.unlink(), path.mkdir()),
    "a pipe": lambda path: (path.unlink(), os.mkfifo(path)),
    "a column is lacking": lambda path: kept_with(path, sizes=None),
    "no frames": lambda path: kept_with(path, shown=np.zeros(0, dtype=np.int64)),
    "frames that no packet holds": lambda path: kept_with(path, shown=np.arange(7)),
    "times that descend": lambda path: kept_with(path, shown=np.arange(9)[::-1] * 512),
    "times that are no whole numbers": lambda path: kept_with(path, shown=np.arange(9) * 512.0),
    "keys outside": lambda path: kept_with(path, keys=np.array([0, 1 << 40])),
    "no keys": lambda path: kept_with(path, keys=np.zeros(0, dtype=np.int64)),
    "a clock that stands": lambda path: kept_with(path, numbers=np.array([96, 160, 1 << 40, 1, 0, 1])),
    "a clock by zero": lambda path: kept_with(path, numbers=np.array([96, 160, 1 << 40, 1, 1, 0])),
    "no height": lambda path: kept_with(path, numbers=np.array([0, 160, 1 << 40, 1, 1, 12800])),
}


@pytest.mark.parametrize("spoil", SPOILT.values(), ids=SPOILT)
def test_what_was_kept_and_makes_no_sense_is_read_again(
    spoil: Callable[[Path], object], film: Video, tmp_path: Path, anew: Callable[..., Video]
) -> None:
    store_metadata(film.path, tmp_path)
    (kept,) = tmp_path.iterdir()
    spoil(kept)
    assert anew(film.path, tmp_path) == film
    assert numbers(read(film, [0.0, 1.0])[0]) == [0, 25]


def test_where_nothing_can_be_kept_nothing_happens(film: Video, tmp_path: Path, anew) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "nowhere"):
        store_metadata(film.path, folder)
        assert anew(film.path, folder) == film
    store_metadata(tmp_path / "no_film.mp4", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def playlist(folder: Path, film: Video) -> dict[str, bytes]:
    """Texts that FFmpeg would follow to another file or to the network."""
    name = os.fsencode(film.path)
    return {
        "list.m3u8": b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n" + name + b"\n#EXT-X-ENDLIST\n",
        "list.mp4": b"ffconcat version 1.0\nfile " + name + b"\n",
        "call.sdp": b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n"
        b"a=rtpmap:96 H264/90000\n",
    }


HOSTILE = {
    "missing.mp4": "No such file",
    "folder.mp4": "this is a folder",
    "empty.mp4": "the file is empty",
    "pipe.mp4": "not a regular file",
    "/dev/zero": "not a regular file",
    "text.mp4": "not readable as video",
    "noise.mp4": "not readable as video",
    "no_moov.mp4": "not readable as video",
    "no_frame.mp4": "not one frame can be decoded",
    "picture.png": "not readable as video",
    "sound.m4a": "no video stream",
    "list.m3u8": "not readable as video",
    "list.mp4": "not readable as video",
    "call.sdp": "not readable as video",
    "loop.mp4": "[Ll]oop",
    "nul\0.mp4": "null",
    "http://127.0.0.1:9/a.mp4": "No such file",
    "concat:film.mp4|film.mp4": "No such file",
}


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory, film: Video) -> Path:
    import cv2

    folder = tmp_path_factory.mktemp("hostile")
    (folder / "folder.mp4").mkdir()
    os.mkfifo(folder / "pipe.mp4")
    (folder / "loop.mp4").symlink_to(folder / "loop.mp4")
    cv2.imwrite(str(folder / "picture.png"), video_files.picture(3))
    video_files.write_sound(folder / "sound.m4a")
    video_files.truncated(film.path, folder / "no_moov.mp4")
    video_files.damaged(film.path, folder / "no_frame.mp4", start=0.01, end=0.8)
    texts = {"empty.mp4": b"", "text.mp4": b"hello\n" * 999, "noise.mp4": np.random.default_rng(0).bytes(9999)}
    for name, data in {**texts, **playlist(folder, film)}.items():
        (folder / name).write_bytes(data)
    return folder


@pytest.mark.parametrize(("name", "reason"), HOSTILE.items())
def test_what_is_not_a_film_is_refused_in_one_line(
    name: str, reason: str, hostile: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(hostile)
    with pytest.raises(VideoError, match=reason) as refusal:
        inspect_video(name)
    message = str(refusal.value)
    assert "\n" not in message and Path(name).name in message and "; expected a " in message


# --- the grid and the clips ------------------------------------------------------------------------------------------


def metadata_of(seconds: float) -> Video:
    return Video(Path("/film.mp4"), "0" * 16, seconds, 96, 160, 25.0)


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
    grid = FrameGrid.of(metadata_of(seconds), fps)
    assert (grid.num_frames, grid.num_pairs) == (num_frames, num_pairs)
    assert grid.seconds_of(num_frames - 1) < seconds


def test_grid_frames_and_seconds_are_inverse() -> None:
    for fps in (1, 2, 0.3, 7.3, 29.97, 60):
        grid = FrameGrid.of(metadata_of(1000.0), fps)
        assert all(grid.frame_at(grid.seconds_of(frame)) == frame for frame in range(grid.num_frames))
        just_before = [np.nextafter(grid.seconds_of(frame), 0) for frame in range(1, grid.num_frames)]
        assert [grid.frame_at(at) for at in just_before] == list(range(grid.num_frames - 1))


def test_frame_at_stays_inside_the_grid() -> None:
    grid = FrameGrid.of(metadata_of(10.5), 1)
    assert [grid.frame_at(at) for at in (-5, 0, 0.99, 1, 10.2, 99, float("inf"))] == [0, 0, 0, 1, 10, 10, 10]
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
    video = metadata_of(seconds)
    clips = cut_clips(video, FrameGrid.of(video, fps), clip_seconds, boundaries)
    assert [clip.start_seconds for clip in clips] == starts
    assert [clip.end_seconds for clip in clips] == [*starts[1:], seconds]
    assert all(isinstance(clip, Clip) and clip.video_id == video.id for clip in clips)


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf")])
def test_a_rate_or_length_must_be_a_number_above_0(value: float) -> None:
    with pytest.raises(LvqaError, match=r"frames_per_second is .* above 0"):
        FrameGrid.of(metadata_of(9), value)
    with pytest.raises(LvqaError, match=r"clip_seconds is .* above 0"):
        cut_clips(metadata_of(9), FrameGrid.of(metadata_of(9), 1), value)


# --- the grid of key frames ------------------------------------------------------------------------------------------


def key_seconds(path: Path) -> list[float]:
    """When the key frames are shown, by plain full decoding."""
    import av

    with av.open(f"file:{path}") as container:
        frames = list(container.decode(video=0))
    return [frame.time - frames[0].time for frame in frames if frame.key_frame]


@pytest.mark.parametrize("name", sorted({*PLAIN, *ODD} - {"h264.avi", "raw.h264", "cut.mp4", "refreshed.ts"}))
def test_key_frames_come_at_their_times_as_they_are(name: str, folder: Path) -> None:
    path = written(name, folder)
    video = inspect_video(path)
    grid = FrameGrid.of_key_frames(video, 100.0)
    assert grid.times_seconds.tolist() == pytest.approx(key_seconds(path), abs=1e-6)
    starts, pixels = all_frames(path)
    got, substituted = read(video, grid.times_seconds.tolist(), threads=2)
    np.testing.assert_array_equal(got, np.stack([pixels[place] for place in shown_at(grid.times_seconds, starts)]))
    assert not substituted.any()


def test_key_frames_are_decoded_alone(film: Video, monkeypatch: pytest.MonkeyPatch) -> None:
    sent = []
    decoded = lvqa.video.frame_reader.decoded
    grid = FrameGrid.of_key_frames(film, 100.0)
    monkeypatch.setattr(
        lvqa.video.frame_reader, "decoded", lambda codec, packet: (sent.append(packet), decoded(codec, packet))[1]
    )
    assert numbers(read(film, grid.times_seconds.tolist())[0]) == [0, 10, 20, 30, 40]
    assert [packet.is_keyframe for packet in sent if packet is not None] == [True] * 5


@pytest.mark.parametrize(
    ("fps", "expected"), [(2.5, [0, 10, 20, 30, 40]), (1.3, [0, 20, 40]), (1.0, [0, 30]), (0.1, [0])]
)
def test_key_frames_are_thinned(fps: float, expected: list[int], film: Video) -> None:
    assert (FrameGrid.of_key_frames(film, fps).times_seconds * 25).tolist() == pytest.approx(expected)


def test_an_edit_list_that_begins_between_key_frames(folder: Path) -> None:
    video = inspect_video(written("cut.mp4", folder))
    grid = FrameGrid.of_key_frames(video, 100.0)
    assert grid.times_seconds[0] > 0 and grid.frame_at(0.0) == 0
    clips = cut_clips(video, grid, 0.5)
    assert clips[0].start_seconds == 0 and clips[-1].end_seconds == video.duration_seconds


@pytest.mark.parametrize(
    ("name", "told"), [("h264.avi", "are not marked"), ("long.mp4", "lie 70 s apart, more than 60")]
)
def test_films_that_their_key_frames_do_not_show_are_refused(name: str, told: str, folder: Path) -> None:
    path = folder / name
    if not path.exists():
        video_files.write_video(
            path, 50 if name == "h264.avi" else 70, fps=25 if name == "h264.avi" else 1, options={"g": "99"}
        )
    with pytest.raises(VideoError, match=rf"{name}: its key frames {told}; use video\.grid: exact"):
        FrameGrid.of_key_frames(inspect_video(path), 1.0)


@pytest.mark.parametrize(
    ("clip_seconds", "boundaries", "starts"),
    [(16.0, (), [0, 4, 30, 50, 60]), (40.0, (), [0, 30, 60]), (40.0, (52.0,), [0, 30, 50]), (99.0, (), [0])],
)
def test_clips_of_key_frames(clip_seconds: float, boundaries: tuple[float, ...], starts: list[float]) -> None:
    grid = FrameGrid(np.array([0.0, 2, 4, 5, 30, 31, 50, 52, 60, 90]))  # pairs at 0, 4, 30, 50, 60
    clips = cut_clips(metadata_of(100.0), grid, clip_seconds, boundaries)
    assert [clip.start_seconds for clip in clips] == starts
    assert [clip.end_seconds for clip in clips] == [*starts[1:], 100.0]


# --- the threads ------------------------------------------------------------------------------------------------------


class Sleeper(DecordDecoder):
    """Gives two frames and then nothing."""

    def frames(
        self, video: Video, runs: Iterable[np.ndarray], *, height: int, width: int
    ) -> Iterator[tuple[np.ndarray, bool]]:
        for _ in range(2):
            yield np.zeros((height, width, 3), np.uint8), False
        wake.wait(20)


class Counter:
    """Counts the frames that it was asked for. Can be cut anywhere; fails at `fails_at`."""

    made = 0
    fails_at = np.inf

    def runs(self, video: Video, times_seconds: np.ndarray) -> list[np.ndarray]:
        return np.array_split(times_seconds, 100)

    def frames(
        self, video: Video, runs: Iterable[np.ndarray], *, height: int, width: int
    ) -> Iterator[tuple[np.ndarray, bool]]:
        for seconds in itertools.chain.from_iterable(runs):
            if seconds >= self.fails_at:
                raise VideoError(f"broken at {seconds:g} s")
            Counter.made += 1
            yield np.full((height, width, 3), round(seconds * 100), np.uint8), False


class Failing(Counter):
    fails_at = 1.0


class Short(Counter):
    """Forgets the last frame of what it is asked for."""

    def frames(self, video: Video, runs: Iterable[np.ndarray], **size: int) -> Iterator[tuple[np.ndarray, bool]]:
        runs = list(runs)
        return super().frames(video, [*runs[:-1], runs[-1][:-1]], **size)


wake = threading.Event()


def test_a_decoder_that_hangs_is_noticed(film: Video, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DECODERS, "sleeper", Sleeper)
    started = time.monotonic()
    with pytest.raises(VideoError, match=r"film\.mp4: the decoder gave nothing for 0\.2 s at 1\.5 s of the film"):
        list(read_frames(film, [0, 1, 1.5], height=8, width=8, decoder="sleeper", stall_seconds=0.2))
    wake.set()
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_memory_does_not_grow_and_closing_ends_the_threads(
    threads: int, film: Video, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(DECODERS, "counter", Counter)
    monkeypatch.setattr(Counter, "made", 0)
    times = np.linspace(0, 1.9, 1000)
    batches = read_frames(film, times, height=8, width=8, decoder="counter", threads=threads, batch_frames=4)
    with closing(batches):
        np.testing.assert_array_equal(next(batches).times_seconds, times[:4])
        time.sleep(0.2)
        assert len(decode_threads()) == threads
        assert Counter.made <= 4 + threads * (4 + 1)  # the batch; of each thread the queue and one in its hand
    assert decode_threads() == []


@pytest.mark.parametrize("threads", [1, 2, 7, 1000])
def test_threads_deliver_in_order(threads: int, film: Video, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DECODERS, "counter", Counter)
    times = np.linspace(0, 1.9, 333)
    batches = read_frames(film, times, height=8, width=8, decoder="counter", threads=threads, batch_frames=10)
    got = [round(frame.mean()) for batch in batches for frame in batch.pixels]
    assert got == [round(seconds * 100) for seconds in times]


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_an_error_in_a_thread_comes_after_the_frames_before_it(
    threads: int, film: Video, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(DECODERS, "failing", Failing)
    got: list[float] = []
    with pytest.raises(VideoError, match=r"^broken at 1 s$"):
        for batch in read_frames(
            film, np.arange(200) / 100, height=8, width=8, decoder="failing", threads=threads, batch_frames=10
        ):
            got += batch.times_seconds.tolist()
    assert got == (np.arange(100) / 100).tolist()
    assert decode_threads() == []


def test_a_decoder_that_forgets_a_frame_is_told_of(film: Video, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DECODERS, "short", Short)
    with pytest.raises(RuntimeError, match="fewer frames than it was asked for"):
        list(read_frames(film, np.linspace(0, 1, 200), height=8, width=8, decoder="short", threads=2))
    assert decode_threads() == []


@pytest.mark.parametrize(("given", "threads"), [("3", 3), ("2,1", 2), ("0", 1), ("", None), ("many", None)])
def test_threads_are_as_many_as_a_process_is_given(
    given: str, threads: int | None, film: Video, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(DECODERS, "counter", Counter)
    monkeypatch.setenv("OMP_NUM_THREADS", given)
    with closing(read_frames(film, np.linspace(0, 1, 100), height=8, width=8, decoder="counter")) as batches:
        next(batches)
        assert len(decode_threads()) == (threads or num_cores())


@pytest.mark.parametrize(("decoder", "threads"), [*((name, 1) for name in DECODERS), ("pyav", 3)])
@pytest.mark.parametrize("batches_read", [0, 1])
def test_closing_early_leaves_no_thread(
    decoder: str, threads: int, batches_read: int, film: Video, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lvqa.video.timeline, "_RUN_PACKETS", 1)
    times = [frame / 25 for frame in range(50)]
    batches = read_frames(film, times, height=48, width=80, decoder=decoder, threads=threads, batch_frames=2)
    for _ in range(batches_read):
        next(batches)
    batches.close()
    assert decode_threads() == []


def test_an_unknown_decoder_is_refused_by_name(film: Video) -> None:
    with pytest.raises(LvqaError, match="decoder 'ffmpeg' is unknown; allowed: decord, pyav"):
        read_frames(film, [0.0], height=8, width=8, decoder="ffmpeg")


@pytest.mark.parametrize("decoder", DECODERS)
def test_a_film_that_went_away_is_one_line(decoder: str, folder: Path) -> None:
    video = inspect_video(video_files.write_video(folder / "leaving.mp4", 5))
    video.path.unlink()
    with pytest.raises(VideoError, match=r"leaving\.mp4: .+; ") as refusal:
        read(video, [0.0], decoder)
    assert "\n" not in str(refusal.value)


def test_the_room_is_light_to_enter() -> None:
    code = "import sys, lvqa.video; print(sorted({'av', 'decord', 'torch', 'cv2'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"

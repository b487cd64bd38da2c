"""Subtitles of one's own videos: files beside them, tracks in them, and lines as they are kept."""

from __future__ import annotations

import math
import shutil
import subprocess
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lvqa.records import LvqaError, Subtitle
from lvqa.subtitles import PARSERS, read_subtitles, sidecar_of, tidied
from lvqa.video import inspect_video, read_subtitle_track

SRT = """1
00:00:01,000 --> 00:00:03,500
<i>Good</i> {\\an8}evening,
all.

2
00:00:05,000 --> 00:00:06,000
Bye.
"""
VTT = """WEBVTT - a title
Kind: captions

NOTE a comment --
of two lines

STYLE
::cue { color: red }

one
00:01.000 --> 00:03.500 align:start position:0%
<v Ann>Good evening,</v>
all.

00:00:05.000 --> 00:00:06.000
Rock&nbsp;&amp; roll.
"""
LINES = (Subtitle(1.0, 3.5, "Good evening, all."), Subtitle(5.0, 6.0, "Bye."))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_subrip_and_webvtt(tmp_path, newline, encoding):
    for suffix, text in ((".srt", SRT), (".vtt", VTT)):
        (tmp_path / f"a{suffix}").write_bytes(text.replace("\n", newline).encode(encoding))
    assert read_subtitles(tmp_path / "a.srt") == LINES
    assert read_subtitles(tmp_path / "a.vtt") == (LINES[0], Subtitle(5.0, 6.0, "Rock & roll."))


TEXTS = st.text(st.characters(categories=["L", "N", "P", "Zs"], exclude_characters="<>{}&-"), min_size=1).map(
    lambda text: " ".join(text.split())
)


@pytest.mark.slow
@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 10**8), st.integers(1, 10**5), TEXTS.filter(bool)), max_size=8))
def test_what_is_written_is_read(tmp_path_factory, rows):
    def clock(milliseconds: int, point: str) -> str:
        seconds, rest = divmod(milliseconds, 1000)
        return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}{point}{rest:03d}"

    folder = tmp_path_factory.mktemp("written")
    for suffix, point, head in ((".srt", ",", ""), (".vtt", ".", "WEBVTT\n\n")):
        blocks = [f"{i}\n{clock(a, point)} --> {clock(a + n, point)}\n{text}\n" for i, (a, n, text) in enumerate(rows)]
        path = folder / f"a{suffix}"
        path.write_text(head + "\n".join(blocks), encoding="utf-8")
        read = read_subtitles(path)
        assert [line.text for line in read] == [text for _, _, text in rows]
        assert [line.start_seconds for line in read] == pytest.approx([a / 1000 for a, _, _ in rows])
        assert [line.end_seconds for line in read] == pytest.approx([(a + n) / 1000 for a, n, _ in rows])


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.srt", "1\nnow --> then\nHi", r"a time of subtitles must be HH:MM:SS,mmm, got 'now' \(.*a\.srt\)$"),
        ("a.vtt", "WEBVTT\n\n1:2:3:4 --> 5\nHi", r"a time of subtitles must be HH:MM:SS,mmm, got '1:2:3:4' "),
        ("a.vtt", "WEBVTT\n\n00:01.000 -->\nHi", r"a time of subtitles must be HH:MM:SS,mmm, got '' "),
        ("a.txt", "Hi", r"a\.txt: a file of subtitles has the suffix \.srt or \.vtt$"),
        ("none.srt", None, r"none\.srt: No such file or directory$"),
    ],
)
def test_a_file_that_is_none_of_subtitles_is_one_line(tmp_path, name, content, reason):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(LvqaError, match=reason) as caught:
        read_subtitles(tmp_path / name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["talk.srt", "talk.vtt", "talk.en.srt"], "talk.srt"),
        (["talk.vtt", "talk.de.srt"], "talk.vtt"),
        (["talk.de.srt", "talk.en.vtt"], "talk.en.vtt"),
        (["talk.pt-BR.srt", "talk.de.srt"], "talk.de.srt"),
        (["talks.srt", "talk.txt", "talk.mp4.srt.bak", "other.en.srt", "talk.a.b.srt"], None),
        ([], None),
    ],
)
def test_the_file_beside_a_video(tmp_path, names, expected):
    for name in names:
        (tmp_path / name).touch()
    sidecar = sidecar_of(tmp_path / "talk.mp4")
    assert sidecar == (None if expected is None else tmp_path / expected)


SUBTITLES = st.builds(
    Subtitle,
    st.floats(-10, 130) | st.just(float("nan")),
    st.floats(-10, 130) | st.just(float("inf")),
    st.sampled_from(["", "a", "b"]),
)


@settings(deadline=None)
@given(st.lists(SUBTITLES, max_size=12))
def test_lines_are_kept_in_order_inside_the_video_and_once(lines):
    kept = tidied(lines, 100.0)
    assert all(0 <= line.start_seconds < line.end_seconds <= 100 and line.text for line in kept)
    assert list(kept) == sorted(kept, key=lambda line: line.start_seconds)
    assert tidied(kept, 100.0) == kept
    whole = [line for line in lines if line.text and not math.isnan(line.start_seconds)]
    for line in (
        line for line in whole if max(0, line.start_seconds) < min(100, line.end_seconds)
    ):  # nothing that is said is lost
        middle = (max(0, line.start_seconds) + min(100, line.end_seconds)) / 2
        assert any(x.text == line.text and x.start_seconds <= middle <= x.end_seconds for x in kept)


def test_captions_that_roll_up_are_lines_once():
    rolling = [Subtitle(0, 2, "one"), Subtitle(2, 2.1, "one"), Subtitle(2.2, 4, "one"), Subtitle(9, 10, "one")]
    assert tidied(rolling, 60) == (Subtitle(0, 4, "one"), Subtitle(9, 10, "one"))


# --- tracks ----------------------------------------------------------------------------------------------------------


def write_video(path: Path, *, srt: Path | None = None, offset_seconds: float = 0.0) -> None:
    """Write ten seconds of video, with a track of subtitles in Matroska; all times are later by the offset."""
    with av.open(str(path), "w", format="matroska") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        if srt is not None:
            with av.open(str(srt)) as source:
                track = container.add_stream_from_template(source.streams.subtitles[0])
                packets = [packet for packet in source.demux(source.streams.subtitles[0]) if packet.size]
                for i in range(100):
                    frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), i, np.uint8), format="rgb24")
                    frame.pts, frame.time_base = i + round(10 * offset_seconds), Fraction(1, 10)
                    container.mux(stream.encode(frame))
                container.mux(stream.encode(None))
                for packet in packets:
                    shift = round(offset_seconds / packet.time_base)
                    packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                    packet.stream = track
                    container.mux(packet)
        else:
            for i in range(100):
                frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), i, np.uint8), format="rgb24")
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))


@pytest.fixture
def srt(tmp_path) -> Path:
    path = tmp_path / "lines.srt"
    path.write_text(SRT)
    return path


@pytest.mark.parametrize("offset_seconds", [0.0, 7.5])
def test_a_track_in_matroska_by_the_clock_of_the_pictures(tmp_path, srt, offset_seconds):
    write_video(tmp_path / "a.mkv", srt=srt, offset_seconds=offset_seconds)
    lines = read_subtitle_track(inspect_video(tmp_path / "a.mkv"))
    assert [line.text for line in lines] == [line.text for line in LINES]
    assert [line.start_seconds for line in lines] == pytest.approx([1.0, 5.0])
    assert [line.end_seconds for line in lines] == pytest.approx([3.5, 6.0])


def test_a_video_without_subtitles_has_no_lines(tmp_path):
    write_video(tmp_path / "a.mkv")
    assert read_subtitle_track(inspect_video(tmp_path / "a.mkv")) == ()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs ffmpeg, to write such tracks")
@pytest.mark.parametrize(
    ("suffix", "codec", "video_codec"),
    [("mp4", "mov_text", "libx264"), ("webm", "webvtt", "libvpx"), ("mkv", "ass", "libx264")],
)
def test_tracks_of_other_kinds(tmp_path, srt, suffix, codec, video_codec):
    path = tmp_path / f"a.{suffix}"
    command = ["ffmpeg", "-v", "error", "-f", "lavfi", "-i", "testsrc=d=10:s=64x64:r=10", "-i", str(srt), "-map", "0:v"]
    subprocess.run([*command, "-map", "1", "-c:v", video_codec, "-c:s", codec, str(path)], check=True)
    assert read_subtitle_track(inspect_video(path)) == LINES


def test_every_suffix_has_a_reader_that_gives_lines():
    assert {suffix: [*parse(b"", "here")] for suffix, parse in PARSERS.items()} == {".srt": [], ".vtt": []}

"""Pictures are read as a player shows them: turned, mirrored, and in square pixels."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import video_files
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter
from click.testing import CliRunner
from PIL import ExifTags, Image
from video_files import read_pixels

import lvqa.video
from lvqa.cli.main import lvqa_command
from lvqa.image import read_image
from lvqa.video import VideoError, inspect_video, read_frames, store_metadata
from lvqa.video.display import SCALING, make_renderer

ZERO_MATRIX = Path(__file__).parent / "data" / "video_faults" / "zeromatrix.mp4"
"""8 s of 320 x 240 with a display matrix of zeros. A player shows it as it is stored."""

FULL_COLOURS = 0x4 | 0x2000 | 0x40000
"""FFmpeg's flags of a conversion to RGB that interpolates colours: SWS_BICUBIC, FULL_CHR_H_INT, ACCURATE_RND."""

INTERLACED_CODING = 0x20040000
"""FFmpeg's flags of an encoder that codes the fields of a frame: interlaced DCT and motion estimation."""

ORIENTATIONS: dict[tuple[int, int, int, int], Callable[[np.ndarray], np.ndarray]] = {
    (1, 0, 0, 1): lambda picture: picture,
    (-1, 0, 0, 1): lambda picture: picture[:, ::-1],
    (1, 0, 0, -1): lambda picture: picture[::-1],
    (-1, 0, 0, -1): lambda picture: np.rot90(picture, 2),
    (0, 1, -1, 0): lambda picture: np.rot90(picture, 3),
    (0, -1, 1, 0): lambda picture: np.rot90(picture, 1),
    (0, 1, 1, 0): lambda picture: picture.swapaxes(0, 1),
    (0, -1, -1, 0): lambda picture: np.rot90(picture.swapaxes(0, 1), 2),
    (0, 0, 0, 0): lambda picture: picture,
    (1, 1, 1, 1): lambda picture: picture,
    (0, 0, 1, 1): lambda picture: picture,
}
"""What FFmpeg makes of the stored picture for a, b, c and d of the display matrix."""


def with_matrix(path: Path, turn: tuple[int, int, int, int]) -> Path:
    """Write a copy of ZERO_MATRIX with another display matrix, and return its path."""
    data = bytearray(ZERO_MATRIX.read_bytes())
    a, b, c, d = (number << 16 for number in turn)
    x = 320 << 16 if turn[0] < 0 or turn[2] < 0 else 0
    struct.pack_into(">9i", data, data.index(b"tkhd") + 44, a, b, 0, c, d, 0, x, 0, 1 << 30)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("turn", ORIENTATIONS)
def test_the_whole_display_matrix_decides(turn: tuple[int, int, int, int], tmp_path: Path) -> None:
    (stored,), _ = read_pixels(inspect_video(ZERO_MATRIX), [1.0])
    video = inspect_video(with_matrix(tmp_path / "video.mp4", turn))
    (pixels,), _ = read_pixels(video, [1.0])
    assert stored.shape == (240, 320, 3) and video.duration_seconds == 8.0 and video.frames_per_second == 25.0
    np.testing.assert_array_equal(pixels, ORIENTATIONS[turn](stored))
    if np.linalg.det(np.reshape(turn, (2, 2))) < 0:
        with pytest.raises(VideoError, match=r"the frame at 1 s is wrong\); video\.decoder: pyav reads it"):
            read_pixels(video, [1.0], decoder="decord")


def write_photos(path: Path, exif_orientation: int) -> Path:
    """Write a video of JPEG pictures with a camera's notes in each, and return its path."""
    photo, exif, file = Image.fromarray(np.full((48, 64, 3), 40, np.uint8)), Image.Exif(), io.BytesIO()
    photo.paste((200, 200, 200), (0, 0, 32, 16))
    exif[ExifTags.Base.Orientation] = exif_orientation
    photo.save(file, "jpeg", exif=exif)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
        for i in range(5):
            packet = av.Packet(file.getvalue())
            packet.pts = packet.dts = i
            packet.time_base, packet.stream, packet.is_keyframe = Fraction(1, 10), stream, True
            container.mux(packet)
    return path


@pytest.mark.parametrize(("exif_orientation", "num_turns"), [(1, 0), (6, 3), (3, 2), (8, 1)])
def test_what_pyav_does_not_know_of_a_frame_hides_no_turn(
    exif_orientation: int, num_turns: int, tmp_path: Path
) -> None:
    """PyAV 18 raises ValueError for a frame's side data if one of them is EXIF, or says which eye sees the frame."""
    if av.library_versions["libavcodec"] < (62,):
        pytest.skip("FFmpeg 7 does not read the EXIF data of a frame")
    (stored,), _ = read_pixels(inspect_video(write_photos(tmp_path / "upright.mov", 1)), [0.3])
    (pixels,), _ = read_pixels(inspect_video(write_photos(tmp_path / "turned.mov", exif_orientation)), [0.3])
    np.testing.assert_array_equal(pixels, np.rot90(stored, num_turns))


def write_picture(
    path: Path,
    picture: np.ndarray,
    *,
    codec: str = "libx264",
    pixel_aspect: Fraction = Fraction(1),
    options: dict[str, str] | None = None,
    flags: int = 0,
) -> Path:
    """Write a video that shows one picture for a fifth of a second, and return its path.

    Args:
        path: The file.
        picture: (height, width, 3) uint8.
        codec: FFmpeg's name of the encoder.
        pixel_aspect: The width of a pixel over its height; 0: not known.
        options: Options of the encoder.
        flags: Flags of the encoder.
    """
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=25, options=options or {})
        stream.height, stream.width, stream.pix_fmt = *picture.shape[:2], "yuv420p"
        stream.codec_context.thread_count, stream.codec_context.sample_aspect_ratio = 1, pixel_aspect
        stream.codec_context.flags |= flags
        for i in range(5):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts = i
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(
    ("name", "codec", "stored", "pixel_aspect", "square"),
    [
        ("dvd.mpg", "mpeg2video", (576, 720), Fraction(64, 45), (576, 1024)),
        ("dvd.mkv", "libx264", (576, 720), Fraction(64, 45), (576, 1024)),
        ("dvd.mp4", "libx264", (480, 720), Fraction(8, 9), (480, 640)),
        ("square.mp4", "libx264", (90, 120), Fraction(1, 1), (90, 120)),
        ("unknown.mp4", "libx264", (90, 120), Fraction(0, 1), (90, 120)),
        ("damaged.mp4", "libx264", (90, 120), Fraction(1, 30000), (90, 120)),
    ],
)
def test_the_size_is_that_of_square_pixels(
    name: str, codec: str, stored: tuple[int, int], pixel_aspect: Fraction, square: tuple[int, int], tmp_path: Path
) -> None:
    picture = np.zeros((*stored, 3), dtype=np.uint8)
    picture[:, stored[1] // 2 :] = 255
    video = inspect_video(write_picture(tmp_path / name, picture, codec=codec, pixel_aspect=pixel_aspect))
    assert (video.height, video.width) == square
    (pixels,), _ = read_pixels(video, [0.0])
    assert pixels.shape == (*square, 3)
    assert pixels[:, : square[1] // 2 - 8].max() < 40 and pixels[:, square[1] // 2 + 8 :].min() > 215


def test_pixels_that_are_not_square_are_turned_with_the_picture(tmp_path: Path) -> None:
    path = video_files.write_video(tmp_path / "turned.mp4", 3, rotation=90, pixel_aspect=Fraction(2, 1))
    video = inspect_video(path)
    assert (video.height, video.width) == (2 * video_files.WIDTH, video_files.HEIGHT)


@pytest.mark.parametrize(("height", "width"), [(2, 4000), (16, 3400), (3400, 16)])
def test_too_narrow_a_frame_is_refused_before_a_model_is_loaded(
    height: int, width: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_picture(tmp_path / "narrow.mkv", np.zeros((height, width, 3), dtype=np.uint8), codec="ffv1")
    message = f"a frame is {width} pixels wide and {height} high; one side may be 200 times the other at most"
    for _ in range(2):  # from the file, and from what is known of it
        with pytest.raises(VideoError, match=message):
            inspect_video(path)
    monkeypatch.setattr("lvqa.pipeline.LongVideoQA.load", lambda *_, **__: pytest.fail("a model was loaded"))
    words = ["index", str(path), "--model", "tiny", "--store", str(tmp_path / "store")]
    result = CliRunner().invoke(lvqa_command, words)
    assert result.exit_code == 1 and result.stderr.splitlines() == [f"lvqa: {path}: {message}"]


@pytest.mark.parametrize("height", [2, 16])
def test_a_wide_frame_within_the_limit_is_read(height: int, tmp_path: Path) -> None:
    path = write_picture(tmp_path / "wide.mkv", np.zeros((height, 200 * height, 3), dtype=np.uint8), codec="ffv1")
    assert inspect_video(path).width == 200 * height


@pytest.mark.parametrize(
    ("codec", "options"),
    [
        ("mpeg2video", {}),
        ("libx264", {"x264-params": "interlaced=1:tff=1"}),
        ("libx264", {"x264-params": "interlaced=0"}),
    ],
)
def test_the_fields_of_an_interlaced_frame_are_scaled_as_one_picture(
    codec: str, options: dict[str, str], tmp_path: Path
) -> None:
    """White and black lines in turn become grey at a quarter of the height; each field alone is white or black."""
    lines = np.zeros((240, 320, 3), dtype=np.uint8)
    lines[::2] = 255
    path = write_picture(tmp_path / "video.mkv", lines, codec=codec, options=options, flags=INTERLACED_CODING)
    video = inspect_video(path)
    frames = next(read_frames(video, [0.0, 0.04], height=60, width=80, threads=1))
    assert not frames.substituted.any()
    inner = frames.pixels[:, 2:-2]
    assert inner.min() > 110 and inner.max() < 145


def test_an_interlaced_frame_keeps_its_colours(tmp_path: Path) -> None:
    colours = np.zeros((96, 160, 3), dtype=np.uint8)
    colours[:, :80], colours[:, 80:] = (200, 40, 60), (30, 60, 220)
    options = {"x264-params": "interlaced=1:colormatrix=bt709:fullrange=on"}
    path = write_picture(tmp_path / "video.mkv", colours, options=options)
    (pixels,), _ = read_pixels(inspect_video(path), [0.0])
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
        expected = frame.reformat(format="rgb24").to_ndarray()
    assert frame.interlaced_frame and frame.colorspace == Colorspace.ITU709 and frame.color_range == ColorRange.JPEG
    assert np.abs(pixels.astype(int) - expected)[:, [20, 140]].max() < 8


@pytest.mark.parametrize(("decoder", "channels"), [("pyav", 3), ("decord", 1)])
@pytest.mark.parametrize("size", [(72, 120), (50, 200), (300, 500)])
def test_frames_are_scaled_as_pictures_are(decoder: str, channels: int, size: tuple[int, int], tmp_path: Path) -> None:
    """Qwen's processor and `read_image` scale the same way. The noise is grey for decord, which halves colours."""
    noise = np.random.default_rng(0).integers(0, 256, (48, 80, channels), dtype=np.uint8)
    picture = np.kron(np.broadcast_to(noise, (48, 80, 3)), np.ones((4, 4, 1), dtype=np.uint8))
    video = inspect_video(write_picture(tmp_path / "video.mp4", picture, options={"crf": "4"}))
    with av.open(str(video.path)) as container:
        whole = next(container.decode(video=0)).reformat(format="rgb24", interpolation=FULL_COLOURS)
    Image.fromarray(whole.to_ndarray()).save(tmp_path / "whole.png")
    expected = read_image(tmp_path / "whole.png", size_of=lambda *_: size).astype(int)
    pixels = next(read_frames(video, [0.0], height=size[0], width=size[1], decoder=decoder)).pixels[0].astype(int)
    assert np.abs(pixels - expected).mean() < 3
    # The scaler of FFmpeg 7 is off by 6%, that of FFmpeg 8 by less than 5%.
    assert np.abs(np.diff(pixels, axis=1)).mean() == pytest.approx(np.abs(np.diff(expected, axis=1)).mean(), rel=0.07)


YUV_FORMATS = sorted(name for name in av.video.format.names if name.startswith("yuv"))


@pytest.mark.parametrize("name", YUV_FORMATS)
def test_scaled_frames_have_the_values_that_scaling_to_rgb_gives(name: str) -> None:
    rng = np.random.default_rng(0)
    for height, width in ((48, 64), (47, 63), (90, 160)):
        frame = av.VideoFrame(width, height, name)
        for plane in frame.planes:
            plane.update(rng.bytes(plane.buffer_size))
        for rows, columns in ((30, 40), (48, 64), (48, 30), (30, 64), (80, 100), (126, 224), (24, 32)):
            expected = VideoReformatter().reformat(frame, columns, rows, "rgb24", interpolation=SCALING).to_ndarray()
            np.testing.assert_array_equal(make_renderer(height=rows, width=columns)(frame), expected)


@pytest.mark.parametrize(("curve", "name"), [("smpte2084", "PQ"), ("arib-std-b67", "HLG"), ("bt709", None)])
def test_flat_colours_are_told_once(
    curve: str, name: str | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    coding = f"log-level=none:pools=1:colorprim=bt2020:transfer={curve}:colormatrix=bt2020nc"
    options = {"preset": "ultrafast", "x265-params": coding}
    picture = np.full((96, 160, 3), 128, dtype=np.uint8)
    path = write_picture(tmp_path / "video.mp4", picture, codec="libx265", options=options)
    warnings = (
        (f"this is HDR video ({name}), which is not mapped to SDR: colours and contrast look flat",) if name else ()
    )
    for _ in range(2):
        assert inspect_video(path).warnings == warnings
    assert caplog.messages == [f"{path}: {warning}" for warning in warnings]
    store_metadata(path, tmp_path)
    lvqa.video.metadata.read_metadata.cache_clear()
    assert inspect_video(path, metadata_folder=tmp_path).warnings == warnings

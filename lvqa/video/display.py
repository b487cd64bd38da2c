"""How a player shows a stored picture: turned, mirrored, and with pixels that are not square."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, cast

import numpy as np

if TYPE_CHECKING:
    import av
    from av.filter import Graph

MAX_PIXEL_ASPECT = 16
"""One side of a pixel may be so many times the other at most. Real ones stay below 4: a larger ratio is damage."""

SCALING = 0x4 | 0x2000
"""FFmpeg's SWS_BICUBIC, as Qwen's processor scales, and SWS_FULL_CHR_H_INT, without which the colours of a scaled frame
lose every second column. A frame in its own size becomes RGB as FFmpeg does it by default."""

_HDR_CURVES = {16: "PQ", 18: "HLG"}
"""FFmpeg's number of a transfer curve for bright screens -> its name."""


@dataclass(frozen=True, slots=True)
class Orientation:
    """What a player does to the stored picture, in this order."""

    is_transposed: bool = False
    """Rows become columns."""
    is_mirrored: bool = False
    """Left and right change places."""
    is_flipped: bool = False
    """Top and bottom change places."""

    @classmethod
    def of_matrix(cls, matrix: np.ndarray) -> Orientation:
        """Return the orientation that is nearest to a display matrix.

        Args:
            matrix: (9,) integers (a, b, u, c, d, v, x, y, w): a player draws the pixel at (p, q) at
                (a p + c q + x, b p + d q + y), up to a scale. Only a, b, c and d turn the picture.

        Returns:
            The orientation; that of an upright picture where the matrix maps the picture to a line or a point.
        """
        a, b, _, c, d = matrix[:5].tolist()
        if a * d == b * c:
            return cls()
        # Each axis has a scale of its own, so the columns are compared as directions.
        if abs(b) * math.hypot(a, c) > abs(a) * math.hypot(b, d):
            return cls(is_transposed=True, is_mirrored=c < 0, is_flipped=b < 0)
        return cls(is_mirrored=a < 0, is_flipped=d < 0)

    @property
    def is_reflection(self) -> bool:
        """Whether the picture is shown as in a mirror, which no turn makes right."""
        return (self.is_transposed + self.is_mirrored + self.is_flipped) % 2 == 1

    def apply(self, pixels: np.ndarray) -> np.ndarray:
        """Return a view of a stored picture, (height, width, 3), as it is shown."""
        if self.is_transposed:
            pixels = pixels.swapaxes(0, 1)
        return pixels[:: -1 if self.is_flipped else 1, :: -1 if self.is_mirrored else 1]

    def swap(self, height: int, width: int) -> tuple[int, int]:
        """Return the shown height and width of a stored picture, or the stored ones of a shown picture."""
        return (width, height) if self.is_transposed else (height, width)


def orientation_of(frame: av.VideoFrame) -> Orientation:
    """Return how a player turns the stored picture."""
    try:
        side_data: Any = frame.side_data.get("DISPLAYMATRIX")
    except ValueError:
        # A kind of side data that this PyAV does not know, as in stereo video, hides them all. A turn it still tells.
        return _turn(frame.rotation)
    if side_data is None:
        return Orientation()
    return Orientation.of_matrix(np.frombuffer(side_data, dtype=np.int32))


def _turn(degrees: float) -> Orientation:
    """Return the orientation of a picture that is turned counterclockwise."""
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return Orientation.of_matrix(np.round(1000 * np.array([cosine, -sine, 0, sine, cosine, 0, 0, 0, 1])))


def display_size(frame: av.VideoFrame, pixel_aspect: Fraction | None) -> tuple[int, int]:
    """Return the height and width at which a player shows a frame, in square pixels.

    Args:
        frame: The stored picture.
        pixel_aspect: The width of a stored pixel over its height; None: not known, so square. The height is kept.
    """
    if not pixel_aspect or not 1 / MAX_PIXEL_ASPECT <= pixel_aspect <= MAX_PIXEL_ASPECT:
        pixel_aspect = Fraction(1)
    width = max(1, round(frame.width * pixel_aspect))
    return orientation_of(frame).swap(frame.height, width)


def warnings_of(codec: av.VideoCodecContext) -> tuple[str, ...]:
    """Return why frames look to a model otherwise than a player shows them, in one line each.

    Args:
        codec: The decoder, after its first frame.
    """
    curve = _HDR_CURVES.get(int(codec.color_trc))
    if curve is None:
        return ()
    return (f"this is HDR video ({curve}), which is not mapped to SDR: colours and contrast look flat",)


class FieldMerger:
    """Declares interlaced frames to be progressive, without a copy of the pixels.

    FFmpeg's scaler would scale the two fields of an interlaced frame apart, and then show lines of two times in turn.
    """

    def __init__(self) -> None:
        self._graphs: dict[tuple[int, int, str], Graph] = {}

    def merge(self, frame: av.VideoFrame) -> av.VideoFrame:
        """Return a progressive frame of the same pixels; a frame that is progressive already comes back itself."""
        if not frame.interlaced_frame:
            return frame
        key = (frame.height, frame.width, frame.format.name)
        if key not in self._graphs:
            self._graphs[key] = _make_graph(frame)
        self._graphs[key].push(frame)
        return cast("av.VideoFrame", self._graphs[key].pull())


def _make_graph(frame: av.VideoFrame) -> Graph:
    """Return a filter graph that changes the kind of a frame's fields, and nothing else."""
    from av.filter import Graph

    graph = Graph()
    source = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base or Fraction(1, 25)
    )
    graph.link_nodes(source, graph.add("setfield", "prog"), graph.add("buffersink")).configure()
    return graph


def make_renderer(*, height: int, width: int, scaling: int = SCALING) -> Callable[[av.VideoFrame], np.ndarray]:
    """Return a function that scales a frame straight to the target size, so that no whole frame becomes RGB."""
    import av
    from av.video.reformatter import VideoReformatter

    reformatter, fields = VideoReformatter(), FieldMerger()
    options: dict[str, Any] = {"interpolation": scaling}
    if int(av.__version__.partition(".")[0]) >= 17:
        # The scaler's own threads would not survive a fork, and readers work in parallel already.
        options["threads"] = 1

    def render(frame: av.VideoFrame) -> np.ndarray:
        orientation = orientation_of(frame)
        rows, columns = orientation.swap(height, width)
        is_scaled = (rows, columns) != (frame.height, frame.width)
        # To planes FFmpeg scales three times as fast, on x86, and with the same values.
        layout = "gbrp" if is_scaled and frame.format.name.startswith("yuv") else "rgb24"
        scaled = reformatter.reformat(fields.merge(frame), height=rows, width=columns, format=layout, **options)
        return np.ascontiguousarray(orientation.apply(scaled.to_ndarray()))

    return render

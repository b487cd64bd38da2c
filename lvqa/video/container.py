"""FFmpeg's libraries: a file as packets and frames. What they say of it is one line with its name."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, cast

from lvqa.records import LvqaError

if TYPE_CHECKING:
    import av


# Containers that hold their own frames. Playlists (hls, concat, dash, sdp) are left out on purpose: they open other
# files and the network. So are still pictures.
_CONTAINERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,asf,ogg,mxf,nut,ivf,gif,rm,dv,wtv,nsv,"
    "h264,hevc,vvc,av1,obu,m4v,vc1,mjpeg,yuv4mpegpipe"
)


class VideoError(LvqaError):
    """A file that can't be read as a film, or a time that lies outside it."""


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Whatever FFmpeg or the system say about the file becomes one line with its name."""
    try:
        yield
    except Exception as error:
        import av  # only now: of a film that is known nothing need be read

        if not isinstance(error, av.error.FFmpegError | OSError):
            raise
        reason = f"not readable as video ({error.strerror or error})"
        raise VideoError(
            f"{path}: {reason}; expected a video file (mp4, mkv, webm, ...), no playlist and no picture"
        ) from error


@contextmanager
def opened(path: Path) -> Iterator[av.VideoStream]:
    """The film's stream. Nothing but this one file is opened, whatever its name or its text say."""
    import av

    # "file:" keeps a name from being read as a protocol.
    options = {"protocol_whitelist": "file", "format_whitelist": _CONTAINERS}
    with av.open(f"file:{path}", container_options=options, metadata_errors="replace") as container:
        cover = av.stream.Disposition.attached_pic
        films = [stream for stream in container.streams.video if not stream.disposition & cover]
        if not films:
            raise VideoError(f"{path}: holds no video stream; expected a film with pictures")
        if films[0].codec_context is None:
            raise VideoError(f"{path}: FFmpeg has no decoder for its video stream; expected H.264, HEVC, VP9, AV1, ...")
        # Frame threads cost a fifth more for the same frames; films are read in parallel instead.
        films[0].codec_context.thread_count = 1
        yield films[0]


def demuxed(stream: av.VideoStream, patience: int = 100) -> Iterator[av.Packet[av.VideoStream]]:
    """The packets in decode order. Goes on behind damage, until `patience` reads in a row have failed."""
    import av

    container = cast("av.container.InputContainer", stream.container)
    failures = 0
    while failures < patience:
        try:
            for packet in container.demux(stream):
                failures = 0
                if packet.size:  # the last one is empty: a call to flush
                    yield packet
            return
        except av.error.FFmpegError:
            failures += 1


def decoded(codec: av.VideoCodecContext, packet: av.Packet[av.VideoStream] | None) -> list[av.VideoFrame] | None:
    """The frames that come out when `packet` goes in, or None if it is damaged. No packet flushes the decoder."""
    import av

    try:
        return codec.decode(packet)
    except av.error.FFmpegError:
        return None


def all_frames(stream: av.VideoStream) -> Iterator[av.VideoFrame]:
    """Whatever can be decoded, as presented."""
    for packet in itertools.chain(demuxed(stream), [None]):
        yield from decoded(stream.codec_context, packet) or []


def quarter_turns(frame: av.VideoFrame) -> int:
    """How often to turn the stored picture by 90 degrees, anticlockwise as `np.rot90` does."""
    return round(frame.rotation / 90) % 4

"""Read a file's packets and frames with FFmpeg's libraries, and make one line of what they report about it."""

from __future__ import annotations

import functools
import itertools
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from lvqa.places import PlaceError, in_use
from lvqa.records import LvqaError

if TYPE_CHECKING:
    import av


# Containers that hold their own frames. Playlists (hls, concat, dash, sdp) are left out on purpose: they open other
# files and the network. So are still pictures.
MP4, MATROSKA = "mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"
"""What FFmpeg calls these containers."""
_CONTAINERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,asf,ogg,mxf,nut,ivf,gif,rm,dv,wtv,nsv,"
    "h264,hevc,vvc,av1,obu,m4v,vc1,mjpeg,yuv4mpegpipe"
)


_PROBED_PACKETS = 256
"""How many packets of a file with several video streams are read to see which of them move."""


class VideoError(LvqaError):
    """A file can't be read as a video, or a time lies outside it."""


@dataclass(slots=True)
class ReadPackets:
    """How many packets a thread has read. Another thread sees by it that this one is at work, and does not hang."""

    num: int = 0


class _Reading(threading.local):
    """What each thread has of its own."""

    def __init__(self) -> None:
        self.packets = ReadPackets()


_reading = _Reading()


def count_packets(read: ReadPackets) -> None:
    """Have the packets counted here that this thread reads from now on."""
    _reading.packets = read


@contextmanager
def convert_errors(path: Path) -> Iterator[None]:
    """Turn every error of FFmpeg and the system inside the block into a VideoError: one line that names the file."""
    try:
        yield
    except PlaceError as error:
        raise VideoError(str(error)) from error
    except Exception as error:
        import av  # only here: no library is loaded for a video whose metadata are known

        if not isinstance(error, av.error.FFmpegError | OSError):
            raise
        reason = f"not readable as video ({error.strerror or error})"
        raise VideoError(
            f"{path}: {reason}; expected a video file (mp4, mkv, webm, ...), no playlist and no picture"
        ) from error


@contextmanager
def open_stream(path: Path) -> Iterator[av.VideoStream]:
    """Open the video stream that a player shows, and close the file at the end of the block.

    That is the stream marked as default, or else the largest one.
    Nothing but this one file is opened, whatever its name or its content refers to.

    Raises:
        VideoError: The file has no video stream, or one that FFmpeg can't decode.
        av.error.FFmpegError: FFmpeg can't open the file; `convert_errors` makes a VideoError of it.
    """
    import av

    # "file:" keeps a name from being read as a protocol.
    options = {"protocol_whitelist": "file", "format_whitelist": _CONTAINERS}
    open_file = functools.partial(av.open, container_options=options, metadata_errors="replace")
    with in_use(path), open_file(f"file:{os.fspath(path)}") as container:
        cover = av.stream.Disposition.attached_pic
        streams = [stream for stream in container.streams.video if not stream.disposition & cover]
        if not streams:
            raise VideoError(f"{path}: holds no video stream; expected a video with pictures")
        streams = [stream for stream in streams if stream.codec_context is not None]
        if not streams:
            raise VideoError(f"{path}: FFmpeg has no decoder for its video stream; expected H.264, HEVC, VP9, AV1, ...")
        stream = streams[0]
        if len(streams) > 1:
            with open_file(f"file:{os.fspath(path)}") as second:
                index = _main_stream(second, [stream.index for stream in streams])
            stream = next(stream for stream in streams if stream.index == index)
        # Frame threads cost a fifth more for the same frames; several readers work in parallel instead.
        stream.codec_context.thread_count = 1
        yield stream


def _main_stream(container: av.container.InputContainer, indices: list[int]) -> int:
    """Return which of several video streams is the one that a player shows; the container is read from its start."""
    import av

    streams = [stream for stream in container.streams.video if stream.index in indices]
    num_packets = dict.fromkeys(indices, 0)
    for packet in itertools.islice(_packets(container, streams), _PROBED_PACKETS):
        num_packets[packet.stream.index] += 1
    moving = [stream for stream in streams if num_packets[stream.index] > 1 or stream.frames > 1]

    def rank(stream: av.VideoStream) -> tuple[bool, int]:
        return bool(stream.disposition & av.stream.Disposition.default), stream.width * stream.height

    return max(moving or streams, key=rank).index  # a track of one picture is not the video


def demux(stream: av.VideoStream, max_failures: int = 100) -> Iterator[av.Packet[av.VideoStream]]:
    """Yield the packets in decode order; continue after damage, until so many reads in a row have failed."""
    return _packets(cast("av.container.InputContainer", stream.container), [stream], max_failures)


def _packets(
    container: av.container.InputContainer, streams: Sequence[Any], max_failures: int = 100
) -> Iterator[av.Packet[Any]]:
    """Yield the packets of some streams as `demux` does."""
    import av

    if container.format.name == MP4 and hasattr(av.stream, "Discard"):  # which PyAV has since 16 or 17
        # A table of the sound that is damaged leads beyond the end of the file, and there the reading ends.
        wanted = {stream.index for stream in streams}
        for stream in container.streams:
            stream.discard = av.stream.Discard.default if stream.index in wanted else av.stream.Discard.all
    failures = 0
    while failures < max_failures:
        try:
            for packet in cast("Iterator[av.Packet[av.VideoStream]]", container.demux(streams)):
                failures = 0
                _reading.packets.num += 1  # a reader may go from one thread to another
                if packet.size:
                    yield packet
                elif packet.pts is None and packet.dts is None:
                    # The file has ended, and this is a call to flush. Calls for other streams would follow; PyAV fails
                    # at them if one of them began so late that it was not known when the file was opened.
                    return
            return
        except av.error.FFmpegError:
            failures += 1


def packets_of_all_streams(stream: av.VideoStream) -> Iterator[av.Packet[Any]]:
    """Yield the packets of the stream's file, whatever stream they belong to, in the order of the file."""
    container = cast("av.container.InputContainer", stream.container)
    return _packets(container, list(container.streams))


def decode(codec: av.VideoCodecContext, packet: av.Packet[av.VideoStream] | None) -> list[av.VideoFrame] | None:
    """Return the frames that come out when a packet goes in, or None if the packet is damaged.

    Args:
        codec: The decoder.
        packet: What goes in; None flushes the decoder.
    """
    import av

    try:
        return codec.decode(packet)
    except av.error.FFmpegError:
        return None


def decode_stream(stream: av.VideoStream) -> Iterator[av.VideoFrame]:
    """Yield every frame that can be decoded, in the order of presentation."""
    for packet in itertools.chain(demux(stream), [None]):
        yield from decode(stream.codec_context, packet) or []


def marks_keyframes(path: Path) -> bool:
    """Return whether the decoder of a file marks keyframes at all, as that of QuickTime Animation does not."""
    with open_stream(path) as stream:
        first = next(decode_stream(stream), None)
    return first is None or first.key_frame

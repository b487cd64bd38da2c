"""The subtitles that a video file itself holds, by the clock of its pictures."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any, cast

from lvqa.records import Subtitle, Video
from lvqa.subtitles import plain_text
from lvqa.video.container import convert_errors, demux, open_stream
from lvqa.video.metadata import timeline_of

TEXT_CODECS = ("mov_text", "srt", "subrip", "webvtt", "ass", "ssa", "text")
"""The codecs of subtitles that are text; others are pictures (DVD, Blu-ray, DVB)."""


def read_subtitle_track(video: Video) -> tuple[Subtitle, ...]:
    """Return the lines of the track of subtitles that a player shows; nothing if the file has none of text.

    That is the track that is marked as default, else the first English one, else the first.

    Raises:
        VideoError: The file can't be read.
    """
    with convert_errors(video.path), open_stream(video.path) as stream:
        container = cast("Any", stream.container)
        tracks = [
            track
            for track in container.streams.subtitles
            if track.codec_context is not None and track.codec_context.name in TEXT_CODECS
        ]
        if not tracks:
            return ()
        timeline = timeline_of(video.path)
        origin = float(int(timeline.frame_ticks[0]) * timeline.tick_seconds)
        return tuple(_lines(min(tracks, key=_preference), origin))


def _preference(track: Any) -> tuple[bool, bool]:
    import av

    is_default = bool(track.disposition & av.stream.Disposition.default)
    return not is_default, (track.language or "") not in ("eng", "en")


def _lines(track: Any, origin: float) -> Iterator[Subtitle]:
    """Yield the lines of a track; seconds count from `origin` on the file's clock."""
    import av

    for packet in demux(track):
        with suppress(av.error.FFmpegError):  # a damaged packet says nothing
            decoded = track.codec_context.decode2(packet)
            if decoded is None or packet.pts is None:
                continue
            start = float(packet.pts * packet.time_base) - origin
            end = start + float(packet.duration * packet.time_base) if packet.duration else float("inf")
            texts = (rect.dialogue for rect in decoded if hasattr(rect, "dialogue"))
            text = " ".join(part.decode("utf-8", "replace") for part in texts)
            yield Subtitle(start, end, plain_text(text.replace("\\h", " ")))

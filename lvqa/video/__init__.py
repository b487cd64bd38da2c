"""Turn a video file into pixels: inspect it, lay the frame grid, cut clips, decode the frames at given times.

There is one rule of time. Seconds count from the first presented frame, and the frame at time t is the last one that
starts at or before t. Only this package knows the files' own clocks (pts, time bases, start offsets, edit lists).
"""

from __future__ import annotations

from lvqa.video.container import VideoError
from lvqa.video.decoders import DECODERS, DecordDecoder, PyAVDecoder, decode_all
from lvqa.video.excerpts import MAX_CLIP_SECONDS, clip_bytes
from lvqa.video.header import declared_seconds
from lvqa.video.identity import IDENTITY_FORMAT, content_id, has_content, read_identity
from lvqa.video.metadata import (
    METADATA_FORMAT,
    inspect_video,
    is_current_metadata,
    reread_metadata,
    store_metadata,
)
from lvqa.video.pixel_reader import DecodeOptions, PixelReader
from lvqa.video.prefetch import read_frames
from lvqa.video.record import RECORD_FORMAT, VideoRecord, keep_record, load_record
from lvqa.video.sampling import FRAMES_FORMAT, SAMPLINGS, FrameGrid, cut_clips
from lvqa.video.scenes import scene_changes
from lvqa.video.subtitles import read_subtitle_track
from lvqa.video.transcript import transcribe
from lvqa.video.writing import write_frames

__all__ = [
    "DECODERS",
    "FRAMES_FORMAT",
    "IDENTITY_FORMAT",
    "MAX_CLIP_SECONDS",
    "METADATA_FORMAT",
    "RECORD_FORMAT",
    "SAMPLINGS",
    "DecodeOptions",
    "DecordDecoder",
    "FrameGrid",
    "PixelReader",
    "PyAVDecoder",
    "VideoError",
    "VideoRecord",
    "clip_bytes",
    "content_id",
    "cut_clips",
    "declared_seconds",
    "decode_all",
    "has_content",
    "inspect_video",
    "is_current_metadata",
    "keep_record",
    "load_record",
    "read_frames",
    "read_identity",
    "read_subtitle_track",
    "reread_metadata",
    "scene_changes",
    "store_metadata",
    "transcribe",
    "write_frames",
]

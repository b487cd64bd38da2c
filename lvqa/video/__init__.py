"""From a file to pixels: probe it, lay the frame grid, cut clips, decode the frames shown at given seconds.

The one rule of time: t counts from the first presented frame, and the frame shown at t is the last one that starts at
or before t. The files' own clocks (pts, time bases, start offsets, edit lists) stay in this room.
"""

from __future__ import annotations

from lvqa.video.container import VideoError
from lvqa.video.decoders import DECODERS, DecordDecoder, PyAVDecoder, decode_all
from lvqa.video.metadata import inspect_video, store_metadata
from lvqa.video.prefetch import read_frames, usual_threads
from lvqa.video.sampling import SAMPLINGS, FrameGrid, cut_clips
from lvqa.video.scenes import scene_changes

__all__ = [
    "DECODERS",
    "SAMPLINGS",
    "DecordDecoder",
    "FrameGrid",
    "PyAVDecoder",
    "VideoError",
    "cut_clips",
    "decode_all",
    "inspect_video",
    "read_frames",
    "scene_changes",
    "store_metadata",
    "usual_threads",
]

"""The main path. One video: `one.py`, the file to read first. Many, over workers: `many.py`."""

from lvqa.pipeline.checks import (
    CONTROLS,
    MAX_QUESTION_CHARACTERS,
    METHODS,
    check_count,
    check_question,
    check_settings,
)
from lvqa.pipeline.many import Indexed, index_videos
from lvqa.pipeline.one import CLIPS_AT_ONCE, LongVideoQA, OpenVideo, Progress, segments

__all__ = [
    "CLIPS_AT_ONCE",
    "CONTROLS",
    "MAX_QUESTION_CHARACTERS",
    "METHODS",
    "Indexed",
    "LongVideoQA",
    "OpenVideo",
    "Progress",
    "check_count",
    "check_question",
    "check_settings",
    "index_videos",
    "segments",
]

"""Frames that others have chosen, and scores that others have computed, read from files.

Both name a question by video and question, as datasets do. A frame is a number of seconds; it stands for the nearest
frame of the grid.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np

from lvqa.plugins import DATA_SUFFIXES
from lvqa.records import FileKey, FrameSelection, LvqaError, file_key
from lvqa.selection.files import Key, read_scores, read_selections
from lvqa.selection.protocol import Selector, SelectorInput

Entry = TypeVar("Entry")


def is_selection_file(name: str) -> bool:
    """Return whether a method is the name of a file with precomputed selections."""
    return name.endswith(DATA_SUFFIXES)


@dataclass(frozen=True, slots=True)
class PrecomputedSelection:
    """The frames that a file of selections has for the question: as many as the budget, or fewer, never more.

    The file names its questions and counts in seconds (the format `bolt`; `lvqa selections` converts the others to it).
    """

    path: Path
    needs_scores: ClassVar[bool] = False
    needs_features: ClassVar[bool] = False

    def select(self, inputs: SelectorInput) -> FrameSelection:
        """Return the frames of the grid that are nearest to those of the file.

        Raises:
            LvqaError: The file can't be read, lacks the question, or has more frames for it than the budget.
        """
        seconds = _entry_of_question(self.path, read_selections, inputs)
        frames = np.unique(_nearest(inputs.times_seconds, seconds))
        if len(frames) > inputs.budget:
            raise LvqaError(
                f"{self.path} has {len(frames)} frames for question {inputs.question_id!r} of video "
                f"{inputs.video_name!r}, and the budget is {inputs.budget}; ask for {len(frames)} frames"
            )
        return FrameSelection(inputs.video_id, tuple(inputs.times_seconds[frames].tolist()))


@dataclass(frozen=True, slots=True)
class PrecomputedScores:
    """A selector that chooses by the scores of a file, one per frame, in place of the model's scores of clips.

    A frame of the grid has the score of the nearest one in the file.
    """

    path: Path
    inner: Selector
    needs_scores: ClassVar[bool] = False

    @property
    def needs_features(self) -> bool:
        """What the inner selector declares."""
        return self.inner.needs_features

    def select(self, inputs: SelectorInput) -> FrameSelection:
        """Return what the inner selector chooses, given the scores of the file.

        Raises:
            LvqaError: The file can't be read, or lacks the question.
        """
        seconds, scores = _entry_of_question(self.path, read_scores, inputs)
        nearest = _nearest(np.asarray(seconds), inputs.times_seconds)
        clip_ids = np.arange(len(inputs))
        return self.inner.select(dataclasses.replace(inputs, scores=np.asarray(scores)[nearest], clip_ids=clip_ids))


def _entry_of_question(path: Path, read: Callable[[Path], dict[Key, Entry]], inputs: SelectorInput) -> Entry:
    """Return what the file has for the question."""
    try:
        key = file_key(path)
    except OSError as error:
        raise LvqaError(f"cannot read {path}: {error.strerror or error}") from error
    entry = _read_cached(path, key, read).get((inputs.video_name, inputs.question_id))
    if entry is None:
        raise LvqaError(f"{path} has nothing for question {inputs.question_id!r} of video {inputs.video_name!r}")
    return entry  # type: ignore[no-any-return]


@functools.lru_cache(maxsize=4)
def _read_cached(path: Path, _: FileKey, read: Callable[[Path], Any]) -> Any:
    """Return the file's contents, read again if it was changed."""
    return read(path)


def _nearest(sorted_values: np.ndarray, values: Sequence[float] | np.ndarray) -> np.ndarray:
    """Return for each value the index (n,) of the nearest of the ascending ones; of two as near the earlier."""
    middles = (sorted_values[1:] + sorted_values[:-1]) / 2
    return np.searchsorted(middles, np.asarray(values), side="left")

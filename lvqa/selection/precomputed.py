"""What was found out elsewhere: frames that others chose, and scores that others gave, read from files.

Both name a question by video and question, as benchmarks do; a frame is a number of seconds, and goes to the grid's
frame nearest to it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np

from lvqa.plugins import DATA_SUFFIXES
from lvqa.records import FrameSelection, LvqaError
from lvqa.selection.files import Key, read_scores, read_selections
from lvqa.selection.protocol import Selector, SelectorInput

Found = TypeVar("Found")


def is_selection_file(name: str) -> bool:
    """Whether a method is the name of a file with frames that were chosen elsewhere."""
    return name.endswith(DATA_SUFFIXES)


@dataclass(frozen=True, slots=True)
class PrecomputedSelection:
    """The frames that a file of selections has for the question: as many, or fewer, never more than the budget.

    The file names its questions and counts in seconds (the format `bolt`; `lvqa selections` makes it from the others).
    """

    path: Path
    needs_scores: ClassVar[bool] = False
    needs_features: ClassVar[bool] = False

    def select(self, grid: SelectorInput) -> FrameSelection:
        """LvqaError for a file that can't be read, and a question that it lacks or has more frames for than asked."""
        seconds = _of_question(self.path, read_selections, grid)
        frames = np.unique(_nearest(grid.times_seconds, seconds))
        if len(frames) > grid.budget:
            raise LvqaError(
                f"{self.path} has {len(frames)} frames for question {grid.question_id!r} of video "
                f"{grid.video_name!r}, and the budget is {grid.budget}; ask for {len(frames)} frames"
            )
        return FrameSelection(grid.video_id, tuple(grid.times_seconds[frames].tolist()))


@dataclass(frozen=True, slots=True)
class PrecomputedScores:
    """A selector that chooses by the scores of a file, each frame for itself, in place of the model's scores of clips.

    A frame of the grid has the score of the nearest one in the file.
    """

    path: Path
    inner: Selector
    needs_scores: ClassVar[bool] = False

    @property
    def needs_features(self) -> bool:
        """As the selector that chooses."""
        return self.inner.needs_features

    def select(self, grid: SelectorInput) -> FrameSelection:
        """LvqaError for a file that can't be read, and for a question that it lacks."""
        seconds, scores = _of_question(self.path, read_scores, grid)
        places = _nearest(np.asarray(seconds), grid.times_seconds)
        return self.inner.select(
            SelectorInput(
                grid.times_seconds,
                grid.num_frames,
                scores=np.asarray(scores)[places],
                clip_ids=np.arange(len(grid)),
                features=grid.features,
                query=grid.query,
                video_id=grid.video_id,
                video_name=grid.video_name,
                question_id=grid.question_id,
                question_text=grid.question_text,
            )
        )


def _of_question(path: Path, read: Callable[[Path], dict[Key, Found]], grid: SelectorInput) -> Found:
    try:
        changed = path.stat().st_mtime_ns
    except OSError as error:
        raise LvqaError(f"cannot read {path}: {error.strerror or error}") from error
    found = _read(path, changed, read).get((grid.video_name, grid.question_id))
    if found is None:
        raise LvqaError(f"{path} has nothing for question {grid.question_id!r} of video {grid.video_name!r}")
    return found  # type: ignore[no-any-return]


@functools.lru_cache(maxsize=4)
def _read(path: Path, changed: int, read: Callable[[Path], Any]) -> Any:
    """The file's contents, read again when it has changed."""
    return read(path)


def _nearest(places: np.ndarray, values: Sequence[float] | np.ndarray) -> np.ndarray:
    """(n,) for each value the index of the nearest of the ascending places; the earlier of two as near."""
    middles = (places[1:] + places[:-1]) / 2
    return np.searchsorted(middles, np.asarray(values), side="left")

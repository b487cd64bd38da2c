"""Frames that others have chosen, and scores that others have computed, read from files.

Both name a question by video and question, as datasets do. A question that has no id, as one of `lvqa ask`, is the one
with its text about the video with its file's name. A frame is a number of seconds; it stands for the nearest frame of
the grid.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np

from lvqa.plugins import DATA_SUFFIXES
from lvqa.records import FileKey, FrameSelection, LvqaError, counted, file_key, shorten
from lvqa.selection.files import Key, read_question_texts, read_scores, read_selections
from lvqa.selection.protocol import Selector, SelectorInput, TimesOnly

Entry = TypeVar("Entry")

MAX_NAMES = 4
"""So many names of a file are in a message."""


def is_selection_file(name: str) -> bool:
    """Return whether a method is the name of a file with precomputed selections."""
    return name.endswith(DATA_SUFFIXES)


@dataclass(frozen=True, slots=True)
class PrecomputedSelection(TimesOnly):
    """The frames that a file of selections has for the question: as many as the budget, or fewer, never more.

    The file names its questions and counts in seconds (the format `bolt`; `lvqa selections` converts the others to it).
    """

    path: Path

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

    @property
    def uses_reading(self) -> bool:
        """What the inner selector declares."""
        return self.inner.uses_reading

    @property
    def uses_kind(self) -> bool:
        """What the inner selector declares."""
        return self.inner.uses_kind

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
    entries: dict[Key, Entry] = _read_cached(path, key, read)
    texts: dict[Key, str] = _read_cached(path, key, read_question_texts)
    of_video = [key for key in entries if key[0] in (inputs.video_name, inputs.video_id)]
    # A question without an id has its text in the place of one.
    has_id = inputs.question_id != inputs.question_text
    matching = [key for key in of_video if key[1] == inputs.question_id] or [
        key for key in of_video if not has_id and _words(texts.get(key, "")) == _words(inputs.question_text)
    ]
    if not matching:
        question = f"{inputs.question_id!r}" if has_id else f"with the text {shorten(inputs.question_text)}"
        raise LvqaError(
            f"{path} has nothing for question {question} of video {inputs.video_name!r}; "
            f"{_contents(entries, texts, of_video)}"
        )
    if any(entries[key] != entries[matching[0]] for key in matching[1:]):
        names = ", ".join(repr(question) for _, question in matching)
        raise LvqaError(f"{path} has different frames for questions {names}, which have the same text")
    return entries[matching[0]]


def _words(text: str) -> list[str]:
    return text.split()


def _contents(entries: Iterable[Key], texts: Mapping[Key, str], of_video: Sequence[Key]) -> str:
    """Return which keys a file has: of the questions about the video, or if there are none, of the videos."""
    if of_video:
        names = [f"{key[1]!r}" + (f" ({shorten(texts[key])})" if key in texts else "") for key in of_video]
        return f"it has {counted(len(names), 'question')} of this video: {_first(names)}"
    names = sorted({repr(video) for video, _ in entries})
    return f"it has {counted(len(names), 'video')}, named as their files are without the suffix: {_first(names)}"


def _first(names: Sequence[str]) -> str:
    return ", ".join(names[:MAX_NAMES]) + (", ..." if len(names) > MAX_NAMES else "")


@functools.lru_cache(maxsize=8)
def _read_cached(path: Path, _: FileKey, read: Callable[[Path], Any]) -> Any:
    """Return the file's contents, read again if it was changed."""
    return read(path)


def _nearest(sorted_values: np.ndarray, values: Sequence[float] | np.ndarray) -> np.ndarray:
    """Return for each value the index (n,) of the nearest of the ascending ones; of two as near the earlier."""
    middles = (sorted_values[1:] + sorted_values[:-1]) / 2
    return np.searchsorted(middles, np.asarray(values), side="left")

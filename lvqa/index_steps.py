"""The steps of indexing that need the model: plan, split, embed a segment. They are done where the model is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np

from lvqa.config import VideoConfig
from lvqa.embedding import CLIPS_AT_ONCE
from lvqa.models import Model
from lvqa.pairs import pairs_of_clip
from lvqa.records import Clip, LvqaError, Video
from lvqa.session import IndexSpec, VideoSession
from lvqa.video import cut_clips, scene_changes

SEGMENT_CLIPS = 2 * CLIPS_AT_ONCE
"""How many clips a segment has, 8.5 minutes by default; more if there were too many segments."""
MAX_SEGMENTS = 16
"""How many segments of SEGMENT_CLIPS or more a video has at most, before they get longer."""


@dataclass(frozen=True, slots=True)
class PlanStep:
    """Inspect a video, and say under which spec its index is kept."""

    setting: int
    """The index of the VideoIndexer that does it."""
    path: Path


@dataclass(frozen=True, slots=True)
class IndexPlan:
    """What a PlanStep finds out."""

    video: Video
    spec: dict[str, Any]
    """The spec of its index."""
    model: str
    """The name of the model that makes it."""


@dataclass(frozen=True, slots=True)
class SplitStep:
    """Split a video into clips."""

    setting: int
    video: Video


@dataclass(frozen=True, slots=True)
class EmbedStep:
    """Embed a segment: clips that follow each other."""

    setting: int
    video: Video
    clips: tuple[Clip, ...]
    fingerprint: str
    """The fingerprint of the index's spec; a worker whose model was updated on the hub has another one."""


@dataclass(frozen=True, slots=True)
class SegmentResult:
    """What embedding a segment gives."""

    vectors: np.ndarray
    """(clips, dim) float32, of unit length."""
    frames: int
    """How many frames were read."""
    frames_substituted: int
    """How many of them are damaged, so that others stood in for them."""


Step = PlanStep | SplitStep | EmbedStep
OnPairs = Callable[[int], None]
"""Called with a number of pairs as they are embedded."""


class VideoIndexer:
    """Does the steps of indexing under one set of settings. It lives where the model is: here or in a worker."""

    def __init__(
        self,
        model: Model,
        spec: IndexSpec,
        settings: VideoConfig,
        open_video: Callable[[Path | Video], AbstractContextManager[VideoSession]],
    ) -> None:
        """Make an indexer.

        Args:
            model: The model that embeds.
            spec: What the index is known by.
            settings: How scene changes are decoded.
            open_video: Opens a video under `spec.frames` for the `with` block.
        """
        self.spec, self.open = spec, open_video
        self._model, self._settings = model, settings

    def plan(self, path: Path) -> IndexPlan:
        """Inspect the video, and say what its index is known by."""
        with self.open(path) as session:
            return IndexPlan(session.video, self.spec.to_dict(), self._model.name)

    def split(self, video: Video) -> dict[Clip, int]:
        """Split the video. Returns its clips in the order of time, and how many frame pairs each has."""
        with self._reopen(video) as session:
            return {clip: len(pairs_of_clip(clip, session.grid)) for clip in self.clips_of(session)}

    def clips_of(self, session: VideoSession) -> list[Clip]:
        """Return the clips of an open video, in the order of time. Scene cuts decode all its frames once."""
        settings, cuts = self._settings, list[float]()
        if self.spec.scene_cuts:
            cuts = scene_changes(
                session.video,
                session.grid,
                decoder=settings.decoder,
                threads=settings.threads,
                stall_seconds=settings.stall_seconds,
            )
            self._model.counts.frames_decoded += session.grid.num_frames
        return cut_clips(session.video, session.grid, self.spec.clip_seconds, cuts)

    def embed_segment(self, video: Video, clips: Sequence[Clip], on_pairs: OnPairs = lambda _: None) -> SegmentResult:
        """Embed clips that follow each other."""
        num_done = 0

        def on_progress(num_pairs: int, _: int) -> None:
            nonlocal num_done
            on_pairs(num_pairs - num_done)
            num_done = num_pairs

        with self._reopen(video) as session:
            vectors = self.spec.embedder.clips(self._model, session.clip_reader(on_pairs=on_progress).read(clips))
            frames = {frame for clip in clips for pair in pairs_of_clip(clip, session.grid) for frame in pair}
            return SegmentResult(vectors, len(frames), len(frames & session.tokens.substituted))

    def decode_ahead(self, session: VideoSession, stop: Event) -> None:
        """Decode, until `stop` is set, what the first segment needs; nothing if its clips follow from all frames."""
        if not self.spec.scene_cuts:
            clips = self.clips_of(session)
            first = clips[segments(len(clips))[0]]
            session.tokens.decode_ahead([pairs_of_clip(clip, session.grid) for clip in first], stop)

    @contextmanager
    def _reopen(self, video: Video) -> Iterator[VideoSession]:
        with self.open(video.path) as session:
            if session.video != video:
                raise LvqaError(f"{video.path}: the file was changed while it was being indexed; index it again")
            yield session


def run_step(indexers: Sequence[VideoIndexer], step: Step, on_pairs: OnPairs = lambda _: None) -> Any:
    """Do one step with the indexer that it is for, and return what that returns."""
    indexer = indexers[step.setting]
    match step:
        case PlanStep():
            return indexer.plan(step.path)
        case SplitStep():
            return indexer.split(step.video)
        case EmbedStep():
            if step.fingerprint != indexer.spec.fingerprint():
                raise LvqaError(f"{step.video.path}: the model was updated while it was being indexed; index it again")
            return indexer.embed_segment(step.video, step.clips, on_pairs)


def segments(num_clips: int) -> list[slice]:
    """Return the runs of clips in which a video is read and embedded, each as if it were the only one.

    They are whole batches, so that every batch is the same wherever it is embedded; and not too many, since where a
    container can't seek all packets before a segment are read to get there. They do not depend on workers, and hold
    where there are none: next to damage, what stands in for a lost frame depends on where reading began.
    """
    length = max(SEGMENT_CLIPS, -(-num_clips // (MAX_SEGMENTS * CLIPS_AT_ONCE)) * CLIPS_AT_ONCE)
    return [slice(first, first + length) for first in range(0, num_clips, length)]

"""One table of the clips of all videos: a cache of the videos' own indexes, made of them alone.

It is a folder of segments, which never change. A search has two passes: the first ranks the short codes of all clips,
the second the best of them by their whole vectors, as a search in one video does. Whatever the table lacks is in the
indexes: it may be behind, lost or damaged. Several processes may add to it; clips that two have added count once.
"""

from __future__ import annotations

import functools
import logging
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from lvqa.index import ClipIndex, Store, StoreError, fingerprint
from lvqa.library.codes import CODES_FORMAT, ClipCodes, use_one_thread
from lvqa.library.indexed import IndexedVideo, LibraryClip, LibraryFilter, best_clips, path_text, read_indexes
from lvqa.library.segment import SUFFIX, TEMPORARY, Segment, SegmentError, SegmentVideo, SegmentWriter, open_segment
from lvqa.places import local_folder
from lvqa.records import LvqaError
from lvqa.startup import num_threads

_log = logging.getLogger(__name__)

TABLE_FORMAT = 1
"""Raise this number when the files of segments change."""
NUM_RESCORED = 200
"""So many clips at least are ranked by their whole vectors; four times what is looked for, if that is more."""
MAX_SEGMENT_CLIPS = 131_072
"""A segment takes no more videos when it has so many clips: 1 GB of vectors of 3,584 numbers."""
MAX_SMALL_SEGMENTS = 8
"""When there are more segments than this with less than half as many clips, they are joined."""

_BLOCKS_IN_MEMORY = 72  # 540 MB: a million clips, and some more
_NEAREST = np.dtype([("distance", "<f4"), ("part", "<i8"), ("row", "<i8")])
_CENTRED = "-centred"
_CLIPS_IN_BATCH = 4096  # 30 MB of vectors of 3,584 numbers
_CLIPS_IN_BLOCK = 16_384  # 7 MB of codes of these: few enough to stay in a processor's cache


class BusyError(LvqaError):
    """Another process is adding to the table."""


@dataclass(frozen=True, slots=True)
class _Part:
    """A segment, and which of its videos count."""

    segment: Segment
    is_live: tuple[bool, ...]

    @property
    def live(self) -> list[SegmentVideo]:
        return [video for video, is_live in zip(self.segment.videos, self.is_live, strict=True) if is_live]

    @property
    def num_live_clips(self) -> int:
        return sum(video.num_clips for video in self.live)


@dataclass(frozen=True, slots=True)
class _Block:
    """Rows of a segment whose codes are ranked together."""

    part: int
    start: int
    mask: np.ndarray
    """Which of them count."""


class ClipTable:
    """The table of the clips of all videos that have an index under one spec."""

    def __init__(self, store: Store, spec: Mapping[str, Any], *, centred: bool = False) -> None:
        """Name the table; nothing is read or written yet.

        Args:
            store: The store with the videos' indexes.
            spec: The indexes' spec.
            centred: Whether each video's vectors are searched less their mean, as by `ClipIndex.centred`.
        """
        self._store, self._spec, self._centred = store, spec, centred
        name = f"{fingerprint(spec)}-{TABLE_FORMAT}.{CODES_FORMAT}" + (_CENTRED if centred else "")
        self.folder = tables_folder(store) / name
        """Where its segments lie."""

    def read(self, states: Mapping[str, str]) -> TableView:
        """Return what it has of these states of videos, as it is now. A segment that is damaged is removed.

        Args:
            states: What `indexed_states` has returned.
        """
        return TableView(tuple(self._parts(states)), states)

    def update(self, states: Mapping[str, str], on_video: Callable[[int, int], None] = lambda *_: None) -> None:
        """Make it hold these states of these videos, and nothing else, in few segments.

        What was added stays if it ends early. Videos whose indexes can't be used are left out, with a warning.

        Args:
            states: What `indexed_states` has returned.
            on_video: Called as videos are added, with how many are done, and of how many.

        Raises:
            BusyError: Another process is at it.
            StoreError: It can't be written.
        """
        with self._locked():
            parts = list(self._parts(states))
            outdated = _outdated(parts)
            kept = {video.video.id for part in parts if part not in outdated for video in part.live}
            self._add({video_id: state for video_id, state in states.items() if video_id not in kept}, on_video)
            for part in outdated:
                part.segment.remove()

    def discard(self, error: SegmentError) -> None:
        """Remove a segment that is damaged; one that was joined with others in the meantime is gone already."""
        if error.folder.exists():
            _log.warning("%s; its clips are read from the videos' indexes, and added again", error)
            shutil.rmtree(error.folder, ignore_errors=True)

    def _parts(self, states: Mapping[str, str]) -> Iterator[_Part]:
        """Yield the segments, and which of their videos count: those in their present state, each once."""
        seen = set[str]()
        for path in sorted(self.folder.glob(f"*{SUFFIX}")):
            try:
                segment = open_segment(path)
            except SegmentError as error:
                self.discard(error)
                continue
            is_live = []
            for video in segment.videos:
                video_id = video.video.id
                is_live.append(video_id not in seen and states.get(video_id) == video.state)
                seen |= {video_id} if is_live[-1] else set()
            yield _Part(segment, tuple(is_live))

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Be the only one that adds, where the file system has locks; the system releases it when the process ends."""
        lock = FileLock(self.folder / "lock", blocking=False)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with suppress(NotImplementedError):  # then two may add the same, which counts once
                lock.acquire()
                for path in self.folder.glob(f".*{TEMPORARY}"):  # a killed process left it
                    shutil.rmtree(path, ignore_errors=True)
            yield
        except Timeout:
            raise BusyError(f"another process is adding to the library's table in {self.folder}") from None
        except OSError as error:
            raise StoreError(f"cannot write the library's table in {self.folder}: {error.strerror or error}") from error
        finally:
            lock.release()

    def _add(self, states: Mapping[str, str], on_video: Callable[[int, int], None]) -> None:
        """Add videos in new segments."""
        num_added = 0
        batches = _ahead(self._batches(states))
        batch = next(batches, None)
        while batch is not None:
            with SegmentWriter(self.folder, batch[0].vectors.shape[1]) as writer:
                while batch is not None and writer.num_clips < MAX_SEGMENT_CLIPS:
                    writer.add(batch, [self._halves(index) for index in batch], self._videos(batch, states))
                    num_added += len(batch)
                    on_video(num_added, len(states))
                    batch = next(batches, None)
                writer.close()

    def _batches(self, states: Mapping[str, str]) -> Iterator[list[ClipIndex]]:
        batch = list[ClipIndex]()
        for index in read_indexes(self._store, self._spec, list(states)):
            batch.append(index)
            if sum(len(index.clips) for index in batch) >= _CLIPS_IN_BATCH:
                yield batch
                batch = []
        if batch:
            yield batch

    def _halves(self, index: ClipIndex) -> np.ndarray:
        """Return the vectors of an index as they are searched, (clips, width) float16."""
        return index.centred().vectors.astype(np.float16) if self._centred else index.halves

    def _videos(self, indexes: Sequence[ClipIndex], states: Mapping[str, str]) -> list[SegmentVideo]:
        videos = (IndexedVideo.of(index, self._store) for index in indexes)
        return [
            SegmentVideo(
                replace(video, path=video.path and Path(path_text(video.path))), states[video.id], len(index.clips)
            )
            for video, index in zip(videos, indexes, strict=True)
        ]


@dataclass(frozen=True, slots=True)
class TableView:
    """A table as it was when it was read."""

    parts: tuple[_Part, ...]
    states: Mapping[str, str]

    @property
    def lacking(self) -> list[str]:
        """The ids of the videos that it does not have."""
        known = {video.video.id for part in self.parts for video in part.live}
        return [video_id for video_id in self.states if video_id not in known]

    def search(self, query: np.ndarray, k: int, condition: LibraryFilter) -> list[LibraryClip]:
        """Return the clips nearest to a query by cosine, as `best_clips` sorts them.

        Args:
            query: (width,) of any length but zero.
            k: How many to return.
            condition: Which videos are searched.

        Raises:
            SegmentError: A segment is damaged, or was just joined with others.
        """
        query = query.astype(np.float64) / np.linalg.norm(query)
        blocks = [block for i in range(len(self.parts)) for block in self._blocks(i, condition)]
        limit, num_shares = max(NUM_RESCORED, 4 * k), max(1, min(num_threads(), len(blocks)))
        with ThreadPoolExecutor(num_shares, initializer=use_one_thread) as pool:
            shares = [blocks[i::num_shares] for i in range(num_shares)]
            nearest = np.concatenate(list(pool.map(lambda share: self._nearest(share, query, limit), shares)))
        nearest = np.sort(nearest, order="distance")[:limit]
        of_parts = ((part, np.sort(nearest["row"][nearest["part"] == i])) for i, part in enumerate(self.parts))
        clips = (part.segment.clips(query, rows) for part, rows in of_parts if len(rows))
        return best_clips((clip for of_one in clips for clip in of_one), k)

    def _blocks(self, i: int, condition: LibraryFilter) -> Iterator[_Block]:
        part = self.parts[i]
        pairs = zip(part.segment.videos, part.is_live, strict=True)
        of_videos = [is_live and condition.matches(video.video) for video, is_live in pairs]
        mask = np.repeat(of_videos, [video.num_clips for video in part.segment.videos])
        for start in range(0, len(mask), _CLIPS_IN_BLOCK):
            if (of_block := mask[start : start + _CLIPS_IN_BLOCK]).any():
                yield _Block(i, start, of_block)

    def _nearest(self, blocks: Sequence[_Block], query: np.ndarray, limit: int) -> np.ndarray:
        """Return distance, part and row of the codes of some blocks that are nearest to a query."""
        coders = dict[int, ClipCodes]()
        nearest = np.zeros(0, _NEAREST)
        for block in blocks:
            segment = self.parts[block.part].segment
            coder = coders.setdefault(segment.width, ClipCodes(segment.width))
            loaded = _load(segment, block.start, block.start + len(block.mask))
            mask = None if block.mask.all() else block.mask
            distances, rows = coder.nearest(query, segment.mean, loaded, limit, mask)
            of_block = np.zeros(len(rows), _NEAREST)
            of_block["distance"], of_block["part"], of_block["row"] = distances, block.part, rows + block.start
            nearest = np.sort(np.concatenate([nearest, of_block]), order="distance")[:limit]
        return nearest


@functools.lru_cache(_BLOCKS_IN_MEMORY)
def _load(segment: Segment, start: int, stop: int) -> Any:
    """Return the codes of some rows in memory; those of the last blocks stay there for the next search."""
    coder = ClipCodes(segment.width)
    return coder.load(segment.codes(coder, start, stop))


def tables_folder(store: Store) -> Path:
    """Return the folder where the tables of a store lie: on this machine, wherever the store lies."""
    here = local_folder(store.folder.parent)
    return here / ("library" if here == store.folder.parent else f"library-{fingerprint({'store': str(store.folder)})}")


def forget_clips(store: Store, video_id: str) -> None:
    """Remove what tables keep of a video: the segments with its clips, whose other videos are added again later."""
    for path in tables_folder(store).glob(f"*/*{SUFFIX}"):
        with suppress(SegmentError):
            segment = open_segment(path)
            if any(video.video.id == video_id for video in segment.videos):
                segment.remove()


def unused_tables(store: Store, names: Iterable[str]) -> list[Path]:
    """Return the folders of tables that no search uses any more.

    Args:
        store: The store.
        names: The names of all files in its folder of indexes.
    """
    current = f"-{TABLE_FORMAT}.{CODES_FORMAT}"
    specs = {name.removesuffix(".parquet")[-16:] for name in names if name.endswith(".parquet")}
    used = {f"{spec}{current}{ending}" for spec in specs for ending in ("", _CENTRED)}
    return [path for path in sorted(tables_folder(store).glob("*")) if path.is_dir() and path.name not in used]


def _ahead(batches: Iterator[list[ClipIndex]]) -> Iterator[list[ClipIndex]]:
    """Yield batches, of which the next one is read in a thread meanwhile."""
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(next, batches, None)
        while (batch := future.result()) is not None:
            future = pool.submit(next, batches, None)
            yield batch


def _outdated(parts: Sequence[_Part]) -> list[_Part]:
    """Return the segments to be written anew: half of their clips don't count, or there are many small ones."""
    small = [part for part in parts if part.num_live_clips < MAX_SEGMENT_CLIPS // 2]
    many = small if len(small) > MAX_SMALL_SEGMENTS else []
    return [part for part in parts if part in many or part.num_live_clips <= part.segment.num_clips // 2]

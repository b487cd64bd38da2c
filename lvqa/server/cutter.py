"""Cut frames and clips out of videos on demand, in a thread of their own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
from cachetools import LRUCache

from lvqa.image import picture_bytes
from lvqa.records import Video
from lvqa.report.answers import thumbnails
from lvqa.server.errors import ApiError

T = TypeVar("T")

MAX_HEIGHT = 1080
"""Pixels of the largest pictures that are made."""
MAX_WAITING = 64
"""So many frames and clips may be wanted at once; more are refused."""
CACHE_BYTES = 32 << 20


class MediaCutter:
    """Cuts frames and clips out of videos in one thread, and remembers the last ones."""

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="lvqa-media")
        self._cache: LRUCache[object, bytes] = LRUCache(CACHE_BYTES, getsizeof=len)
        self._num_waiting = 0

    async def cut(self, key: object, make: Callable[[], bytes]) -> bytes:
        """Return what was made under this key before, or make it."""
        content = self._cache.get(key)
        if content is not None:
            return content
        content = await self.work(make)
        if len(content) <= CACHE_BYTES:
            self._cache[key] = content
        return content

    async def work(self, make: Callable[[], T]) -> T:
        """Have something made from frames in the thread of the media; it is not kept."""
        if self._num_waiting >= MAX_WAITING:
            raise ApiError(429, "too many frames and clips are wanted at once; try again later", **{"retry-after": "1"})
        self._num_waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor, make)
        finally:
            self._num_waiting -= 1

    async def cut_frame(self, video: Video, seconds: float, height: int, suffix: str) -> bytes:
        """Return the frame that is on screen at a time as a picture's file; ApiError if the video has no such time."""
        if not 0 <= seconds <= video.duration_seconds:
            raise ApiError(400, f"time: the video ends at {video.duration_seconds:g} s, got {seconds:g}")
        key = (video.id, seconds, height, suffix)
        return await self.cut(key, lambda: _frame_bytes(video, seconds, height, suffix))

    def close(self) -> None:
        """Begin nothing more."""
        self._executor.shutdown(wait=False, cancel_futures=True)


def _frame_bytes(video: Video, seconds: float, height: int, suffix: str) -> bytes:
    """Return the frame on screen at a time as a picture's file."""
    (pixels,) = thumbnails(video, [min(seconds, float(np.nextafter(video.duration_seconds, 0)))], max_height=height)
    return picture_bytes(pixels, suffix)

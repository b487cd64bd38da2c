"""Open videos as one model sees them under one set of settings: inspected once, alone in the session."""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

from lvqa.config import Config
from lvqa.models import Model
from lvqa.models.memory import MemoryShares
from lvqa.records import Video
from lvqa.session import FrameSpec, SessionCache, VideoSession, open_store
from lvqa.video import inspect_video, store_metadata


class VideoOpener:
    """Inspects and opens videos. What is known of a file is kept in the store of the settings."""

    def __init__(self, model: Model, config: Config, sessions: SessionCache | None = None) -> None:
        """Make an opener; nothing is opened yet.

        Args:
            model: The model that sees the videos.
            config: `video`, `model.max_pixels`, `model.memory_mib` and `store` are used.
            sessions: The sessions that several openers over one model share; None makes some.
        """
        self.store = open_store(config.store)
        self.memory = MemoryShares.of(model, config.model.memory_mib)
        """How much is kept in memory, of all videos together."""
        self.sessions = sessions or SessionCache(self.memory.total)
        self._model, self._config, self._frames = model, config, FrameSpec.of(model, config)

    def inspect(self, path: str | Path) -> Video:
        """Inspect a file; what is known of it is kept in the store, so that it is hashed and read through once."""
        video = inspect_video(path, metadata_folder=self.store.folder)
        store_metadata(video.path, self.store.folder)
        return video

    def open(self, path: str | Path | Video) -> AbstractContextManager[VideoSession]:
        """Open a video for the `with` block, alone in it; it stays open after that as far as the memory goes."""
        video = path if isinstance(path, Video) else self.inspect(path)
        config, frames = self._config, self._frames
        session = partial(VideoSession, settings=config.video, store=config.store, memory=self.memory)
        make = partial(session, video, frames, self._model)
        return self.sessions.open(video, frames, make)

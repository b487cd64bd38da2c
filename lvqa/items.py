"""What a retriever searches with and for: a text, a picture, a clip, a video, a sound, or several of them together."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np

from lvqa import prompts
from lvqa.audio import read_audio
from lvqa.concurrency import check_stop
from lvqa.embedding import CLIPS_AT_ONCE, Content
from lvqa.image import is_pillow_picture
from lvqa.models import Model
from lvqa.models.cache import ByteLRUCache
from lvqa.pairs import PACKINGS, Pair, pairs_of_clip
from lvqa.records import Clip, FileKey, LvqaError, Video, file_key, shorten
from lvqa.session import VideoSession
from lvqa.validation import require, require_text, require_whole
from lvqa.visual_tokens import images_tokens

if TYPE_CHECKING:
    from lvqa.models.prompt import ClipTokens, Prompt

MAX_FRAMES = 64
"""So many frames of an item's video are seen if the item does not say: the largest budget of an answer."""

NAMES = {"image": prompts.IMAGE, "video": prompts.VIDEO, "sound": prompts.SOUND, "voice": prompts.VOICE}
"""The kinds of media in the order in which a prompt has them -> the text before one that stands beside others."""


@dataclass(frozen=True, slots=True, eq=False)
class Item:
    """What is searched with or for. It has a text or a medium at least, and may have one of each kind.

    >>> Item("a red car"), Item(image="car.jpg"), Item("the same car in blue", image="car.jpg")
    >>> Item(video="film.mp4", start_seconds=60, end_seconds=76)
    """

    text: str = ""
    """A text, alone or beside the media."""
    _: KW_ONLY
    image: str | Path | np.ndarray | Any = None
    """A picture's file; or its pixels, (height, width, 3) uint8, RGB; or one of Pillow's pictures."""
    video: str | Path | Video | None = None
    """A video's file, of which the whole is meant, or a clip."""
    start_seconds: float | None = None
    """Where the clip begins; None: where the video does."""
    end_seconds: float | None = None
    """Where the clip ends; None: where the video does."""
    num_frames: int | None = None
    """So many frames of it are seen at most, at an even step; None: MAX_FRAMES. Where the frame grid has fewer, one a
    second by default, all of them are."""
    sound: str | Path | None = None
    """A sound file, or a video whose sound is meant; for a model that hears."""
    voice: str | Path | None = None
    """A sound file that asks for what is searched, as a question by voice does; for a model that hears."""

    def __post_init__(self) -> None:
        """Refuse an item with nothing in it, or times without a video; LvqaError."""
        require_text(self.text, "the text of an item")
        paths = {"video": self.video, "sound": self.sound, "voice": self.voice}
        for name, value in paths.items():
            is_path = isinstance(value, str | Path) and str(value) not in ("", ".")
            require(value is None or is_path or (name == "video" and isinstance(value, Video)), name, value, "a path")
        is_picture = self.image is None or isinstance(self.image, str | Path | np.ndarray)
        require(is_picture or is_pillow_picture(self.image), "image", self.image, "a path, an array or a picture")
        if not self.kinds:
            raise LvqaError("an item has nothing in it; give it a text, an image, a video, a sound or a voice")
        self._check_times()

    def _check_times(self) -> None:
        times = {"start_seconds": self.start_seconds, "end_seconds": self.end_seconds}
        if self.video is None and any(value is not None for value in (*times.values(), self.num_frames)):
            raise LvqaError("start_seconds, end_seconds and num_frames of an item need its video")
        for name, value in times.items():
            is_number = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf
            require(value is None or is_number, name, value, "a time in seconds, 0 or more")
        if self.end_seconds is not None and self.end_seconds <= (self.start_seconds or 0):
            raise LvqaError(f"a clip must end after it starts: {self.start_seconds or 0:g} to {self.end_seconds:g} s")
        if self.num_frames is not None:
            require_whole(self.num_frames, "num_frames")

    @property
    def media(self) -> tuple[str, ...]:
        """The kinds of media that it has, in the order of NAMES."""
        return tuple(kind for kind in NAMES if getattr(self, kind) is not None)

    @property
    def kinds(self) -> tuple[str, ...]:
        """What it has: its media, and "text" last."""
        return (*self.media, "text") if self.text.strip() else self.media

    @property
    def noun(self) -> str:
        """What a prompt may call it: "image and text", or "video clip" if its video has a start or an end."""
        is_clip = self.start_seconds is not None or self.end_seconds is not None
        return " and ".join("video clip" if kind == "video" and is_clip else kind for kind in self.kinds)


ItemLike = Item | str
"""What methods take for an item; a text is an item with this text."""


def as_item(value: ItemLike) -> Item:
    """Return an item, of a text one with this text; LvqaError for anything else."""
    if isinstance(value, Item):
        return value
    if not isinstance(value, str):
        raise LvqaError(f"an item must be a text or an lvqa.Item, got {shorten(value)}")
    return Item(value)


@dataclass(frozen=True, slots=True, eq=False)
class ItemContent:
    """An item as the model sees it."""

    text: str
    media: tuple[tuple[str, ClipTokens], ...]
    """Each medium's kind, a key of NAMES, and its tokens."""

    def to_embed(self) -> Content:
        """Return it as it is embedded. What stands alone has no name before it, as a clip in a video has none."""
        text = self._query_text() if self._is_spoken else self.text
        return text, self._parts(is_named=len(self.media) + bool(text) > 1)

    def as_query(self) -> Content:
        """Return it as the query of a reranker, which always has a text."""
        return self._query_text(), self._parts(is_named=True)

    def as_candidate(self) -> Prompt:
        """Return it as a candidate of a reranker: its media, and its text last."""
        text, media = self.to_embed()
        return (*media, text) if text else media

    @property
    def _is_spoken(self) -> bool:
        return any(kind == "voice" for kind, _ in self.media)

    def _query_text(self) -> str:
        return self.text or prompts.instead_of_text([kind for kind, _ in self.media])

    def _parts(self, *, is_named: bool) -> Prompt:
        named = (((NAMES[kind], tokens) if is_named else (tokens,)) for kind, tokens in self.media)
        return tuple(part for parts in named for part in parts)


class ItemReader:
    """Reads and encodes items, for one model. The tokens of pictures and sounds are kept as far as the memory goes."""

    def __init__(
        self,
        model: Model,
        open_video: Callable[[str | Path | Video], AbstractContextManager[VideoSession]],
        *,
        max_pixels: int,
        packing: str,
        memory_bytes: int,
    ) -> None:
        """Make a reader.

        Args:
            model: The model that sees and hears.
            open_video: Opens a video for the `with` block.
            max_pixels: The limit on a picture's size.
            packing: How frames at an even step become pairs, a name in pairs.PACKINGS.
            memory_bytes: How much memory the tokens of pictures and sounds may take.
        """
        self._model, self._open_video, self._max_pixels, self._packing = model, open_video, max_pixels, packing
        self._cache: ByteLRUCache[Hashable, ClipTokens] = ByteLRUCache(memory_bytes)
        self._lock = Lock()

    def read(self, items: Sequence[Item]) -> Iterator[ItemContent]:
        """Yield what the model sees of each item. Clips of one video that stand near each other are read together.

        Raises:
            LvqaError: A file can't be read, a clip has no frame, or the model does not hear.
        """
        for first in range(0, len(items), CLIPS_AT_ONCE):
            check_stop()
            chunk = items[first : first + CLIPS_AT_ONCE]
            tokens = {"image": self._pictures(chunk), "video": self._clips(chunk)}
            tokens |= {kind: self._sounds(chunk, kind) for kind in ("sound", "voice")}
            for i, item in enumerate(chunk):
                media = tuple((kind, tokens[kind][i]) for kind in item.media)
                yield ItemContent(item.text if item.text.strip() else "", media)

    def _pictures(self, items: Sequence[Item]) -> dict[int, ClipTokens]:
        """Return the tokens of the items' pictures, by the items' indices."""

        def encode(pictures: Sequence[Any]) -> list[ClipTokens]:
            return images_tokens(pictures, self._model, max_pixels=self._max_pixels)

        return self._tokens_of(items, "image", encode)

    def _sounds(self, items: Sequence[Item], kind: str) -> dict[int, ClipTokens]:
        """Return the tokens of the items' sounds of one kind, by the items' indices."""

        def encode(paths: Sequence[Path]) -> list[ClipTokens]:
            return [self._model.encode_audio(read_audio(path, name=kind)) for path in paths]

        return self._tokens_of(items, kind, encode)

    def _tokens_of(
        self, items: Sequence[Item], kind: str, encode: Callable[[Sequence[Any]], list[ClipTokens]]
    ) -> dict[int, ClipTokens]:
        """Return the tokens of a kind of medium; those of a file are remembered as long as it stays as it is."""
        media = {i: getattr(item, kind) for i, item in enumerate(items) if getattr(item, kind) is not None}
        media = {i: Path(value).expanduser() if isinstance(value, str) else value for i, value in media.items()}
        keys = {i: (kind, path, _state(path)) for i, path in media.items() if isinstance(path, Path)}
        with self._lock:
            known = {i: kept for i, key in keys.items() if (kept := self._cache.get(key)) is not None}
        new = [i for i in media if i not in known]
        encoded = dict(zip(new, encode([media[i] for i in new]), strict=True)) if new else {}
        with self._lock:
            self._cache.update({keys[i]: tokens for i, tokens in encoded.items() if i in keys})
        return known | encoded

    def _clips(self, items: Sequence[Item]) -> dict[int, ClipTokens]:
        """Return the tokens of the items' videos, by the items' indices. One video is open at a time."""
        indices: dict[str | Path | Video, list[int]] = {}
        for i, item in enumerate(items):
            if item.video is not None:
                indices.setdefault(item.video, []).append(i)
        clips: dict[int, ClipTokens] = {}
        for video, of_video in indices.items():
            with self._open_video(video) as session:
                groups = {i: frame_pairs(items[i], session, self._packing) for i in of_video}
                for one_after_another in _runs(groups):
                    tokens = session.tokens.clips([groups[i] for i in one_after_another])
                    clips |= zip(one_after_another, tokens, strict=True)
        return clips


def _state(path: Path) -> FileKey | None:
    """Return the key of a file's state, None if there is none."""
    return file_key(path) if path.exists() else None


def _runs(groups: dict[int, list[Pair]]) -> list[list[int]]:
    """Return the keys of groups of pairs in runs, in each of which a group begins after the one before it ends."""
    runs: list[list[int]] = []
    for i in sorted(groups, key=groups.__getitem__):
        if runs and groups[runs[-1][-1]][-1][1] < groups[i][0][0]:
            runs[-1].append(i)
        else:
            runs.append([i])
    return runs


def frame_pairs(item: Item, session: VideoSession, packing: str) -> list[Pair]:
    """Return the pairs of grid frames that are seen of an item's video.

    Args:
        item: Its times are those of the clip, and `num_frames` bounds its frames.
        session: The open video.
        packing: How frames at an even step become pairs, a name in pairs.PACKINGS.

    Raises:
        LvqaError: No frame lies between the times.
    """
    video, grid = session.video, session.grid
    start, end = item.start_seconds or 0.0, math.inf if item.end_seconds is None else item.end_seconds
    first, stop = np.searchsorted(grid.times_seconds, [start, end]).tolist()
    if first == stop:
        raise LvqaError(
            f"{video.path} has no frame from {start:g} to {min(end, video.duration_seconds):g} s; "
            f"it lasts {video.duration_seconds:g} s"
        )
    num_frames = item.num_frames or MAX_FRAMES
    if stop - first <= num_frames:
        return pairs_of_clip(Clip(video.id, start, end), grid)
    # The middles of equal parts.
    steps = (np.arange(num_frames) + 0.5) * (stop - first) / num_frames
    return PACKINGS[packing]((first + steps.astype(int)).tolist(), grid)


def item_list(items: Iterable[ItemLike]) -> list[Item]:
    """Return items as a list; one text is refused, not taken apart into its letters."""
    if isinstance(items, str | Item) or not isinstance(items, Iterable):
        raise LvqaError(f"items must be a list of texts and lvqa.Items, got {shorten(items)}")
    return [as_item(item) for item in items]

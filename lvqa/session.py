"""One open video: its frame grid, its visual tokens, and what the model has read and answered so far.

Two specs say what is kept under which name. `FrameSpec` is all that decides how a video's frames look to the model;
`IndexSpec` adds what decides the clips' vectors. What is kept on disk is found by their fingerprints, what is kept in
memory by the specs themselves.
"""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING, Any, Protocol

from cachetools import LRUCache

from lvqa import prompts
from lvqa.audio import read_audio
from lvqa.concurrency import FairLock, check_stop
from lvqa.config import Config, RerankConfig, StoreConfig, VideoConfig
from lvqa.embedding import EMBEDDING_FORMAT, Embedder
from lvqa.index import INDEX_FORMAT, ClipIndex, Store, fingerprint
from lvqa.models import Model
from lvqa.models.memory import MemoryShares
from lvqa.models.prefix import PrefixCache
from lvqa.pairs import pairs_of_clip
from lvqa.places import in_use, keep_copies
from lvqa.records import Clip, FileKey, LvqaError, ModelOutput, Question, QuestionKind, Ranking, Video, file_key
from lvqa.token_file import TokenBound, TokenFile
from lvqa.video import FRAMES_FORMAT, SAMPLINGS, FrameGrid
from lvqa.visual_tokens import TOKENS_FORMAT, VisualTokens, image_tokens

if TYPE_CHECKING:
    from lvqa.models.prompt import ClipTokens, Prompt

OnPairs = Callable[[int, int], None]
"""Called as clips become ready: how many pairs are done, of how many."""


MAX_IDLE_VIDEOS = 32
"""So many videos stay open at most that nobody uses: one without tokens has a frame grid and an index in memory."""
MAX_REMEMBERED = 1024
"""So many rankings and answers of a video are remembered: 50 MB for an hour."""
MAX_MEDIA = 64
"""So many pictures and voices of questions about a video are remembered."""

FRAME_FORMATS = {"frames_format": FRAMES_FORMAT, "tokens_format": TOKENS_FORMAT}
"""What a FrameSpec says of the algorithms of today."""
INDEX_FORMATS = {"embedding_format": EMBEDDING_FORMAT, "index_format": INDEX_FORMAT}
"""What an IndexSpec adds to that."""


def has_current_frames(spec: Mapping[str, Any]) -> bool:
    """Return whether an index was made of frames and visual tokens as today's algorithms make them."""
    frames = spec.get("frames")
    return isinstance(frames, Mapping) and FRAME_FORMATS.items() <= frames.items()


def has_current_formats(spec: Mapping[str, Any]) -> bool:
    """Return whether an index was made by today's algorithms, so that it can be used if the settings are the same."""
    return has_current_frames(spec) and INDEX_FORMATS.items() <= spec.items()


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameSpec:
    """All that decides how a video's frames look to the model: pipelines that share it share visual tokens."""

    model_revision: str
    """What tells the model's weights from others."""
    dtype: str
    """What the model computes in."""
    quantisation: str | None = None
    """How the model's weights are packed."""
    max_pixels: int
    """The limit on a frame's size."""
    sampling: str
    """A name in video.SAMPLINGS."""
    frames_per_second: float
    decoder: str
    """A name in video.DECODERS."""

    def __post_init__(self) -> None:
        """Refuse a model that is known by nothing: what is kept of it would be taken for that of another one."""
        if self.model_revision in ("", "None"):
            raise LvqaError(f"the model's revision is {self.model_revision!r}; it must tell its weights from others")

    @classmethod
    def of(cls, model: Model, config: Config) -> FrameSpec:
        """Return the spec of these settings over a model."""
        return cls(
            model_revision=model.revision,
            dtype=str(model.dtype),
            quantisation=model.quantisation,
            max_pixels=config.model.max_pixels or model.max_pixels,
            sampling=config.video.sampling,
            frames_per_second=config.video.frames_per_second,
            decoder=config.video.decoder,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return what is hashed into a fingerprint."""
        frames = {"max_pixels": self.max_pixels, "sampling": self.sampling, "decoder": self.decoder}
        return {**self.weights, **frames, "frames_per_second": self.frames_per_second, **FRAME_FORMATS}

    @property
    def weights(self) -> dict[str, str]:
        """What tells the model's numbers from others, as it is hashed; weights that are not packed need no word."""
        packed = {} if self.quantisation is None else {"quantisation": self.quantisation}
        return {"model_revision": self.model_revision, "dtype": self.dtype, **packed}

    def fingerprint(self) -> str:
        """Return 16 hexadecimal digits that tell this spec from all others."""
        return fingerprint(self.to_dict())


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexSpec:
    """All that decides an index but the video: indexes that share it can be searched together."""

    frames: FrameSpec
    embedder: Embedder
    clip_seconds: float
    scene_cuts: bool

    @classmethod
    def of(cls, model: Model, config: Config) -> list[IndexSpec]:
        """Return the specs of these settings over a model, one for each length of clips."""
        settings = config.embedding
        embedder = Embedder(
            state=settings.state,
            final_norm=settings.final_norm,
            prompt=settings.prompt,
            task=settings.task,
            semantics=settings.semantics,
            noise=settings.noise,
            wording=config.prompts or model.prompts,
        )
        frames, scene_cuts = FrameSpec.of(model, config), config.video.scene_cuts
        lengths = config.video.clip_lengths
        return [cls(frames=frames, embedder=embedder, clip_seconds=n, scene_cuts=scene_cuts) for n in lengths]

    def to_dict(self) -> dict[str, Any]:
        """Return what is hashed into a fingerprint, and kept in an index's file."""
        return {
            "frames": self.frames.to_dict(),
            "embedding": self.embedder.to_dict(),
            "clip_seconds": self.clip_seconds,
            "scene_cuts": self.scene_cuts,
            **INDEX_FORMATS,
        }

    def fingerprint(self) -> str:
        """Return 16 hexadecimal digits that tell this spec from all others."""
        return fingerprint(self.to_dict())


@dataclass(frozen=True, slots=True)
class MediaKey:
    """What tells a question's picture and voice from others: their paths and the files' states."""

    image: tuple[str, FileKey] | None
    voice: tuple[str, FileKey] | None

    @classmethod
    def of(cls, question: Question) -> MediaKey:
        """Return the key of the question's files."""
        image, voice = (path and (str(path), file_key(path)) for path in (question.image, question.voice))
        return cls(image or None, voice or None)


class VideoSession:
    """One open video, as the model sees it under one FrameSpec."""

    def __init__(
        self,
        video: Video,
        spec: FrameSpec,
        model: Model,
        *,
        settings: VideoConfig,
        store: StoreConfig,
        memory: MemoryShares,
        on_growth: Callable[[], int] = lambda: 0,
    ) -> None:
        """Lay the frame grid; nothing is decoded yet.

        Args:
            video: The inspected file.
            spec: How its frames look to the model.
            model: The model that sees them.
            settings: How it is decoded: threads and time limits, which change no frame.
            store: Where visual tokens are kept for other processes, and how many.
            memory: How much of each kind is kept in memory.
            on_growth: Called as more memory is taken; returns how much of it is to be freed again.
        """
        self.video, self.spec = video, spec
        self.store = Store(store.folder)
        """Where what is known of the video is kept."""
        self.grid: FrameGrid = SAMPLINGS[spec.sampling](video, spec.frames_per_second)
        self.tokens = VisualTokens(
            video,
            self.grid,
            model,
            max_pixels=spec.max_pixels,
            decoder=spec.decoder,
            threads=settings.threads,
            stall_seconds=settings.stall_seconds,
            memory_bytes=memory.tokens,
            file=self._token_file(model, store),
            on_growth=on_growth,
        )
        self.indexes: dict[IndexSpec, ClipIndex] = {}
        """The indexes that were loaded or built."""
        self.rankings: LRUCache[object, Ranking] = LRUCache(MAX_REMEMBERED)
        """What `retrieval` has ranked."""
        self.kinds: LRUCache[str, QuestionKind] = LRUCache(MAX_REMEMBERED)
        """What `gate` has learnt of questions, by their text."""
        self.spoken: dict[object, Any] = {}
        """What `speech` has read and embedded of what is said."""
        self.outputs: LRUCache[object, ModelOutput] = LRUCache(MAX_REMEMBERED)
        """What `answering` has answered."""
        self.answer_prefixes = PrefixCache(memory.answers, on_growth=on_growth)
        """What the model has read of frames that several questions were answered from."""
        self._model, self._memory, self._on_growth = model, memory, on_growth
        self._prefix_caches: dict[RerankConfig, PrefixCache] = {}
        self._media: LRUCache[MediaKey, Prompt] = LRUCache(MAX_MEDIA)

    @property
    def nbytes(self) -> int:
        """How many bytes of memory tokens and prefixes take."""
        prefixes = (self.answer_prefixes, *list(self._prefix_caches.values()))
        return self.tokens.nbytes + sum(cache.nbytes for cache in prefixes)

    def _token_file(self, model: Model, settings: StoreConfig) -> TokenFile | None:
        if settings.disk_mib == 0:
            return None
        path = self.store.tokens_path(self.video.id, self.spec.to_dict())
        if path.parent != self.store.folder:  # the store lies elsewhere
            with suppress(OSError):
                path.parent.mkdir(parents=True, exist_ok=True)
        max_bytes = None if settings.disk_mib is None else settings.disk_mib << 20
        return TokenFile(
            path,
            num_pairs=self.grid.num_pairs,
            width=model.dim,
            bound=TokenBound(max_bytes, self.store.needed_tokens),
            element_bytes=model.dtype.itemsize,
        )

    def add_index(self, spec: IndexSpec, index: ClipIndex) -> None:
        """Keep an index; what was ranked by another one is forgotten."""
        self.indexes[spec] = index
        self.rankings.clear()

    def prefix_cache(self, settings: RerankConfig) -> PrefixCache:
        """Return what the model has read of the video's clips under these settings, for the questions to come."""
        # The pool changes how many clips are read, and nothing about one of them.
        key = dataclasses.replace(settings, pool=None)
        if key not in self._prefix_caches:
            self._prefix_caches[key] = PrefixCache(self._memory.clips, on_growth=self._on_growth)
        return self._prefix_caches[key]

    def clip_reader(self, prefix_cache: PrefixCache | None = None, on_pairs: OnPairs | None = None) -> SessionClips:
        """Return what gives the clips' visual tokens to a reranker or an embedder."""
        return SessionClips(self, prefix_cache, on_pairs)

    def query_media(self, question: Question) -> Prompt:
        """Return what shows the question's picture and lets its voice be heard; nothing if it has neither."""
        key = MediaKey.of(question)
        media = self._media.get(key)
        if media is None:
            self._media[key] = media = query_media(question, self._model, max_pixels=self.spec.max_pixels)
        return media


@dataclass(frozen=True, slots=True)
class SessionClips:
    """The clips of an open video as the model sees them: a `rerank.ClipReader`."""

    session: VideoSession
    prefix_cache: PrefixCache | None = None
    on_pairs: OnPairs | None = None

    def read(self, clips: Sequence[Clip]) -> Iterator[ClipTokens]:
        """Yield the visual tokens of each clip; the clips come in the order of time."""
        groups = [pairs_of_clip(clip, self.session.grid) for clip in clips]
        total, num_done = sum(map(len, groups)), 0
        for tokens, group in zip(self.session.tokens.clips(groups), groups, strict=True):
            check_stop()
            num_done += len(group)
            if self.on_pairs is not None:
                self.on_pairs(num_done, total)
            yield tokens


def query_media(question: Question, model: Model, *, max_pixels: int) -> Prompt:
    """Return what shows a question's picture and lets its voice be heard.

    Args:
        question: Its files are read; LvqaError for what can't be.
        model: The model that sees and hears.
        max_pixels: The limit on the picture's size.
    """
    media: Prompt = ()
    if question.image is not None:
        media += (prompts.IMAGE, image_tokens(question.image, model, max_pixels=max_pixels))
    if question.voice is not None:
        media += (prompts.VOICE, model.encode_audio(read_audio(question.voice)))
    return media


def open_store(settings: StoreConfig) -> Store:
    """Return the store of the settings; local copies of files that lie elsewhere are bounded as these say."""
    keep_copies(settings.copies_mib)
    return Store(settings.folder)


class MakeSession(Protocol):
    """Makes a session."""

    def __call__(self, *, on_growth: Callable[[], int]) -> VideoSession:
        """Return a new session, which calls `on_growth` as it takes more memory."""
        ...


@dataclass(slots=True, eq=False)
class _OpenVideo:
    """A video that is open, and who works on it."""

    lock: FairLock = field(default_factory=FairLock)
    sessions: dict[FrameSpec, VideoSession] = field(default_factory=dict)
    num_users: int = 0
    """How many threads have it, or wait for it."""

    @property
    def nbytes(self) -> int:
        return sum(session.nbytes for session in list(self.sessions.values()))


class SessionCache:
    """The sessions of videos, for all pipelines over one model and all their threads. A video has one user at a time.

    What is kept of all together fits into the memory. The video whose last use is the longest ago is closed first, of
    those that nobody uses; where that is not enough, a video in use keeps less than it has just read.
    """

    def __init__(self, max_bytes: int) -> None:
        """Make a cache without sessions.

        Args:
            max_bytes: How much memory tokens and prefixes may take.
        """
        self._max_bytes = max_bytes
        self._mutex = Lock()
        self._videos: OrderedDict[Video, _OpenVideo] = OrderedDict()

    @contextmanager
    def open(self, video: Video, spec: FrameSpec, make: MakeSession) -> Iterator[VideoSession]:
        """Open a video inside the `with` block; other threads that want it wait for the end of the block.

        Args:
            video: The inspected file.
            spec: How its frames look to the model.
            make: Makes the session if it is not there.
        """
        with self._mutex:
            opened = self._videos.setdefault(video, _OpenVideo())
            opened.num_users += 1
        try:
            with opened.lock, in_use(video.path):
                if spec not in opened.sessions:
                    opened.sessions[spec] = make(on_growth=self._close_idle)
                session = opened.sessions[spec]
                try:
                    yield session
                finally:
                    session.tokens.release_file()
        finally:
            with self._mutex:
                opened.num_users -= 1
                self._videos.move_to_end(video)
            self._close_idle()

    def _close_idle(self) -> int:
        """Close idle videos until the rest fits, and they are not too many; return by how much it does not fit."""
        with self._mutex:
            idle = [video for video, opened in self._videos.items() if not opened.num_users]
            num_bytes = sum(opened.nbytes for opened in self._videos.values())
            for i, video in enumerate(idle):
                nbytes = self._videos[video].nbytes
                if (nbytes and num_bytes > self._max_bytes) or len(idle) - i > MAX_IDLE_VIDEOS:
                    del self._videos[video]
                    num_bytes -= nbytes
            return num_bytes - self._max_bytes

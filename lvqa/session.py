"""One open video: its frame grid, its visual tokens, and what the model has read and answered so far.

Two specs say what is kept under which name. `FrameSpec` is all that decides how a video's frames look to the model;
`IndexSpec` adds what decides the clips' vectors. What is kept on disk is found by their fingerprints, what is kept in
memory by the specs themselves.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lvqa import prompts
from lvqa.audio import read_audio
from lvqa.config import Config, RerankConfig, StoreConfig, VideoConfig
from lvqa.embedding import EMBEDDING_FORMAT, Embedder
from lvqa.index import INDEX_FORMAT, ClipIndex, Store, fingerprint
from lvqa.models import Model
from lvqa.models.prefix import PrefixCache
from lvqa.pairs import pairs_of_clip
from lvqa.records import Clip, FileKey, LvqaError, ModelOutput, Question, QuestionKind, Ranking, Video, file_key
from lvqa.video import FRAMES_FORMAT, SAMPLINGS, FrameGrid
from lvqa.visual_tokens import TOKENS_FORMAT, TokenFile, VisualTokens, image_tokens

if TYPE_CHECKING:
    from lvqa.models.prompt import ClipTokens, Prompt

OnPairs = Callable[[int, int], None]
"""Called as clips become ready: how many pairs are done, of how many."""


ANSWER_PREFIX_BYTES = 1 << 30
"""How much memory that takes at most: 16, 32 and 64 uniform frames with 7B."""

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
            max_pixels=config.model.max_pixels or model.max_pixels,
            sampling=config.video.sampling,
            frames_per_second=config.video.frames_per_second,
            decoder=config.video.decoder,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return what is hashed into a fingerprint."""
        return {**dataclasses.asdict(self), **FRAME_FORMATS}

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
    def of(cls, model: Model, config: Config) -> IndexSpec:
        """Return the spec of these settings over a model."""
        settings = config.embedding
        embedder = Embedder(
            state=settings.state,
            final_norm=settings.final_norm,
            prompt=settings.prompt,
            task=settings.task,
            semantics=settings.semantics,
            noise=settings.noise,
        )
        video = config.video
        frames = FrameSpec.of(model, config)
        return cls(frames=frames, embedder=embedder, clip_seconds=video.clip_seconds, scene_cuts=video.scene_cuts)

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
        self, video: Video, spec: FrameSpec, model: Model, *, settings: VideoConfig, store: StoreConfig
    ) -> None:
        """Lay the frame grid; nothing is decoded yet.

        Args:
            video: The inspected file.
            spec: How its frames look to the model.
            model: The model that sees them.
            settings: How it is decoded: threads and time limits, which change no frame.
            store: Where visual tokens are kept, and how many.
        """
        self.video, self.spec = video, spec
        self.grid: FrameGrid = SAMPLINGS[spec.sampling](video, spec.frames_per_second)
        self.tokens = VisualTokens(
            video,
            self.grid,
            model,
            max_pixels=spec.max_pixels,
            decoder=spec.decoder,
            threads=settings.threads,
            stall_seconds=settings.stall_seconds,
            memory_bytes=store.memory_mib << 20,
            file=self._token_file(model, store),
        )
        self.indexes: dict[IndexSpec, ClipIndex] = {}
        """The indexes that were loaded or built."""
        self.rankings: dict[object, Ranking] = {}
        """What `retrieval` has ranked."""
        self.kinds: dict[str, QuestionKind] = {}
        """What `gate` has learnt of questions, by their text."""
        self.outputs: dict[object, ModelOutput] = {}
        """What `answering` has answered."""
        self.answer_prefixes = PrefixCache(ANSWER_PREFIX_BYTES)
        """What the model has read of frames that several questions were answered from."""
        self._model = model
        self._prefix_caches: dict[RerankConfig, PrefixCache] = {}
        self._media: dict[MediaKey, Prompt] = {}

    def _token_file(self, model: Model, store: StoreConfig) -> TokenFile | None:
        path, max_bytes = Store(store.folder).tokens_path(self.video.id, self.spec.to_dict()), store.disk_mib << 20
        if not max_bytes:
            return None
        return TokenFile(path, num_pairs=self.grid.num_pairs, width=model.dim, max_bytes=max_bytes)

    def add_index(self, spec: IndexSpec, index: ClipIndex) -> None:
        """Keep an index; what was ranked by another one is forgotten."""
        self.indexes[spec] = index
        self.rankings.clear()

    def prefix_cache(self, settings: RerankConfig) -> PrefixCache:
        """Return what the model has read of the video's clips under these settings, for the questions to come."""
        # The pool changes how many clips are read, and nothing about one of them.
        key = dataclasses.replace(settings, pool=None)
        if key not in self._prefix_caches:
            self._prefix_caches[key] = PrefixCache(settings.memory_mib << 20)
        return self._prefix_caches[key]

    def clip_reader(self, prefix_cache: PrefixCache | None = None, on_pairs: OnPairs | None = None) -> SessionClips:
        """Return what gives the clips' visual tokens to a reranker or an embedder."""
        return SessionClips(self, prefix_cache, on_pairs)

    def query_media(self, question: Question) -> Prompt:
        """Return what shows the question's picture and lets its voice be heard; nothing if it has neither."""
        key = MediaKey.of(question)
        if key not in self._media:
            self._media[key] = query_media(question, self._model, max_pixels=self.spec.max_pixels)
        return self._media[key]


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


class SessionCache:
    """The sessions of the video that was opened last. Pipelines over one model share it, and so their sessions."""

    def __init__(self) -> None:
        self._video: Video | None = None
        self._sessions: dict[FrameSpec, VideoSession] = {}
        self._next: VideoSession | None = None

    def prepare(self, video: Video, spec: FrameSpec, make: Callable[[], VideoSession]) -> VideoSession:
        """Return a session of a video that may be opened next; it ends none. The arguments are those of `open`."""
        self._next = make()
        return self._next

    def open(self, video: Video, spec: FrameSpec, make: Callable[[], VideoSession]) -> VideoSession:
        """Return the video's session under this spec, made if it is not there. Another video ends all sessions."""
        if video != self._video:
            prepared, self._next = self._next, None
            self._video, self._sessions = video, {}
            if prepared is not None and prepared.video == video:
                self._sessions[prepared.spec] = prepared
        if spec not in self._sessions:
            self._sessions[spec] = make()
        return self._sessions[spec]

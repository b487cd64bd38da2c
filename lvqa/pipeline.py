"""The main path, from a file and a question to an answer with its evidence. Read `LongVideoQA.answer` first."""

from __future__ import annotations

import dataclasses
import itertools
import logging
import os
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

import lvqa
from lvqa import prompts
from lvqa.answering import Answerer, Asked, Reply
from lvqa.audio import read_audio
from lvqa.components import Control, check_settings, reranker_of, selector_of
from lvqa.config import Config, SelectionConfig, load_config
from lvqa.embedding import CLIPS_AT_ONCE, Embedder
from lvqa.index import ClipIndex, Store
from lvqa.models import Model, load_model
from lvqa.models.prefix import PrefixCache
from lvqa.models.prompt import ClipTokens, Prompt
from lvqa.records import (
    Answer,
    Candidate,
    Clip,
    Counts,
    FrameSelection,
    IndexUse,
    LvqaError,
    Question,
    Video,
)
from lvqa.rerank import RerankRequest, rerank_each
from lvqa.selection import Selector, SelectorInput, evenly_spaced, frame_features, frame_scores
from lvqa.validation import check_count, check_question
from lvqa.video import SAMPLINGS, FrameGrid, cut_clips, inspect_video, scene_changes, store_metadata
from lvqa.visual_tokens import TokenFile, VisualTokens, image_tokens, pairs_of_clip, pairs_of_frames

_log = logging.getLogger(__name__)

SEGMENT_CLIPS, MAX_SEGMENTS = 2 * CLIPS_AT_ONCE, 16
"""A video is read and embedded in segments of so many clips, 8.5 minutes by default; of more if they were too many."""

Part = TypeVar("Part")
Progress = Callable[[str, int, int], None]
"""Called as work goes on: the stage, how many pairs are done, of how many."""


@dataclass(frozen=True, slots=True, eq=False)
class Ranking:
    """What was found for a question."""

    candidates: tuple[Candidate, ...]
    """All clips, best first: the reranked pool, then the rest by embedding."""
    query: np.ndarray
    """(dim,) float32, unit length: the question's vector."""


@dataclass(slots=True)
class VideoSession:
    """A probed video with its grid, its tokens, and its index once it is needed."""

    video: Video
    grid: FrameGrid
    tokens: VisualTokens
    beginnings: PrefixCache
    """What the model has read of its clips, for the questions to come."""
    replies: dict[tuple[object, ...], Reply]
    """By question, its files, frames and how they are shown: methods that choose the same frames are answered once."""
    index: ClipIndex | None = None
    rankings: dict[tuple[object, ...], Ranking] = field(default_factory=dict)
    """By question, picture and voice, so that asking again at another budget ranks nothing again."""


class SessionCache:
    """What pipelines over one model hold of the video that one of them opened last, and of no other."""

    def __init__(self) -> None:
        self._video: Video | None = None
        self._parts: dict[Hashable, Any] = {}

    def part(self, video: Video, name: Hashable, make: Callable[[], Part]) -> Part:
        """The part of this name, made if it is not there. Another video lets go of all that is held."""
        if video != self._video:
            self._video, self._parts = video, {}
        if name not in self._parts:
            self._parts[name] = make()
        part: Part = self._parts[name]
        return part


class LongVideoQA:
    """One model, untouched, that answers questions about long videos from the frames it chose itself.

    >>> qa = LongVideoQA.load("tiny")
    >>> answer = qa.ask("film.mp4", "What happened after the door closed?", frames=32)
    >>> answer.text, answer.evidence[0].start_seconds
    """

    def __init__(
        self,
        model: Model,
        config: Config,
        *,
        progress: Progress | None = None,
        last_video: SessionCache | None = None,
    ) -> None:
        """`last_video` is shared by pipelines over one model; see `beside`."""
        self.model = model
        self.config = config
        self._progress = progress or (lambda *_: None)
        self._store = Store(config.store.folder)
        self._last_video = last_video or SessionCache()
        e, a = config.embedding, config.answer
        self.embedder = Embedder(
            state=e.state, final_norm=e.final_norm, prompt=e.prompt, task=e.task, semantics=e.semantics, noise=e.noise
        )
        check_settings(config)
        self._reranker = reranker_of(config, layout=model.rerank_layout)
        self._answerer = Answerer(
            time_encoding=a.time_encoding or model.time_encoding,
            read=a.mode or model.answer_mode,
            max_new_tokens=a.max_new_tokens,
        )

    @classmethod
    def load(
        cls,
        model: str | None = None,
        *,
        config: Config | None = None,
        overrides: Sequence[str] = (),
        progress: Progress | None = None,
    ) -> LongVideoQA:
        """The model under a hub id, in a folder, or "tiny"; by default the configuration's.

        `overrides` are settings as on the command line, "selection.frames=32". Raises LvqaError for what is unknown.
        """
        # A worker has fewer threads than a process that works alone, and must come to the same bits. Costs no time.
        os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")
        config = config or load_config(None, overrides)
        if model is not None:
            config = dataclasses.replace(config, model=dataclasses.replace(config.model, name=model))
        check_settings(config)
        loaded = load_model(config.model.name, device=config.model.device, dtype=config.model.dtype)
        if config.model.compile:
            loaded.compile()
        return cls(loaded, config, progress=progress)

    def beside(self, config: Config) -> LongVideoQA:
        """A pipeline with other settings over the same model. Where the two see a video alike they share its tokens.

        So many settings can be compared on one video, and each of its pairs is decoded and encoded once. Raises
        LvqaError for what is unknown.
        """
        return LongVideoQA(self.model, config, progress=self._progress, last_video=self._last_video)

    # --- what a user calls ------------------------------------------------------------------------------------------

    def ask(
        self,
        path: str | Path,
        question: str,
        *,
        options: Sequence[str] = (),
        image: str | Path | None = None,
        voice: str | Path | None = None,
        frames: int | None = None,
        method: str | None = None,
    ) -> Answer:
        """The answer to a question about a video, with its evidence. Two to twenty options, or none (free answer).

        `image` is a picture that belongs to the question: it is searched for, and shown with the question. `voice` is
        a sound file that asks it, for a model that hears; the text may then be empty.
        """
        asked = dataclasses.replace(
            _query(question, image), options=tuple(options), voice=None if voice is None else Path(voice)
        )
        return self.answer(path, asked, frames=frames, method=method)

    def answer(
        self,
        path: str | Path | Video,
        question: Question,
        *,
        frames: int | None = None,
        method: str | None = None,
        selection: SelectionConfig | None = None,
    ) -> Answer:
        """Index once, find candidates, look closer, choose frames, answer.

        `frames`, `method` and `selection` stand above the configuration's: answers that differ in these alone share
        what was found for the question, and the reply if the same frames were chosen. A probed video is not probed
        again.
        """
        return self.answers(path, [question], frames=frames, method=method, selection=selection)[0]

    def answers(
        self,
        path: str | Path | Video,
        questions: Sequence[Question],
        *,
        frames: int | None = None,
        method: str | None = None,
        selection: SelectionConfig | None = None,
    ) -> list[Answer]:
        """The same for several questions on a video, which are looked for and answered together, in batches.

        What is done for all of them stands in the first one's counts and seconds.
        """
        config = self.config if selection is None else dataclasses.replace(self.config, selection=selection)
        method = method or config.method
        selector = selector_of(config, method)
        budget = check_count(config.selection.frames if frames is None else frames)
        for question in questions:
            check_question(question)
        if not questions:
            return []
        clock, began = _Clock(), dataclasses.replace(self.model.counts)
        with clock.stage("open"):
            opened = self.open(path)
            images = [self._beside(question) for question in questions]
        use: IndexUse | None = None
        if selector.needs_scores or selector.needs_features:
            use = self._index_of(opened, clock=clock)
        rankings: Sequence[Ranking | None] = [None for _ in questions]
        if selector.needs_scores:
            rankings = self._rankings(opened, questions, images, clock=clock)
        with clock.stage("select"):
            chosen = [
                self._select(opened, question, selector, ranking, budget=budget)
                for question, ranking in zip(questions, rankings, strict=True)
            ]
        with clock.stage("answer"):
            replies = self._replies(opened, questions, chosen, images)
        spent = self.model.counts - began
        return [
            Answer(
                question=question,
                text=reply.text,
                option=reply.option,
                option_scores=reply.option_scores,
                model=self.model.name,
                method=method,
                frames_budget=budget,
                frames=of.times_seconds,
                evidence=ranking.candidates if ranking else (),
                index=use,
                counts=Counts() if number else spent,
                seconds={} if number else clock.seconds,
            )
            for number, (question, reply, of, ranking) in enumerate(
                zip(questions, replies, chosen, rankings, strict=True)
            )
        ]

    def index(self, path: str | Path, *, rebuild: bool = False) -> IndexUse:
        """Make the video's index, or find it in the store."""
        return self._index_of(self.open(path), rebuild=rebuild)

    def search(
        self, path: str | Path | Video, query: str | Question = "", *, image: str | Path | None = None, top: int = 5
    ) -> list[Candidate]:
        """The clips that fit a query best, best first; reranked as the configuration says.

        A query is a text, a picture (the path of `image`), or both.
        """
        question = _query(query, image)
        check_question(question, is_search=True)
        check_count(top, name="top")
        opened = self.open(path)
        self._index_of(opened)
        (ranking,) = self._rankings(opened, [question], [self._beside(question)])
        return list(ranking.candidates[:top])

    def search_library(
        self, query: str | Question = "", *, image: str | Path | None = None, top: int = 5
    ) -> list[tuple[ClipIndex, Candidate]]:
        """The clips of all indexes in the store that this model and these settings made, by embedding alone."""
        question = _query(query, image)
        check_question(question, is_search=True)
        check_count(top, name="top")
        vector = self.embedder.query(self.model, prompts.query(question), image=self._beside(question))
        known = list(self._store.all())
        mine = [index for index in known if index.stamp.items() >= self._maker.items()]
        if not mine:
            raise LvqaError(
                f"no index in {self._store.folder} was made with {self.model.name} and these settings "
                f"({len(known)} with others); index some videos first: lvqa index PATH ..."
            )
        found = [(index, candidate) for index in mine for candidate in index.search(vector, top)]
        return sorted(found, key=lambda item: -item[1].embed_score)[:top]

    # --- what a worker is asked for, of one video of many -----------------------------------------------------------

    def survey(self, path: str | Path) -> tuple[Video, dict[str, object]]:
        """The probed video, and the stamp that its index has."""
        opened = self.open(path)
        return opened.video, self._stamp(opened)

    def cut(self, video: Video) -> dict[Clip, int]:
        """Its clips, in the order of time, and how many pairs each has."""
        opened = self._open_again(video)
        return {clip: len(pairs_of_clip(clip, opened.grid)) for clip in self._cut(opened)}

    def embed(self, video: Video, clips: Sequence[Clip]) -> np.ndarray:
        """(clips, dim) float32, unit length: the vectors of some of its clips, of a segment for example."""
        (vectors,) = self._embed(self._open_again(video), clips, [slice(None)])
        return vectors

    # --- the stages -------------------------------------------------------------------------------------------------

    def open(self, path: str | Path | Video) -> VideoSession:
        """The probed video; the last one stays open, with its tokens, so that the next question is cheap."""
        return self._opened(path if isinstance(path, Video) else self.inspect_video(path))

    def inspect_video(self, path: str | Path) -> Video:
        """What the file holds; of an indexed film it is kept in the store, so that it need not be read through."""
        return inspect_video(path, kept_in=self._store.folder)

    @property
    def sight(self) -> tuple[object, ...]:
        """The settings that decide how a frame looks to the model: pipelines that share them share visual tokens."""
        video = self.config.video
        return video.sampling, video.frames_per_second, self.config.model.max_pixels, video.decoder

    def _opened(self, video: Video) -> VideoSession:
        return self._last_video.part(video, self.config.retrieval, lambda: self._make_open(video))

    def _make_open(self, video: Video) -> VideoSession:
        """With the tokens, and what the model has read of them, of pipelines that see the video alike."""
        config, settings = self.config, self.config.video
        grid = SAMPLINGS[settings.sampling](video, settings.frames_per_second)

        def make_tokens() -> VisualTokens:
            return VisualTokens(
                video,
                grid,
                self.model,
                max_pixels=config.model.max_pixels,
                decoder=settings.decoder,
                threads=settings.threads,
                stall_seconds=settings.stall_seconds,
                memory_bytes=config.store.memory_mib << 20,
                file=self._token_file({**seen, "video": video.id}, num_pairs=grid.num_pairs),
            )

        seen = {
            "model": self.model.revision,
            "dtype": str(self.model.dtype),
            "size": self.model.frame_size(
                video.height, video.width, max_pixels=config.model.max_pixels or self.model.max_pixels
            ),
            "grid": settings.sampling,
            "frames_per_second": settings.frames_per_second,
            "decoder": settings.decoder,
            "version": lvqa.__version__,
        }
        # The pool changes how many clips are read, and nothing about one of them.
        reading = (self.sight, dataclasses.replace(config.rerank, pool=None))
        return VideoSession(
            video,
            grid,
            self._last_video.part(video, self.sight, make_tokens),
            self._last_video.part(video, reading, lambda: PrefixCache(config.rerank.memory_mib << 20)),
            self._last_video.part(video, ("replies", self.sight), dict),
        )

    def _token_file(self, stamp: dict[str, object], *, num_pairs: int) -> TokenFile | None:
        path, most_bytes = self._store.tokens_path(stamp), self.config.store.disk_mib << 20
        return TokenFile(path, num_pairs=num_pairs, max_bytes=most_bytes) if most_bytes else None

    def _open_again(self, video: Video) -> VideoSession:
        opened = self.open(video.path)
        if opened.video != video:
            raise LvqaError(f"{video.path}: the file was changed while it was being indexed; index it again")
        return opened

    @property
    def _maker(self) -> dict[str, object]:
        """What of an index does not depend on the video: two of them with the same maker can be searched together."""
        return {
            "model": {"revision": self.model.revision},
            "embedding": self.embedder.stamp,
            "grid": self.config.video.sampling,
            "frames_per_second": self.config.video.frames_per_second,
            "clip_seconds": self.config.video.clip_seconds,
            "scene_cuts": self.config.video.scene_cuts,
            "decoder": self.config.video.decoder,
            "version": lvqa.__version__,
        }

    def _index_of(self, opened: VideoSession, *, rebuild: bool = False, clock: _Clock | None = None) -> IndexUse:
        """Load the index under its stamp, or make and save it."""
        if opened.index is not None and not rebuild:
            return IndexUse(True, len(opened.index.clips), opened.index.path)
        stamp = self._stamp(opened)
        with (clock or _Clock()).stage("index"):
            index = None if rebuild else self._store.load(stamp)
            reused = index is not None
            if index is None:
                if not rebuild:
                    log_if_stale(self._store, opened.video, stamp)
                (index,) = _made_indexes([self], opened.video)
            store_metadata(opened.video.path, self._store.folder)
        opened.index = index
        opened.rankings.clear()
        return IndexUse(reused, len(index.clips), index.path)

    def _stamp(self, opened: VideoSession) -> dict[str, object]:
        return {**self._maker, "video": opened.video.id, "size": [opened.tokens.height, opened.tokens.width]}

    def _cut(self, opened: VideoSession) -> list[Clip]:
        settings = self.config.video
        cuts: list[float] = []
        if settings.scene_cuts:
            cuts = scene_changes(
                opened.video,
                opened.grid,
                decoder=settings.decoder,
                threads=settings.threads,
                stall_seconds=settings.stall_seconds,
            )
            self.model.counts.frames_decoded += opened.grid.num_frames
        return cut_clips(opened.video, opened.grid, settings.clip_seconds, cuts)

    def _embed(self, opened: VideoSession, clips: Sequence[Clip], parts: Sequence[slice]) -> Iterator[np.ndarray]:
        """The vectors of clips in the order of time, part by part. Each part is read from the file on its own."""
        blocks = self._blocks_of(opened, clips, parts, stage="index")
        for part in parts:
            yield self.embedder.clips(self.model, itertools.islice(blocks, len(clips[part])))

    def _beside(self, question: Question) -> Prompt:
        """What shows the question's picture and lets its voice be heard; nothing if it has neither."""
        shown: Prompt = ()
        if question.image is not None:
            block = image_tokens(question.image, self.model, max_pixels=self.config.model.max_pixels)
            shown += (prompts.IMAGE, block)
        if question.voice is not None:
            shown += (prompts.VOICE, self.model.encode_audio(read_audio(question.voice)))
        return shown

    def _rankings(
        self,
        opened: VideoSession,
        questions: Sequence[Question],
        images: Sequence[Prompt],
        *,
        clock: _Clock | None = None,
    ) -> list[Ranking]:
        """For each question the clips ranked by how well they fit it; those that are new are looked for together."""
        clock = clock or _Clock()
        texts = [prompts.query(question, with_options=self.config.embedding.with_options) for question in questions]
        keys = [(text, _files_key(question)) for text, question in zip(texts, questions, strict=True)]
        shown = zip(keys, zip(texts, images, strict=True), strict=True)
        new = {key: asked for key, asked in shown if key not in opened.rankings}
        if new:
            with clock.stage("search"):
                vectors = self.embedder.queries(self.model, new.values())
                index = self._searched(opened)
                found = [index.search(vector) for vector in vectors]
            with clock.stage("rerank"):
                pools = self._reranked(opened, list(new.values()), found)
            for key, vector, ranked, pool in zip(new, vectors, found, pools, strict=True):
                opened.rankings[key] = Ranking((*pool, *ranked[len(pool) :]), vector)
        return [opened.rankings[key] for key in keys]

    def _reranked(
        self, opened: VideoSession, asked: Sequence[tuple[str, Prompt]], found: Sequence[list[Candidate]]
    ) -> list[list[Candidate]]:
        """For each query its pool, the best of what the embedding has found, in the reranker's order."""
        pool = self.config.rerank.pool
        if pool == 0:
            return [[] for _ in found]
        return rerank_each(
            self._reranker,
            self.model,
            [RerankRequest(text, ranked[:pool], image) for (text, image), ranked in zip(asked, found, strict=True)],
            lambda clips: self._blocks_of(opened, clips, stage="rerank"),
            opened.beginnings,
        )

    def _searched(self, opened: VideoSession) -> ClipIndex:
        """The index as it is searched."""
        assert opened.index is not None
        return opened.index.centred() if self.config.embedding.centre else opened.index

    def _blocks_of(
        self, opened: VideoSession, clips: Sequence[Clip], parts: Sequence[slice] = (slice(None),), *, stage: str
    ) -> Iterator[ClipTokens]:
        """What the model sees of each clip, in time order, with progress reported in pairs."""
        groups = [pairs_of_clip(clip, opened.grid) for clip in clips]
        total, done = sum(map(len, groups)), 0
        blocks = itertools.chain.from_iterable(opened.tokens.clips(groups[part]) for part in parts)
        for block, group in zip(blocks, groups, strict=True):
            done += len(group)
            self._progress(stage, done, total)
            yield block

    def _replies(
        self,
        opened: VideoSession,
        questions: Sequence[Question],
        chosen: Sequence[FrameSelection],
        images: Sequence[Prompt],
    ) -> list[Reply]:
        """What the model says to each question and its frames; what it has said already it is not asked again."""
        keys = [
            (self._answerer, question.text, question.options, _files_key(question), of.times_seconds)
            for question, of in zip(questions, chosen, strict=True)
        ]
        new = {
            key: Asked(question, pairs_of_frames(map(opened.grid.frame_at, of.times_seconds)), image)
            for key, question, of, image in zip(keys, questions, chosen, images, strict=True)
            if key not in opened.replies
        }
        said = self._answerer.answer(self.model, list(new.values()), opened.tokens)
        opened.replies.update(zip(new, said, strict=True))
        return [opened.replies[key] for key in keys]

    def _select(
        self,
        opened: VideoSession,
        question: Question,
        selector: Selector | Control,
        ranking: Ranking | None,
        *,
        budget: int,
    ) -> FrameSelection:
        """The frames that a selector chooses, given what it needs, or those of a control."""
        times, features = opened.grid.times_seconds, None
        if isinstance(selector, Control):
            if selector.method == "blind":
                return FrameSelection(opened.video.id, ())
            return FrameSelection(opened.video.id, tuple(_of_the_evidence(times, question, budget).tolist()))
        if selector.needs_features:
            index = self._searched(opened)
            features = frame_features(times, index.clips, index.vectors)
        of_frames = frame_scores(times, ranking.candidates if ranking else ())
        return selector.select(
            SelectorInput(
                times,
                budget,
                scores=of_frames.scores,
                clip_ids=of_frames.clip_ids,
                features=features,
                query=ranking.query if ranking and features is not None else None,
                video_id=opened.video.id,
                video_name=question.video_id or opened.video.path.stem,
                question_id=question.id or question.text,
                question_text=question.text,
            )
        )


def _query(query: str | Question, image: str | Path | None) -> Question:
    return query if isinstance(query, Question) else Question(query, image=None if image is None else Path(image))


def _files_key(question: Question) -> object:
    """What tells the question's picture and voice from others."""
    return tuple(path and (path, path.stat().st_mtime_ns) for path in (question.image, question.voice))


def _of_the_evidence(times: np.ndarray, question: Question, budget: int) -> np.ndarray:
    """The oracle's grid times: evenly spaced ones inside the question's evidence, at least one.

    Whole pairs, as FreeRet shows them, since a single frame shows no motion; single frames of a span so long that they
    would leave most of it out.
    """
    if question.evidence_seconds is None:
        raise LvqaError(f"method 'oracle' needs the time of the evidence, and question {question.id!r} has none")
    start, end = question.evidence_seconds
    inside = np.flatnonzero((times >= start) & (times < end))
    if not len(inside):
        return times[[max(0, int(np.searchsorted(times, start, side="right")) - 1)]]
    firsts = inside[:-1][inside[:-1] % 2 == 0]  # of the pairs that lie inside
    if budget % 2 == 0 and budget // 2 <= len(firsts) <= 2 * budget:
        firsts = firsts[evenly_spaced(len(firsts), budget // 2)]
        inside = np.stack([firsts, firsts + 1], 1).ravel()
    return np.asarray(times[inside[evenly_spaced(len(inside), budget)]])


class _Clock:
    """Wall seconds by stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started


def index_together(pipelines: Sequence[LongVideoQA], video: Video) -> list[IndexUse]:
    """Make the indexes of one video that several settings need, those that are lacking in one reading of the film.

    The pipelines are `beside` each other. Which of the indexes were there before, in the pipelines' order.
    """
    places, lacking = [], dict[Path, LongVideoQA]()
    for qa in pipelines:
        opened = qa._opened(video)
        stamp = qa._stamp(opened)
        places.append(qa._store.path_of(stamp))
        if opened.index is None and places[-1] not in lacking and qa._store.load(stamp) is None:
            log_if_stale(qa._store, video, stamp)
            lacking[places[-1]] = qa
    _made_indexes([*lacking.values()], video)
    uses = [qa._index_of(qa._opened(video)) for qa in pipelines]
    return [dataclasses.replace(use, reused=place not in lacking) for use, place in zip(uses, places, strict=True)]


def _made_indexes(pipelines: Sequence[LongVideoQA], video: Video) -> list[ClipIndex]:
    """The video's index for each of them, made and saved.

    They take turns, segment by segment in the order of time. So what one has decoded and encoded is still held when the
    next one needs it, even where the tokens of the whole film are too many to be held.
    """
    opened = [qa._opened(video) for qa in pipelines]
    for qa in pipelines:
        qa._store.prepare()
    clips = [qa._cut(there) for qa, there in zip(pipelines, opened, strict=True)]
    parts = [segments(len(cut)) for cut in clips]
    embedded = [qa._embed(*of) for qa, of in zip(pipelines, zip(opened, clips, parts, strict=True), strict=True)]
    turns = [(clips[place][part.start].start_seconds, place) for place, of in enumerate(parts) for part in of]
    vectors: list[list[np.ndarray]] = [[] for _ in pipelines]
    for _, place in sorted(turns):
        vectors[place].append(next(embedded[place]))
    return [
        qa._store.save(ClipIndex.of(cut, np.concatenate(of), qa._stamp(there)), video)
        for qa, there, cut, of in zip(pipelines, opened, clips, vectors, strict=True)
    ]


def log_if_stale(store: Store, video: Video, stamp: dict[str, object]) -> None:
    """Says why an index is made although the video has one."""
    if store.others(video.id, stamp):
        _log.info("%s: index made anew because settings or model changed", video.path)


def segments(num_clips: int) -> list[slice]:
    """The runs of clips in which a video is read and embedded, each as if it were the only one.

    Whole batches, so that every batch is the same wherever it is embedded; and not too many, since where a container
    can't seek all packets before a segment are read to get there. They do not depend on workers, and hold where there
    are none: beside damage, what stands in for a lost frame depends on where reading began.
    """
    length = max(SEGMENT_CLIPS, -(-num_clips // (MAX_SEGMENTS * CLIPS_AT_ONCE)) * CLIPS_AT_ONCE)
    return [slice(first, first + length) for first in range(0, num_clips, length)]

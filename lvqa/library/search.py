"""Search all videos of a store, and answer a question from the one that matches best."""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lvqa.caveats import describe_damage, describe_evidence, describe_model
from lvqa.components import has_probabilities
from lvqa.config import Config
from lvqa.library.catalog import Library, Location
from lvqa.library.find import ClipFinder
from lvqa.library.indexed import ALL_VIDEOS, IndexedVideo, LibraryClip, LibraryFilter
from lvqa.library.moments import join_moments
from lvqa.pipeline import LongVideoQA
from lvqa.records import Answer, Candidate, Clip, LvqaError, Question, Video, counted
from lvqa.rerank import best_first
from lvqa.validation import check_count, check_question
from lvqa.video import VideoError

_log = logging.getLogger(__name__)

CLIPS_IN_MOMENT = 10
"""So many clips are ranked for each moment that is to be returned."""
MAX_NAMES = 3
"""So many videos are named in a warning."""


@dataclass(frozen=True, slots=True)
class LibraryHit:
    """A clip of one of many videos."""

    location: Location
    """Where the file of its video lies."""
    candidate: Candidate
    video: IndexedVideo
    """What is known of its video."""

    @property
    def video_id(self) -> str:
        """The id of its video."""
        return self.candidate.clip.video_id


@dataclass(frozen=True, slots=True)
class LibraryRanking:
    """Clips of all videos of a library, ranked for one question."""

    hits: tuple[LibraryHit, ...]
    """Those that were reranked, best first, then the rest in the embedding's order."""
    warnings: tuple[str, ...]
    """What a reader must know: what could not be judged, and what is wrong with a video, the model or the evidence."""

    def best_of_videos(self) -> list[LibraryHit]:
        """Return the best clip of each video, the best video first."""
        best: dict[str, LibraryHit] = {}
        for hit in self.hits:
            best.setdefault(hit.video_id, hit)
        return list(best.values())


@dataclass(frozen=True, slots=True)
class LibraryAnswer:
    """An answer from the video of a library that matches the question best."""

    answer: Answer
    video: Video
    """Which video it is from."""
    hit: LibraryHit
    """The clip for which its video was chosen."""
    runners_up: tuple[LibraryHit, ...]
    """The best clips of the other videos, the best first."""
    warnings: tuple[str, ...]
    """What could not be judged, in one line each."""


def search_library(
    qa: LongVideoQA,
    query: str | Question = "",
    *,
    image: str | Path | None = None,
    top: int = 5,
    condition: LibraryFilter = ALL_VIDEOS,
    moments: bool = False,
    exact: bool = False,
    light: bool = False,
) -> LibraryRanking:
    """Find the clips that match a query best, in all videos that were indexed under this model and these settings.

    The best `rerank.pool` of all clips are reranked as in a search of one video, as far as the files of their videos
    can be read.

    Args:
        qa: The pipeline, with the store that is searched.
        query: A text; it may be empty if `image` is searched for.
        image: A picture's file.
        top: How many clips to return.
        condition: Which videos are searched.
        moments: Join clips that follow each other, and return so many moments.
        exact: Read the indexes of all videos. Otherwise many videos are searched by a table of all their clips, which
            is made at the first search, and may miss a clip.
        light: Find candidates in indexes of key frames alone, which were made under `video.sampling: keyframes`, and
            rerank them with all their frames (FreeRet's coarse filter, appendix A.5).

    Raises:
        LvqaError: The store has no such index, or no video meets the condition.
    """
    question = query if isinstance(query, Question) else Question(query, image=None if image is None else Path(image))
    check_question(question, is_search=True)
    check_count(top, name="top")
    num_hits = top * CLIPS_IN_MOMENT if moments else top
    ranking = _rank(qa, question, num_hits, condition, exact=exact, light=light)
    hits = _moments(ranking.hits, top) if moments else ranking.hits[:top]
    warnings = (*ranking.warnings, *_caveats(qa, hits))
    for warning in warnings:
        _log.warning("%s", warning)
    return LibraryRanking(hits, warnings)


def ask_library(
    qa: LongVideoQA, question: Question, *, condition: LibraryFilter = ALL_VIDEOS, **options: Any
) -> LibraryAnswer:
    """Answer a question from the video whose best clip matches it best.

    Args:
        qa: The pipeline, with the store that is searched.
        question: The question.
        condition: Which videos are searched.
        options: What `LongVideoQA.answer` takes.

    Raises:
        LvqaError: The store has no index under these settings, or no file of a video can be read.
    """
    check_question(question)
    ranking = _rank(qa, question, 1, condition)
    best = ranking.best_of_videos()
    chosen = next((hit for hit in best if hit.location.is_there), None)
    if chosen is None or chosen.location.path is None:
        first = best[0].location
        raise LvqaError(
            f"no file of the {counted(len(best), 'video')} that match can be read: {first.path} is {first.state}; "
            "`lvqa library list` names all"
        )
    for warning in ranking.warnings:
        _log.warning("%s", warning)
    video = qa.inspect_video(chosen.location.path)
    answer = qa.answer(video, question, **options)
    return LibraryAnswer(answer, video, chosen, tuple(hit for hit in best if hit is not chosen), ranking.warnings)


def _rank(
    qa: LongVideoQA,
    question: Question,
    top: int,
    condition: LibraryFilter,
    *,
    exact: bool = False,
    light: bool = False,
) -> LibraryRanking:
    """Rank the clips of all videos by embedding, and rerank the best ones; at least `top` are returned."""
    pool = 0 if qa.config.rerank.name == "none" else qa.config.rerank.pool
    finding = qa.with_config(_of_key_frames(qa.config)) if light else qa
    clips, warnings = _find(finding, question, None if pool is None else max(pool, top), condition, exact=exact)
    candidates, videos = [clip.candidate for clip in clips], {clip.video.id: clip.video for clip in clips}
    library = Library(qa.store)
    locations = {video.id: library.locate(video.id, video.path) for video in videos.values()}
    reranked, replaced, errors = _rerank(qa, question, candidates[:pool], locations, light=light)
    rest = [candidate for candidate in candidates if candidate.clip not in replaced]
    hits = tuple(
        LibraryHit(locations[candidate.clip.video_id], candidate, videos[candidate.clip.video_id])
        for candidate in (*reranked, *rest)
    )
    in_pool = dict.fromkeys(candidate.clip.video_id for candidate in candidates[:pool])
    lost = [locations[video_id] for video_id in in_pool if not locations[video_id].is_there]
    return LibraryRanking(hits, (*warnings, *errors, *_describe_lost(lost)))


def _of_key_frames(config: Config) -> Config:
    """Return the settings under which videos are indexed for a light first pass."""
    return dataclasses.replace(config, video=dataclasses.replace(config.video, sampling="keyframes"))


def _find(
    qa: LongVideoQA, question: Question, k: int | None, condition: LibraryFilter, *, exact: bool
) -> tuple[list[LibraryClip], list[str]]:
    """Return the best clips by embedding, of which there is at least one, and what a reader must know of the search."""
    on_video = functools.partial(qa.progress, "index library")
    finder = ClipFinder(qa.store, qa.spec.to_dict(), centred=qa.config.embedding.centre, on_video=on_video)
    if not finder.states:
        raise LvqaError(
            f"no index in {qa.store.folder} was made with {qa.model.name} and these settings "
            f"({len(qa.store.paths())} with others); index some videos first: lvqa index PATH ..."
        )
    clips = finder.find(qa.ranker.query_vector(question), k, condition, exact=exact)
    if not clips:
        raise LvqaError(
            f"none of the {counted(len(finder.states), 'video')} of the library can be searched: "
            f"{condition.text or 'no index can be used'}"
        )
    return clips, finder.warnings


def _moments(hits: Sequence[LibraryHit], top: int) -> tuple[LibraryHit, ...]:
    """Return the best moments of the hits."""
    of_video = {hit.video_id: hit for hit in hits}
    moments = join_moments([hit.candidate for hit in hits], top)
    return tuple(dataclasses.replace(of_video[moment.clip.video_id], candidate=moment) for moment in moments)


def _rerank(
    qa: LongVideoQA,
    question: Question,
    candidates: Sequence[Candidate],
    locations: dict[str, Location],
    *,
    light: bool,
) -> tuple[list[Candidate], set[Clip], list[str]]:
    """Rerank candidates, video by video.

    Args:
        qa: The pipeline.
        question: What is searched for.
        candidates: Clips of any videos, best first.
        locations: Where each video lies. One that can't be read after all becomes `unreadable`.
        light: Whether they are clips of key frames, so that clips of all frames are judged in their place.

    Returns:
        Those that the reranker has judged, best first; the candidates in whose place they are; and why a video can't be
        read after all, in one line each.
    """
    by_video: dict[str, list[Candidate]] = {}
    for candidate in candidates:
        by_video.setdefault(candidate.clip.video_id, []).append(candidate)
    judged, replaced, errors = list[Candidate](), set[Clip](), list[str]()
    for num_done, (video_id, of_video) in enumerate(by_video.items(), 1):
        location = locations[video_id]
        if location.is_there and location.path is not None:
            try:
                with qa.open(location.path) as session:
                    wholes = _with_all_frames(qa.indexers[0].clips_of(session), of_video) if light else of_video
                    of_session = qa.ranker.rerank(session, question, wholes)
                scored = [candidate for candidate in of_session if candidate.rerank_score is not None]
                judged += scored
                replaced |= {candidate.clip for candidate in (of_video if light else scored)}
            except VideoError as error:
                locations[video_id] = dataclasses.replace(location, state="unreadable")
                errors.append(str(error))
        qa.progress("rerank library", num_done, len(by_video))
    return best_first(judged), replaced, errors


def _with_all_frames(clips: Sequence[Clip], candidates: Sequence[Candidate]) -> list[Candidate]:
    """Return the clips in place of those of key frames, the best first; a clip has the score of its best one.

    Args:
        clips: All clips of the video, in the order of time.
        candidates: Clips of its key frames, the best first. Theirs end at key frames: each stands for the clips whose
            middles it holds, and for the one that holds its own.
    """
    wholes: dict[Clip, Candidate] = {}
    for candidate in candidates:
        middle = (candidate.start_seconds + candidate.end_seconds) / 2
        for clip in clips:
            middle_of_clip = (clip.start_seconds + clip.end_seconds) / 2
            is_inside = candidate.start_seconds <= middle_of_clip < candidate.end_seconds
            if is_inside or clip.start_seconds <= middle < clip.end_seconds:
                wholes.setdefault(clip, dataclasses.replace(candidate, clip=clip))
    return list(wholes.values())


def _caveats(qa: LongVideoQA, hits: Sequence[LibraryHit]) -> Iterator[str]:
    """Yield what a reader of these hits must know of their videos, the model and the evidence."""
    for hit in {hit.video_id: hit for hit in hits}.values():
        if hit.location.is_there and hit.location.path is not None:
            video = qa.inspect_video(hit.location.path)
            damage = describe_damage(hit.video.frames, hit.video.frames_substituted)
            lines = (*video.warnings, *damage, *describe_model(qa.model, video))
            yield from (f"{video.path}: {line}" for line in lines)
    if has_probabilities(qa.config):
        yield from describe_evidence([hit.candidate for hit in hits])


def _describe_lost(locations: Sequence[Location]) -> Iterator[str]:
    """Yield in one line which videos could not be judged, if there are any."""
    if not locations:
        return
    names = ", ".join(f"{location.path} ({location.state})" for location in locations[:MAX_NAMES])
    more = f" and {len(locations) - MAX_NAMES} more" if len(locations) > MAX_NAMES else ""
    yield (
        f"{counted(len(locations), 'video')} of the library can't be read now, so that what matches there is ranked "
        f"by embedding alone, after all others: {names}{more}"
    )

"""Results as JSON: what `lvqa ask --json` prints, and what the server sends."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lvqa.config import Config
    from lvqa.library import LibraryAnswer, LibraryHit, LibraryRanking
    from lvqa.records import Answer, Candidate, Caveats, FrameSelection, QuestionKind, Ranking, SearchResult, Video

NUM_RUNNERS_UP = 4
"""So many other videos of the library are named, each with its best moment."""


def evidence_to_print(answer: Answer, config: Config) -> tuple[Candidate, ...]:
    """Return the candidates that were reranked; without reranking, as many of the best."""
    reranked = tuple(candidate for candidate in answer.evidence if candidate.rerank_score is not None)
    return reranked or answer.evidence[: config.rerank.num_shown]


def candidate_json(candidate: Candidate) -> dict[str, object]:
    """Return the candidate as an object of the JSON that commands print."""
    return {
        "start_seconds": candidate.clip.start_seconds,
        "end_seconds": candidate.clip.end_seconds,
        "embed_score": candidate.embed_score,
        "rerank_score": candidate.rerank_score,
        **line_json(candidate),
    }


def line_json(candidate: Candidate) -> dict[str, object]:
    """Return the line of subtitles that a clip was found by, too, for the JSON of the clip; nothing without one."""
    line = candidate.line
    if line is None:
        return {}
    said_at = {"start_seconds": line.start_seconds, "end_seconds": line.end_seconds}
    return {"line": {**said_at, "text": line.text, "score": candidate.line_score}}


def video_json(video: Video) -> dict[str, object]:
    """Return the video as an object of the JSON that commands print."""
    return {"path": str(video.path), "id": video.id, "duration_seconds": video.duration_seconds}


def caveats_json(caveats: Caveats) -> dict[str, object]:
    """Return what a reader must know of a result, as keys of the JSON that commands print."""
    return {"warnings": caveats.warnings, "frames_substituted": caveats.frames_substituted}


def kind_json(kind: QuestionKind | None) -> dict[str, float] | None:
    """Return what the model takes a question to be about as an object of the JSON that commands print."""
    from lvqa.records import QUESTION_KINDS

    return None if kind is None else dict(zip(QUESTION_KINDS, kind.probabilities, strict=True))


def answer_json(answer: Answer, evidence: Sequence[Candidate]) -> dict[str, object]:
    """Return the answer as an object of the JSON that commands print, with the evidence that is to be printed."""
    use = answer.index
    index = use and {"reused": use.reused, "clips": use.clips, "path": None if use.path is None else str(use.path)}
    image, voice = answer.question.image, answer.question.voice
    return {
        "question": answer.question.text,
        "image": None if image is None else str(image),
        "voice": None if voice is None else str(voice),
        "options": answer.question.options,
        "answer": answer.text,
        "parsed": answer.parsed,
        "option": answer.option,
        "option_scores": answer.option_scores,
        "method": answer.method,
        "time_read": answer.time_read,
        "question_kind": kind_json(answer.question_kind),
        "looked_again": answer.looked_again,
        "frames_budget": answer.frames_budget,
        "frames": [
            {"time_seconds": seconds, "substituted": seconds in answer.caveats.substituted_seconds}
            for seconds in answer.frames
        ],
        "evidence": [{**candidate_json(clip), "frames": answer.frames_of(clip)} for clip in evidence],
        **caveats_json(answer.caveats),
        "index": index,
        "counts": dataclasses.asdict(answer.counts),
        "answer_tokens": answer.answer_tokens,
        "answer_visual_tokens": answer.answer_visual_tokens,
        "seconds": {stage: round(seconds, 4) for stage, seconds in answer.seconds.items()},
    }


def selection_json(ranking: Ranking | None, selection: FrameSelection) -> dict[str, object]:
    """Return what is known before a question is answered: the frames that were chosen, and the scores of all clips."""
    clips = () if ranking is None else sorted(ranking.candidates, key=lambda candidate: candidate.clip)
    return {"frames": list(selection.times_seconds), "clips": [candidate_json(clip) for clip in clips]}


def search_json(result: SearchResult, video: Video) -> dict[str, object]:
    """Return what a search of one video finds, as keys of the JSON that commands print."""
    results = [{"path": str(video.path), **candidate_json(hit)} for hit in result.candidates]
    return {"results": results, **caveats_json(result.caveats), "video": video_json(video)}


def hit_json(hit: LibraryHit) -> dict[str, object]:
    """Return a moment of the library as an object of the JSON that commands print."""
    path = hit.location.path
    video = {"path": None if path is None else str(path), "video_id": hit.video_id, "state": hit.location.state}
    return {**video, **candidate_json(hit.candidate)}


def ranking_json(ranking: LibraryRanking) -> dict[str, object]:
    """Return what a search of the library finds, as keys of the JSON that commands print."""
    return {"results": [hit_json(hit) for hit in ranking.hits], "warnings": ranking.warnings}


def choice_json(choice: LibraryAnswer) -> dict[str, Any]:
    """Return why an answer is from this video of the library."""
    runners_up = [hit_json(hit) for hit in choice.runners_up[:NUM_RUNNERS_UP]]
    return {"library": {**hit_json(choice.hit), "runners_up": runners_up, "warnings": list(choice.warnings)}}


def finite(value: Any) -> Any:
    """Return a tree of plain values as JSON can hold it: a number that it can't hold is null."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def record_json(record: Any) -> dict[str, Any]:
    """Return one of the values of `lvqa.records` as JSON, complete: `validation.convert` reads it back."""
    from lvqa.settings_tree import plain

    tree: dict[str, Any] = plain(dataclasses.asdict(record))
    return tree

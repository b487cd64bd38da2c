"""What a worker does: one question in all its arms, as rows. It holds one model, and one video open."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from lvqa.components import selector_of
from lvqa.config import Config
from lvqa.evaluation.rows import Row
from lvqa.evaluation.settings import Arm, RunConfig, resolve_arms
from lvqa.pipeline import LongVideoQA, index_together
from lvqa.records import Answer, Candidate, Counts, LvqaError, Question, Video

DECIMALS = 6
"""Of scores in rows."""


@dataclass(frozen=True, slots=True)
class Work:
    """A question about a video, and the arms and budgets in which it is to be answered."""

    video_id: str
    path: Path
    question: Question
    cells: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Done:
    """The rows of a piece of work, and the revision of the model that they are from."""

    rows: tuple[Row, ...]
    revision: str


class Asker:
    """Answers questions in the arms of a run. The last video stays open, so that the next question on it is cheap."""

    def __init__(self, config: RunConfig) -> None:
        """Loads the model, once. Raises LvqaError for what is unknown."""
        self._arms = resolve_arms(config)
        self._first = LongVideoQA.load(config=self._arms[0].complete)
        # Arms that differ in their selection alone share a pipeline, and all share what is held of the video.
        self._pipelines = {arm.before_selection: self._first.beside(arm.complete) for arm in self._arms}

    def __call__(self, work: Work) -> Done:
        """The rows of one question. Raises LvqaError if the video can't be opened or indexed."""
        return Done(tuple(self._rows(work)), self._first.model.revision)

    def _rows(self, work: Work) -> Iterator[Row]:
        video = self._first.inspect_video(work.path)
        indexes, rankings, replies = self._indexes(work, video), dict[Config, _Cost](), dict[object, _Cost]()
        for arm in self._arms:
            qa, ranking = self._pipelines[arm.before_selection], arm.config.retrieval
            selector = selector_of(arm.config, arm.method)
            for budget in (budget for name, budget in work.cells if name == arm.name):
                row: Row = {**blank_row(work, arm.name, budget), "index": indexes.get(arm.name)}
                try:
                    if selector.needs_scores and ranking not in rankings:
                        with _measured(self._first) as rankings[ranking]:
                            qa.search(video, work.question, top=1)
                    answer = qa.answer(
                        video,
                        work.question,
                        frames=max(1, budget),
                        method=arm.method,
                        selection=arm.config.selection,
                    )
                except LvqaError as error:
                    yield {**row, "error": str(error)}
                else:
                    # Frames that an earlier arm has shown in the same way have its reply, and cost what it did.
                    spent = _Cost(dataclasses.asdict(answer.counts), answer.seconds["answer"])
                    reply = replies.setdefault((qa.sight, arm.config.answer, answer.frames), spent)
                    ranked = rankings[ranking] if selector.needs_scores else None
                    yield cast(Row, {**row, **_answered(answer, arm, reply, ranked)})

    def _indexes(self, work: Work, video: Video) -> dict[str, Any]:
        """Arm -> what making the indexes that were lacking has cost, all together, or that its own was there.

        Of the arms that need one.
        """
        asked = {name for name, _ in work.cells}
        selectors = {arm: selector_of(arm.config, arm.method) for arm in self._arms if arm.name in asked}
        searching = [arm for arm, selector in selectors.items() if selector.needs_scores or selector.needs_features]
        pipelines = [self._pipelines[arm.before_selection] for arm in searching]
        with _measured(self._first) as cost:
            uses = index_together(pipelines, video)
        return {
            arm.name: {"reused": use.reused, **dataclasses.asdict(_Cost() if use.reused else cost)}
            for arm, use in zip(searching, uses, strict=True)
        }


def blank_row(work: Work, arm: str, budget: int) -> Row:
    """What a row says of its question, and no answer."""
    question = work.question
    return {
        "video_id": work.video_id,
        "question_id": question.id,
        "question": question.text,
        "options": list(question.options),
        "arm": arm,
        "budget": budget,
        "tags": list(question.tags),
        "target": question.answer,
        "evidence_seconds": question.evidence_seconds,
        "prediction": None,
        "text": "",
        "option_scores": [],
        "times_seconds": [],
        "embedded": [],
        "reranked": [],
        "num_clips": 0,
        "counts": {"frames_decoded": 0, "pairs_encoded": 0, "tokens_prefilled": 0},
        "index": None,
        "seconds": {},
        "error": None,
    }


def _answered(answer: Answer, arm: Arm, reply: _Cost, ranking: _Cost | None) -> dict[str, Any]:
    """What a row says of an answer; arms and budgets may share a ranking and a reply, and each row counts them."""
    pool = answer.evidence[: arm.config.rerank.num_shown]
    by_embedding = sorted(pool, key=lambda candidate: -candidate.embed_score)
    reranked = [candidate for candidate in pool if candidate.rerank_score is not None]
    counts, seconds = reply.counts, {**answer.seconds, "answer": reply.seconds}
    if ranking is not None:
        counts = {name: count + ranking.counts[name] for name, count in counts.items()}
        seconds = {"rank": ranking.seconds, **seconds}
    return {
        "prediction": answer.option,
        "text": answer.text,
        "option_scores": [_rounded(score) for score in answer.option_scores],
        "times_seconds": list(answer.frames),
        "embedded": [_clip(candidate, candidate.embed_score) for candidate in by_embedding],
        "reranked": [_clip(candidate, candidate.rerank_score) for candidate in reranked],
        "num_clips": len(answer.evidence),
        "counts": counts,
        "seconds": {stage: round(value, 4) for stage, value in seconds.items()},
    }


def _clip(candidate: Candidate, score: float | None) -> list[float | None]:
    return [candidate.start_seconds, candidate.end_seconds, _rounded(score)]


def _rounded(score: float | None) -> float | None:
    """As rows hold it: JSON knows no NaN."""
    return round(score, DECIMALS) if score is not None and math.isfinite(score) else None


@dataclass(slots=True)
class _Cost:
    counts: dict[str, int] = field(default_factory=lambda: dataclasses.asdict(Counts()))
    seconds: float = 0.0


@contextmanager
def _measured(qa: LongVideoQA) -> Iterator[_Cost]:
    """Takes what the work inside cost; it is known when that has ended."""
    cost, before, started = _Cost(), dataclasses.replace(qa.model.counts), time.perf_counter()
    yield cost
    cost.counts, cost.seconds = dataclasses.asdict(qa.model.counts - before), round(time.perf_counter() - started, 4)

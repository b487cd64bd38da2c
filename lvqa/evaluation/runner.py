"""What a worker does: it answers questions on a video in all their conditions, as rows, with one model."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from functools import partial

from lvqa.batches import answer_batch
from lvqa.components import selector_of
from lvqa.costs import CostMeter
from lvqa.evaluation.ahead import NextVideo
from lvqa.evaluation.rows import Row, RowIndex, ScoredClip, SpokenLine, blank_row, row_counts
from lvqa.evaluation.schedule import WorkItem, WorkResult
from lvqa.evaluation.settings import Arm, RunConfig, resolve_arms
from lvqa.indexing import build_here, join_uses
from lvqa.pipeline import LongVideoQA
from lvqa.records import Answer, Candidate, Counts, LvqaError, Question, Video
from lvqa.workers import is_of_the_place, report_progress

DECIMALS = 6
"""How many decimals the scores in rows have."""


class Runner:
    """Answers questions in the arms of a run. The last video stays open, so that the next ones on it are cheap."""

    def __init__(self, config: RunConfig) -> None:
        """Load the model, once. Raises LvqaError for what is unknown."""
        self._arms = resolve_arms(config)
        self._first = LongVideoQA.load(
            config=self._arms[0].complete, progress=report_progress, answer_format=config.benchmark.answer_format
        )
        self.identity = self._first.model.revision
        """What must be the same in all workers of a run."""
        # Arms that differ in their selection alone share a pipeline, and all share the video's sessions.
        self._pipelines = {arm.before_selection: self._first.with_config(arm.complete) for arm in self._arms}
        searching = next((arm for arm in self._arms if _searches(arm)), self._arms[0])
        self._next_video = NextVideo(self._pipelines[searching.before_selection])
        self._has_worked = False

    def __call__(self, item: WorkItem) -> WorkResult:
        """Return the rows of an item, question by question.

        Raises:
            LvqaError: The video can't be opened or indexed, or the machine is to blame for an answer that failed.
            Exception: A bug, or a fault of the machine: another one may do better.
        """
        self._next_video.stop()
        video = self._first.inspect_video(item.path)
        indexes = self._index(item, video)
        # The first item may be one at which another process has died, perhaps of the next video.
        if item.next_path is not None and self._has_worked:
            self._next_video.begin(item.next_path)
        self._has_worked = True
        results = {
            (arm.name, budget): self._results(item.questions, video, arm, budget)
            for arm in self._arms
            for budget in arm.budgets
            if any((arm.name, budget) in lacking for lacking in item.lacking)
        }
        rows = list[Row]()
        for i, (question, lacking) in enumerate(zip(item.questions, item.lacking, strict=True)):
            for name, budget in lacking:
                row = _row_of_video(item.video_id, video, question, name, budget)
                row["index"] = indexes.get(name)
                rows.append(_with_result(row, results[name, budget][i], self._arms))
            if lacking:  # what building the indexes cost stands in the rows of one question
                indexes = dict.fromkeys(indexes, RowIndex(reused=True, counts=row_counts(Counts()), seconds=0.0))
        return WorkResult(tuple(rows), self.identity, self._first.device_name)

    def _results(
        self, questions: Sequence[Question], video: Video, arm: Arm, budget: int
    ) -> Sequence[Answer | LvqaError]:
        """Ask questions together. Raises what the machine is to blame for."""
        report_progress()
        qa, selection = self._pipelines[arm.before_selection], arm.config.selection
        answer = partial(qa.answers, video, frames=max(1, budget), method=arm.method, selection=selection)
        results = answer_batch(answer, questions)
        for result in results:
            if isinstance(result, LvqaError) and is_of_the_place(result):  # another worker may do better
                raise result
        return results

    def _index(self, item: WorkItem, video: Video) -> dict[str, RowIndex]:
        """See to it that the video has the indexes that the arms need.

        Returns:
            Arm -> what building the indexes that were lacking cost, all together, or that its own was there.
        """
        names = {name for lacking in item.lacking for name, _ in lacking}
        searching = [arm for arm in self._arms if arm.name in names and _searches(arm)]
        of_arms = [self._pipelines[arm.before_selection].indexers for arm in searching]
        meter = CostMeter(self._first.model.counts)
        indexers = list(itertools.chain.from_iterable(of_arms))
        uses = iter(build_here(self._first.store, indexers, video, meter, progress=report_progress))
        indexes = dict[str, RowIndex]()
        for arm, own in zip(searching, of_arms, strict=True):
            use = join_uses(list(itertools.islice(uses, len(own))))
            counts, seconds = row_counts(use.cost.counts), round(use.cost.seconds, 4)
            indexes[arm.name] = RowIndex(reused=use.reused, counts=counts, seconds=seconds)
        return indexes


def _searches(arm: Arm) -> bool:
    selector = selector_of(arm.config, arm.method)
    return selector.needs_scores or selector.needs_features


def _row_of_video(video_id: str, video: Video, question: Question, arm: str, budget: int) -> Row:
    """Return what a row holds of its question and of the file, without an answer."""
    return {
        **blank_row(video_id, question, arm, budget),
        "video_path": str(video.path),
        "content_id": video.id,
        "duration_seconds": round(video.duration_seconds, DECIMALS),
        "warnings": list(video.warnings),
    }


def _with_result(row: Row, result: Answer | LvqaError, arms: Sequence[Arm]) -> Row:
    """Return the row with its answer, or why there is none."""
    if isinstance(result, LvqaError):
        return {**row, "error": str(result)}
    return _with_answer(row, result, next(arm for arm in arms if arm.name == row["arm"]))


def _with_answer(row: Row, answer: Answer, arm: Arm) -> Row:
    """Return the row with what it holds of an answer.

    Arms and budgets may share a ranking, and the model's output for the same frames; each row counts them.
    """
    pool = answer.evidence[: arm.config.rerank.num_shown]
    by_embedding = sorted(pool, key=lambda candidate: -candidate.embed_score)
    reranked = [candidate for candidate in pool if candidate.rerank_score is not None]
    counts = answer.answer_cost.counts
    seconds = {stage: answer.seconds[stage] for stage in ("open", "select")} | {"answer": answer.answer_cost.seconds}
    kind = answer.question_kind
    if kind is not None:
        counts = counts + kind.cost.counts
        seconds = {"gate": kind.cost.seconds, **seconds}
    if answer.ranking_cost is not None:
        counts = counts + answer.ranking_cost.counts
        seconds = {"rank": answer.ranking_cost.seconds, **seconds}
    return {
        **row,
        "prediction": answer.option,
        "text": answer.text,
        "option_scores": [_rounded(score) for score in answer.option_scores],
        "times_seconds": list(answer.frames),
        "embedded": [_clip(candidate, candidate.embed_score) for candidate in by_embedding],
        "reranked": [_clip(candidate, candidate.rerank_score) for candidate in reranked],
        "subtitle_lines": [_spoken(candidate) for candidate in pool if candidate.line is not None],
        "num_clips": len(answer.evidence),
        "warnings": list(answer.caveats.warnings),
        "frames_substituted": answer.caveats.frames_substituted,
        "counts": row_counts(counts),
        "answer_tokens": answer.answer_tokens,
        "answer_visual_tokens": answer.answer_visual_tokens,
        "time_read": answer.time_read,
        "question_kind": None if kind is None else [_rounded(probability) for probability in kind.probabilities],
        "looked_again": answer.looked_again,
        "seconds": {stage: round(value, 4) for stage, value in seconds.items()},
    }


def _clip(candidate: Candidate, score: float | None) -> ScoredClip:
    return candidate.start_seconds, candidate.end_seconds, _rounded(score)


def _spoken(candidate: Candidate) -> SpokenLine:
    line = candidate.line
    assert line is not None
    return line.start_seconds, line.end_seconds, _rounded(candidate.line_score), line.text


def _rounded(score: float | None) -> float | None:
    """Return a score as rows hold it: JSON knows no NaN."""
    return round(score, DECIMALS) if score is not None and math.isfinite(score) else None

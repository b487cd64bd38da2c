"""The statistics of rows: accuracy, evidence recall, paired comparison, cost. A failed answer is counted as wrong.

All functions take the rows of one condition (an arm at a budget), or of two. Shares lie in 0..1; intervals are 95%.
"""

from __future__ import annotations

import dataclasses
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from lvqa.datasets import padded
from lvqa.evaluation.intervals import CONFIDENCE, ClusteredMean, holm
from lvqa.evaluation.rows import COUNTED, Row, RowCounts, ScoredClip, is_correct, is_unjudged

EMBEDDED_TOP, RERANKED_TOP = (1, 5, 10, 50), (1, 5, 10)
"""Evidence recall is computed among so many of the best clips."""


@dataclass(frozen=True, slots=True)
class Share:
    """A number of hits among `n`, as a share with its interval."""

    hits: int
    n: int
    value: float
    """The share is NaN if n is 0."""
    low: float
    high: float
    """The interval goes from `low` to `high`; NaN where there is none."""
    num_videos: int = 0
    """How many videos the interval counts as samples; 0 if it counts the values themselves."""

    @classmethod
    def of(cls, hits: Iterable[bool]) -> Share:
        """Return the share of the values that are true, with Wilson's interval: the values are independent."""
        from scipy.stats import binomtest

        hits = list(hits)
        count, n = sum(hits), len(hits)
        if not n:
            return cls(0, 0, math.nan, math.nan, math.nan)
        interval = binomtest(count, n).proportion_ci(CONFIDENCE, method="wilson")
        return cls(count, n, count / n, float(interval.low), float(interval.high))

    @classmethod
    def by_video(cls, hits: Iterable[tuple[str, bool]]) -> Share:
        """Return the share of pairs (video, hit) that are hits; its interval takes videos for the samples.

        There is none for fewer than `intervals.MIN_CLUSTERS` videos.
        """
        hits = list(hits)
        count, n, num_videos = sum(hit for _, hit in hits), len(hits), len({video for video, _ in hits})
        low, high = _interval(ClusteredMean.of(hits), 0.0, 1.0)
        return cls(count, n, count / n if n else math.nan, low, high, num_videos)


def _interval(mean: ClusteredMean | None, low: float, high: float) -> tuple[float, float]:
    """Return the interval of a mean of values in [low, high]; NaN if there is none."""
    if mean is None:
        return math.nan, math.nan
    bounds = mean.interval(low, high)
    return float(bounds[0]), float(bounds[1])


# --- accuracy --------------------------------------------------------------------------------------------------------


def accuracy(rows: Iterable[Row]) -> Share:
    """Return the share of correct answers among all questions; one without an answer is wrong.

    Open answers that no judge has spoken about are left out.
    """
    return Share.by_video((row["video_id"], is_correct(row)) for row in rows if not is_unjudged(row))


def by_ability(rows: Iterable[Row], measure: Callable[[list[Row]], Share] = accuracy) -> dict[str, Share]:
    """Return ability -> the measure of its questions. A question counts once in each of its abilities."""
    tagged: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        for tag in dict.fromkeys(row["tags"]):
            tagged[tag].append(row)
    return {tag: measure(tagged[tag]) for tag in sorted(tagged)}


# --- evidence --------------------------------------------------------------------------------------------------------


def evidence_recall(rows: Iterable[Row]) -> dict[str, Share]:
    """Return stage -> how often the annotated time is hit: "embedding top 10", "reranked top 10", "selection".

    The first stages are hit by one of the best k clips in the order of the embedding or of the reranker: the clip must
    overlap the annotated time, it is not enough that it touches it. The selection is hit by a frame in the annotated
    time, start included and end excluded. All questions count whose time is annotated; the time is widened to 2 s at
    least. A stage that no row has is left out.
    """
    rows = [row for row in rows if row["evidence_seconds"] is not None]
    spans = [padded(span) for row in rows if (span := row["evidence_seconds"]) is not None]
    tops: list[tuple[str, Literal["embedded", "reranked"], int]] = [
        *(("embedding", "embedded", k) for k in EMBEDDED_TOP),
        *(("reranked", "reranked", k) for k in RERANKED_TOP),
    ]
    stages = {
        f"{name} top {k}": [any_clip_overlaps(row[pool][:k], span) for row, span in zip(rows, spans, strict=True)]
        for name, pool, k in tops
        if any(row[pool] for row in rows)
    }
    if any(row["times_seconds"] for row in rows):
        stages["selection"] = [
            any_frame_inside(row["times_seconds"], span) for row, span in zip(rows, spans, strict=True)
        ]
    videos = [row["video_id"] for row in rows]
    return {stage: Share.by_video(zip(videos, hits, strict=True)) for stage, hits in stages.items()}


def any_clip_overlaps(clips: Sequence[ScoredClip], span: tuple[float, float]) -> bool:
    """Return whether one of the clips has a part in common with the span."""
    return any(start < span[1] and span[0] < end for start, end, _ in clips)


def any_frame_inside(times_seconds: Sequence[float], span: tuple[float, float]) -> bool:
    """Return whether one of the frames lies in the span, start included and end excluded."""
    return any(span[0] <= seconds < span[1] for seconds in times_seconds)


# --- comparison ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Comparison:
    """The comparison of one condition with another, on the questions that both were asked."""

    n: int
    num_videos: int
    gained: int
    """How many questions are correct here and wrong in the other condition."""
    lost: int
    """How many questions are wrong here and correct in the other condition."""
    difference: float
    """The difference of the accuracies is NaN if n is 0."""
    low: float
    high: float
    """The interval takes videos for the samples, since questions on one video are alike. NaN for too few videos."""
    p_value: float
    """The p of the difference, two-sided, by the same standard error; NaN for too few videos."""
    mcnemar_p: float
    """The p of McNemar's exact test, two-sided: were gains and losses equally likely? Its samples are questions."""
    detectable: float
    """The difference that would be found in 80% of runs like this one; NaN for too few videos."""
    holm_p: float = math.nan
    """`p_value` by Holm's method, among all comparisons of a table; see `correct`."""


def compare(rows: Iterable[Row], others: Iterable[Row]) -> Comparison:
    """Return the comparison of `rows` with `others`, paired by video and question.

    Rows without a pair are left out, and so are open answers that no judge has spoken about.
    """
    from scipy.stats import binomtest

    first, second = (
        {(row["video_id"], row["question_id"]): is_correct(row) for row in side if not is_unjudged(row)}
        for side in (rows, others)
    )
    pairs = [(key[0], first[key], second[key]) for key in first.keys() & second.keys()]
    gained, lost = sum(a and not b for _, a, b in pairs), sum(b and not a for _, a, b in pairs)
    mean = ClusteredMean.of((video, int(a) - int(b)) for video, a, b in pairs)
    # Where no answer differs there is nothing to estimate: the interval is the difference itself.
    low, high = _interval(mean, -1.0, 1.0) if gained + lost or mean is None else (0.0, 0.0)
    return Comparison(
        n=len(pairs),
        num_videos=len({video for video, _, _ in pairs}),
        gained=gained,
        lost=lost,
        difference=(gained - lost) / len(pairs) if pairs else math.nan,
        low=low,
        high=high,
        p_value=math.nan if mean is None else float(mean.p_value),
        mcnemar_p=float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0,
        detectable=math.nan if mean is None else float(mean.detectable),
    )


def correct(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """Return the comparisons of one table with their `holm_p`."""
    p_values = holm([comparison.p_value for comparison in comparisons])
    return [dataclasses.replace(comparison, holm_p=p) for comparison, p in zip(comparisons, p_values, strict=True)]


# --- cost ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Cost:
    """Mean costs over `n` answers or videos; NaN if n is 0."""

    n: int
    frames_decoded: float
    pairs_encoded: float
    tokens_prefilled: float
    seconds: dict[str, float]
    """Stage -> wall time."""
    answer_tokens: float = math.nan
    """The tokens of the answer's own prompt; NaN where they are not known."""
    answer_visual_tokens: float = math.nan
    """How many of them showed frames; NaN where they are not known."""


def cost(rows: Iterable[Row]) -> Cost:
    """Return the cost of an answer on an indexed video; failed answers are left out. See `lvqa.evaluation.rows`."""
    answered = [row for row in rows if row["error"] is None]
    stages = dict.fromkeys(stage for row in answered for stage in row["seconds"])
    seconds = {stage: _mean([row["seconds"].get(stage, 0.0) for row in answered]) for stage in stages}
    return dataclasses.replace(
        _cost([row["counts"] for row in answered], seconds),
        answer_tokens=_mean([tokens for row in answered if (tokens := row["answer_tokens"]) is not None]),
        answer_visual_tokens=_mean([tokens for row in answered if (tokens := row["answer_visual_tokens"]) is not None]),
    )


def index_cost(rows: Iterable[Row]) -> Cost:
    """Return the cost of indexing a video, over the videos that were indexed in this run and not before."""
    built = {row["video_id"]: row["index"] for row in rows if row["index"] is not None and not row["index"]["reused"]}
    seconds = {"index": _mean([index["seconds"] for index in built.values()])}
    return _cost([index["counts"] for index in built.values()], seconds)


def _cost(counts: Sequence[RowCounts], seconds: dict[str, float]) -> Cost:
    means = {name: _mean([count[name] for count in counts]) for name in COUNTED}
    return Cost(n=len(counts), seconds=seconds, **means)


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else math.nan

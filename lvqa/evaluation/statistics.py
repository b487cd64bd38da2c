"""What rows say: accuracy, evidence recall, paired comparison, cost. An answer that failed is wrong, and is counted.

All functions take the rows of one arm at one budget, or two such lots. A share is of 1; intervals are 95%.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from lvqa.datasets import padded
from lvqa.evaluation.rows import COUNTED, Row, RowCounts, ScoredClip

BOOTSTRAP_DRAWS, BOOTSTRAP_SEED = 10_000, 0
EMBEDDED_TOP, RERANKED_TOP = (1, 5, 10, 50), (1, 5, 10)
"""How many of the best clips evidence is looked for in."""


@dataclass(frozen=True, slots=True)
class Share:
    """How many of how many."""

    hits: int
    n: int
    value: float
    """NaN of none."""
    low: float
    high: float
    """Wilson's interval; 0 to 1 of none."""

    @classmethod
    def of(cls, hits: Iterable[bool]) -> Share:
        """The share that is true."""
        from scipy.stats import binomtest

        hits = list(hits)
        count, n = sum(hits), len(hits)
        if not n:
            return cls(0, 0, math.nan, 0.0, 1.0)
        interval = binomtest(count, n).proportion_ci(method="wilson")
        return cls(count, n, count / n, float(interval.low), float(interval.high))


# --- accuracy --------------------------------------------------------------------------------------------------------


def is_right(row: Row) -> bool:
    """Whether the letter that the answer names, and no other, is the right one."""
    return row["prediction"] is not None and row["prediction"] == row["target"]


def accuracy(rows: Iterable[Row]) -> Share:
    """Over all questions asked: one without an answer is wrong."""
    return Share.of(map(is_right, rows))


def by_ability(rows: Iterable[Row], measure: Callable[[list[Row]], Share] = accuracy) -> dict[str, Share]:
    """The measure for each ability, by name; a question counts once in every one of its own."""
    tagged: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        for tag in dict.fromkeys(row["tags"]):
            tagged[tag].append(row)
    return {tag: measure(tagged[tag]) for tag in sorted(tagged)}


def official_accuracy(rows: Iterable[Row]) -> Share:
    """LVBench's own figure: the share of right ones among the answers given, by its own reading of them.

    A question without an answer is left out of it, so it may flatter an arm that fails often; `n` says of how many.
    """
    letters = [(official_letter(row), row["target"]) for row in rows]
    return Share.of(letter == right for letter, right in letters if letter)


def official_letter(row: Row) -> str:
    """What LVBench's scripts compare with the right letter: the first character of what was generated, unwrapped.

    "(B) red" and "B. red" are B; "The answer is B" is T, and wrong; nothing is "". A letter by logits is itself.
    """
    if row["error"] is not None:
        return ""
    if row["option_scores"]:
        return row["prediction"] or ""
    words = row["text"].strip().split(")")[0].split("(")[-1].split()
    return words[0][0] if words else ""


# --- evidence --------------------------------------------------------------------------------------------------------


def evidence_recall(rows: Iterable[Row]) -> dict[str, Share]:
    """How often the annotated time is touched, by stage: "embedding top 10", "reranked top 10", "selection".

    By one of the best k clips in the embedding's and in the reranker's order, and by a frame that was shown. Over the
    questions whose time is annotated, with spans widened to 2 s at least. A stage that no row has is left out.
    """
    rows = [row for row in rows if row["evidence_seconds"] is not None]
    spans = [padded(span) for row in rows if (span := row["evidence_seconds"]) is not None]
    tops: list[tuple[str, Literal["embedded", "reranked"], int]] = [
        *(("embedding", "embedded", k) for k in EMBEDDED_TOP),
        *(("reranked", "reranked", k) for k in RERANKED_TOP),
    ]
    stages = {
        f"{name} top {k}": [_clips_touch(row[pool][:k], span) for row, span in zip(rows, spans, strict=True)]
        for name, pool, k in tops
        if any(row[pool] for row in rows)
    }
    if any(row["times_seconds"] for row in rows):
        stages["selection"] = [_frames_touch(row["times_seconds"], span) for row, span in zip(rows, spans, strict=True)]
    return {stage: Share.of(hits) for stage, hits in stages.items()}


def _clips_touch(clips: Sequence[ScoredClip], span: tuple[float, float]) -> bool:
    return any(start < span[1] and span[0] < end for start, end, _ in clips)


def _frames_touch(times_seconds: Sequence[float], span: tuple[float, float]) -> bool:
    return any(span[0] <= seconds < span[1] for seconds in times_seconds)


# --- comparison ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Comparison:
    """An arm against another, on the questions that both were asked."""

    n: int
    gained: int
    """Right in the arm, wrong in the other."""
    lost: int
    """The other way round."""
    difference: float
    """Of the accuracies; NaN if n is 0."""
    low: float
    high: float
    """By a bootstrap that draws whole videos, for questions on one video are alike; NaN if there is one video only."""
    p_value: float
    """McNemar's exact test, two-sided: were gains and losses equally likely?"""


def compare(rows: Iterable[Row], others: Iterable[Row]) -> Comparison:
    """Paired by video and question; rows without a partner are left out."""
    from scipy.stats import binomtest

    right = {(row["video_id"], row["question_id"]): is_right(row) for row in others}
    mine = {(row["video_id"], row["question_id"]): is_right(row) for row in rows}
    pairs = [(video, mine[video, question], right[video, question]) for video, question in mine.keys() & right.keys()]
    gained, lost = sum(a and not b for _, a, b in pairs), sum(b and not a for _, a, b in pairs)
    low, high = clustered_interval([(video, int(a) - int(b)) for video, a, b in pairs])
    return Comparison(
        n=len(pairs),
        gained=gained,
        lost=lost,
        difference=(gained - lost) / len(pairs) if pairs else math.nan,
        low=low,
        high=high,
        p_value=float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0,
    )


def clustered_interval(values: Sequence[tuple[str, float]]) -> tuple[float, float]:
    """The 2.5th to 97.5th percentile of the mean of (cluster, value), whole clusters drawn with replacement.

    The same every time. NaN for fewer than two clusters.
    """
    of_cluster: dict[str, list[float]] = defaultdict(list)
    for cluster, value in values:
        of_cluster[cluster].append(value)
    if len(of_cluster) < 2:
        return math.nan, math.nan
    clusters = [of_cluster[name] for name in sorted(of_cluster)]
    sums, sizes = np.array([sum(mine) for mine in clusters]), np.array([len(mine) for mine in clusters])
    drawn = np.random.default_rng(BOOTSTRAP_SEED).integers(len(sums), size=(BOOTSTRAP_DRAWS, len(sums)))
    low, high = np.percentile(sums[drawn].sum(1) / sizes[drawn].sum(1), [2.5, 97.5])
    return float(low), float(high)


# --- cost ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Cost:
    """What was spent, as means over `n` answers or videos; NaN if there are none."""

    n: int
    frames_decoded: float
    pairs_encoded: float
    tokens_prefilled: float
    seconds: dict[str, float]
    """Wall time by stage."""


def cost(rows: Iterable[Row]) -> Cost:
    """Of an answer, failed ones left out, on a video that is indexed: see `evaluate.rows`."""
    answered = [row for row in rows if row["error"] is None]
    stages = dict.fromkeys(stage for row in answered for stage in row["seconds"])
    seconds = {stage: _mean([row["seconds"].get(stage, 0.0) for row in answered]) for stage in stages}
    return _cost([row["counts"] for row in answered], seconds)


def index_cost(rows: Iterable[Row]) -> Cost:
    """Of making a video's index, over the videos whose index was made in this run, and not found in the store."""
    made = {row["video_id"]: row["index"] for row in rows if row["index"] is not None and not row["index"]["reused"]}
    seconds = {"index": _mean([index["seconds"] for index in made.values()])}
    return _cost([index["counts"] for index in made.values()], seconds)


def _cost(counts: Sequence[RowCounts], seconds: dict[str, float]) -> Cost:
    means = {name: _mean([count[name] for count in counts]) for name in COUNTED}
    return Cost(n=len(counts), seconds=seconds, **means)


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else math.nan

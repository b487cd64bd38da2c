"""The figures that papers on a benchmark print, from the rows of one method at one budget.

A benchmark's class composes its own from these. Shares lie in 0..1.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict


class AnswerRow(TypedDict):
    """What is needed of a row of an evaluation; see `lvqa.evaluation.rows`."""

    video_id: str
    question_id: str
    tags: list[str]
    target: str | None
    prediction: str | None
    text: str
    option_scores: list[float | None]
    error: str | None


@dataclass(frozen=True, slots=True)
class Figure:
    """A share, or a mean of shares."""

    value: float
    """NaN if it is of nothing."""
    n: int
    """How many questions it counts; of a mean, how many groups."""


def is_correct(row: AnswerRow) -> bool:
    """Return whether the predicted letter is the target; a question without a prediction is wrong."""
    return row["prediction"] is not None and row["prediction"] == row["target"]


def overall(rows: Sequence[AnswerRow]) -> Figure:
    """Return the share of correct answers among all questions; one without an answer is wrong."""
    return Figure(sum(map(is_correct, rows)) / len(rows) if rows else math.nan, len(rows))


def answered(rows: Sequence[AnswerRow]) -> Figure:
    """Return the share of correct ones among the answers that have a letter; questions without one are left out."""
    return overall([row for row in rows if row["prediction"] is not None])


def grouped(rows: Iterable[AnswerRow], kind: str = "") -> dict[str, list[AnswerRow]]:
    """Return tag -> its rows, in the order in which the tags come.

    Args:
        rows: The rows. One with several tags is in several groups.
        kind: Only tags of this kind: of "duration: short" with kind "duration" the group is "short".
    """
    groups: dict[str, list[AnswerRow]] = defaultdict(list)
    prefix = tag(kind, "") if kind else ""
    for row in rows:
        for name in dict.fromkeys(row["tags"]):
            if name.startswith(prefix):
                groups[name.removeprefix(prefix)].append(row)
    return groups


def by_tag(
    rows: Iterable[AnswerRow],
    kind: str = "",
    names: Mapping[str, str] | None = None,
    measure: Callable[[Sequence[AnswerRow]], Figure] = overall,
) -> dict[str, Figure]:
    """Return tag -> the share of correct answers.

    Args:
        rows: The rows.
        kind: Only tags of this kind; see `grouped`.
        names: Tag -> the figure's name, in the order in which papers print them; other tags are left out. By default
            all tags, sorted, by their own names.
        measure: The share: `overall`, or another way to count.
    """
    groups = grouped(rows, kind)
    known = names or {name: name for name in sorted(groups)}
    return {name: measure(groups[group]) for group, name in known.items() if group in groups}


def mean_of(figures: Iterable[Figure]) -> Figure:
    """Return the mean of figures, each with equal weight."""
    values = [figure.value for figure in figures]
    return Figure(math.fsum(values) / len(values) if values else math.nan, len(values))


def tag(kind: str, value: object) -> str:
    """Return a tag of a kind: "duration: short"."""
    return f"{kind}: {value}"

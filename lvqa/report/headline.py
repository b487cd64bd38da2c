"""The figures that papers on a benchmark print, as its own script counts them, or as the run's protocol does."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lvqa.datasets import DATASETS
from lvqa.datasets.headline import Figure
from lvqa.evaluation import BenchmarkConfig
from lvqa.protocols import OWN
from lvqa.protocols.answer_format import Headline
from lvqa.report.conditions import Condition, NamedRun
from lvqa.report.tables import Entry, Table, frames_text, percent


@dataclass(frozen=True, slots=True)
class HeadlineSection:
    """The figures of one benchmark, asked in one way."""

    title: str
    counting: str
    """How they are counted."""
    tables: list[Table]
    """A table for each budget."""


def headlines(runs: Sequence[NamedRun], conditions: Sequence[Condition]) -> list[HeadlineSection]:
    """Return a section for each benchmark that prints figures of its own, and for each way in which it was asked."""
    ways = {run.name: run.way for run in runs}
    sections = []
    for way, settings in {run.way: run.run.config.benchmark for run in runs}.items():
        if settings.name in DATASETS:
            tables = _tables(_headline(settings), [one for one in conditions if ways[one.run] == way])
            sections += [HeadlineSection(_title(settings), _counting(settings), tables)] if tables else []
    return sections


def figures_of(runs: Sequence[NamedRun], conditions: Sequence[Condition]) -> list[dict[str, Figure]]:
    """Return for each condition the figures of its benchmark; none of open questions, which no script reads."""
    settings = {run.name: run.run.config.benchmark for run in runs}
    return [_figures(settings[condition.run], condition) for condition in conditions]


def _figures(settings: BenchmarkConfig, condition: Condition) -> dict[str, Figure]:
    if settings.name not in DATASETS or condition.judge is not None:
        return {}
    return _headline(settings)(condition.rows)


def _headline(settings: BenchmarkConfig) -> Headline:
    """Return what computes the figures: the benchmark's class, unless the protocol counts otherwise."""
    answer_format = settings.answer_format
    return (answer_format and answer_format.headline) or DATASETS[settings.name].headline


def _counting(settings: BenchmarkConfig) -> str:
    answer_format = settings.answer_format
    return (answer_format and answer_format.counting) or DATASETS[settings.name].counting


def _title(settings: BenchmarkConfig) -> str:
    title = DATASETS[settings.name].title
    way = f"as {title} counts them" if settings.protocol == OWN else f"of {title} by the protocol {settings.protocol}"
    return f"Figures {way}{', with subtitles' if settings.shows_subtitles else ''}"


def _tables(headline: Headline, conditions: Sequence[Condition]) -> list[Table]:
    """Return for each budget a table with a line for each figure and a column for each arm."""
    tables = []
    for budget in sorted({condition.budget for condition in conditions}):
        figures = {c.arm: headline(c.rows) for c in conditions if c.budget == budget}
        names = dict.fromkeys(name for of_arm in figures.values() for name in of_arm)
        lines = [(Entry(name), *(_entry(of_arm.get(name)) for of_arm in figures.values())) for name in names]
        if lines:
            tables.append(Table(("figure", *figures), tuple(lines), frames_text(budget)))
    return tables


def _entry(figure: Figure | None) -> Entry:
    if figure is None or math.isnan(figure.value):
        return Entry("-")
    return Entry(percent(figure.value), f"n {figure.n}")

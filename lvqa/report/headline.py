"""The figures that papers on a benchmark print, as its own script counts them, or that of the run's protocol."""

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
            section = _section(settings, [condition for condition in conditions if ways[condition.run] == way])
            sections += [section] if section.tables else []
    return sections


def _section(settings: BenchmarkConfig, conditions: Sequence[Condition]) -> HeadlineSection:
    reader, answer_format = DATASETS[settings.name], settings.answer_format
    headline: Headline = reader.headline
    counting = reader.counting
    if answer_format is not None and answer_format.headline is not None:
        headline, counting = answer_format.headline, answer_format.counting
    title = f"Figures as {reader.title} counts them"
    if settings.protocol != OWN:
        title = f"Figures of {reader.title} by the protocol {settings.protocol}"
    title += ", with subtitles" if settings.shows_subtitles else ""
    return HeadlineSection(title, counting, _tables(headline, conditions))


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

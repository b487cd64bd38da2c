"""The figures that papers on a benchmark print, as its own script counts them; the benchmark's class computes them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from lvqa.datasets import DATASETS, DatasetReader
from lvqa.datasets.headline import Figure
from lvqa.report.conditions import Condition, NamedRun
from lvqa.report.tables import Entry, Table, frames_text, percent


def headlines(
    runs: Sequence[NamedRun], conditions: Sequence[Condition]
) -> list[tuple[type[DatasetReader], list[Table]]]:
    """Return each benchmark that prints figures of its own, with a table of them for each budget."""
    names = {run.name: run.run.config.benchmark.name for run in runs}
    sections = []
    for benchmark in dict.fromkeys(names.values()):
        if benchmark in DATASETS:
            of_benchmark = [condition for condition in conditions if names[condition.run] == benchmark]
            if tables := _tables(DATASETS[benchmark], of_benchmark):
                sections.append((DATASETS[benchmark], tables))
    return sections


def figures_of(runs: Sequence[NamedRun], conditions: Sequence[Condition]) -> list[dict[str, Figure]]:
    """Return for each condition the figures of its benchmark; none of open questions, which no script reads."""
    names = {run.name: run.run.config.benchmark.name for run in runs}
    return [_figures(names[condition.run], condition) for condition in conditions]


def _figures(benchmark: str, condition: Condition) -> dict[str, Figure]:
    if benchmark not in DATASETS or condition.judge is not None:
        return {}
    return DATASETS[benchmark].headline(condition.rows)


def _tables(reader: type[DatasetReader], conditions: Sequence[Condition]) -> list[Table]:
    """Return for each budget a table with a line for each figure and a column for each arm."""
    tables = []
    for budget in sorted({condition.budget for condition in conditions}):
        figures = {c.arm: reader.headline(c.rows) for c in conditions if c.budget == budget}
        names = dict.fromkeys(name for of_arm in figures.values() for name in of_arm)
        lines = [(Entry(name), *(_entry(of_arm.get(name)) for of_arm in figures.values())) for name in names]
        if lines:
            tables.append(Table(("figure", *figures), tuple(lines), frames_text(budget)))
    return tables


def _entry(figure: Figure | None) -> Entry:
    if figure is None or math.isnan(figure.value):
        return Entry("-")
    return Entry(percent(figure.value), f"n {figure.n}")

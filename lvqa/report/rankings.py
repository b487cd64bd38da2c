"""The tables of a run of `lvqa retrieve`."""

from __future__ import annotations

import math

from lvqa.datasets.retrieval import CATEGORIES
from lvqa.datasets.retrieval.published import AVERAGE, published_rankings
from lvqa.evaluation.retrieval.metrics import MAIN_METRIC
from lvqa.evaluation.retrieval.run import RetrieveRun
from lvqa.evaluation.retrieval.settings import resolve_arms
from lvqa.evaluation.retrieval.statistics import Difference, Mean, Metric, corrected
from lvqa.report.tables import Entry, Table, to_markdown

INTERVALS = "In brackets: the 95% interval by a bootstrap over queries; each set counts alike."


def rankings_page(run: RetrieveRun) -> str:
    """Return all tables of a run in Markdown."""
    metric = Metric(run.rows, seed=run.config.seed)
    tables = [overview_table(run, metric), sets_table(metric), published_table(run)]
    lines = (run.about.get("skipped") if run.about else None) or ()
    warnings = [f"Note: {line}." for line in lines]
    return "\n\n".join([*warnings, *(to_markdown(table) for table in tables if table is not None)])


def overview_table(run: RetrieveRun, metric: Metric) -> Table:
    """Return a line for each arm: hit@1 of each kind of task and over all sets, and the difference to its baseline."""
    sets = list(metric.categories)
    kinds = [kind for kind in CATEGORIES if kind in metric.categories.values()]
    arms = [arm for arm in resolve_arms(run.config) if arm.name in metric.arms]
    differences = corrected(
        {arm.name: metric.difference(arm.name, arm.baseline, sets) for arm in arms if arm.baseline != arm.name}
    )
    lines = []
    for arm in arms:
        of_kinds = [
            mean_entry(metric.mean(arm.name, [s for s, k in metric.categories.items() if k == kind])) for kind in kinds
        ]
        difference = differences.get(arm.name)
        compared = (_difference_entry(difference), Entry(arm.baseline)) if difference else (Entry(""), Entry(""))
        lines.append((Entry(arm.name), *of_kinds, mean_entry(metric.mean(arm.name, sets)), *compared))
    head = ("arm", *kinds, AVERAGE, "difference, points", "to")
    number = len({(row["set"], row["query_id"]) for row in run.rows})
    caption = f"{MAIN_METRIC} in percent; {number} queries of {len(sets)} sets. {INTERVALS}"
    return Table(head, tuple(lines), caption)


def sets_table(metric: Metric) -> Table:
    """Return a line for each set: hit@1 of each arm, without intervals."""
    lines = []
    for name, kind in metric.categories.items():
        means = [metric.mean(arm, [name]) for arm in metric.arms]
        entries = [Entry(_percent(mean.value)) for mean in means]
        lines.append((Entry(name), Entry(kind), Entry(str(max(mean.num_queries for mean in means))), *entries))
    return Table(("set", "task", "queries", *metric.arms), tuple(lines), f"{MAIN_METRIC} in percent, by set.", 2)


def published_table(run: RetrieveRun) -> Table | None:
    """Return what papers print of the dataset; None where they print nothing, or the sets are synthetic."""
    settings = run.config.dataset
    rows = published_rankings(settings.name) if settings.make is None else ()
    if not rows:
        return None
    columns = list(dict.fromkeys(column for row in rows for column in row.figures))
    lines = tuple(
        (Entry(row.method), Entry(row.model), *(Entry(_figure(row.figures.get(c))) for c in columns), Entry(row.source))
        for row in rows
    )
    return Table(("method", "model", *columns, "source"), lines, "Published, and not run here.", 2)


def mean_entry(mean: Mean) -> Entry:
    """Return a mean as a table has it, in percent with its interval."""
    interval = "" if math.isnan(mean.low) else f"{_percent(mean.low)} to {_percent(mean.high)}"
    return Entry(_percent(mean.value), interval)


def _difference_entry(difference: Difference) -> Entry:
    mean = difference.mean
    details = [] if math.isnan(mean.low) else [f"{100 * mean.low:+.1f} to {100 * mean.high:+.1f}"]
    details += [] if math.isnan(difference.holm_p) else [f"Holm p {_p(difference.holm_p)}"]
    return Entry(f"{100 * mean.value:+.1f}" if not math.isnan(mean.value) else "", ", ".join(details))


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _percent(share: float) -> str:
    return "" if math.isnan(share) else f"{100 * share:.1f}"


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:g}"

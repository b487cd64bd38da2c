"""The report of runs: tables in Markdown, the same with plots on one HTML page, and a CSV of the cells."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lvqa.evaluation import Comparison
from lvqa.report import plots, tables
from lvqa.report.conditions import PUBLISHED, Cell, NamedRun, clean, conditions_of, read_runs
from lvqa.report.page import as_source, page, write_whole
from lvqa.report.tables import Table, to_markdown


@dataclass(frozen=True, slots=True)
class Section:
    """A heading, what the figures under it mean, and the figures."""

    title: str
    text: str
    tables: Sequence[Table] = ()
    lines: Sequence[str] = ()
    """A list."""
    plot: Callable[[], bytes | None] = lambda: None
    """Draws the SVG."""


def write_report(runs: Sequence[Path], html: Path | None = None, csv: Path | None = None) -> str:
    """The report of the runs in these folders, side by side, as Markdown; also written as a page and as CSV.

    Raises LvqaError for a folder that is no run folder, before anything is written.
    """
    named = read_runs(runs)
    cells = conditions_of(named)
    sections = _sections(named, cells)
    if csv is not None:
        write_whole(csv, tables.to_csv(cells).encode("utf-8", errors="backslashreplace"))
    if html is not None:
        write_whole(html, _page(named, sections))
    return _markdown(named, sections)


def _sections(runs: Sequence[NamedRun], cells: Sequence[Cell]) -> list[Section]:
    """All that there is something to say about."""
    sections = []
    if cells:
        sections = [_overview(cells), _accuracy(runs, cells), _published(runs), _abilities(cells)]
        sections += [_recall(cells), _paired(cells)]
        sections += [_cost(runs, cells), _official(runs, cells)]
    sections.append(_failures(runs))
    return [section for section in sections if section.tables or section.lines]


def _overview(cells: Sequence[Cell]) -> Section:
    return Section(
        "Overview",
        "Accuracy: percent of all questions asked. Evidence: percent of the questions with an annotated time of which "
        "a frame was shown. Tokens: read for a question, ranking and answer, the video being indexed. Difference: in "
        "points of accuracy on the same questions. Intervals are 95%; the sections below say how they are taken.",
        [tables.overview_table(cells)],
    )


def _accuracy(runs: Sequence[NamedRun], cells: Sequence[Cell]) -> Section:
    benchmarks, budgets = {run.benchmark for run in runs}, {cell.budget for cell in cells}
    comparable = [p for p in PUBLISHED if p.benchmark in benchmarks and budgets & {*p.accuracy}]
    models = dict.fromkeys(p.model for p in comparable)
    return Section(
        "Accuracy",
        "Percent of all questions asked, with the 95% interval by Wilson; an answer that failed is wrong."
        + (f" Hollow: published for {', '.join(models)}, not run here." if comparable else ""),
        [tables.accuracy_table(cells)],
        plot=lambda: plots.accuracy_figure(cells, comparable),
    )


def _published(runs: Sequence[NamedRun]) -> Section:
    table = tables.published_table(runs)
    text = "Percent, as their sources report them; not run here."
    if table is not None and not all(run.benchmark == run.run.config.benchmark.name for run in runs):
        text += " They are about the benchmark's own videos, so they say nothing about the made films of this report."
    return Section("Published figures", text, [table] if table else [])


def _abilities(cells: Sequence[Cell]) -> Section:
    return Section(
        "Accuracy by ability",
        "Percent with the 95% interval by Wilson. A question with several abilities counts once in each.",
        tables.ability_tables(cells),
        plot=lambda: plots.ability_figure(cells),
    )


def _recall(cells: Sequence[Cell]) -> Section:
    return Section(
        "Evidence recall by stage",
        "Percent of questions with an annotated time of which that time is found: by one of the best clips, and by a "
        "frame that was shown (95% interval by Wilson).",
        tables.recall_tables(cells),
        plot=lambda: plots.recall_figure(cells),
    )


def _paired(cells: Sequence[Cell]) -> Section:
    compared: list[tuple[Cell, Comparison]] = tables.comparisons(cells)
    return Section(
        f"Paired difference to {tables.baseline_names(compared)}",
        "On the same questions at the same budget, in points of accuracy; the 95% interval is from a bootstrap over "
        f"videos. Gained: right where {tables.baseline_names(compared)} had it wrong; lost: the other way round.",
        [tables.comparison_table(compared)] if compared else [],
        plot=lambda: plots.comparison_figure(compared, cells),
    )


def _cost(runs: Sequence[NamedRun], cells: Sequence[Cell]) -> Section:
    index = tables.index_table(runs)
    return Section(
        "Cost",
        "Mean of a question that was answered, its video being indexed already; seconds in all and by stage. Frames "
        "and pairs that were in memory cost nothing, so they depend on what was asked before. The larger the budget, "
        "the larger the marker.",
        [tables.cost_table(cells), *([index] if index else [])],
        plot=lambda: plots.cost_figure(cells) if len(cells) > 1 else None,
    )


def _official(runs: Sequence[NamedRun], cells: Sequence[Cell]) -> Section:
    of_lvbench = {run.name for run in runs if run.run.config.benchmark.name == "lvbench"}
    mine = [cell for cell in cells if cell.run in of_lvbench]
    return Section(
        "LVBench's official figure",
        "As LVBench's own scripts read and count, in percent: questions without an answer are left out, so an arm that "
        "fails often looks better than it is.",
        [tables.official_table(mine)] if mine else [],
    )


def _failures(runs: Sequence[NamedRun]) -> Section:
    return Section("Failures", "Each of these answers counts as wrong.", lines=tables.failures(runs))


def _about(named: NamedRun) -> list[str]:
    """What a reader must know of a run, in a line each."""
    run, config = named.run, named.run.config
    versions = ", ".join(f"{name} {version}" for name, version in run.about.get("versions", {}).items())
    counts = {
        "videos": len({row["video_id"] for row in run.rows}),
        "questions": len({(row["video_id"], row["question_id"]) for row in run.rows}),
        "answers": len(run.rows),
        "failed": sum(row["error"] is not None for row in run.rows),
    }
    lines = [
        f"{named.name}: benchmark {named.benchmark}; model {config.model.name}; "
        f"{', '.join(f'{name} {count}' for name, count in counts.items())}; seed {config.seed}; "
        f"begun {run.about.get('started', 'at an unknown time')}; {versions}"
    ]
    if named.num_missing_answers:
        lines.append(f"{named.name} is not complete: {named.num_missing_answers} answers are still to come.")
    if run.missing:
        lines.append(f"{named.name} went on without {len(run.missing)} missing videos: {', '.join(run.missing)}.")
    if not run.rows:
        lines.append(f"{named.name} has no answers yet.")
    return [clean(line) for line in lines]


def _markdown(runs: Sequence[NamedRun], sections: Sequence[Section]) -> str:
    parts = ["# Report", "\n".join(f"- {tables.escaped(line)}" for run in runs for line in _about(run))]
    for section in sections:
        parts += [f"## {section.title}", section.text, *map(to_markdown, section.tables)]
        parts += ["\n".join(f"- {tables.escaped(line)}" for line in section.lines)] if section.lines else []
    return "\n\n".join(parts) + "\n"


def _page(runs: Sequence[NamedRun], sections: Sequence[Section]) -> bytes:
    drawn = [(section, section.plot()) for section in sections]
    return page(
        _PAGE,
        title=f"Report: {', '.join(run.name for run in runs)}",
        about=[line for run in runs for line in _about(run)],
        sections=[(section, plot and as_source(plot, "image/svg+xml")) for section, plot in drawn],
    )


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title|truncate(80) }}</title>
<style>
 body { font: 16px/1.5 system-ui, sans-serif; color: #222; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
 h1 { font-size: 1.35rem; line-height: 1.3; margin: 0 0 .3rem; overflow-wrap: anywhere; }
 h2 { font-size: 1.1rem; margin: 2.6rem 0 .2rem; }
 p { margin: .2rem 0 .8rem; max-width: 46rem; }
 .small, .about, .caption { color: #555; font-size: .85rem; overflow-wrap: anywhere; }
 .about, .failures { padding-left: 1.1rem; margin-top: .3rem; }
 .caption { margin: 1rem 0 .2rem; font-weight: 600; }
 .tables { display: flex; flex-wrap: wrap; gap: 0 3rem; }
 .wide { overflow-x: auto; margin-bottom: .8rem; max-width: 100%; }
 table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem; line-height: 1.3; }
 th, td { text-align: right; vertical-align: top; padding: .3rem 0 .3rem 1.4rem; border-bottom: 1px solid #e5e5e5; }
 th { font-weight: 600; vertical-align: bottom; }
 th { min-width: 3.5rem; max-width: 8rem; overflow-wrap: break-word; }
 .name { text-align: left; min-width: 7rem; max-width: 20rem; overflow-wrap: break-word; }
 th:first-child, td:first-child { padding-left: 0; }
 td small { display: block; color: #666; white-space: nowrap; }
 .plot { width: 100%; }
 .failures li { overflow-wrap: anywhere; }
</style></head><body>
<h1>{{ title }}</h1>
<ul class="about">{% for line in about %}
<li>{{ line }}</li>
{% endfor %}</ul>
{% for section, plot in sections %}
<h2>{{ section.title }}</h2>
<p class="small">{{ section.text }}</p>
{% if plot %}
<img class="plot" src="{{ plot }}" alt="plot: {{ section.title }}; its figures are in the table below">
{% endif %}
<div class="tables">{% for table in section.tables %}
<div class="wide">
{% if table.caption %}
<p class="caption">{{ table.caption }}</p>
{% endif %}
<table><tr>{% for name in table.head %}
<th{% if loop.index <= table.num_names %} class="name"{% endif %}>{{ name }}</th>
{% endfor %}</tr>
{% for line in table.lines %}
<tr>{% for entry in line %}
<td{% if loop.index <= table.num_names %} class="name"{% endif %}>
 {{ entry.main }}{% if entry.detail %}<small>{{ entry.detail }}</small>{% endif %}</td>
{% endfor %}</tr>
{% endfor %}</table></div>
{% endfor %}</div>
{% if section.lines %}
<ul class="failures small">{% for line in section.lines %}
<li>{{ line }}</li>
{% endfor %}</ul>
{% endif %}
{% endfor %}
</body></html>
"""

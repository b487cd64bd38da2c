"""The report of runs: tables in Markdown, the same tables with plots on one HTML page, and a CSV."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lvqa.datasets import join_names
from lvqa.evaluation import Comparison
from lvqa.evaluation.intervals import MIN_CLUSTERS
from lvqa.records import counted
from lvqa.report import plots, tables
from lvqa.report.conditions import (
    PUBLISHED_RESULTS,
    Condition,
    NamedRun,
    clean,
    conditions_of,
    failed_share,
    read_runs,
    why_not_comparable,
)
from lvqa.report.csv_file import to_csv
from lvqa.report.headline import figures_of, headlines
from lvqa.report.latex import escape_latex, to_latex
from lvqa.report.methods import methods_paragraph, settings_lines
from lvqa.report.page import data_url, render_page, write_file
from lvqa.report.submissions import write_submissions
from lvqa.report.tables import Table, to_markdown

FIGURE_FORMATS = ("pdf", "svg", "png")
_INTERVALS = f"Intervals are 95%, with videos as samples; fewer than {MIN_CLUSTERS} videos have none."


@dataclass(frozen=True, slots=True)
class Section:
    """A heading, an explanation of the figures, and the figures."""

    title: str
    text: str
    tables: Sequence[Table] = ()
    lines: Sequence[str] = ()
    """The items of a list under the tables."""
    plot: Callable[[str], bytes | None] = lambda _: None
    """The function draws the plot in a format (svg, pdf, png), and returns None if there is nothing to draw."""

    @property
    def file_name(self) -> str:
        """What its files and its tables' labels are called: "accuracy-by-ability"."""
        return re.sub(r"[^a-z]+", "-", self.title.lower()).strip("-")


class Report:
    """The report of some runs."""

    def __init__(self, runs: Sequence[Path]) -> None:
        """Read the runs in these folders, whose arms stand side by side. LvqaError if a folder is not a run folder."""
        self._runs = read_runs(runs)
        self._conditions = conditions_of(self._runs)
        self._sections = _sections(self._runs, self._conditions)

    def to_markdown(self) -> str:
        """Return the report as Markdown."""
        return _markdown(self._runs, self._sections)

    def write(
        self,
        *,
        html: Path | None = None,
        csv: Path | None = None,
        latex: Path | None = None,
        figures: Path | None = None,
        submissions: Path | None = None,
    ) -> None:
        """Write the report in other forms.

        Args:
            html: Where the page is written.
            csv: Where the figures are written as numbers.
            latex: Where the tables and the methods paragraph are written in LaTeX, for the package booktabs.
            figures: A folder for the plots, each as PDF, SVG and PNG.
            submissions: A folder for the files in which benchmarks take submissions.

        Raises:
            LvqaError: A file can't be written.
        """
        if csv is not None:
            text = to_csv(self._conditions, figures_of(self._runs, self._conditions))
            write_file(csv, text.encode("utf-8", errors="backslashreplace"))
        if latex is not None:
            write_file(latex, _latex(self._runs, self._sections).encode("utf-8", errors="backslashreplace"))
        if figures is not None:
            _write_figures(figures, self._sections)
        if submissions is not None:
            write_submissions(submissions, self._runs, self._conditions)
        if html is not None:
            write_file(html, _page(self._runs, self._sections))


def write_report(runs: Sequence[Path], **files: Path | None) -> str:
    """Return the report of the runs in these folders as Markdown, and write it into files as `Report.write` does.

    Raises:
        LvqaError: If a folder is not a run folder, before anything is written; or if a file cannot be written.
    """
    report = Report(runs)
    report.write(**files)
    return report.to_markdown()


def _sections(runs: Sequence[NamedRun], conditions: Sequence[Condition]) -> list[Section]:
    """Return all sections that have content."""
    sections = []
    if conditions:
        sections = [_overview(conditions), _accuracy(runs, conditions), _published(runs), _abilities(conditions)]
        sections += [_recall(conditions), _paired(conditions)]
        sections += [_cost(runs, conditions), *_headlines(runs, conditions)]
    sections += [_not_compared(runs), _failures(runs), _warnings(runs), _methods(runs)]
    share = failed_share(runs) + _judges(conditions)
    return [
        replace(section, text=f"{section.text} {share}") if section.tables else section
        for section in sections
        if section.tables or section.lines
    ]


def _judges(conditions: Sequence[Condition]) -> str:
    """Return what the names of open questions' lines mean, as a sentence; "" if there are none."""
    judges = dict.fromkeys(condition.judge for condition in conditions if condition.judge)
    names = " or ".join(f"open ({clean(judge)})" for judge in judges)
    return f" Lines named {names} are about open questions, whose answers that judge scored." if judges else ""


def _overview(conditions: Sequence[Condition]) -> Section:
    return Section(
        "Overview",
        "Accuracy: percent of all questions. Evidence: percent of the questions with an annotated time of which a "
        "frame was selected. Tokens: prefilled to rank and answer a question on an indexed video; those of the "
        "answer's own prompt stand apart, so that equal budgets can be seen to be equal. Difference: "
        "points of accuracy on the same questions. Intervals are 95%; the sections below explain them.",
        [tables.overview_table(conditions)],
    )


def _accuracy(runs: Sequence[NamedRun], conditions: Sequence[Condition]) -> Section:
    benchmarks, budgets = {run.benchmark for run in runs}, {condition.budget for condition in conditions}
    # A figure of another model, or of another benchmark, shares no axes with these.
    of_model = [p for p in PUBLISHED_RESULTS if all(p.is_of(run.run.config.model.name) for run in runs)]
    comparable = [p for p in of_model if {p.benchmark} == benchmarks and budgets & {*p.accuracy}]
    models = dict.fromkeys(p.model for p in comparable)
    return Section(
        "Accuracy",
        f"Percent of all questions; a failed answer is counted as wrong. {_INTERVALS}"
        + (f" Hollow markers: published for {join_names(list(models))}, not run here." if comparable else ""),
        [tables.accuracy_table(conditions)],
        plot=lambda format: plots.accuracy_figure(conditions, comparable, format=format),
    )


def _published(runs: Sequence[NamedRun]) -> Section:
    table = tables.published_table(runs)
    text = "Percent, as their sources report them; not run here."
    if table is not None and not all(run.benchmark == run.run.config.benchmark.name for run in runs):
        text += " They are about the benchmark's own videos and cannot be compared with this report's synthetic videos."
    return Section("Published figures", text, [table] if table else [])


def _abilities(conditions: Sequence[Condition]) -> Section:
    return Section(
        "Accuracy by ability",
        f"Percent. A question with several abilities counts once in each. {_INTERVALS}",
        tables.ability_tables(conditions),
        plot=lambda format: plots.ability_figure(conditions, format=format),
    )


def _recall(conditions: Sequence[Condition]) -> Section:
    return Section(
        "Evidence recall by stage",
        "Percent of the questions with an annotated time whose time overlaps one of the best clips, or contains a "
        f"selected frame. {_INTERVALS}",
        tables.recall_tables(conditions),
        plot=lambda format: plots.recall_figure(conditions, format=format),
    )


def _paired(conditions: Sequence[Condition]) -> Section:
    comparisons: list[tuple[Condition, Comparison]] = tables.compare_to_baselines(conditions)
    names = tables.baseline_names(comparisons)
    return Section(
        f"Paired difference to {names}",
        "On the same questions at the same budget, in points of accuracy. "
        f"{_INTERVALS} p is of the difference, by the same standard error; p by Holm is corrected for all lines of "
        "the table. McNemar's test takes questions for independent samples, and so finds too much. "
        f"Gained: correct here and wrong with {names}; lost: wrong here and correct with {names}. "
        f"{tables.power_text(comparisons)}".strip(),
        [tables.comparison_table(comparisons)] if comparisons else [],
        plot=lambda format: plots.comparison_figure(comparisons, conditions, format=format),
    )


def _cost(runs: Sequence[NamedRun], conditions: Sequence[Condition]) -> Section:
    index = tables.index_table(runs)
    return Section(
        "Cost",
        "Mean of an answered question about an indexed video; seconds in total and by stage. Frames and pairs in "
        "memory cost nothing, so their numbers depend on the questions before. The larger the budget, the larger the "
        "marker.",
        [tables.cost_table(conditions), *([index] if index else [])],
        plot=lambda format: plots.cost_figure(conditions, format=format) if len(conditions) > 1 else None,
    )


def _headlines(runs: Sequence[NamedRun], conditions: Sequence[Condition]) -> list[Section]:
    return [Section(one.title, f"Percent. {one.counting}", one.tables) for one in headlines(runs, conditions)]


def _not_compared(runs: Sequence[NamedRun]) -> Section:
    reasons = why_not_comparable(runs)
    lines = [clean(f"{one} and {other}: {reason}") for (one, other), reason in reasons.items()]
    return Section("Not compared", "Arms of these runs are not measured against each other.", lines=lines)


def _methods(runs: Sequence[NamedRun]) -> Section:
    with_answers = [named for named in runs if named.run.rows]
    several = len(with_answers) > 1
    lines = [f"{named.name}, {line}" if several else line for named in with_answers for line in settings_lines(named)]
    return Section("Methods", " ".join(map(methods_paragraph, with_answers)), lines=lines)


def _failures(runs: Sequence[NamedRun]) -> Section:
    return Section("Failures", "Each of these answers counts as wrong.", lines=tables.failures(runs))


def _warnings(runs: Sequence[NamedRun]) -> Section:
    text = "These answers count as they are; what is wrong with their video, the model or the evidence."
    return Section("Warnings", text, lines=tables.warnings(runs))


def _about(named: NamedRun) -> list[str]:
    """Return the facts about a run that a reader must know, one in each line."""
    run, config = named.run, named.run.config
    versions = ", ".join(f"{name} {version}" for name, version in run.about.get("versions", {}).items())
    counts = {
        "videos": len({row["video_id"] for row in run.rows}),
        "questions": len({(row["video_id"], row["question_id"]) for row in run.rows}),
        "answers": len(run.rows),
        "failed": sum(row["error"] is not None for row in run.rows),
    }
    lines = [
        f"{named.name}: benchmark {named.way}; model {config.model.name}; "
        f"{', '.join(f'{name} {count}' for name, count in counts.items())}; seed {config.seed}; "
        f"started {run.about.get('started', 'at an unknown time')}; {versions}"
    ]
    if num_missing := named.num_missing_answers:
        verb = "is" if num_missing == 1 else "are"
        lines.append(f"{named.name} is not complete: {counted(num_missing, 'answer')} {verb} still to come.")
    if run.missing:
        lines.append(f"{named.name} left out {counted(len(run.missing), 'missing video')}: {join_names(run.missing)}.")
    if not run.rows:
        lines.append(f"{named.name} has no answers yet.")
    return [clean(line) for line in lines]


def _markdown(runs: Sequence[NamedRun], sections: Sequence[Section]) -> str:
    blocks = ["# Report", "\n".join(f"- {tables.escape_markdown(line)}" for run in runs for line in _about(run))]
    for section in sections:
        blocks += [f"## {section.title}", section.text, *map(to_markdown, section.tables)]
        blocks += ["\n".join(f"- {tables.escape_markdown(line)}" for line in section.lines)] if section.lines else []
    return "\n\n".join(blocks) + "\n"


def _latex(runs: Sequence[NamedRun], sections: Sequence[Section]) -> str:
    """Return each section as its tables, with its text for the caption; the methods as a paragraph."""
    blocks = ["% Made by lvqa report. It needs \\usepackage{booktabs} and \\usepackage{graphicx}.\n"]
    for section in sections:
        for i, table in enumerate(section.tables, start=1):
            title = f"{section.title}, {table.caption}" if table.caption else section.title
            label = f"tab:{section.file_name}" + (f"-{i}" if len(section.tables) > 1 else "")
            blocks.append(to_latex(table, caption=f"{title}. {section.text}", label=label))
    blocks += [f"\\paragraph{{Methods.}} {escape_latex(methods_paragraph(run))}\n" for run in runs if run.run.rows]
    return "\n".join(blocks)


def _write_figures(folder: Path, sections: Sequence[Section]) -> None:
    for section in sections:
        for format in FIGURE_FORMATS:
            if plot := section.plot(format):
                write_file(folder / f"{section.file_name}.{format}", plot)


def _page(runs: Sequence[NamedRun], sections: Sequence[Section]) -> bytes:
    plots_by_section = [(section, section.plot("svg")) for section in sections]
    return render_page(
        _PAGE,
        title=f"Report: {', '.join(run.name for run in runs)}",
        about=[line for run in runs for line in _about(run)],
        sections=[(section, plot and data_url(plot, "image/svg+xml")) for section, plot in plots_by_section],
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

"""The tables of a report, once for Markdown and HTML, and the CSV of its cells."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from lvqa.evaluation import (
    Comparison,
    Row,
    Share,
    accuracy,
    by_ability,
    compare,
    cost,
    evidence_recall,
    index_cost,
    official_accuracy,
)
from lvqa.report.conditions import PUBLISHED, Cell, NamedRun, by_arm, clean

SELECTION = "selection"
"""The last stage of evidence recall: the frames shown."""
SHOWN_FAILURES = 50


class Entry(NamedTuple):
    """What stands in a table's field, and a detail behind it."""

    main: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """Lines of fields under a head."""

    head: tuple[str, ...]
    lines: tuple[tuple[Entry, ...], ...]
    caption: str = ""
    num_names: int = 1
    """How many columns, from the left, are text; the others are figures."""


def to_markdown(table: Table) -> str:
    """The table in GitHub's Markdown, its columns aligned; details in brackets."""
    texts = [[escaped(name) for name in table.head]]
    texts += [[escaped(f"{e.main} ({e.detail})" if e.detail else e.main) for e in line] for line in table.lines]
    widths = [max(3, *map(len, column)) for column in zip(*texts, strict=True)]
    justify = [str.ljust if place < table.num_names else str.rjust for place in range(len(widths))]
    lines = [[put(text, width) for put, text, width in zip(justify, line, widths, strict=True)] for line in texts]
    rule = [
        "-" * width if put is str.ljust else "-" * (width - 1) + ":" for put, width in zip(justify, widths, strict=True)
    ]
    caption = [f"{escaped(table.caption)}\n"] if table.caption else []
    return "\n".join([*caption, *(f"| {' | '.join(line)} |" for line in (lines[0], rule, *lines[1:]))])


def overview_table(cells: Sequence[Cell]) -> Table:
    """A line a cell: accuracy, evidence among the frames shown, tokens, and the paired difference to its baseline."""
    head = ("arm", "frames", "accuracy", "evidence shown", "tokens", "difference, points", "to")
    lines = []
    for cell in cells:
        found = None if cell.baseline is None else compare(cell.rows, cell.baseline)
        lines.append(
            (
                Entry(cell.arm),
                Entry(str(cell.budget or "none")),
                share(accuracy(cell.rows)),
                share(selection_recall(cell)),
                Entry(amount(cost(cell.rows).tokens_prefilled)),
                Entry("") if found is None else Entry(points(found.difference), _interval(found)),
                Entry(cell.baseline_name),
            )
        )
    return Table(head, tuple(lines))


def accuracy_table(cells: Sequence[Cell]) -> Table:
    """Arm by budget: all questions asked, a failure is wrong."""
    return _by_budget(cells, lambda cell: share(accuracy(cell.rows)))


def official_table(cells: Sequence[Cell]) -> Table:
    """Arm by budget as LVBench's script counts: only questions that have a letter."""
    return _by_budget(cells, lambda cell: share(official_accuracy(cell.rows)))


def ability_tables(cells: Sequence[Cell]) -> list[Table]:
    """For each budget, ability by arm."""
    tables = []
    for budget in sorted({cell.budget for cell in cells}):
        here = {cell.arm: by_ability(cell.rows) for cell in cells if cell.budget == budget}
        abilities = dict.fromkeys(ability for shares in here.values() for ability in shares)
        lines = [
            (Entry(clean(ability)), *(share(shares.get(ability)) for shares in here.values())) for ability in abilities
        ]
        if lines:
            tables.append(Table(("ability", *here), tuple(lines), frames_text(budget)))
    return tables


def recall_by_stage(cells: Sequence[Cell]) -> dict[str, dict[str, Share]]:
    """Arm -> stage -> recall, up to the selection. The arm's budgets share one ranking, so it is counted once."""
    found = {}
    for arm, mine in by_arm(cells).items():
        rankings: dict[tuple[str, str], Row] = {}
        for row in (row for cell in mine for row in cell.rows):
            key = row["video_id"], row["question_id"]
            if key not in rankings or not rankings[key]["embedded"]:
                rankings[key] = row
        stages = evidence_recall(rankings.values())
        found[arm] = {stage: value for stage, value in stages.items() if stage != SELECTION}
    return found


def selection_recall(cell: Cell) -> Share | None:
    """How often a shown frame lies in the annotated time; None where no frame was ever shown."""
    return evidence_recall(cell.rows).get(SELECTION)


def recall_tables(cells: Sequence[Cell]) -> list[Table]:
    """The best clips in the embedding's and the reranker's order, and the frames shown."""
    ranked = {arm: stages for arm, stages in recall_by_stage(cells).items() if stages}
    names = tuple(dict.fromkeys(stage for stages in ranked.values() for stage in stages))
    lines = tuple((Entry(arm), *(share(stages.get(name)) for name in names)) for arm, stages in ranked.items())
    shown = [cell for cell in cells if cell.budget]
    tables = [Table(("arm", *names), lines, "Among the best clips")] if lines else []
    if shown:
        table = _by_budget(shown, lambda cell: share(selection_recall(cell)))
        tables.append(Table(table.head, table.lines, "Among the frames shown"))
    return tables


def comparisons(cells: Sequence[Cell]) -> list[tuple[Cell, Comparison]]:
    """Every cell that has a baseline at its budget, with the comparison to it."""
    return [(cell, compare(cell.rows, cell.baseline)) for cell in cells if cell.baseline is not None]


def baseline_names(compared: Sequence[tuple[Cell, Comparison]]) -> str:
    """What was compared with: "uniform frames", or an arm, or two; where they are more, the overview names them."""
    names = dict.fromkeys(cell.baseline_name for cell, _ in compared)
    return " or ".join(names) if len(names) <= 2 else "the arm's baseline"


def comparison_table(compared: Sequence[tuple[Cell, Comparison]]) -> Table:
    """A line a cell: how much better than its baseline, and whether that may be luck."""
    head = ("arm", "frames", "difference, points", "gained", "lost", "McNemar's exact p", "n")
    lines = [
        (
            Entry(cell.arm),
            Entry(str(cell.budget)),
            Entry(points(found.difference), _interval(found)),
            Entry(str(found.gained)),
            Entry(str(found.lost)),
            Entry(p_text(found.p_value)),
            Entry(str(found.n)),
        )
        for cell, found in compared
    ]
    return Table(head, tuple(lines))


def cost_table(cells: Sequence[Cell]) -> Table:
    """A line a cell: means of a question."""
    costs = [cost(cell.rows) for cell in cells]
    stages = tuple(dict.fromkeys(stage for spent in costs for stage in spent.seconds))
    head = ("arm", "frames", "frames decoded", "pairs encoded", "tokens prefilled", "seconds", *stages)
    lines = [
        (
            Entry(cell.arm),
            Entry(str(cell.budget or "none")),
            *(Entry(amount(v)) for v in (spent.frames_decoded, spent.pairs_encoded, spent.tokens_prefilled)),
            Entry(amount(sum(spent.seconds.values()) if spent.n else math.nan)),
            *(Entry(amount(spent.seconds.get(stage, math.nan))) for stage in stages),
        )
        for cell, spent in zip(cells, costs, strict=True)
    ]
    return Table(head, tuple(lines))


def index_table(runs: Sequence[NamedRun]) -> Table | None:
    """A line a run: means of a video whose indexes were made in it; None if all were there."""
    costs = [(named.name, index_cost(named.run.rows)) for named in runs]
    lines = [
        (
            Entry(name),
            Entry(str(spent.n)),
            *(Entry(amount(v)) for v in (spent.frames_decoded, spent.pairs_encoded, spent.tokens_prefilled)),
            Entry(amount(sum(spent.seconds.values()))),
        )
        for name, spent in costs
        if spent.n
    ]
    head = ("run", "videos", "frames decoded", "pairs encoded", "tokens prefilled", "seconds")
    return Table(head, tuple(lines), "Before the first question: the indexes of a video, mean") if lines else None


def published_table(runs: Sequence[NamedRun]) -> Table | None:
    """What papers report for the benchmark of these runs, or of which they borrow the layout."""
    named = [p for p in PUBLISHED if any(p.benchmark == run.run.config.benchmark.name for run in runs)]
    budgets = sorted({budget for published in named for budget in published.accuracy})
    lines = [
        (
            Entry(p.source),
            Entry(p.model),
            Entry(p.method),
            *(Entry(f"{p.accuracy[budget]:.1f}" if budget in p.accuracy else "") for budget in budgets),
        )
        for p in named
    ]
    return (
        Table(("source", "model", "method", *map(frames_text, budgets)), tuple(lines), num_names=3) if lines else None
    )


def failures(runs: Sequence[NamedRun]) -> list[str]:
    """A line for each video and what went wrong with it: how many answers that cost, and to which questions."""
    found: dict[tuple[str, str, str], list[Row]] = {}
    for named in runs:
        for row in named.run.rows:
            if row["error"] is not None:
                found.setdefault((named.name, row["video_id"], row["error"]), []).append(row)
    lines = []
    for (run, video, error), rows in found.items():
        questions = list(dict.fromkeys(row["question_id"] for row in rows))
        asked = f"question {questions[0]}" if len(questions) == 1 else f"{len(questions)} questions"
        count = "1 answer" if len(rows) == 1 else f"{len(rows)} answers"
        where = f"{run}: " if len(runs) > 1 else ""
        lines.append(clean(f"{where}{video}, {asked}, {count}: {error}"))
    more = len(lines) - SHOWN_FAILURES
    return lines if more <= 0 else [*lines[:SHOWN_FAILURES], f"and {more} more of this kind"]


def to_csv(cells: Sequence[Cell]) -> str:
    """A line for each cell, and for each ability in it. Shares lie in 0..1; costs are means of a question.

    Fields without a meaning in a line (no baseline to compare with, no evidence) are empty.
    """
    lines = [line for cell in cells for line in _csv_lines(cell)]
    names = list(dict.fromkeys(name for line in lines for name in line)) or ["run", "arm", "budget", "ability"]
    held = io.StringIO()
    writer = csv.DictWriter(held, names, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return held.getvalue()


def share(found: Share | None) -> Entry:
    """ "52.1" percent, "45.8-58.3; n 240"."""
    if found is None or not found.n:
        return Entry("-")
    return Entry(percent(found.value), f"{percent(found.low)}-{percent(found.high)}; n {found.n}")


def percent(value: float) -> str:
    """0.521 -> "52.1"."""
    return f"{100 * value:.1f}"


def points(value: float) -> str:
    """A difference of two shares: 0.058 -> "+5.8"."""
    return "?" if math.isnan(value) else f"{100 * value:+.1f}"


def p_text(value: float) -> str:
    """0.0123 -> "0.012"."""
    return "<0.0001" if value < 1e-4 else f"{value:.2g}"


def amount(value: float) -> str:
    """Three digits: 12345.6 -> "12,300", 3.14159 -> "3.14"."""
    if math.isnan(value):
        return "-"
    if value == 0:
        return "0"
    digits = 2 - math.floor(math.log10(abs(value)))
    return f"{round(value, digits):,.{max(0, min(digits, 3))}f}"


def frames_text(budget: int) -> str:
    """0 -> "no frames", 16 -> "16 frames"."""
    return f"{budget} frames" if budget else "no frames"


def _interval(found: Comparison) -> str:
    if math.isnan(found.low):
        return "one video: no interval" if found.n else ""
    return f"{points(found.low)} to {points(found.high)}"


def _by_budget(cells: Sequence[Cell], value: Callable[[Cell], Entry]) -> Table:
    budgets = sorted({cell.budget for cell in cells})
    lines = []
    for arm, mine in by_arm(cells).items():
        at = {cell.budget: value(cell) for cell in mine}
        lines.append((Entry(arm), *(at.get(budget, Entry("")) for budget in budgets)))
    return Table(("arm", *map(frames_text, budgets)), tuple(lines))


def _csv_lines(cell: Cell) -> list[dict[str, object]]:
    abilities = dict.fromkeys(tag for row in cell.rows for tag in row["tags"])
    lines = [_csv_line(cell, "all", cell.rows, cell.baseline)]
    for ability in abilities:
        baseline = None if cell.baseline is None else _about(ability, cell.baseline)
        lines.append(_csv_line(cell, ability, _about(ability, cell.rows), baseline))
    return lines


def _about(ability: str, rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if ability in row["tags"]]


def _csv_line(cell: Cell, ability: str, rows: Sequence[Row], baseline: Sequence[Row] | None) -> dict[str, object]:
    line: dict[str, object] = {"run": cell.run, "arm": cell.arm, "budget": cell.budget, "ability": clean(ability)}
    line |= {"failed": sum(row["error"] is not None for row in rows)}
    line |= _share_fields("accuracy", accuracy(rows)) | _share_fields("official_accuracy", official_accuracy(rows))
    for stage, found in evidence_recall(rows).items():
        line |= _share_fields(f"recall_{stage.replace(' ', '_')}", found)
    if baseline is not None:
        paired = compare(rows, baseline)
        line |= {"difference": paired.difference, "difference_low": paired.low, "difference_high": paired.high}
        line |= {"gained": paired.gained, "lost": paired.lost, "mcnemar_p": paired.p_value, "pairs": paired.n}
    spent = cost(rows)
    line |= {name: getattr(spent, name) for name in ("frames_decoded", "pairs_encoded", "tokens_prefilled")}
    line |= {f"seconds_{clean(stage).replace(' ', '_')}": seconds for stage, seconds in spent.seconds.items()}
    return {name: "" if isinstance(value, float) and math.isnan(value) else value for name, value in line.items()}


def _share_fields(name: str, found: Share) -> dict[str, object]:
    low, high = (found.low, found.high) if found.n else (math.nan, math.nan)
    return {name: found.value, f"{name}_low": low, f"{name}_high": high, f"{name}_n": found.n}


def escaped(text: str) -> str:
    """What would end a field of a Markdown table, or begin an HTML tag, as itself."""
    return re.sub(r"\||<(?=[A-Za-z/!?])", r"\\\g<0>", text)

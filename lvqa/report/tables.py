"""The tables of a report, for Markdown, HTML and LaTeX alike."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from lvqa.datasets import join_names
from lvqa.evaluation import (
    Comparison,
    Cost,
    Row,
    Share,
    accuracy,
    by_ability,
    compare,
    correct,
    cost,
    evidence_recall,
    index_cost,
)
from lvqa.evaluation.intervals import POWER
from lvqa.records import counted
from lvqa.report.conditions import PUBLISHED_RESULTS, Condition, NamedRun, by_arm, clean

SELECTION = "selection"
"""The name of the last stage of evidence recall, which looks at the selected frames."""
MAX_FAILURES = 50
ANSWER_TOKENS = "answer's tokens"
"""The column of the tokens that the answer's own prompt had."""


class Entry(NamedTuple):
    """The text of a table's field, and a detail after it."""

    main: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """A head and lines of fields."""

    head: tuple[str, ...]
    lines: tuple[tuple[Entry, ...], ...]
    caption: str = ""
    num_names: int = 1
    """So many columns from the left are text; the others are figures."""


def to_markdown(table: Table) -> str:
    """Return the table in GitHub's Markdown, with aligned columns and with details in brackets."""
    texts = [[escape_markdown(name) for name in table.head]]
    texts += [[escape_markdown(f"{e.main} ({e.detail})" if e.detail else e.main) for e in line] for line in table.lines]
    widths = [max(3, *map(len, column)) for column in zip(*texts, strict=True)]
    justify = [str.ljust if i < table.num_names else str.rjust for i in range(len(widths))]
    lines = [[put(text, width) for put, text, width in zip(justify, line, widths, strict=True)] for line in texts]
    rule = [
        "-" * width if put is str.ljust else "-" * (width - 1) + ":" for put, width in zip(justify, widths, strict=True)
    ]
    caption = [f"{escape_markdown(table.caption)}\n"] if table.caption else []
    return "\n".join([*caption, *(f"| {' | '.join(line)} |" for line in (lines[0], rule, *lines[1:]))])


def overview_table(conditions: Sequence[Condition]) -> Table:
    """Return a line for each condition: accuracy, recall, tokens, and the paired difference to the baseline."""
    head = ("arm", "frames", "accuracy", "evidence selected", "tokens", ANSWER_TOKENS, "difference, points", "to")
    lines = []
    for condition in conditions:
        paired = None if condition.baseline is None else compare(condition.rows, condition.baseline)
        mean = cost(condition.rows)
        lines.append(
            (
                Entry(condition.arm),
                Entry(str(condition.budget or "none")),
                share_entry(accuracy(condition.rows)),
                share_entry(selection_recall(condition)),
                Entry(amount(mean.tokens_prefilled)),
                _answer_tokens(mean),
                Entry("") if paired is None else Entry(points(paired.difference), _interval(paired)),
                Entry(condition.baseline_name),
            )
        )
    return Table(head, tuple(lines))


def accuracy_table(conditions: Sequence[Condition]) -> Table:
    """Return accuracy by arm and budget, of all questions; a failure is wrong."""
    return _by_budget(conditions, lambda condition: share_entry(accuracy(condition.rows)))


def ability_tables(conditions: Sequence[Condition]) -> list[Table]:
    """Return for each budget a table of accuracy by ability and arm."""
    tables = []
    for budget in sorted({condition.budget for condition in conditions}):
        shares_of = {
            condition.arm: by_ability(condition.rows) for condition in conditions if condition.budget == budget
        }
        abilities = dict.fromkeys(ability for shares in shares_of.values() for ability in shares)
        lines = [
            (Entry(clean(ability)), *(share_entry(shares.get(ability)) for shares in shares_of.values()))
            for ability in abilities
        ]
        if lines:
            tables.append(Table(("ability", *shares_of), tuple(lines), frames_text(budget)))
    return tables


def recall_by_stage(conditions: Sequence[Condition]) -> dict[str, dict[str, Share]]:
    """Return arm -> stage -> recall, without the selection. Budgets of an arm share a ranking, so it counts once."""
    recall = {}
    for arm, of_arm in by_arm(conditions).items():
        rankings: dict[tuple[str, str], Row] = {}
        for row in (row for condition in of_arm for row in condition.rows):
            key = row["video_id"], row["question_id"]
            if key not in rankings or not rankings[key]["embedded"]:
                rankings[key] = row
        stages = evidence_recall(rankings.values())
        recall[arm] = {stage: value for stage, value in stages.items() if stage != SELECTION}
    return recall


def selection_recall(condition: Condition) -> Share | None:
    """Return how often a selected frame lies in the annotated time; None if no row has frames."""
    return evidence_recall(condition.rows).get(SELECTION)


def recall_tables(conditions: Sequence[Condition]) -> list[Table]:
    """Return the recall of the best clips, in the order of embedding and reranker, and of the selected frames."""
    ranked = {arm: stages for arm, stages in recall_by_stage(conditions).items() if stages}
    names = tuple(dict.fromkeys(stage for stages in ranked.values() for stage in stages))
    lines = tuple((Entry(arm), *(share_entry(stages.get(name)) for name in names)) for arm, stages in ranked.items())
    with_frames = [condition for condition in conditions if condition.budget]
    tables = [Table(("arm", *names), lines, "Among the best clips")] if lines else []
    if with_frames:
        table = _by_budget(with_frames, lambda condition: share_entry(selection_recall(condition)))
        tables.append(Table(table.head, table.lines, "Among the selected frames"))
    return tables


def compare_to_baselines(conditions: Sequence[Condition]) -> list[tuple[Condition, Comparison]]:
    """Return every condition that has a baseline at its budget, with the comparison to it, corrected for them all."""
    paired = [
        (condition, compare(condition.rows, condition.baseline))
        for condition in conditions
        if condition.baseline is not None
    ]
    corrected = correct([comparison for _, comparison in paired])
    return [(condition, comparison) for (condition, _), comparison in zip(paired, corrected, strict=True)]


def power_text(comparisons: Sequence[tuple[Condition, Comparison]]) -> str:
    """Return how large a difference is found in most runs like this one, as a sentence; "" if it is not known."""
    paired = [comparison for _, comparison in comparisons if comparison.detectable > 0]
    if not paired:
        return ""
    smallest, largest = (percent(pick(comparison.detectable for comparison in paired)) for pick in (min, max))
    size = smallest if smallest == largest else f"{smallest} to {largest} (by line)"
    num_videos = counted(max(comparison.num_videos for comparison in paired), "video")
    return f"With {num_videos} a difference of {size} points is found in {POWER:.0%} of runs."


def baseline_names(comparisons: Sequence[tuple[Condition, Comparison]]) -> str:
    """Return the names of the baselines: one or two. If there are more, the overview names them."""
    names = dict.fromkeys(condition.baseline_name for condition, _ in comparisons)
    return join_names(list(names), "or") if len(names) <= 2 else "the arm's baseline"


def comparison_table(comparisons: Sequence[tuple[Condition, Comparison]]) -> Table:
    """Return a line for each condition: the difference to its baseline, and whether it may be due to chance."""
    head = ("arm", "frames", "difference, points", "gained", "lost", "p", "p by Holm", "McNemar's exact p", "n")
    lines = [
        (
            Entry(condition.arm),
            Entry(str(condition.budget)),
            Entry(points(paired.difference), _interval(paired)),
            Entry(str(paired.gained)),
            Entry(str(paired.lost)),
            *(Entry(p_text(p)) for p in (paired.p_value, paired.holm_p, paired.mcnemar_p)),
            Entry(str(paired.n)),
        )
        for condition, paired in comparisons
    ]
    return Table(head, tuple(lines))


def cost_table(conditions: Sequence[Condition]) -> Table:
    """Return a line for each condition: the mean costs of a question."""
    costs = [cost(condition.rows) for condition in conditions]
    stages = tuple(dict.fromkeys(stage for mean in costs for stage in mean.seconds))
    head = ("arm", "frames", "frames decoded", "pairs encoded", "tokens prefilled", ANSWER_TOKENS, "seconds", *stages)
    lines = [
        (
            Entry(condition.arm),
            Entry(str(condition.budget or "none")),
            *(Entry(amount(v)) for v in (mean.frames_decoded, mean.pairs_encoded, mean.tokens_prefilled)),
            _answer_tokens(mean),
            Entry(amount(sum(mean.seconds.values()) if mean.n else math.nan)),
            *(Entry(amount(mean.seconds.get(stage, math.nan))) for stage in stages),
        )
        for condition, mean in zip(conditions, costs, strict=True)
    ]
    return Table(head, tuple(lines))


def _answer_tokens(mean: Cost) -> Entry:
    visual = "" if math.isnan(mean.answer_visual_tokens) else f"visual {amount(mean.answer_visual_tokens)}"
    return Entry(amount(mean.answer_tokens), visual)


def index_table(runs: Sequence[NamedRun]) -> Table | None:
    """Return a line for each run: the mean costs of the videos that it indexed; None if it indexed none."""
    costs = [(named.name, index_cost(named.run.rows)) for named in runs]
    lines = [
        (
            Entry(name),
            Entry(str(mean.n)),
            *(Entry(amount(v)) for v in (mean.frames_decoded, mean.pairs_encoded, mean.tokens_prefilled)),
            Entry(amount(sum(mean.seconds.values()))),
        )
        for name, mean in costs
        if mean.n
    ]
    head = ("run", "videos", "frames decoded", "pairs encoded", "tokens prefilled", "seconds")
    return Table(head, tuple(lines), "Before the first question: the indexes of a video, mean") if lines else None


def published_table(runs: Sequence[NamedRun]) -> Table | None:
    """Return what papers report for the benchmarks of these runs, also if only the layout is that of the benchmark."""
    results = [p for p in PUBLISHED_RESULTS if any(p.benchmark == run.run.config.benchmark.name for run in runs)]
    budgets = sorted({budget for result in results for budget in result.accuracy})
    lines = [
        (
            Entry(p.source),
            Entry(p.model),
            Entry(p.method),
            *(Entry(f"{p.accuracy[budget]:.1f}" if budget in p.accuracy else "") for budget in budgets),
        )
        for p in results
    ]
    return (
        Table(("source", "model", "method", *map(frames_text, budgets)), tuple(lines), num_names=3) if lines else None
    )


def failures(runs: Sequence[NamedRun]) -> list[str]:
    """Return a line for each error of a video: how many answers failed, and to which questions."""
    return _lines_by_video(runs, lambda row: [] if row["error"] is None else [row["error"]])


def warnings(runs: Sequence[NamedRun]) -> list[str]:
    """Return a line for each warning about a video: how many answers it concerns, and to which questions."""
    return _lines_by_video(runs, lambda row: row["warnings"])


def _lines_by_video(runs: Sequence[NamedRun], texts_of: Callable[[Row], Sequence[str]]) -> list[str]:
    """Return a line for each text that rows of a video have; MAX_FAILURES lines at most."""
    rows_by_text: dict[tuple[str, str, str], list[Row]] = {}
    for named in runs:
        for row in named.run.rows:
            for text in texts_of(row):
                rows_by_text.setdefault((named.name, row["video_id"], text), []).append(row)
    lines = []
    for (run, video, text), rows in rows_by_text.items():
        questions = list(dict.fromkeys(row["question_id"] for row in rows))
        subject = f"question {questions[0]}" if len(questions) == 1 else f"{len(questions)} questions"
        prefix = f"{run}: " if len(runs) > 1 else ""
        lines.append(clean(f"{prefix}{video}, {subject}, {counted(len(rows), 'answer')}: {text}"))
    num_more = len(lines) - MAX_FAILURES
    return lines if num_more <= 0 else [*lines[:MAX_FAILURES], f"and {num_more} more of this kind"]


def share_entry(share: Share | None) -> Entry:
    """Return a share in percent, with its interval: "52.1" and "45.8-58.3; n 240"."""
    if share is None or not share.n:
        return Entry("-")
    if math.isnan(share.low):
        return Entry(percent(share.value), f"{counted(share.num_videos, 'video')}; n {share.n}")
    return Entry(percent(share.value), f"{percent(share.low)}-{percent(share.high)}; n {share.n}")


def percent(value: float) -> str:
    """Return a share in percent: 0.521 -> "52.1"."""
    return f"{100 * value:.1f}"


def points(value: float) -> str:
    """Return a difference of two shares in percentage points: 0.058 -> "+5.8"."""
    return "?" if math.isnan(value) else f"{100 * value:+.1f}"


def p_text(value: float) -> str:
    """Return a p-value with two digits: 0.0123 -> "0.012"."""
    if math.isnan(value):
        return "-"
    return "<0.0001" if value < 1e-4 else f"{value:.2g}"


def amount(value: float) -> str:
    """Return an amount with three digits: 12345.6 -> "12,300", 3.14159 -> "3.14"."""
    if math.isnan(value):
        return "-"
    if value == 0:
        return "0"
    digits = 2 - math.floor(math.log10(abs(value)))
    return f"{round(value, digits):,.{max(0, min(digits, 3))}f}"


def frames_text(budget: int) -> str:
    """Return a budget in words: 0 -> "no frames", 16 -> "16 frames"."""
    return counted(budget, "frame") if budget else "no frames"


def _interval(paired: Comparison) -> str:
    if math.isnan(paired.low):
        return counted(paired.num_videos, "video") if paired.n else ""
    return f"{points(paired.low)} to {points(paired.high)}"


def _by_budget(conditions: Sequence[Condition], value: Callable[[Condition], Entry]) -> Table:
    budgets = sorted({condition.budget for condition in conditions})
    lines = []
    for arm, of_arm in by_arm(conditions).items():
        entries = {condition.budget: value(condition) for condition in of_arm}
        lines.append((Entry(arm), *(entries.get(budget, Entry("")) for budget in budgets)))
    return Table(("arm", *map(frames_text, budgets)), tuple(lines))


def escape_markdown(text: str) -> str:
    """Escape what would end a field of a Markdown table or begin an HTML tag."""
    return re.sub(r"\||<(?=[A-Za-z/!?])", r"\\\g<0>", text)

"""The CSV of a report: a line for each condition, and for each ability in it."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence

from lvqa.datasets.headline import Figure
from lvqa.evaluation import Row, Share, accuracy, compare, cost, evidence_recall
from lvqa.report.conditions import Condition, clean


def to_csv(conditions: Sequence[Condition], figures: Sequence[Mapping[str, Figure]]) -> str:
    """Return a CSV with a line for each condition, and for each ability in it.

    Args:
        conditions: The conditions.
        figures: For each of them the figures that its benchmark's own script counts, by their names.

    Shares lie in 0..1; costs are means of a question. A field without a meaning in its line is empty, for example the
    difference to the baseline if there is no baseline.
    """
    lines = [line for pair in zip(conditions, figures, strict=True) for line in _csv_lines(*pair)]
    names = list(dict.fromkeys(name for line in lines for name in line)) or ["run", "arm", "budget", "ability"]
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, names, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return buffer.getvalue()


def _csv_lines(condition: Condition, figures: Mapping[str, Figure]) -> list[dict[str, object]]:
    abilities = dict.fromkeys(tag for row in condition.rows for tag in row["tags"])
    lines = [_csv_line(condition, "all", condition.rows, condition.baseline)]
    for name, figure in figures.items():
        lines[0] |= {f"official_{name}": _number(figure.value), f"official_{name}_n": figure.n}
    for ability in abilities:
        baseline = None if condition.baseline is None else _with_tag(ability, condition.baseline)
        lines.append(_csv_line(condition, ability, _with_tag(ability, condition.rows), baseline))
    return lines


def _with_tag(ability: str, rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if ability in row["tags"]]


def _csv_line(
    condition: Condition, ability: str, rows: Sequence[Row], baseline: Sequence[Row] | None
) -> dict[str, object]:
    line: dict[str, object] = {
        "run": condition.run,
        "arm": condition.arm,
        "budget": condition.budget,
        "ability": clean(ability),
    }
    line |= {"failed": sum(row["error"] is not None for row in rows)}
    line |= _share_fields("accuracy", accuracy(rows))
    for stage, recall in evidence_recall(rows).items():
        line |= _share_fields(f"recall_{stage.replace(' ', '_')}", recall)
    if baseline is not None:
        paired = compare(rows, baseline)
        line |= {"difference": paired.difference, "difference_low": paired.low, "difference_high": paired.high}
        line |= {"gained": paired.gained, "lost": paired.lost, "pairs": paired.n, "p": paired.p_value}
        line |= {"mcnemar_p": paired.mcnemar_p, "detectable": paired.detectable, "videos": paired.num_videos}
    mean = cost(rows)
    line |= {name: getattr(mean, name) for name in ("frames_decoded", "pairs_encoded", "tokens_prefilled")}
    line |= {"answer_tokens": mean.answer_tokens, "answer_visual_tokens": mean.answer_visual_tokens}
    line |= {f"seconds_{clean(stage).replace(' ', '_')}": seconds for stage, seconds in mean.seconds.items()}
    return {name: _number(value) for name, value in line.items()}


def _number(value: object) -> object:
    """Return what a CSV has of a value: nothing of what is no number."""
    return "" if isinstance(value, float) and math.isnan(value) else value


def _share_fields(name: str, share: Share) -> dict[str, object]:
    return {name: share.value, f"{name}_low": share.low, f"{name}_high": share.high, f"{name}_n": share.n}

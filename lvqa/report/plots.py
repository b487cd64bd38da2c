"""The plots of a report."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import numpy as np

from lvqa.evaluation import Comparison, Share, accuracy, by_ability, cost
from lvqa.report.conditions import Condition, PublishedResult, by_arm, clean
from lvqa.report.drawing import (
    COLOURS,
    GREY,
    TEXT_COLOUR,
    Style,
    abbreviate,
    add_legend,
    annotate_value,
    draw_curve,
    draw_interval,
    label_at_right,
    label_rows,
    new_figure,
    styles_of,
)
from lvqa.report.page import render_figure
from lvqa.report.tables import (
    amount,
    baseline_names,
    frames_text,
    p_text,
    percent,
    points,
    recall_by_stage,
    selection_recall,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def accuracy_figure(
    conditions: Sequence[Condition],
    published: Sequence[PublishedResult] = (),
    *,
    format: str = "svg",
    view: str | None = None,
) -> bytes:
    """Plot accuracy with its interval. In an SVG, each mark leads to its wrong answers on the page at address `view`.

    The plot has a curve for each arm over the budgets, or a panel for each budget if there are many arms. With one
    budget, it has a row for each condition.
    """
    budgets = sorted({condition.budget for condition in conditions if condition.budget})
    styles = styles_of(conditions)
    if len(budgets) > 1:
        draw = _accuracy_by_budget if len(styles) <= len(COLOURS) else _accuracy_in_panels
        return draw(conditions, styles, budgets, published, format, view)
    with new_figure(height=0.9 + 0.3 * (len(conditions) + len(published))) as figure:
        axes = figure.subplots()
        for y, condition in enumerate(conditions):
            share = accuracy(condition.rows)
            _draw_share(axes, y, share, styles[condition.arm])
            _link_mark(axes, 100 * share.value, y, condition, view)
            annotate_value(axes, 100 * _right_end(share), y, percent(share.value))
        for y, result in enumerate(published, len(conditions)):
            value = result.accuracy[budgets[0]]
            axes.plot([value], [y], **_published_style(result, conditions, styles))
            annotate_value(axes, value, y, f"{value:.1f}")
        names = [f"{styles[condition.arm].label}, {frames_text(condition.budget)}" for condition in conditions]
        label_rows(axes, names + [f"{_published_label(result)}, {frames_text(budgets[0])}" for result in published])
        axes.margins(x=0.08)
        axes.set_xlabel("accuracy, percent (95% interval)")
        return render_figure(figure, format)


def _accuracy_in_panels(
    conditions: Sequence[Condition],
    styles: dict[str, Style],
    budgets: Sequence[int],
    published: Sequence[PublishedResult],
    format: str,
    view: str | None,
) -> bytes:
    """Plot a panel for each budget with a row for each arm. Arms without frames are in every panel."""
    arms = list(styles)
    with new_figure(height=1.0 + 0.24 * len(arms)) as figure:
        panels = figure.subplots(1, len(budgets), sharex=True, sharey=True)
        for axes, budget in zip(panels, budgets, strict=True):
            axes.set_title(frames_text(budget))
            for condition in (condition for condition in conditions if condition.budget in (0, budget)):
                share, y = accuracy(condition.rows), arms.index(condition.arm)
                _draw_share(axes, y, share, styles[condition.arm])
                _link_mark(axes, 100 * share.value, y, condition, view)
                annotate_value(axes, 100 * _right_end(share), y, percent(share.value))
                for result in (p for p in published if p.method == condition.method and budget in p.accuracy):
                    axes.plot([result.accuracy[budget]], [y], **_published_style(result, conditions, styles))
            label_rows(axes, [styles[arm].label for arm in arms])
            axes.margins(x=0.12)
        figure.supxlabel("accuracy, percent (95% interval)", fontsize=9, color=TEXT_COLOUR)
        return render_figure(figure, format)


def _accuracy_by_budget(
    conditions: Sequence[Condition],
    styles: dict[str, Style],
    budgets: Sequence[int],
    published: Sequence[PublishedResult],
    format: str,
    view: str | None,
) -> bytes:
    arms = by_arm(conditions)
    step = min(0.06, 0.5 * min(np.diff(np.log2(budgets))) / len(arms))
    labels: list[tuple[float, float, Style]] = []
    with new_figure(height=max(4.2, 0.24 * (len(arms) + len(published)) + 1.5)) as figure:
        axes = figure.subplots()
        for i, (arm, of_arm) in enumerate(arms.items()):
            style = styles[arm]
            shares = [accuracy(condition.rows) for condition in of_arm]
            values = 100 * np.array([[s.value, s.low, s.high] for s in shares]).T
            if not of_arm[0].budget:
                if not np.isnan(values[1, 0]):
                    axes.axhspan(values[1, 0], values[2, 0], color=style.colour, alpha=0.08, lw=0)
                axes.axhline(values[0, 0], color=style.colour, lw=1.2, ls=(0, (5, 3)))
                labels.append((budgets[-1], values[0, 0], Style(style.colour, "", f"{style.label} (no frames)")))
                continue
            x = np.array([condition.budget for condition in of_arm]) * 2 ** (step * (i - (len(arms) - 1) / 2))
            draw_curve(axes, x, values[0], style, yerr=(values[0] - values[1], values[2] - values[0]), ls="-")
            for condition, x_mark, y_mark in zip(of_arm, x, values[0], strict=True):
                _link_mark(axes, x_mark, y_mark, condition, view)
            labels.append((x[-1], values[0, -1], style))
        for result in published:
            options = _published_style(result, conditions, styles)
            x_published = [budget for budget in result.accuracy if budget in budgets]
            y_published = [result.accuracy[budget] for budget in x_published]
            axes.plot(x_published, y_published, **options)
            labels.append((x_published[-1], y_published[-1], Style(options["color"], "", _published_label(result))))
        axes.set_xscale("log", base=2)
        axes.set_xticks(budgets, [str(budget) for budget in budgets])
        axes.set_xticks([], minor=True)
        axes.set_xlim(budgets[0] / 2**0.3, budgets[-1] * 2**0.3)
        axes.grid(axis="y")
        axes.set(xlabel="budget, frames", ylabel="accuracy, percent (95% interval)")
        label_at_right(figure, axes, labels)
        return render_figure(figure, format)


def _published_style(
    result: PublishedResult, conditions: Sequence[Condition], styles: dict[str, Style]
) -> dict[str, Any]:
    """Return matplotlib's options for a published result: the colour of our arm of its method, and hollow markers."""
    colour = next(
        (styles[condition.arm].colour for condition in conditions if condition.method == result.method), TEXT_COLOUR
    )
    return {"color": colour, "marker": "o", "mfc": "white", "ls": ":", "lw": 1.1, "ms": 5}


def _published_label(result: PublishedResult) -> str:
    return abbreviate(f"{result.method} ({result.source.partition(',')[0]})")


def ability_figure(conditions: Sequence[Condition], *, format: str = "svg") -> bytes:
    """Plot accuracy by ability, a panel for each budget. Arms without frames are in every panel."""
    styles = styles_of(conditions)
    budgets = sorted({condition.budget for condition in conditions if condition.budget}) or [0]
    shares = {(condition.arm, condition.budget): by_ability(condition.rows) for condition in conditions}
    abilities = list(dict.fromkeys(ability for by_name in shares.values() for ability in by_name))
    counts = [max(by_name[ability].n for by_name in shares.values() if ability in by_name) for ability in abilities]
    names = [f"{abbreviate(clean(ability))} (n {n})" for ability, n in zip(abilities, counts, strict=True)]
    columns = 2 if len(budgets) == 4 else min(len(budgets), 3)
    lines = math.ceil(len(budgets) / columns)
    with new_figure(height=0.9 + lines * (0.5 + len(abilities) * (0.22 + 0.11 * len(styles)))) as figure:
        panels = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False)
        step = 0.72 / len(styles)
        for panel in panels.flat[len(budgets) :]:
            panel.axis("off")
        for axes, budget in zip(panels.flat, budgets, strict=False):
            axes.set_title(frames_text(budget))
            for condition in conditions:
                if condition.budget in (0, budget):
                    for ability, share in shares[condition.arm, condition.budget].items():
                        y = abilities.index(ability) + step * (
                            list(styles).index(condition.arm) - (len(styles) - 1) / 2
                        )
                        _draw_share(axes, y, share, styles[condition.arm])
            label_rows(axes, names)
        figure.supxlabel("accuracy, percent (95% interval)", fontsize=9, color=TEXT_COLOUR)
        add_legend(figure, styles)
        return render_figure(figure, format)


def recall_figure(conditions: Sequence[Condition], *, format: str = "svg") -> bytes | None:
    """Plot how often the annotated time is hit, stage by stage; return None if there is no stage."""
    styles = styles_of(conditions)
    ranked = recall_by_stage(conditions)
    recalls = {(stage, arm): recall for arm, stages in ranked.items() for stage, recall in stages.items()}
    for condition in sorted(conditions, key=lambda condition: condition.budget):
        recall = selection_recall(condition)
        if recall is not None:
            recalls[f"selection, {frames_text(condition.budget)}", condition.arm] = recall
    recalls = {key: recall for key, recall in recalls.items() if recall.n}
    lines = list(dict.fromkeys(stage for stage, _ in recalls))
    present = {arm: style for arm, style in styles.items() if any(arm == other for _, other in recalls)}
    if not recalls:
        return None
    with new_figure(height=1.1 + len(lines) * (0.2 + 0.1 * len(present))) as figure:
        axes = figure.subplots()
        for (stage, arm), recall in recalls.items():
            arms = [other for other in present if (stage, other) in recalls]
            step = 0.72 / len(present)
            _draw_share(axes, lines.index(stage) + step * (arms.index(arm) - (len(arms) - 1) / 2), recall, styles[arm])
        label_rows(axes, lines)
        axes.set_xlim(-2, 102)
        axes.set_xlabel("annotated time hit, percent of questions (95% interval)")
        add_legend(figure, present)
        return render_figure(figure, format)


def cost_figure(conditions: Sequence[Condition], *, format: str = "svg") -> bytes:
    """Plot accuracy over the tokens and over the seconds of a question; the marker grows with the budget."""
    styles = styles_of(conditions)
    budgets = sorted({condition.budget for condition in conditions})
    costs = [cost(condition.rows) for condition in conditions]
    measures = {
        "tokens prefilled, mean of a question": [mean.tokens_prefilled for mean in costs],
        "seconds, mean of a question": [sum(mean.seconds.values()) for mean in costs],
    }
    with new_figure(height=max(3.8, 0.24 * len(styles) + 1.3)) as figure:
        panels = figure.subplots(1, 2, sharey=True)
        for axes, (name, values) in zip(panels, measures.items(), strict=True):
            by_arm_name: dict[str, list[tuple[float, float, float]]] = {}
            for condition, value in zip(conditions, values, strict=True):
                if value > 0:  # neither NaN nor off a logarithmic scale
                    size = 25.0 + 22 * budgets.index(condition.budget)
                    by_arm_name.setdefault(condition.arm, []).append(
                        (value, 100 * accuracy(condition.rows).value, size)
                    )
            for arm, markers in by_arm_name.items():
                x, y, sizes = np.array(markers).T
                colour, marker = styles[arm].colour, styles[arm].marker
                axes.plot(x, y, color=colour, lw=1, alpha=0.6)
                axes.scatter(x, y, s=sizes, color=colour, marker=marker, lw=0.6, edgecolor="white", zorder=3)
            _cost_axis(axes, [value for value in values if value > 0])
            axes.grid()
            axes.set_xlabel(name)
        panels[0].set_ylabel("accuracy, percent")
        label_at_right(figure, panels[1], [(*markers[-1][:2], styles[arm]) for arm, markers in by_arm_name.items()])
        return render_figure(figure, format)


def comparison_figure(
    comparisons: Sequence[tuple[Condition, Comparison]], conditions: Sequence[Condition], *, format: str = "svg"
) -> bytes:
    """Plot the difference of each condition to its baseline, with its interval: a forest plot."""
    styles = styles_of(conditions)
    with new_figure(height=1.0 + 0.27 * len(comparisons)) as figure:
        axes = figure.subplots()
        axes.axvline(0, color=GREY, lw=1)
        axes.update_datalim([(-5, 0), (5, 0)])  # tiny differences must not fill the plot
        for y, (condition, paired) in enumerate(comparisons):
            draw_interval(axes, y, paired.difference, (paired.low, paired.high), styles[condition.arm])
            text = (
                f"{points(paired.difference)}   {paired.gained} gained, {paired.lost} lost, p {p_text(paired.holm_p)}"
            )
            axes.annotate(
                text, (1.01, y), xycoords=("axes fraction", "data"), va="center", fontsize=8, color=TEXT_COLOUR
            )
        label_rows(
            axes, [f"{styles[condition.arm].label}, {frames_text(condition.budget)}" for condition, _ in comparisons]
        )
        axes.set_xlabel(f"difference to {baseline_names(comparisons)} at the same budget, points (95% interval)")
        return render_figure(figure, format)


def _link_mark(axes: Axes, x: float, y: float, condition: Condition, view: str | None) -> None:
    """Lay a mark that can't be seen over a condition's own: in an SVG it leads to the questions behind it."""
    if view is not None and condition.rows:
        row = condition.rows[0]
        address = {"run": condition.run, "arm": row["arm"], "budget": row["budget"], "outcome": "wrong"}
        axes.scatter([x], [y], s=40, alpha=0, color=GREY, zorder=9).set_urls([f"{view}#{urlencode(address)}"])


def _draw_share(axes: Axes, y: float, share: Share, style: Style) -> None:
    draw_interval(axes, y, share.value, (share.low, share.high), style)


def _right_end(share: Share) -> float:
    """Return where a share's mark ends: at its interval's end, or at the share itself if there is no interval."""
    return share.value if math.isnan(share.high) else share.high


def _cost_axis(axes: Axes, values: Sequence[float]) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    if values and max(values) > 4 * min(values):
        axes.set_xscale("log")
        is_wide = max(values) > 100 * min(values)
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0,) if is_wide else (1.0, 2.0, 5.0)))
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        axes.set_xlim(0, 1.15 * max(values, default=1))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: amount(value)))

"""The plots of a report. Colours and markers tell the arms apart, for every eye; uniform frames are always grey."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lvqa.evaluation import Comparison, Share, accuracy, by_ability, cost
from lvqa.report.conditions import BASELINE, Cell, Published, by_arm, clean
from lvqa.report.page import rendered
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
    from matplotlib.figure import Figure

WIDTH = 9.0
"""Inches."""
INK, GREY, BAND, RULE = "#333333", "#6b7280", "#f4f5f7", "#d8dce1"
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b8860b", "#56b4e9", "#6a3d9a", "#000000")
MARKERS = "osD^vp<>"
LONGEST_LABEL = 34

STYLE: Any = {
    "font.size": 9,
    "axes.edgecolor": RULE,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 9.5,
    "axes.axisbelow": True,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "lines.markersize": 5.5,
    "svg.hashsalt": "lvqa",
    "text.parse_math": False,  # a $ in a name is a $
}


@dataclass(frozen=True, slots=True)
class Look:
    """How an arm is drawn, everywhere."""

    colour: str
    marker: str
    label: str


def looks_of(cells: Sequence[Cell]) -> dict[str, Look]:
    """Arm -> its look."""
    looks, used = {}, 0
    for place, (arm, mine) in enumerate(by_arm(cells).items()):
        grey = mine[0].method == BASELINE
        # Where the colours begin again, the markers are one further, so that no two of 64 arms look the same.
        marker = MARKERS[(place + used // len(COLOURS)) % len(MARKERS)]
        looks[arm] = Look(GREY if grey else COLOURS[used % len(COLOURS)], marker, shortened(arm))
        used += not grey
    return looks


def shortened(label: str) -> str:
    """A long name without its middle: arms differ at their ends."""
    half = (LONGEST_LABEL - 1) // 2
    return label if len(label) <= LONGEST_LABEL else f"{label[:half].rstrip()}…{label[-half:].lstrip()}"


def accuracy_figure(cells: Sequence[Cell], published: Sequence[Published] = ()) -> bytes:
    """Accuracy with its interval: by budget as curves, or a line an arm where all have one budget or arms are many."""
    budgets = sorted({cell.budget for cell in cells if cell.budget})
    looks = looks_of(cells)
    if len(budgets) > 1:
        draw = _accuracy_by_budget if len(looks) <= len(COLOURS) else _accuracy_in_panels
        return draw(cells, looks, budgets, published)
    with drawing(height=0.9 + 0.3 * (len(cells) + len(published))) as figure:
        axes = figure.subplots()
        for place, cell in enumerate(cells):
            found = accuracy(cell.rows)
            _spread(axes, place, found, looks[cell.arm])
            _annotate(axes, 100 * found.high, place, percent(found.value))
        for place, theirs in enumerate(published, len(cells)):
            value = theirs.accuracy[budgets[0]]
            axes.plot([value], [place], **_hollow(theirs, cells, looks))
            _annotate(axes, value, place, f"{value:.1f}")
        names = [f"{looks[cell.arm].label}, {frames_text(cell.budget)}" for cell in cells]
        _rows(axes, names + [f"{_published_label(theirs)}, {frames_text(budgets[0])}" for theirs in published])
        axes.margins(x=0.08)
        axes.set_xlabel("accuracy, percent (95% interval)")
        return rendered(figure, "svg")


def _accuracy_in_panels(
    cells: Sequence[Cell], looks: dict[str, Look], budgets: Sequence[int], published: Sequence[Published]
) -> bytes:
    """A panel a budget, a line an arm. What is shown no frames stands in every panel."""
    arms = list(looks)
    with drawing(height=1.0 + 0.24 * len(arms)) as figure:
        panels = figure.subplots(1, len(budgets), sharex=True, sharey=True)
        for axes, budget in zip(panels, budgets, strict=True):
            axes.set_title(frames_text(budget))
            for cell in (cell for cell in cells if cell.budget in (0, budget)):
                found, place = accuracy(cell.rows), arms.index(cell.arm)
                _spread(axes, place, found, looks[cell.arm])
                _annotate(axes, 100 * found.high, place, percent(found.value))
                for theirs in (p for p in published if p.method == cell.method and budget in p.accuracy):
                    axes.plot([theirs.accuracy[budget]], [place], **_hollow(theirs, cells, looks))
            _rows(axes, [looks[arm].label for arm in arms])
            axes.margins(x=0.12)
        figure.supxlabel("accuracy, percent (95% interval)", fontsize=9, color=INK)
        return rendered(figure, "svg")


def _accuracy_by_budget(
    cells: Sequence[Cell], looks: dict[str, Look], budgets: Sequence[int], published: Sequence[Published]
) -> bytes:
    arms = by_arm(cells)
    step = min(0.06, 0.5 * min(np.diff(np.log2(budgets))) / len(arms))
    labels: list[tuple[float, float, Look]] = []
    with drawing(height=max(4.2, 0.24 * (len(arms) + len(published)) + 1.5)) as figure:
        axes = figure.subplots()
        for place, (arm, mine) in enumerate(arms.items()):
            look = looks[arm]
            shares = [accuracy(cell.rows) for cell in mine]
            values = np.array([[100 * s.value, 100 * s.low, 100 * s.high] for s in shares]).T
            if not mine[0].budget:
                axes.axhspan(values[1, 0], values[2, 0], color=look.colour, alpha=0.08, lw=0)
                axes.axhline(values[0, 0], color=look.colour, lw=1.2, ls=(0, (5, 3)))
                labels.append((budgets[-1], values[0, 0], Look(look.colour, "", f"{look.label} (no frames)")))
                continue
            x = np.array([cell.budget for cell in mine]) * 2 ** (step * (place - (len(arms) - 1) / 2))
            _errorbar(axes, x, values[0], look, yerr=(values[0] - values[1], values[2] - values[0]), ls="-")
            labels.append((x[-1], values[0, -1], look))
        for theirs in published:
            drawn = _hollow(theirs, cells, looks)
            at = [budget for budget in theirs.accuracy if budget in budgets]
            axes.plot(at, [theirs.accuracy[budget] for budget in at], **drawn)
            labels.append((at[-1], theirs.accuracy[at[-1]], Look(drawn["color"], "", _published_label(theirs))))
        axes.set_xscale("log", base=2)
        axes.set_xticks(budgets, [str(budget) for budget in budgets])
        axes.set_xticks([], minor=True)
        axes.set_xlim(budgets[0] / 2**0.3, budgets[-1] * 2**0.3)
        axes.grid(axis="y")
        axes.set(xlabel="budget, frames", ylabel="accuracy, percent (95% interval)")
        _label_at_right(figure, axes, labels)
        return rendered(figure, "svg")


def _hollow(theirs: Published, cells: Sequence[Cell], looks: dict[str, Look]) -> dict[str, Any]:
    """A published figure has the colour of our arm of its method, and hollow markers."""
    colour = next((looks[cell.arm].colour for cell in cells if cell.method == theirs.method), INK)
    return {"color": colour, "marker": "o", "mfc": "white", "ls": ":", "lw": 1.1, "ms": 5}


def _published_label(theirs: Published) -> str:
    return shortened(f"{theirs.method} ({theirs.source.partition(',')[0]})")


def ability_figure(cells: Sequence[Cell]) -> bytes:
    """Accuracy by ability, a panel a budget. What is shown no frames stands in every panel."""
    looks = looks_of(cells)
    budgets = sorted({cell.budget for cell in cells if cell.budget}) or [0]
    shares = {(cell.arm, cell.budget): by_ability(cell.rows) for cell in cells}
    abilities = list(dict.fromkeys(ability for found in shares.values() for ability in found))
    counts = [max(found[ability].n for found in shares.values() if ability in found) for ability in abilities]
    names = [f"{shortened(clean(ability))} (n {n})" for ability, n in zip(abilities, counts, strict=True)]
    columns = 2 if len(budgets) == 4 else min(len(budgets), 3)
    lines = math.ceil(len(budgets) / columns)
    with drawing(height=0.9 + lines * (0.5 + len(abilities) * (0.22 + 0.11 * len(looks)))) as figure:
        panels = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False)
        step = 0.72 / len(looks)
        for panel in panels.flat[len(budgets) :]:
            panel.axis("off")
        for axes, budget in zip(panels.flat, budgets, strict=False):
            axes.set_title(frames_text(budget))
            for cell in cells:
                if cell.budget in (0, budget):
                    for ability, found in shares[cell.arm, cell.budget].items():
                        y = abilities.index(ability) + step * (list(looks).index(cell.arm) - (len(looks) - 1) / 2)
                        _spread(axes, y, found, looks[cell.arm])
            _rows(axes, names)
        figure.supxlabel("accuracy, percent (95% interval)", fontsize=9, color=INK)
        _legend(figure, looks)
        return rendered(figure, "svg")


def recall_figure(cells: Sequence[Cell]) -> bytes | None:
    """How often the annotated time is found, stage by stage; None if no arm looked for it."""
    looks = looks_of(cells)
    ranked = recall_by_stage(cells)
    found = {(stage, arm): recall for arm, stages in ranked.items() for stage, recall in stages.items()}
    for cell in sorted(cells, key=lambda cell: cell.budget):
        recall = selection_recall(cell)
        if recall is not None:
            found[f"shown, {frames_text(cell.budget)}", cell.arm] = recall
    found = {key: recall for key, recall in found.items() if recall.n}
    lines = list(dict.fromkeys(stage for stage, _ in found))
    present = {arm: look for arm, look in looks.items() if any(arm == other for _, other in found)}
    if not found:
        return None
    with drawing(height=1.1 + len(lines) * (0.2 + 0.1 * len(present))) as figure:
        axes = figure.subplots()
        for (stage, arm), recall in found.items():
            here = [other for other in present if (stage, other) in found]
            step = 0.72 / len(present)
            _spread(axes, lines.index(stage) + step * (here.index(arm) - (len(here) - 1) / 2), recall, looks[arm])
        _rows(axes, lines)
        axes.set_xlim(-2, 102)
        axes.set_xlabel("annotated time found, percent of questions (95% interval)")
        _legend(figure, present)
        return rendered(figure, "svg")


def cost_figure(cells: Sequence[Cell]) -> bytes:
    """Accuracy over tokens and over seconds of a question; the marker grows with the budget."""
    looks = looks_of(cells)
    budgets = sorted({cell.budget for cell in cells})
    costs = [cost(cell.rows) for cell in cells]
    measures = {
        "tokens prefilled, mean of a question": [spent.tokens_prefilled for spent in costs],
        "seconds, mean of a question": [sum(spent.seconds.values()) for spent in costs],
    }
    with drawing(height=max(3.8, 0.24 * len(looks) + 1.3)) as figure:
        panels = figure.subplots(1, 2, sharey=True)
        for axes, (name, values) in zip(panels, measures.items(), strict=True):
            places: dict[str, list[tuple[float, float, float]]] = {}
            for cell, value in zip(cells, values, strict=True):
                if value > 0:  # not NaN, and on a scale of powers
                    size = 25.0 + 22 * budgets.index(cell.budget)
                    places.setdefault(cell.arm, []).append((value, 100 * accuracy(cell.rows).value, size))
            for arm, mine in places.items():
                x, y, sizes = np.array(mine).T
                colour, marker = looks[arm].colour, looks[arm].marker
                axes.plot(x, y, color=colour, lw=1, alpha=0.6)
                axes.scatter(x, y, s=sizes, color=colour, marker=marker, lw=0.6, edgecolor="white", zorder=3)
            _cost_axis(axes, [value for value in values if value > 0])
            axes.grid()
            axes.set_xlabel(name)
        panels[0].set_ylabel("accuracy, percent")
        _label_at_right(figure, panels[1], [(*mine[-1][:2], looks[arm]) for arm, mine in places.items()])
        return rendered(figure, "svg")


def comparison_figure(compared: Sequence[tuple[Cell, Comparison]], cells: Sequence[Cell]) -> bytes:
    """A forest plot: each cell's difference to its baseline, with its interval."""
    looks = looks_of(cells)
    with drawing(height=1.0 + 0.27 * len(compared)) as figure:
        axes = figure.subplots()
        axes.axvline(0, color=GREY, lw=1)
        axes.update_datalim([(-5, 0), (5, 0)])  # differences of nothing are no landscape
        for place, (cell, found) in enumerate(compared):
            _spread(axes, place, (found.difference, found.low, found.high), looks[cell.arm])
            said = f"{points(found.difference)}   {found.gained} gained, {found.lost} lost, p {p_text(found.p_value)}"
            axes.annotate(said, (1.01, place), xycoords=("axes fraction", "data"), va="center", fontsize=8, color=INK)
        _rows(axes, [f"{looks[cell.arm].label}, {frames_text(cell.budget)}" for cell, _ in compared])
        axes.set_xlabel(f"difference to {baseline_names(compared)} at the same budget, points (95% interval)")
        return rendered(figure, "svg")


# --- pieces ----------------------------------------------------------------------------------------------------------


@contextmanager
def drawing(*, height: float) -> Iterator[Figure]:
    """A figure of so many inches. Letters that the font lacks are drawn as boxes, without a warning."""
    import warnings

    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")
        yield Figure(figsize=(WIDTH, height), layout="constrained", facecolor="white")


def _spread(axes: Axes, y: float, found: Share | tuple[float, float, float], look: Look) -> None:
    """A share or (value, low, high) with its interval, on the line y; an interval that is not known is left out."""
    value, low, high = found if isinstance(found, tuple) else (found.value, found.low, found.high)
    if not math.isnan(low):
        axes.plot([100 * low, 100 * high], [y, y], color=look.colour, lw=1.6, alpha=0.55, solid_capstyle="butt")
    axes.plot([100 * value], [y], color=look.colour, marker=look.marker, mec="white", mew=0.6, ls="none")


def _errorbar(axes: Axes, x: Any, y: Any, look: Look, **options: Any) -> None:
    axes.errorbar(x, y, color=look.colour, marker=look.marker, mec="white", mew=0.6, lw=1.5, elinewidth=1, **options)


def _rows(axes: Axes, names: Sequence[str]) -> None:
    """Names down the left side, first on top, every other line on a band."""
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")
    for place in range(0, len(names), 2):
        axes.axhspan(place - 0.5, place + 0.5, color=BAND, lw=0, zorder=0)


def _annotate(axes: Axes, x: float, y: float, text: str) -> None:
    axes.annotate(text, (x, y), (6, 0), textcoords="offset points", va="center")


def _legend(figure: Figure, looks: dict[str, Look]) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=look.colour, marker=look.marker, lw=1.6, mec="white", label=look.label)
        for look in looks.values()
    ]
    columns = max(1, 105 // (max(len(look.label) for look in looks.values()) + 8))
    figure.legend(handles=handles, loc="outside upper left", ncols=min(columns, len(handles)), frameon=False)


def _cost_axis(axes: Axes, values: Sequence[float]) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    if values and max(values) > 4 * min(values):
        axes.set_xscale("log")
        wide = max(values) > 100 * min(values)
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0,) if wide else (1.0, 2.0, 5.0)))
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        axes.set_xlim(0, 1.15 * max(values, default=1))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: amount(value)))


def _label_at_right(figure: Figure, axes: Axes, labels: Sequence[tuple[float, float, Look]]) -> None:
    """(x, y, look) -> the names beside the axes, at the height of their points, moved apart where they would touch."""
    if not labels:
        return
    figure.draw_without_rendering()  # settles the scale
    low, high = axes.get_ylim()
    axes.set_ylim(low, high)
    line = 12 / 72 * figure.dpi / axes.bbox.height * (high - low)
    order = sorted(range(len(labels)), key=lambda place: labels[place][1])
    heights = _moved_apart([labels[place][1] for place in order], line)
    for place, height in zip(order, heights, strict=True):
        x, y, look = labels[place]
        axes.annotate(
            look.label,
            (x, y),
            (1.03, height),
            xycoords="data",
            textcoords=("axes fraction", "data"),
            va="center",
            color=look.colour,
            arrowprops={
                "arrowstyle": "-",
                "color": look.colour,
                "lw": 0.6,
                "alpha": 0.5,
                "relpos": (0, 0.5),
                "shrinkA": 1,
                "shrinkB": 4,
            },
        )


def _moved_apart(heights: Sequence[float], gap: float) -> list[float]:
    """Ascending heights, each at least `gap` over the one before, and together no farther off than they must be."""
    groups: list[list[float]] = []  # each: its members' wanted heights less their places in the group
    for height in heights:
        groups.append([height])
        while len(groups) > 1 and _top(groups[-2], gap) + gap > _bottom(groups[-1], gap):
            last = groups.pop()
            groups[-1] += last
    return [_bottom(group, gap) + gap * place for group in groups for place in range(len(group))]


def _bottom(group: Sequence[float], gap: float) -> float:
    return float(np.mean(group)) - gap * (len(group) - 1) / 2


def _top(group: Sequence[float], gap: float) -> float:
    return float(np.mean(group)) + gap * (len(group) - 1) / 2

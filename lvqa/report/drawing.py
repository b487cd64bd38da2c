"""The look of all plots, and how they draw intervals, rows and labels.

Colours and markers tell arms apart, also for colour-blind readers; uniform frames are always grey.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lvqa.report.conditions import BASELINE, Condition, by_arm

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 9.0
"""The width of a figure in inches."""
TEXT_COLOUR, GREY, BAND_COLOUR, LINE_COLOUR = "#333333", "#6b7280", "#f4f5f7", "#d8dce1"
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b8860b", "#56b4e9", "#6a3d9a", "#000000")
MARKERS = "osD^vp<>"
MAX_LABEL_LENGTH = 34
"""A longer name of an arm is abbreviated."""

MATPLOTLIB_SETTINGS: Any = {
    "font.size": 9,
    "axes.edgecolor": LINE_COLOUR,
    "axes.labelcolor": TEXT_COLOUR,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 9.5,
    "axes.axisbelow": True,
    "xtick.color": TEXT_COLOUR,
    "ytick.color": TEXT_COLOUR,
    "grid.color": LINE_COLOUR,
    "grid.linewidth": 0.6,
    "lines.markersize": 5.5,
    "svg.hashsalt": "lvqa",
    "text.parse_math": False,  # a $ in a name is a $
}


@dataclass(frozen=True, slots=True)
class Style:
    """The style of an arm in all plots of a report."""

    colour: str
    marker: str
    label: str


def styles_of(conditions: Sequence[Condition]) -> dict[str, Style]:
    """Return arm -> its style. No two of 64 arms have the same."""
    styles, num_coloured = {}, 0
    for i, (arm, of_arm) in enumerate(by_arm(conditions).items()):
        is_grey = of_arm[0].method == BASELINE
        # The markers are shifted by one each time the colours start again.
        marker = MARKERS[(i + num_coloured // len(COLOURS)) % len(MARKERS)]
        styles[arm] = Style(GREY if is_grey else COLOURS[num_coloured % len(COLOURS)], marker, abbreviate(arm))
        num_coloured += not is_grey
    return styles


def abbreviate(label: str) -> str:
    """Return a long name without its middle, since names of arms differ at their ends."""
    half = (MAX_LABEL_LENGTH - 1) // 2
    return label if len(label) <= MAX_LABEL_LENGTH else f"{label[:half].rstrip()}…{label[-half:].lstrip()}"


@contextmanager
def new_figure(*, height: float) -> Iterator[Figure]:
    """Yield a figure of this height in inches. Characters that the font lacks are boxes, without a warning."""
    import warnings

    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(MATPLOTLIB_SETTINGS), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")
        yield Figure(figsize=(WIDTH, height), layout="constrained", facecolor="white")


def draw_interval(axes: Axes, y: float, value: float, interval: tuple[float, float], style: Style) -> None:
    """Draw a value with its interval in the row y; all are shares, drawn in percent. An unknown interval is NaN."""
    low, high = interval
    if not math.isnan(low):
        axes.plot([100 * low, 100 * high], [y, y], color=style.colour, lw=1.6, alpha=0.55, solid_capstyle="butt")
    axes.plot([100 * value], [y], color=style.colour, marker=style.marker, mec="white", mew=0.6, ls="none")


def draw_curve(axes: Axes, x: Any, y: Any, style: Style, **options: Any) -> None:
    """Draw a curve with markers; `options` are those of matplotlib's errorbar."""
    axes.errorbar(x, y, color=style.colour, marker=style.marker, mec="white", mew=0.6, lw=1.5, elinewidth=1, **options)


def label_rows(axes: Axes, names: Sequence[str]) -> None:
    """Write names at the left side, the first one on top, with a band behind every other row."""
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")
    for i in range(0, len(names), 2):
        axes.axhspan(i - 0.5, i + 0.5, color=BAND_COLOUR, lw=0, zorder=0)


def annotate_value(axes: Axes, x: float, y: float, text: str) -> None:
    """Write a text to the right of a point."""
    axes.annotate(text, (x, y), (6, 0), textcoords="offset points", va="center")


def add_legend(figure: Figure, styles: dict[str, Style]) -> None:
    """Add a legend of the arms above the plots."""
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=style.colour, marker=style.marker, lw=1.6, mec="white", label=style.label)
        for style in styles.values()
    ]
    columns = max(1, 105 // (max(len(style.label) for style in styles.values()) + 8))
    figure.legend(handles=handles, loc="outside upper left", ncols=min(columns, len(handles)), frameon=False)


def label_at_right(figure: Figure, axes: Axes, labels: Sequence[tuple[float, float, Style]]) -> None:
    """Write names to the right of the axes, at the height of their points, and spread them where they would overlap.

    Args:
        figure: The figure of the axes.
        axes: The axes with the points.
        labels: (x, y, style) of each point; the style has the name.
    """
    if not labels:
        return
    figure.draw_without_rendering()  # fixes the scale
    low, high = axes.get_ylim()
    axes.set_ylim(low, high)
    line = 12 / 72 * figure.dpi / axes.bbox.height * (high - low)
    order = sorted(range(len(labels)), key=lambda i: labels[i][1])
    heights = _spread_apart([labels[i][1] for i in order], line)
    for i, height in zip(order, heights, strict=True):
        x, y, style = labels[i]
        axes.annotate(
            style.label,
            (x, y),
            (1.03, height),
            xycoords="data",
            textcoords=("axes fraction", "data"),
            va="center",
            color=style.colour,
            arrowprops={
                "arrowstyle": "-",
                "color": style.colour,
                "lw": 0.6,
                "alpha": 0.5,
                "relpos": (0, 0.5),
                "shrinkA": 1,
                "shrinkB": 4,
            },
        )


def _spread_apart(heights: Sequence[float], gap: float) -> list[float]:
    """Return ascending heights that are at least `gap` apart and otherwise as close to the given ones as possible."""
    groups: list[list[float]] = []  # the given heights of labels that touch each other
    for height in heights:
        groups.append([height])
        while len(groups) > 1 and _top(groups[-2], gap) + gap > _bottom(groups[-1], gap):
            upper = groups.pop()
            groups[-1] += upper
    return [_bottom(group, gap) + gap * i for group in groups for i in range(len(group))]


def _bottom(group: Sequence[float], gap: float) -> float:
    return float(np.mean(group)) - gap * (len(group) - 1) / 2


def _top(group: Sequence[float], gap: float) -> float:
    return float(np.mean(group)) + gap * (len(group) - 1) / 2

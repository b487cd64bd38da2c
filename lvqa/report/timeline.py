"""The scores of an answer over the time of the video, as a plot in light or dark colours."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lvqa.records import Answer, Video
from lvqa.report.answers import Span, clock

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True, slots=True)
class Theme:
    """The colours of a picture."""

    background: str
    text: str
    muted: str
    line: str
    rerank: str
    embedding: str
    inside: str
    frames: str


LIGHT = Theme("#ffffff", "#1f2328", "#59636e", "#d1d9e0", "#2563a8", "#8a939d", "#1f7a45", "#b3261e")
DARK = Theme("#0d1117", "#e6edf3", "#9198a1", "#3d444d", "#5aa2ee", "#8b949e", "#4cc27c", "#ff7b72")

TICK_STEPS_SECONDS = (1, 5, 10, 15, 30, 60, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400)
"""The distances of ticks on the axis of time: round values on a clock."""
MAX_TICKS = 10
"""So many ticks of time follow the first one at most."""


def tick_step(duration_seconds: float, max_ticks: int) -> int:
    """Return the smallest round distance of ticks with which at most `max_ticks` follow the one at 0:00."""
    steps = (step for step in TICK_STEPS_SECONDS if duration_seconds <= step * max_ticks)
    return next(steps, TICK_STEPS_SECONDS[-1] * math.ceil(duration_seconds / TICK_STEPS_SECONDS[-1] / max_ticks))


def set_time_axis(axes: Axes, duration_seconds: float) -> None:
    """Make the x-axis one of time: 0:00 to the end of the video, with ticks at round values."""
    from matplotlib.ticker import FuncFormatter, MultipleLocator

    axes.set_xlim(0, duration_seconds)
    axes.xaxis.set_major_locator(MultipleLocator(tick_step(duration_seconds, MAX_TICKS)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda seconds, _: clock(max(0, seconds))))


@contextmanager
def themed_figure(theme: Theme, *, width: float, height: float) -> Iterator[Figure]:
    """Yield a figure of this size in inches. Characters that the font lacks are boxes, without a warning."""
    import warnings

    import matplotlib
    from matplotlib.figure import Figure

    # A $ in a question is a $, and the same plot is the same file.
    settings: Any = {"text.parse_math": False, "svg.hashsalt": "lvqa", "text.color": theme.text}
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")
        yield Figure(figsize=(width, height), facecolor=theme.background)


def draw_timeline(
    axes: Axes,
    answer: Answer,
    video: Video,
    *,
    theme: Theme = LIGHT,
    truth_seconds: Span | None = None,
    comparison: Answer | None = None,
) -> None:
    """Draw the scores of the clips over time, and the frames as ticks below.

    Rerank scores are bars from 0 to 1; embedding scores are a line on a scale of its own.

    Args:
        axes: What to draw on.
        answer: The answer with its clips and frames.
        video: The video that the question is about.
        theme: The colours.
        truth_seconds: The time at which the answer can be seen, if that is known.
        comparison: Another answer to the question; its frames are a second row of ticks.
    """
    set_time_axis(axes, video.duration_seconds)
    bottom = -0.16 if comparison is None else -0.3
    if answer.evidence:
        axes.set(ylim=(bottom, 1.03), yticks=[0, 0.5, 1])
    else:
        axes.set(ylim=(bottom, 0), yticks=[])
    axes.set_facecolor(theme.background)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines["left"].set_visible(bool(answer.evidence))
    axes.spines[["bottom", "left"]].set_color(theme.line)
    axes.tick_params(labelsize=9, color=theme.line, labelcolor=theme.muted)
    if truth_seconds is not None:
        axes.axvspan(*truth_seconds, color=theme.inside, alpha=0.3, lw=0, label="the evidence, as annotated")
        # Bars may hide the span, and in a long video it is thin: there is a mark above the plot too.
        axes.axvspan(*truth_seconds, ymin=1.01, ymax=1.06, color=theme.inside, lw=2, clip_on=False)
    _draw_rerank_scores(axes, answer, theme)
    _draw_frame_ticks(axes, answer, -0.08, theme.frames, "selected frames")
    if comparison is not None:
        _draw_frame_ticks(axes, comparison, -0.22, theme.muted, f"{comparison.method} frames")
    if answer.evidence:
        _draw_embedding_scores(axes, answer, theme)


def _draw_rerank_scores(axes: Axes, answer: Answer, theme: Theme) -> None:
    reranked = [candidate for candidate in answer.evidence if candidate.rerank_score is not None]
    if not reranked:
        return
    axes.bar(
        [candidate.start_seconds for candidate in reranked],
        [candidate.rerank_score or 0.0 for candidate in reranked],
        [candidate.end_seconds - candidate.start_seconds for candidate in reranked],
        align="edge",
        color=theme.rerank,
        lw=0.8,
        label="rerank score",
    )
    axes.set_ylabel("rerank score", color=theme.rerank, fontsize=9)


def _draw_frame_ticks(axes: Axes, answer: Answer, y: float, colour: str, label: str) -> None:
    axes.plot(answer.frames, [y] * len(answer.frames), "|", color=colour, ms=9, mew=1.4, clip_on=False, label=label)


def _draw_embedding_scores(axes: Axes, answer: Answer, theme: Theme) -> None:
    in_time = sorted(answer.evidence, key=lambda candidate: candidate.start_seconds)
    edges = [*(candidate.start_seconds for candidate in in_time), in_time[-1].end_seconds]
    right_axes = axes.twinx()
    right_axes.stairs(
        [candidate.embed_score for candidate in in_time],
        edges,
        color=theme.embedding,
        lw=1.1,
        baseline=None,
        label="embedding score",
    )
    right_axes.set_ylabel("embedding score", color=theme.muted, fontsize=9)
    right_axes.tick_params(labelsize=9, color=theme.line, labelcolor=theme.muted)
    right_axes.margins(y=0.25)
    right_axes.spines[["top", "left", "bottom"]].set_visible(False)
    right_axes.spines["right"].set_color(theme.line)


def add_timeline_legend(figure: Figure, theme: Theme, *, num_columns: int, left: float = 0, top: float = 1) -> None:
    """Add a legend of all that the figure's axes draw, its corner at these fractions of the figure."""
    entries = [axes.get_legend_handles_labels() for axes in figure.axes]
    figure.legend(
        [handle for handles, _ in entries for handle in handles],
        [label for _, labels in entries for label in labels],
        loc="upper left",
        bbox_to_anchor=(left, top),
        borderaxespad=0,
        borderpad=0,
        ncols=num_columns,
        fontsize=9,
        frameon=False,
        labelcolor=theme.muted,
        handlelength=1.4,
        columnspacing=1.6,
    )

"""An answer as one picture: the scores over time, and below them the selected frames, grouped by clip."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lvqa.records import Answer, Video, counted
from lvqa.report.answers import (
    ClipFrames,
    Span,
    answer_text,
    clock,
    frames_by_clip,
    num_inside,
    scores_text,
    span_text,
    thumbnails,
)
from lvqa.report.page import render_figure, write_file
from lvqa.report.timeline import LIGHT, Theme, add_timeline_legend, draw_timeline, themed_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH, MARGIN, GAP = 1200 / 110, 0.35, 0.14
"""Inches: a figure is saved with 110 dots an inch, so a sheet is 1200 pixels wide."""
MAX_FRAME_HEIGHT = 1.9
FRAMES_IN_A_ROW = 4
COMPARISON_FRAMES_IN_A_ROW = 8


def write_contact_sheet(
    path: Path,
    answer: Answer,
    video: Video,
    *,
    title: str,
    subtitle: str,
    truth_seconds: Span | None = None,
    comparison: Answer | None = None,
    theme: Theme = LIGHT,
) -> None:
    """Write an answer as a PNG: the scores over time, and below them the selected frames with their times.

    Frames are grouped by the clip that they are from, the best clip first, four frames to a row.

    Args:
        path: Where the picture is written.
        answer: The answer.
        video: The video that the question is about; its frames are decoded again.
        title: The first line of the picture.
        subtitle: The lines below the title.
        truth_seconds: The time at which the answer can be seen; the frames in it and those outside of it are marked.
        comparison: Another method's answer to the same question; its frames are shown in small at the bottom.
        theme: The colours.

    Raises:
        LvqaError: If the frames cannot be read, or the picture cannot be written.
    """
    sheet = Sheet(theme)
    for line in textwrap.wrap(title, 78, max_lines=5, placeholder=" ...") or [""]:
        sheet.add_text(line, size=14.5, height=0.3, weight="bold")
    for line in [line for paragraph in subtitle.splitlines() for line in textwrap.wrap(paragraph, 115, max_lines=6)]:
        sheet.add_text(line, size=10.5, height=0.23, colour=theme.muted)
    sheet.add_timeline(answer, video, truth_seconds, comparison)
    sheet.add_text(frames_text(answer, truth_seconds), size=11.5, height=0.34, weight="bold")
    pictures = pictures_of(video, answer, comparison)
    for row in rows_of_clips(frames_by_clip(answer), FRAMES_IN_A_ROW):
        sheet.add_clips(row, pictures, truth_seconds)
    if comparison is not None:
        sheet.add_space(0.1)
        sheet.add_text(frames_text(comparison, truth_seconds), size=11.5, height=0.34, weight="bold")
        sheet.add_frames(comparison.frames, pictures, truth_seconds, COMPARISON_FRAMES_IN_A_ROW)
    sheet.write(path)


def frames_text(answer: Answer, truth_seconds: Span | None) -> str:
    """Return the heading of an answer's frames: "freeret: B. red (correct) · 6 of 16 frames in the evidence"."""
    frames = counted(len(answer.frames), "frame")
    if truth_seconds is not None:
        frames = f"{num_inside(answer, truth_seconds)} of {frames} in the evidence"
    return f"{answer.method}: {textwrap.shorten(answer_text(answer), 70, placeholder=' ...')} · {frames}"


def pictures_of(video: Video, *answers: Answer | None) -> dict[float, np.ndarray]:
    """Return time -> picture for the frames of all answers."""
    times = sorted({seconds for answer in answers if answer is not None for seconds in answer.frames})
    return dict(zip(times, thumbnails(video, times, max_height=240), strict=True))


@dataclass(frozen=True, slots=True)
class ClipRun:
    """The frames of one clip that stand in one row, and where."""

    column: int
    times_seconds: tuple[float, ...]
    clip: ClipFrames | None
    """The clip to name above the frames; None in the rows that go on with a clip."""


def rows_of_clips(clips: Iterable[ClipFrames], num_columns: int) -> list[list[ClipRun]]:
    """Lay clips out in rows of so many frames. Clips share a row where they fit; a large one takes several rows."""
    rows: list[list[ClipRun]] = []
    num_free = 0
    for clip in clips:
        times = clip.times_seconds
        for i in range(0, len(times), num_columns):
            run = times[i : i + num_columns]
            if i > 0 or len(run) > num_free:
                rows.append([])
                num_free = num_columns
            rows[-1].append(ClipRun(num_columns - num_free, run, clip if i == 0 else None))
            num_free -= len(run)
    return rows


@dataclass(slots=True)
class Sheet:
    """A picture that is filled from top to bottom. All lengths are inches."""

    theme: Theme
    width: float = WIDTH
    height: float = MARGIN * 0.8
    """How high the picture is with all that was added."""
    _draw: list[Callable[[Figure], object]] = field(default_factory=list)

    def add_space(self, height: float) -> None:
        """Leave some room."""
        self.height += height

    def add_text(
        self, text: str, *, size: float, height: float, colour: str = "", weight: str = "normal", x: float = MARGIN
    ) -> None:
        """Add one line of text, and go on below it."""
        self._text(x, self.height, text, size=size, colour=colour or self.theme.text, weight=weight)
        self.height += height

    def add_timeline(self, answer: Answer, video: Video, truth_seconds: Span | None, comparison: Answer | None) -> None:
        """Add the scores over time, with their legend above."""
        top, plot_height = self.height + 0.38, 0.3 if comparison is None else 0.5
        plot_height += 1.6 if answer.evidence else 0

        def draw(figure: Figure) -> None:
            axes = self._axes(figure, MARGIN + 0.45, top, self.width - 2 * MARGIN - 0.95, plot_height)
            draw_timeline(axes, answer, video, theme=self.theme, truth_seconds=truth_seconds, comparison=comparison)
            add_timeline_legend(figure, self.theme, num_columns=5, left=MARGIN / self.width, top=self._y(top - 0.33))

        self._draw.append(draw)
        self.height = top + plot_height + 0.45

    def add_clips(
        self,
        row: Iterable[ClipRun],
        pictures: dict[float, np.ndarray],
        truth_seconds: Span | None,
        num_columns: int = FRAMES_IN_A_ROW,
    ) -> None:
        """Add a row of clips: their times and scores, and their frames below."""
        runs = list(row)
        width, height = self._frame_size(pictures, num_columns)
        top = self.height
        if any(run.clip is not None and run.clip.candidate is not None for run in runs):
            top += 0.42
        for run in runs:
            x = MARGIN + run.column * (width + GAP)
            if run.clip is not None and run.clip.candidate is not None:
                candidate = run.clip.candidate
                self._text(x, self.height, f"{run.clip.rank}.  {span_text(candidate)}", size=10, weight="bold")
                self._text(x, self.height + 0.2, scores_text(candidate), size=9, colour=self.theme.muted)
            for i, seconds in enumerate(run.times_seconds):
                self._frame(x + i * (width + GAP), top, (width, height), seconds, pictures[seconds], truth_seconds)
        self.height = top + height + 0.34

    def add_frames(
        self,
        times_seconds: tuple[float, ...],
        pictures: dict[float, np.ndarray],
        truth_seconds: Span | None,
        num_columns: int,
    ) -> None:
        """Add frames in rows of so many, without their clips."""
        width, height = self._frame_size(pictures, num_columns)
        for i, seconds in enumerate(times_seconds):
            row, column = divmod(i, num_columns)
            x, y = MARGIN + column * (width + GAP), self.height + row * (height + 0.3)
            self._frame(x, y, (width, height), seconds, pictures[seconds], truth_seconds)
        self.height += -(-len(times_seconds) // num_columns) * (height + 0.3)

    def write(self, path: Path) -> None:
        """Draw everything and write the picture as a PNG."""
        self.height += MARGIN * 0.4
        with themed_figure(self.theme, width=self.width, height=self.height) as figure:
            for draw in self._draw:
                draw(figure)
            write_file(path, render_figure(figure, "png"))

    def _y(self, inches: float) -> float:
        """Return how far from the bottom, as a fraction of the height, a distance from the top is."""
        return 1 - inches / self.height

    def _text(self, x: float, y: float, text: str, *, size: float, colour: str = "", weight: str = "normal") -> None:
        self._draw.append(
            lambda figure: figure.text(
                x / self.width,
                self._y(y),
                text,
                fontsize=size,
                color=colour or self.theme.text,
                fontweight=weight,
                va="top",
            )
        )

    def _axes(self, figure: Figure, x: float, y: float, width: float, height: float) -> Axes:
        return figure.add_axes((x / self.width, self._y(y + height), width / self.width, height / self.height))

    def _frame_size(self, pictures: dict[float, np.ndarray], num_columns: int) -> tuple[float, float]:
        """Return the width and height of a frame in a row of so many."""
        width = (self.width - 2 * MARGIN - (num_columns - 1) * GAP) / num_columns
        rows, columns = next(iter(pictures.values())).shape[:2] if pictures else (9, 16)
        return width, min(width * rows / columns, MAX_FRAME_HEIGHT)

    def _frame(
        self,
        x: float,
        y: float,
        size: tuple[float, float],
        seconds: float,
        pixels: np.ndarray,
        truth_seconds: Span | None,
    ) -> None:
        """Add a frame with its time below. With a truth, a green frame is inside, and others are named."""
        is_inside = truth_seconds is not None and truth_seconds[0] <= seconds < truth_seconds[1]
        is_outside = truth_seconds is not None and not is_inside

        def draw(figure: Figure) -> None:
            axes = self._axes(figure, x, y, *size)
            axes.imshow(pixels, aspect="equal", interpolation="antialiased")
            axes.set(xticks=[], yticks=[], anchor="NW")
            axes.spines[:].set(color=self.theme.inside if is_inside else self.theme.line, lw=3 if is_inside else 1)

        self._draw.append(draw)
        outside = ", outside the evidence" if size[0] > 2 else ", outside"
        caption = clock(seconds) + (outside if is_outside else "")
        colour = self.theme.inside if is_inside else self.theme.muted
        self._text(x, y + size[1] + 0.05, caption, size=9, colour=colour, weight="bold" if is_inside else "normal")

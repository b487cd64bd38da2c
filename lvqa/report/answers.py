"""Answers as pictures and pages: the selected frames, and the scores over time above them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lvqa.image import read_image
from lvqa.records import Answer, Candidate, Video
from lvqa.report.page import data_url, render_figure, render_page, write_file
from lvqa.video import read_frames

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Span = tuple[float, float]
"""The start and the end of a time span, in seconds."""

BLUE, GREY, GREEN, RED = "#2563a8", "#9aa3ad", "#2e8b57", "#c0392b"
THUMBNAIL_HEIGHT = 180


def clock(seconds: float) -> str:
    """Return a time as a video player displays it: 725 -> "12:05", 3725 -> "1:02:05"."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def span_text(candidate: Candidate) -> str:
    """Return the start and end of a candidate: "12:05-12:21"."""
    return f"{clock(candidate.clip.start_seconds)}-{clock(candidate.clip.end_seconds)}"


def write_page(path: Path, answer: Answer, video: Video, *, evidence: Sequence[Candidate]) -> None:
    """Write an answer as one HTML file that needs no other file.

    It contains the question with its picture, the answer, the options, the scores over time, the frames, the evidence
    and the cost.

    Args:
        path: Where the page is written.
        answer: The answer.
        video: The video that the question is about; its frames are decoded again.
        evidence: The candidates to list, best first.

    Raises:
        LvqaError: If the frames or the picture of the question cannot be read, or the page cannot be written.
    """
    image = answer.question.image
    pictures = [_jpeg(pixels) for pixels in _thumbnails(video, answer.frames)]
    html = render_page(
        _PAGE,
        answer=answer,
        image=None if image is None else _jpeg(read_image(image, size_of=_thumbnail_size)),
        video=video,
        evidence=evidence,
        options=list(zip(answer.question.letters, answer.question.options, answer.option_scores, strict=False)),
        frames=list(zip(map(clock, answer.frames), pictures, strict=True)),
        plot=_score_svg(answer, video) if answer.evidence or answer.frames else "",
        clock=clock,
        span=span_text,
        seconds=sum(answer.seconds.values()),
    )
    write_file(path, html)


def write_contact_sheet(
    path: Path, answer: Answer, video: Video, *, title: str, subtitle: str, truth_seconds: Span | None = None
) -> None:
    """Write an answer as a PNG: the scores over time, and below them the selected frames with their times.

    Args:
        path: Where the picture is written.
        answer: The answer.
        video: The video that the question is about; its frames are decoded again.
        title: The first line of the picture.
        subtitle: The second line of the picture.
        truth_seconds: The time at which the answer can be seen; it and the frames in it are marked in green.

    Raises:
        LvqaError: If the frames cannot be read, or the picture cannot be written.
    """
    from matplotlib.figure import Figure

    columns = 4 if len(answer.frames) <= 16 else 8
    rows = max(1, math.ceil(len(answer.frames) / columns))
    frame_width = 10 / columns
    frame_height = frame_width * video.height / video.width + 0.22
    figure = Figure(figsize=(10.6, 3.5 + rows * frame_height), layout="constrained", facecolor="white")
    top, bottom = np.ravel(figure.subfigures(2, 1, height_ratios=[3.5, rows * frame_height], squeeze=False))
    top.suptitle(title, x=0.012, ha="left", fontsize=13, fontweight="bold")
    axes = top.subplots()
    axes.set_title(subtitle, loc="left", fontsize=10, color="#444444")
    _draw_scores(axes, answer, video, truth_seconds)
    panels = np.ravel(bottom.subplots(rows, columns, squeeze=False))
    for panel in panels:
        panel.axis("off")
    for panel, seconds, pixels in zip(panels, answer.frames, _thumbnails(video, answer.frames), strict=False):
        is_inside = truth_seconds is not None and truth_seconds[0] <= seconds < truth_seconds[1]
        _draw_frame(panel, pixels, clock(seconds), is_marked=is_inside)
    write_file(path, render_figure(figure, "png"))


def _draw_frame(panel: Axes, pixels: np.ndarray, caption: str, *, is_marked: bool) -> None:
    panel.axis("on")
    panel.imshow(pixels, aspect="equal", interpolation="antialiased")
    panel.set_xticks([])
    panel.set_yticks([])
    for spine in panel.spines.values():
        spine.set_color(GREEN if is_marked else "#dddddd")
        spine.set_linewidth(4 if is_marked else 1)
    panel.set_xlabel(caption, fontsize=9, labelpad=2, color=GREEN if is_marked else "#333333")


def _draw_scores(axes: Axes, answer: Answer, video: Video, truth_seconds: Span | None) -> None:
    """Draw rerank scores as steps from 0 to 1, embedding scores as a line on its own scale, and frames as ticks."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    if truth_seconds is not None:
        axes.axvspan(*truth_seconds, color=GREEN, alpha=0.25, lw=0, label="where the answer is")
    in_time = sorted(answer.evidence, key=lambda candidate: candidate.clip.start_seconds)
    edges = [candidate.clip.start_seconds for candidate in in_time] + [c.clip.end_seconds for c in in_time[-1:]]
    reranked = [math.nan if c.rerank_score is None else c.rerank_score for c in in_time]
    if in_time and not all(map(math.isnan, reranked)):
        axes.stairs(reranked, edges, fill=True, color=BLUE, alpha=0.75, lw=0, label="rerank score")
    axes.plot(
        answer.frames,
        [-0.07] * len(answer.frames),
        "|",
        color=RED,
        ms=11,
        mew=1.6,
        clip_on=False,
        label="selected frames",
    )
    axes.set(xlim=(0, video.duration_seconds), ylim=(-0.14, 1.03), yticks=[0, 0.5, 1])
    axes.xaxis.set_major_formatter(FuncFormatter(lambda seconds, _: clock(seconds)))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=10, steps=[1, 1.2, 1.5, 1.8, 2, 2.4, 3, 6, 9, 10]))
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=9)
    axes.set_xlabel("time in the video", fontsize=9)
    handles, labels = axes.get_legend_handles_labels()
    if in_time:
        axes.set_ylabel("rerank score", color=BLUE, fontsize=9)
        right_axes = axes.twinx()
        right_axes.stairs(
            [c.embed_score for c in in_time], edges, color=GREY, lw=1.2, baseline=None, label="embedding score"
        )
        right_axes.set_ylabel("embedding score (cosine)", color=GREY, fontsize=9)
        right_axes.tick_params(labelsize=9, colors=GREY)
        right_axes.margins(y=0.25)
        right_axes.spines[["top", "left"]].set_visible(False)
        more_handles, more_labels = right_axes.get_legend_handles_labels()
        handles, labels = handles + more_handles, labels + more_labels
    axes.legend(
        handles, labels, loc="lower right", bbox_to_anchor=(1, 1), ncols=4, fontsize=8.5, frameon=False, borderpad=0
    )


def _score_svg(answer: Answer, video: Video) -> str:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 2.8), layout="constrained", facecolor="white")
    _draw_scores(figure.subplots(), answer, video, answer.question.evidence_seconds)
    return data_url(render_figure(figure, "svg"), "image/svg+xml")


def _thumbnails(video: Video, times_seconds: Sequence[float]) -> list[np.ndarray]:
    """Return small pictures of the frames at these times, each (height, width, 3) uint8."""
    height, width = _thumbnail_size(video.height, video.width)
    batches = read_frames(video, times_seconds, height=height, width=width)
    return [pixels for batch in batches for pixels in batch.pixels]


def _thumbnail_size(height: int, width: int) -> tuple[int, int]:
    """Return the height and width of a thumbnail with the same aspect ratio."""
    thumbnail_height = min(THUMBNAIL_HEIGHT, height)
    return thumbnail_height, max(1, round(thumbnail_height * width / height))


def _jpeg(pixels: np.ndarray) -> str:
    import cv2

    is_encoded, data = cv2.imencode(".jpg", pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85])
    assert is_encoded
    return data_url(data.tobytes(), "image/jpeg")


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ answer.question.text|truncate(80) }}</title>
<style>
 body { font: 16px/1.5 system-ui, sans-serif; color: #222; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
 h1 { font-size: 1.35rem; line-height: 1.3; margin: 0 0 .3rem; overflow-wrap: anywhere; }
 h2 { font-size: 1rem; margin: 2rem 0 .5rem; }
 .answer { font-size: 1.35rem; padding: .7rem 1rem; background: #eef4fb; border-left: .3rem solid #2563a8; }
 .answer { overflow-wrap: anywhere; }
 .small { color: #666; font-size: .85rem; overflow-wrap: anywhere; }
 table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
 th, td { text-align: left; padding: .2rem 1.2rem .2rem 0; border-bottom: 1px solid #e5e5e5; }
 td.bar { width: 14rem; } td.bar div { background: #2563a8; height: .7rem; min-width: 1px; }
 tr.chosen td { font-weight: 600; }
 figure { display: inline-block; width: 11.6rem; margin: 0 .4rem .7rem 0; vertical-align: top; }
 figure img { width: 100%; display: block; border-radius: 3px; }
 figcaption { font-size: .8rem; color: #555; font-variant-numeric: tabular-nums; }
 .plot { width: 100%; }
 .question-image { max-width: 100%; border-radius: 3px; }
</style></head><body>
<h1>{{ answer.question.text }}</h1>
{% if image %}
<p><img class="question-image" src="{{ image }}" alt="the picture of the question"></p>
{% endif %}
<p class="small">{{ video.path }} &middot; {{ clock(video.duration_seconds) }}
 &middot; {{ video.width }}x{{ video.height }}
 &middot; model {{ answer.model }} &middot; method {{ answer.method }}</p>
<p class="answer">{% if answer.option %}{{ answer.option }}. {% endif %}{{ answer.text }}</p>
{% if options %}
<h2>Options</h2>
<table>{% for letter, text, score in options %}
<tr{% if letter == answer.option %} class="chosen"{% endif %}><td>{{ letter }}</td><td>{{ text }}</td>
 <td>{{ "%.3f"|format(score) }}</td>
 <td class="bar"><div style="width:{{ "%.1f"|format(100 * score) }}%"></div></td></tr>
{% endfor %}</table>
{% endif %}
{% if plot %}
<h2>Score over time</h2>
<img class="plot" src="{{ plot }}" alt="score over time, with the selected frames">
{% endif %}
<h2>Selected frames ({{ frames|length }} of a budget of {{ answer.frames_budget }})</h2>
<div>{% for time, picture in frames %}
<figure><img src="{{ picture }}" alt="frame at {{ time }}"><figcaption>{{ time }}</figcaption></figure>
{% endfor %}</div>
{% if evidence %}
<h2>Evidence, best first</h2>
<table><tr><th>time</th><th>embedding</th><th>rerank</th></tr>{% for candidate in evidence %}
<tr><td>{{ span(candidate) }}</td><td>{{ "%.3f"|format(candidate.embed_score) }}</td>
 <td>{% if candidate.rerank_score is not none %}{{ "%.3f"|format(candidate.rerank_score) }}{% endif %}</td></tr>
{% endfor %}</table>
{% endif %}
<h2>Cost</h2>
<p class="small">{{ answer.counts.frames_decoded }} frames decoded, {{ answer.counts.pairs_encoded }} pairs encoded,
 {{ answer.counts.tokens_prefilled }} tokens prefilled; {{ "%.1f"|format(seconds) }} s
 ({% for stage, stage_seconds in answer.seconds.items() %}
{{ stage }} {{ "%.1f"|format(stage_seconds) }} s{{ ", " if not loop.last }}
{% endfor %}).
 {% if answer.index %}
 Index of {{ answer.index.clips }} clips, {{ "reused" if answer.index.reused else "built now" }}.
 {% endif %}</p>
</body></html>
"""

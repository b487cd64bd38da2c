"""An answer as one HTML page that needs no other file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lvqa.image import read_image
from lvqa.records import Answer, Candidate, Video, counted
from lvqa.report.answers import Span, clock, frames_by_clip, scores_text, span_text, thumbnail_size, thumbnails
from lvqa.report.page import data_url, render_figure, render_page, write_file
from lvqa.report.timeline import DARK, LIGHT, Theme, add_timeline_legend, draw_timeline, themed_figure

MAX_FRAME_HEIGHT, MAX_QUESTION_IMAGE_HEIGHT = 480, 180
"""Pixels. The page shows a frame small, and in this height when it is enlarged."""

PLOTS = (
    ("(max-width: 40rem) and (prefers-color-scheme: dark)", DARK, 4.2),
    ("(max-width: 40rem)", LIGHT, 4.2),
    ("(prefers-color-scheme: dark)", DARK, 10.0),
    ("", LIGHT, 10.0),
)
"""(media query, theme, width in inches) of each plot; the first one whose query fits the screen is shown."""


def write_page(
    path: Path,
    answer: Answer,
    video: Video,
    *,
    evidence: Sequence[Candidate],
    made_with: Mapping[str, Any] | None = None,
) -> None:
    """Write an answer as one HTML file that needs no other file.

    It contains the question with its picture, the answer, what a reader must know of it, the options, the scores over
    time, the selected frames by clip, the clips that were found and not used, the cost, and what it was made with.

    Args:
        path: Where the page is written.
        answer: The answer.
        video: The video that the question is about; its frames are decoded again.
        evidence: The candidates to list, best first.
        made_with: The model, the settings and the versions, as `provenance` returns them.

    Raises:
        LvqaError: If the frames or the picture of the question cannot be read, or the page cannot be written.
    """
    image = answer.question.image
    pictures = map(_jpeg, thumbnails(video, answer.frames, max_height=MAX_FRAME_HEIGHT))
    clips = frames_by_clip(answer)
    used = {clip.candidate for clip in clips}
    html = render_page(
        _PAGE,
        answer=answer,
        image=None if image is None else _jpeg(read_image(image, size_of=_question_image_size)),
        video=video,
        clips=clips,
        unused=[candidate for candidate in evidence if candidate not in used],
        options=list(zip(answer.question.letters, answer.question.options, answer.option_scores, strict=False)),
        pictures=dict(zip(answer.frames, pictures, strict=True)),
        truth=answer.question.evidence_seconds,
        plots=_plots(answer, video) if answer.evidence or answer.frames else [],
        clock=clock,
        counted=counted,
        span=span_text,
        scores=scores_text,
        seconds=sum(answer.seconds.values()),
        made_with=made_with,
        settings=json.dumps(made_with["settings"], indent=1) if made_with else "",
    )
    write_file(path, html)


def _plots(answer: Answer, video: Video) -> list[tuple[str, str]]:
    """Return (media query, picture) of each plot."""
    truth = answer.question.evidence_seconds
    return [(query, _plot(answer, video, theme, width, truth)) for query, theme, width in PLOTS]


def _plot(answer: Answer, video: Video, theme: Theme, width: float, truth_seconds: Span | None) -> str:
    is_narrow = width < 6
    bottom, plot_height, legend_height = 0.3, 2.4 if answer.evidence else 0.3, 0.6 if is_narrow else 0.35
    height = bottom + plot_height + legend_height
    with themed_figure(theme, width=width, height=height) as figure:
        axes = figure.add_axes((0.55 / width, bottom / height, 1 - 1.15 / width, plot_height / height))
        draw_timeline(axes, answer, video, theme=theme, truth_seconds=truth_seconds, max_ticks=5 if is_narrow else 10)
        add_timeline_legend(figure, theme, num_columns=2 if is_narrow else 4)
        return data_url(render_figure(figure, "svg"), "image/svg+xml")


def _question_image_size(height: int, width: int) -> tuple[int, int]:
    return thumbnail_size(height, width, max_height=MAX_QUESTION_IMAGE_HEIGHT)


def _jpeg(pixels: np.ndarray) -> str:
    import cv2

    is_encoded, data = cv2.imencode(".jpg", pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85])
    assert is_encoded
    return data_url(data.tobytes(), "image/jpeg")


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ answer.question.text|truncate(80) }}</title>
<style>
 :root { color-scheme: light dark; --back: #fff; --text: #1f2328; --muted: #59636e; --line: #d1d9e0;
  --accent: #2563a8; --tint: #eef4fb; --inside: #1f7a45; --warn: #b35900; }
 @media (prefers-color-scheme: dark) { :root { --back: #0d1117; --text: #e6edf3; --muted: #9198a1; --line: #3d444d;
  --accent: #5aa2ee; --tint: #14243a; --inside: #4cc27c; --warn: #e8963c; } }
 * { box-sizing: border-box; }
 body { font: 16px/1.5 system-ui, sans-serif; color: var(--text); background: var(--back); max-width: 62rem;
  margin: 2rem auto; padding: 0 1rem; }
 h1 { font-size: 1.35rem; line-height: 1.3; margin: 0 0 .3rem; overflow-wrap: anywhere; }
 h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; }
 h3 { font-size: 1rem; line-height: 1.35; margin: .6rem 0 .3rem; font-variant-numeric: tabular-nums; }
 h3 small { display: block; font-weight: normal; color: var(--muted); }
 .answer { font-size: 1.35rem; padding: .7rem 1rem; background: var(--tint); border-left: .3rem solid var(--accent); }
 .answer { overflow-wrap: anywhere; }
 .warning { padding: .4rem 1rem; border-left: .3rem solid var(--warn); overflow-wrap: anywhere; }
 .small { color: var(--muted); font-size: .875rem; overflow-wrap: anywhere; }
 table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
 th, td { text-align: left; padding: .25rem 1.2rem .25rem 0; border-bottom: 1px solid var(--line); }
 .options { width: 100%; max-width: 40rem; } .options td { overflow-wrap: anywhere; }
 td.bar { width: 35%; padding-right: 0; }
 td.bar div { background: var(--accent); height: .7rem; min-width: 1px; }
 tr.chosen td { font-weight: 600; }
 .plot { width: 100%; height: auto; display: block; }
 .question-image { max-width: 100%; border-radius: 3px; }
 .clips, .frames { display: grid; grid-template-columns: repeat(4, minmax(0, 1fr)); gap: .6rem; align-items: start; }
 section { grid-column: span var(--wide); } section .frames { grid-template-columns: repeat(var(--wide), 1fr); }
 .frame { display: block; padding: 0; border: 0; background: none; color: var(--muted); font: inherit;
  font-size: .875rem; text-align: left; font-variant-numeric: tabular-nums; cursor: zoom-in; }
 .frame img { width: 100%; max-height: 16rem; object-fit: contain; object-position: left; display: block;
  border-radius: 3px; outline-offset: -1px; }
 .frame:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; }
 .frame.inside { color: var(--inside); font-weight: 600; }
 .frame.inside img { border: 3px solid var(--inside); }
 summary { cursor: pointer; }
 dialog { border: 0; padding: 0; background: var(--back); color: var(--text); max-width: 96vw; max-height: 96vh; }
 dialog::backdrop { background: rgb(0 0 0 / .8); }
 dialog img { display: block; width: min(96vw, 75rem); max-height: calc(96vh - 4rem); object-fit: contain; }
 dialog form { display: flex; justify-content: space-between; align-items: center; gap: .5rem; padding: .5rem .8rem; }
 dialog button { font: inherit; min-width: 2.75rem; min-height: 2.5rem; }
 @media (max-width: 40rem) { body { margin-top: 1rem; } .clips { grid-template-columns: repeat(2, minmax(0, 1fr)); }
  section { grid-column: span var(--narrow); } section .frames { grid-template-columns: repeat(var(--narrow), 1fr); }
  td.bar { width: 25%; } th, td { padding-right: .7rem; } }
</style></head><body>
<h1>{{ answer.question.text }}</h1>
{% if image %}
<p><img class="question-image" src="{{ image }}" alt="the picture of the question"></p>
{% endif %}
<p class="small">{{ video.path }} &middot; {{ clock(video.duration_seconds) }}
 &middot; {{ video.width }}x{{ video.height }}
 &middot; model {{ answer.model }} &middot; method {{ answer.method }}</p>
<p class="answer">{% if answer.option %}{{ answer.option }}. {% endif %}{{ answer.text }}</p>
{% if answer.time_read %}
<p class="small">time read from the question: {{ answer.time_read }}</p>
{% endif %}
{% if answer.question_kind %}
<p class="small">the question is about: {{ answer.question_kind.text }}</p>
{% endif %}
{% for warning in answer.caveats.warnings %}
<p class="warning">{{ warning }}</p>
{% endfor %}
{% if options %}
<h2>Options</h2>
<table class="options">{% for letter, text, score in options %}
<tr{% if letter == answer.option %} class="chosen"{% endif %}><td>{{ letter }}</td><td>{{ text }}</td>
 <td>{{ "%.3f"|format(score) }}</td>
 <td class="bar"><div style="width:{{ "%.1f"|format(100 * score) }}%"></div></td></tr>
{% endfor %}</table>
{% endif %}
{% if plots %}
<h2>{{ "Score" if answer.evidence else "Selected frames" }} over time</h2>
<picture>{% for query, plot in plots %}
{% if query %}
<source media="{{ query }}" srcset="{{ plot }}">
{% else %}
<img class="plot" src="{{ plot }}"
 alt="the selected frames over time{{ ", with the scores of the clips" if answer.evidence }}">
{% endif %}
{% endfor %}</picture>
{% endif %}
<h2>Selected frames ({{ answer.frames|length }} of a budget of {{ answer.frames_budget }}
{%- if answer.looked_again is not none %}, {{ "looked again" if answer.looked_again else "sure at the first look" }}
{%- endif %})</h2>
<div class="clips">{% for clip in clips %}
{% set n = clip.times_seconds|length %}
<section style="--wide: {{ [n, 4]|min }}; --narrow: {{ [n, 2]|min }}">
{% if clip.candidate %}
<h3>{{ clip.rank }}. {{ span(clip.candidate) }} <small>{{ scores(clip.candidate) }}</small></h3>
{% elif clips|length > 1 %}
<h3>Frames of no clip that was scored</h3>
{% endif %}
<div class="frames">{% for seconds in clip.times_seconds %}
{% set inside = truth and truth[0] <= seconds < truth[1] %}
<button type="button" class="frame{{ " inside" if inside }}" aria-haspopup="dialog"
><img src="{{ pictures[seconds] }}" alt="frame at {{ clock(seconds) }}">{{ clock(seconds) }}
{%- if truth and not inside %} outside the evidence{% endif %}
{%- if seconds in answer.caveats.substituted_seconds %} damaged, another one is shown{% endif %}
</button>
{% endfor %}</div>
</section>
{% endfor %}</div>
{% if unused %}
<h2>Found, and not used</h2>
<details{{ " open" if unused|length <= 8 }}><summary>{{ unused|length }} clip{{ "s" if unused|length > 1 }}
 of which no frame was selected</summary>
<table><tr><th>time</th><th>rerank</th><th>embedding</th></tr>{% for candidate in unused %}
<tr><td>{{ span(candidate) }}</td>
 <td>{% if candidate.rerank_score is not none %}{{ "%.3f"|format(candidate.rerank_score) }}{% endif %}</td>
 <td>{{ "%.3f"|format(candidate.embed_score) }}</td></tr>
{% endfor %}</table></details>
{% endif %}
<h2>Cost</h2>
<p class="small">{{ counted(answer.counts.frames_decoded, "frame") }} decoded,
 {{ counted(answer.counts.pairs_encoded, "pair") }} encoded, {{ counted(answer.counts.tokens_prefilled, "token") }}
 prefilled; {{ "%.1f"|format(seconds) }} s
 ({% for stage, stage_seconds in answer.seconds.items() %}
{{ stage }} {{ "%.1f"|format(stage_seconds) }} s{{ ", " if not loop.last }}
{%- endfor %}).
 {% if answer.index %}
 Index of {{ counted(answer.index.clips, "clip") }}, {{ "reused" if answer.index.reused else "built now" }}.
 {% endif %}</p>
{% if made_with %}
<h2>Made with</h2>
<p class="small">video {{ video.id }}; model {{ made_with.model }}, revision {{ made_with.model_revision }};
 {% for name, version in made_with.versions.items() %}
{{ name }} {{ version }}{{ ", " if not loop.last }}
{%- endfor %}.</p>
<details class="small"><summary>all settings</summary><pre>{{ settings }}</pre></details>
{% endif %}
<dialog aria-label="an enlarged frame"><img alt="">
<form method="dialog"><button type="button" aria-label="previous frame">&larr;</button><output></output>
<button type="button" aria-label="next frame">&rarr;</button><button autofocus>Close</button></form></dialog>
<script>
"use strict";
const frames = [...document.querySelectorAll(".frame")], dialog = document.querySelector("dialog");
const [previous, next] = dialog.querySelectorAll("button");
let current = 0;
function enlarge(index) {
  current = (index + frames.length) % frames.length;
  const thumbnail = frames[current].querySelector("img"), image = dialog.querySelector("img");
  image.src = thumbnail.src;
  image.alt = thumbnail.alt;
  dialog.querySelector("output").textContent = frames[current].textContent.trim();
  if (!dialog.open) dialog.showModal();
}
frames.forEach((frame, index) => frame.addEventListener("click", () => enlarge(index)));
previous.addEventListener("click", () => enlarge(current - 1));
next.addEventListener("click", () => enlarge(current + 1));
dialog.addEventListener("click", (event) => { if (!event.target.closest("form")) dialog.close(); });
dialog.addEventListener("close", () => frames[current].focus());
dialog.addEventListener("keydown", (event) => {
  if (event.key === "ArrowLeft") enlarge(current - 1);
  if (event.key === "ArrowRight") enlarge(current + 1);
});
</script>
</body></html>
"""

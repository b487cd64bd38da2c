"""The plots of a model's diagnostics, and their files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lvqa.evaluation import Share
from lvqa.report.conditions import clean
from lvqa.report.page import rendered, write_whole
from lvqa.report.plots import COLOURS, GREY, drawing, shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from lvqa.diagnostics import Bias, Depth, Diagnostics, Framing, Words

LOOKS = {"clips": (COLOURS[0], "o"), "query": (COLOURS[1], "s")}


def write_diagnostics(probes: Diagnostics, folder: Path) -> list[Path]:
    """depth.png, words.png, bias.png, probes.json, and framing.png if framings were probed, in this folder.

    Raises LvqaError if they can't be written.
    """
    files = {
        "depth.png": depth_figure(probes.depth),
        "words.png": words_figure(probes.words),
        "bias.png": bias_figure(probes.bias),
        "probes.json": (json.dumps(probes.to_dict(), indent=1) + "\n").encode(),
    }
    if probes.framings:
        files["framing.png"] = framing_figure(probes.framings)
    for name, content in files.items():
        write_whole(folder / name, content)
    return [folder / name for name in files]


def depth_figure(depths: dict[str, Depth]) -> bytes:
    """Alpha and beta over the sub-layers, mean and standard deviation."""
    with drawing(height=4.0) as figure:
        panels = figure.subplots(1, 2)
        for name, depth in depths.items():
            _over_depth(panels[0], name, depth.similarity, depth.similarity_normed)
            _over_depth(panels[1], name, depth.alignment, depth.alignment_normed)
        panels[0].set_ylabel("cosine of before and after the sub-layer (alpha)")
        panels[1].set_ylabel("cosine with the word said in the end (beta)")
        markers = "hollow: after its attention; full: after its MLP; diamond: after the final norm too"
        figure.supxlabel(f"layer ({markers})", fontsize=9)
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper left", ncols=2, frameon=False)
        return rendered(figure, "png")


def _over_depth(axes: Axes, name: str, values: np.ndarray, normed: np.ndarray) -> None:
    """(n, 2 * layers) at the half layers, where attention ends, and the whole ones, where the MLP does."""
    colour, marker = LOOKS[name]
    places = (1 + np.arange(values.shape[1])) / 2
    mean, spread = values.mean(axis=0), values.std(axis=0)
    label = name if len(values) == 1 else f"{name}, mean and standard deviation of {len(values)}"
    axes.fill_between(places, mean - spread, mean + spread, color=colour, alpha=0.15, lw=0)
    axes.plot(places, mean, color=colour, lw=1.2, label=label)
    axes.plot(places[0::2], mean[0::2], color=colour, marker=marker, ls="none", ms=3.5, mfc="white")
    axes.plot(places[1::2], mean[1::2], color=colour, marker=marker, ls="none", ms=5)
    axes.plot(places[-1:], [normed.mean()], color=colour, marker="D", ls="none", ms=7, mfc="none")
    axes.axhline(0, color=GREY, lw=0.6)
    axes.grid(axis="y")


def words_figure(words: Sequence[Words]) -> bytes:
    """The likeliest words under each prompt, a column for the clips and one for the query."""
    rows, columns = list(dict.fromkeys(w.prompt for w in words)), list(dict.fromkeys(w.of for w in words))
    with drawing(height=2.3 * len(rows) + 0.3) as figure:
        panels = figure.subplots(len(rows), len(columns), squeeze=False, sharex=True)
        for found in words:
            axes = panels[rows.index(found.prompt), columns.index(found.of)]
            colour, _ = LOOKS[found.of]
            axes.barh(range(len(found.mean)), [100 * value for _, value in found.mean], color=colour, height=0.6)
            axes.set_yticks(range(len(found.mean)), [shortened(clean(word)) or repr(word) for word, _ in found.mean])
            axes.invert_yaxis()
            over = f", mean of {len(found.each)}" if len(found.each) > 1 else ""
            axes.set_title(f"{found.of}{over}, prompt {found.prompt}")
        for axes in panels[-1]:
            axes.set_xlabel("probability of the word, percent")
        return rendered(figure, "png")


def bias_figure(bias: Sequence[Bias]) -> bytes:
    """A bar a context, in three parts: the first label, the second, and anything else."""
    with drawing(height=1.2 + 0.42 * len(bias)) as figure:
        axes = figure.subplots()
        for place, found in enumerate(bias):
            first, second = (100 * value for value in found.probabilities)
            parts = [
                (0.0, first, COLOURS[0]),
                (first, second, COLOURS[1]),
                (first + second, 100 - first - second, GREY),
            ]
            for start, width, colour in parts:
                axes.barh(place, width, left=start, color=colour, alpha=0.25 if colour == GREY else 0.85, height=0.6)
            said = "   ".join(
                f"{label} {100 * p:.1f}" for label, p in zip(found.labels, found.probabilities, strict=True)
            )
            axes.annotate(said, (1.01, place), xycoords=("axes fraction", "data"), va="center", fontsize=8)
        axes.axvline(50, color="white", lw=1, ls=":")
        axes.set_yticks(range(len(bias)), [f"{'/'.join(found.labels)}: {found.context}" for found in bias])
        axes.set(xlim=(0, 100), xlabel="probability as the reply's first word, percent (grey: any other word)")
        axes.invert_yaxis()
        return rendered(figure, "png")


def framing_figure(framings: Sequence[Framing]) -> bytes:
    """Two panels, a line a framing, with 95% intervals: clips judged rightly, and the clip that matches put first."""
    with drawing(height=1.2 + 0.42 * len(framings)) as figure:
        panels = figure.subplots(1, 2, sharey=True)
        for axes, name, what in zip(
            panels,
            ("right", "preferred"),
            ("clips judged rightly", "the clip that matches has the higher score"),
            strict=True,
        ):
            for place, framing in enumerate(framings):
                share = Share.of(getattr(framing, name))
                axes.plot([100 * share.low, 100 * share.high], [place, place], color=COLOURS[0], lw=1.6, alpha=0.55)
                axes.plot([100 * share.value], [place], "o", color=COLOURS[0])
                axes.annotate(
                    f"{100 * share.value:.1f}", (100 * share.value, place), (0, 6), textcoords="offset points"
                )
            axes.axvline(50, color=GREY, lw=1, ls=":")
            axes.set(xlim=(0, 100), xlabel=f"{what}, percent (n {len(getattr(framings[0], name))})")
            axes.grid(axis="x")
        panels[0].set_yticks(range(len(framings)), ["/".join(framing.labels) for framing in framings])
        panels[0].set_ylim(len(framings) - 0.5, -0.7)
        return rendered(figure, "png")

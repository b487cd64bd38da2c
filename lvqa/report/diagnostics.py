"""The plots of a model's diagnostics, and their files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lvqa.evaluation import Share
from lvqa.report.conditions import clean
from lvqa.report.drawing import COLOURS, GREY, abbreviate, new_figure
from lvqa.report.page import render_figure, write_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from lvqa.diagnostics import Bias, Depth, Diagnostics, Framing, Words

STYLES = {"clips": (COLOURS[0], "o"), "query": (COLOURS[1], "s")}


def write_diagnostics(diagnostics: Diagnostics, folder: Path) -> list[Path]:
    """Write depth.png, words.png, bias.png and diagnostics.json, and framing.png if framings were measured.

    Args:
        diagnostics: The diagnostics of a model.
        folder: The folder of the files.

    Returns:
        The paths of the files.

    Raises:
        LvqaError: If a file cannot be written.
    """
    files = {
        "depth.png": depth_figure(diagnostics.depth),
        "words.png": words_figure(diagnostics.words),
        "bias.png": bias_figure(diagnostics.bias),
        "diagnostics.json": (json.dumps(diagnostics.to_dict(), indent=1) + "\n").encode(),
    }
    if diagnostics.framings:
        files["framing.png"] = framing_figure(diagnostics.framings)
    for name, content in files.items():
        write_file(folder / name, content)
    return [folder / name for name in files]


def depth_figure(depths: dict[str, Depth]) -> bytes:
    """Plot alpha and beta over the sub-layers, as means and standard deviations."""
    with new_figure(height=4.0) as figure:
        panels = figure.subplots(1, 2)
        for name, depth in depths.items():
            _plot_depth(panels[0], name, depth.similarity, depth.similarity_normed)
            _plot_depth(panels[1], name, depth.alignment, depth.alignment_normed)
        panels[0].set_ylabel("cosine of before and after the sub-layer (alpha)")
        panels[1].set_ylabel("cosine with the final word (beta)")
        markers = "hollow: after its attention; full: after its MLP; diamond: after the final norm too"
        figure.supxlabel(f"layer ({markers})", fontsize=9)
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper left", ncols=2, frameon=False)
        return render_figure(figure, "png")


def _plot_depth(axes: Axes, name: str, values: np.ndarray, normed: np.ndarray) -> None:
    """Plot `values`, (n, 2 * layers): attention ends at half a layer, the MLP at a whole one."""
    colour, marker = STYLES[name]
    depth = (1 + np.arange(values.shape[1])) / 2
    mean, spread = values.mean(axis=0), values.std(axis=0)
    label = name if len(values) == 1 else f"{name}, mean and standard deviation of {len(values)}"
    axes.fill_between(depth, mean - spread, mean + spread, color=colour, alpha=0.15, lw=0)
    axes.plot(depth, mean, color=colour, lw=1.2, label=label)
    axes.plot(depth[0::2], mean[0::2], color=colour, marker=marker, ls="none", ms=3.5, mfc="white")
    axes.plot(depth[1::2], mean[1::2], color=colour, marker=marker, ls="none", ms=5)
    axes.plot(depth[-1:], [normed.mean()], color=colour, marker="D", ls="none", ms=7, mfc="none")
    axes.axhline(0, color=GREY, lw=0.6)
    axes.grid(axis="y")


def words_figure(words: Sequence[Words]) -> bytes:
    """Plot the likeliest words under each prompt, with a column for the clips and one for the query."""
    prompts, inputs = list(dict.fromkeys(w.prompt for w in words)), list(dict.fromkeys(w.source for w in words))
    with new_figure(height=2.3 * len(prompts) + 0.3) as figure:
        panels = figure.subplots(len(prompts), len(inputs), squeeze=False, sharex=True)
        for panel in words:
            axes = panels[prompts.index(panel.prompt), inputs.index(panel.source)]
            colour, _ = STYLES[panel.source]
            axes.barh(range(len(panel.mean)), [100 * value for _, value in panel.mean], color=colour, height=0.6)
            axes.set_yticks(range(len(panel.mean)), [abbreviate(clean(word)) or repr(word) for word, _ in panel.mean])
            axes.invert_yaxis()
            suffix = f", mean of {len(panel.each)}" if len(panel.each) > 1 else ""
            axes.set_title(f"{panel.source}{suffix}, prompt {panel.prompt}")
        for axes in panels[-1]:
            axes.set_xlabel("probability of the word, percent")
        return render_figure(figure, "png")


def bias_figure(bias: Sequence[Bias]) -> bytes:
    """Plot a bar for each context, in three segments: the first label, the second label, and any other word."""
    with new_figure(height=1.2 + 0.42 * len(bias)) as figure:
        axes = figure.subplots()
        for y, context in enumerate(bias):
            first, second = (100 * value for value in context.probabilities)
            segments = [
                (0.0, first, COLOURS[0]),
                (first, second, COLOURS[1]),
                (first + second, 100 - first - second, GREY),
            ]
            for start, width, colour in segments:
                axes.barh(y, width, left=start, color=colour, alpha=0.25 if colour == GREY else 0.85, height=0.6)
            text = "   ".join(
                f"{label} {100 * p:.1f}" for label, p in zip(context.labels, context.probabilities, strict=True)
            )
            axes.annotate(text, (1.01, y), xycoords=("axes fraction", "data"), va="center", fontsize=8)
        axes.axvline(50, color="white", lw=1, ls=":")
        axes.set_yticks(range(len(bias)), [f"{'/'.join(context.labels)}: {context.context}" for context in bias])
        axes.set(xlim=(0, 100), xlabel="probability as the reply's first word, percent (grey: any other word)")
        axes.invert_yaxis()
        return render_figure(figure, "png")


def framing_figure(framings: Sequence[Framing]) -> bytes:
    """Plot how well each framing judges, with 95% intervals.

    The left panel has the share of clips judged correctly, the right one the share of pairs in which the matching clip
    has the higher score.
    """
    with new_figure(height=1.2 + 0.42 * len(framings)) as figure:
        correct_axes, preferred_axes = figure.subplots(1, 2, sharey=True)
        _plot_shares(correct_axes, "clips judged correctly", [framing.correct for framing in framings])
        _plot_shares(
            preferred_axes, "the matching clip has the higher score", [framing.preferred for framing in framings]
        )
        correct_axes.set_yticks(range(len(framings)), ["/".join(framing.labels) for framing in framings])
        correct_axes.set_ylim(len(framings) - 0.5, -0.7)
        return render_figure(figure, "png")


def _plot_shares(axes: Axes, label: str, hits: Sequence[Sequence[bool]]) -> None:
    """Plot the share of hits in each row, in percent with its interval."""
    for y, row in enumerate(hits):
        share = Share.of(row)
        axes.plot([100 * share.low, 100 * share.high], [y, y], color=COLOURS[0], lw=1.6, alpha=0.55)
        axes.plot([100 * share.value], [y], "o", color=COLOURS[0])
        axes.annotate(f"{100 * share.value:.1f}", (100 * share.value, y), (0, 6), textcoords="offset points")
    axes.axvline(50, color=GREY, lw=1, ls=":")
    axes.set(xlim=(0, 100), xlabel=f"{label}, percent (n {len(hits[0])})")
    axes.grid(axis="x")

"""Measure how often the intervals of a report hold the true value, and print the table of docs/evaluation.md.

    python scripts/interval_coverage.py            # 10,000 simulated runs a cell, about five minutes on one core

Each run draws videos, a number of questions for each, an effect or an accuracy for each video, and the answers.
"""

from __future__ import annotations

import itertools

import click
import numpy as np

from lvqa.evaluation.intervals import ClusteredMean

NUM_VIDEOS = (5, 7, 9, 12, 30, 60, 101)
BATCH = 500

Moments = tuple[np.ndarray, np.ndarray, np.ndarray]


def equal_sizes(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """15 questions on each video."""
    return np.full(shape, 15)


def unequal_sizes(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """2 to 60 questions, a coefficient of variation of 0.36; LVBench's is 0.23."""
    return np.clip(np.rint(rng.lognormal(np.log(14), 0.35, shape)), 2, 60).astype(int)


def skewed_sizes(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """1 to 150 questions: a few videos have most of them."""
    return np.clip(np.rint(rng.lognormal(np.log(8), 1.0, shape)), 1, 150).astype(int)


def draw_differences(rng: np.random.Generator, sizes: np.ndarray, mean: float, spread: float) -> Moments:
    """Draw gains and losses: 30% of the answers differ, and by how much one arm is better differs between videos."""
    effects = rng.uniform(mean - spread * 3**0.5, mean + spread * 3**0.5, sizes.shape)  # with this standard deviation
    differing = 0.3 + max(0.0, mean + spread * 3**0.5 - 0.3)
    gained = rng.binomial(sizes, (differing + effects) / 2)
    lost = rng.binomial(sizes - gained, (differing - effects) / (2 - differing - effects))
    return gained - lost, gained + lost, sizes


def draw_answers(rng: np.random.Generator, sizes: np.ndarray, mean: float, spread: float) -> Moments:
    """Draw correct answers; a video's accuracy is drawn from a beta distribution."""
    accuracies = np.full(sizes.shape, mean)
    if spread:
        strength = mean * (1 - mean) / spread**2 - 1
        accuracies = rng.beta(mean * strength, (1 - mean) * strength, sizes.shape)
    correct = rng.binomial(sizes, accuracies)
    return correct, correct, sizes


MEASURES = {
    "difference": (draw_differences, (-1.0, 1.0), (0.0, 0.06)),
    "accuracy": (draw_answers, (0.0, 1.0), (0.4, 0.8)),
}
SIZES = {"equal": equal_sizes, "unequal": unequal_sizes, "skewed": skewed_sizes}
SPREADS = (0.0, 0.1, 0.15)


def coverage(measure: str, sizes: str, mean: float, spread: float, num_videos: int, runs: int) -> float:
    """Return the share of simulated runs whose interval holds the true mean."""
    draw, bounds, _ = MEASURES[measure]
    rng = np.random.default_rng([num_videos, round(1000 * mean), round(1000 * spread), len(measure), len(sizes)])
    hits = 0
    for start in range(0, runs, BATCH):
        shape = (min(BATCH, runs - start), num_videos)
        moments = draw(rng, SIZES[sizes](rng, shape), mean, spread)
        low, high = ClusteredMean.from_sums(*moments).interval(*bounds)
        hits += int(((low <= mean + 1e-12) & (mean <= high + 1e-12)).sum())
    return hits / runs


@click.command(help=__doc__)
@click.option("--runs", default=10_000, show_default=True, help="How many runs are simulated in each cell.")
def main(runs: int) -> None:
    """Print a line for each measure, sizes, mean and spread, and a column for each number of videos."""
    click.echo(
        "| interval of | questions a video | true value | sd between videos | "
        + " | ".join(map(str, NUM_VIDEOS))
        + " |"
    )
    click.echo("|---|---|--:|--:|" + "--:|" * len(NUM_VIDEOS))
    for measure, (_, _, means) in MEASURES.items():
        for sizes, mean, spread in itertools.product(SIZES, means, SPREADS):
            cells = [100 * coverage(measure, sizes, mean, spread, n, runs) for n in NUM_VIDEOS]
            line = [measure, sizes, f"{mean:g}", f"{spread:g}", *(f"{cell:.1f}" for cell in cells)]
            click.echo("| " + " | ".join(line) + " |")


if __name__ == "__main__":
    main()

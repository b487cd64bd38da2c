"""What a report compares: each arm of each run at each budget, and which arm it is measured against."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lvqa.evaluation import NO_BUDGET, Row, Run, read_run, resolve_arms
from lvqa.records import LvqaError

BASELINE = "uniform"
"""The method that others are measured against in a run that names no arm for it."""


@dataclass(frozen=True, slots=True)
class Published:
    """Figures from a paper, in percent by number of frames."""

    benchmark: str
    source: str
    model: str
    method: str
    accuracy: dict[int, float]


FREERET = "FreeRet paper, Table 4 (arXiv 2509.24621)"
PUBLISHED = (
    Published("lvbench", FREERET, "Qwen2.5-VL-7B", "uniform", {16: 36.7, 32: 39.0, 64: 39.0}),
    Published("lvbench", FREERET, "Qwen2.5-VL-7B", "freeret", {16: 42.7, 32: 44.2, 64: 44.8}),
)


@dataclass(frozen=True, slots=True)
class NamedRun:
    """A run, and what the report calls it."""

    name: str
    run: Run

    @property
    def benchmark(self) -> str:
        """The benchmark's name; films made in its layout are another one."""
        settings = self.run.config.benchmark
        return settings.name if settings.make is None else f"made films in {settings.name}'s layout"

    @property
    def num_missing_answers(self) -> int:
        """How many rows the run still lacks."""
        cells = sum(len(arm.budgets) for arm in resolve_arms(self.run.config))
        return max(0, cells * self.run.num_questions - len(self.run.rows))


@dataclass(frozen=True, slots=True)
class Cell:
    """One arm at one budget."""

    run: str
    arm: str
    """As the report calls it: with its run's name before it if another run has an arm of this name."""
    method: str
    budget: int
    """Frames; 0 for an arm that is shown none."""
    rows: tuple[Row, ...]
    baseline: tuple[Row, ...] | None
    """What it is measured against, at the same budget: the baseline that it or its run names, or else the uniform arm
    of its run, or of another run of the same benchmark.

    None where there is none, where no frames are shown, and in the baseline itself.
    """
    baseline_name: str
    """ "uniform frames", or the arm as the report calls it; empty where there is none."""


def read_runs(folders: Sequence[Path]) -> list[NamedRun]:
    """The runs in these folders, each under a name of its own. Raises LvqaError for a folder that is no run folder."""
    folders = list({folder.resolve(): folder for folder in folders}.values())
    if not folders:
        raise LvqaError("a report needs one run folder or more, got none")
    times = Counter(folder.resolve().name for folder in folders)
    return [
        NamedRun(clean(folder.resolve().name if times[folder.resolve().name] == 1 else str(folder)), read_run(folder))
        for folder in folders
    ]


def conditions_of(runs: Sequence[NamedRun]) -> list[Cell]:
    """All cells that have an answer, run by run, in the order of the arms; budgets ascending."""
    arms = {(named.name, arm.name): arm for named in runs for arm in resolve_arms(named.run.config)}
    methods = {key: arm.method for key, arm in arms.items()}
    times = Counter(arm for _, arm in methods)
    rows: dict[tuple[str, str, int], list[Row]] = {}
    for named in runs:
        for row in named.run.rows:
            rows.setdefault((named.name, row["arm"], row["budget"]), []).append(row)
    places = {key: place for place, key in enumerate(methods)}
    order = sorted(rows, key=lambda key: (places.get(key[:2], len(places)), key[2]))
    benchmarks = {named.name: named.benchmark for named in runs}

    def shorten(run: str, arm: str) -> str:
        return clean(arm) if times[arm] < 2 else f"{run}: {clean(arm)}"

    def baseline(cell: tuple[str, str, int]) -> tuple[str, str, int] | None:
        run, _, budget = cell
        rivals = [key for key in order if key[2] == budget != NO_BUDGET]
        if (named := arms[cell[:2]].baseline if cell[:2] in arms else None) is not None:
            rivals = [key for key in rivals if key[:2] == (run, named)]
        else:
            rivals = [key for key in rivals if methods.get(key[:2]) == BASELINE]
            rivals = [key for key in rivals if benchmarks[key[0]] == benchmarks[run]]
        best = min(rivals, key=lambda key: key[0] != run, default=cell)
        return None if best == cell else best

    cells = []
    for run, arm, budget in order:
        against, name = baseline((run, arm, budget)), ""
        if against is not None:
            name = "uniform frames" if methods.get(against[:2]) == BASELINE else shorten(*against[:2])
        cells.append(
            Cell(
                run=run,
                arm=shorten(run, arm),
                method=methods.get((run, arm), ""),
                budget=budget,
                rows=tuple(rows[run, arm, budget]),
                baseline=None if against is None else tuple(rows[against]),
                baseline_name=name,
            )
        )
    return cells


def by_arm(cells: Sequence[Cell]) -> dict[str, list[Cell]]:
    """The cells of each arm, in their order."""
    arms: dict[str, list[Cell]] = {}
    for cell in cells:
        arms.setdefault(cell.arm, []).append(cell)
    return arms


def clean(text: str) -> str:
    """A text from outside on one line, without what could steer a terminal or break a picture."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())

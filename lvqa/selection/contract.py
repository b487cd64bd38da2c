"""What every selector promises, as checks: for those of SELECTORS in the tests, for your own by `lvqa check-plugin`."""

from __future__ import annotations

import functools
import itertools
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from lvqa.plugins import problems
from lvqa.records import LvqaError
from lvqa.selection.protocol import Selector, SelectorInput

BUDGETS = (1, 2, 3, 16, 32, 64)
DIMENSIONS = 6
SECONDS_ELSEWHERE = 120
"""How long another process may take to choose."""

Make = Callable[[], Selector]


def scores_like(kind: str, n: int) -> np.ndarray | None:
    """(n,) scores of one of the kinds that selectors have stumbled over, always the same."""
    rng = np.random.default_rng(n)
    places = np.arange(n)
    made: dict[str, np.ndarray | None] = {
        "no": None,
        "constant": np.full(n, 0.25),
        "one-hot": np.eye(1, n, n // 2)[0],
        "two-peak": np.exp(-(((places - n / 4) / 3) ** 2)) + 0.9 * np.exp(-(((places - 3 * n / 4) / 3) ** 2)),
        "random": rng.normal(size=n),
        "huge": rng.choice([-1.0, 1.0], size=n) * rng.uniform(1e307, 1.7e308, size=n),
        "NaN": np.where(rng.random(n) < 0.5, np.nan, rng.normal(size=n)),
        "all-NaN": np.full(n, np.nan),
        "infinite": rng.choice([np.inf, -np.inf, 0.0, np.nan], size=n),
        "whole-number": rng.integers(0, 3, size=n),
    }
    return made[kind]


KINDS = ("no", "constant", "one-hot", "two-peak", "random", "huge", "NaN", "all-NaN", "infinite", "whole-number")


def features_like(kind: str, n: int) -> np.ndarray:
    """(n, 6) vectors: the same one for four frames each, as of an index; or all alike, all different, all zero."""
    rng = np.random.default_rng(n)
    rows = rng.normal(size=(n, DIMENSIONS))
    if kind == "runs":
        rows = np.repeat(rows, 4, axis=0)[:n]
    elif kind == "alike":
        rows = rows[:1].repeat(n, axis=0)
    elif kind == "zero":
        rows = np.zeros((n, DIMENSIONS))
    unit: np.ndarray = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)
    return unit


def grid_like(n: int, m: int, *, scores: str, features: str | None = None, question_id: str = "q") -> SelectorInput:
    """A grid of n frames of which m are wanted, in clips of eight."""
    vectors = None if features is None else features_like(features, n)
    return SelectorInput(
        np.arange(n) / 0.7,
        m,
        scores=scores_like(scores, n),
        clip_ids=np.arange(n) // 8,
        features=vectors,
        query=None if vectors is None else np.eye(1, DIMENSIONS)[0],
        video_id="v",
        question_id=question_id,
        question_text="What does the man in the red coat do?",
    )


def grids(selector: Selector, kind: str) -> Iterator[SelectorInput]:
    """For each budget M fewer frames than M, M, M + 1 and many."""
    shapes = [(n, m) for m in BUDGETS for n in (max(1, m // 2), m, m + 1, 3 * m + 7)]
    features = itertools.cycle(("runs", "different", "alike", "zero", "runs"))
    for (n, m), like in zip(shapes, features, strict=False):
        yield grid_like(n, m, scores=kind, features=like if selector.needs_features else None)


def _exactly(kind: str, make: Make) -> str | None:
    """Exactly min(M, n) distinct times of the grid, in their order."""
    selector = make()
    faults = (grid.fault(selector.select(grid)) for grid in grids(selector, kind))
    return next((f"it gives {fault}" for fault in faults if fault), None)


def _same_again(make: Make) -> str | None:
    """The same input gives the same, whatever was asked for in between."""
    selector = make()
    like = "runs" if selector.needs_features else None
    grid, other = (grid_like(90, 9, scores="NaN", features=like, question_id=name) for name in "qr")
    first = selector.select(grid)
    selector.select(other)
    return None if selector.select(grid) == first == make().select(grid) else "the same input gives other frames"


def _looks_at_what_it_says(make: Make) -> str | None:
    """`needs_scores` and `needs_features` are true where it can't do without."""
    selector = make()
    like = "different" if selector.needs_features else None
    grid, other = (grid_like(90, 9, scores=kind, features=like) for kind in ("random", "two-peak"))
    if not selector.needs_scores and selector.select(grid) != selector.select(other):
        return "needs_scores is false, and other scores give other frames"
    if selector.needs_features:
        try:
            selector.select(grid_like(90, 9, scores="random"))
        except LvqaError:
            return None
        return "needs_features is true, and without features no LvqaError says so"
    return None


def choices(make: Make) -> list[float]:
    """What a selector chooses of a grid, to compare over processes."""
    selector = make()
    like = "runs" if selector.needs_features else None
    return [
        seconds
        for kind, question_id in (("random", "q"), ("one-hot", "r"))
        for seconds in selector.select(
            grid_like(100, 7, scores=kind, features=like, question_id=question_id)
        ).times_seconds
    ]


def choices_elsewhere(names: Sequence[str], hash_seed: int) -> str:
    """`choices` of each of the selectors, a line each, made by another process whose hashes differ."""
    script = f"from lvqa.selection.contract import print_choices; print_choices(*{[*names]!r})"
    command = [sys.executable, "-c", script]
    environment = {**os.environ, "PYTHONHASHSEED": str(hash_seed), "PYTHONPATH": os.pathsep.join(sys.path)}
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False, timeout=SECONDS_ELSEWHERE
        )
    except subprocess.TimeoutExpired:
        raise LvqaError(f"another process did not choose within {SECONDS_ELSEWHERE} seconds") from None
    if done.returncode:
        raise LvqaError(f"another process fails: {' '.join(done.stderr.split()[-30:])}")
    return "\n".join(done.stdout.splitlines()[-len(names) :])  # a selector may have printed something of its own


def print_choices(*names: str) -> None:
    """A line for each selector, to stdout."""
    from lvqa.selection import make_selector

    for name in names:
        sys.stdout.write(f"{choices(functools.partial(make_selector, name))}\n")


CHECKS: dict[str, Callable[[Make], str | None]] = {
    **{f"{kind} scores": functools.partial(_exactly, kind) for kind in KINDS},
    "the same again": _same_again,
    "looks at what it says": _looks_at_what_it_says,
}
"""Each gives None, or what is wrong."""


def check_selector(name: str) -> dict[str, str | None]:
    """What is checked of the selector of this name or file -> None, or what is wrong, in one line."""
    from lvqa.selection import make_selector

    make = functools.partial(make_selector, name)
    make()  # what can't be made can't be checked
    checks = {**CHECKS, "the same in every process": lambda make: _same_everywhere(name, make)}
    return problems(checks, make)


def _same_everywhere(name: str, make: Make) -> str | None:
    told = {str(choices(make)), choices_elsewhere([name], 1), choices_elsewhere([name], 2)}
    return None if len(told) == 1 else "processes differ; draw lots with a seed of your own, and mind the order of sets"

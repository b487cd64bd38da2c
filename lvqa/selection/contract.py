"""The contract of every selector, as checks: the tests run them on SELECTORS, `lvqa check-plugin` on your own."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from lvqa.plugins import run_checks
from lvqa.records import FrameSelection, LvqaError
from lvqa.selection.protocol import Selector, SelectorInput
from lvqa.temporal import TemporalReading

BUDGETS = (1, 2, 3, 16, 32, 64)
DIMENSIONS = 6
SUBPROCESS_TIMEOUT_SECONDS = 120
"""How long another process may take to choose."""

READINGS = (
    None,
    TemporalReading(),
    TemporalReading(spans=((20.0, 20.0),), relation="after"),
    TemporalReading(spans=((5.0, 30.0), (7.5, 7.5), (9e8, 9e8)), position="end"),
    TemporalReading(position="beginning", occurrence="last"),
    TemporalReading(occurrence="first", relation="before"),
)
"""What may have been read of a question's time: not read, nothing, moments, spans that overlap, a time past the end."""

QUESTION_KINDS = (None, *np.eye(3), np.array([0.2, 0.3, 0.5]))
"""What the model may take a question to be about: not asked, sure of each kind, unsure."""

Make = Callable[[], Selector]


def make_scores(kind: str, n: int) -> np.ndarray | None:
    """Return scores (n,) of one of the kinds that selectors have failed on, always the same; None for "no"."""
    rng = np.random.default_rng(n)
    indices = np.arange(n)
    scores: dict[str, np.ndarray | None] = {
        "no": None,
        "constant": np.full(n, 0.25),
        "one-hot": np.eye(1, n, n // 2)[0],
        "two-peak": np.exp(-(((indices - n / 4) / 3) ** 2)) + 0.9 * np.exp(-(((indices - 3 * n / 4) / 3) ** 2)),
        "random": rng.normal(size=n),
        "huge": rng.choice([-1.0, 1.0], size=n) * rng.uniform(1e307, 1.7e308, size=n),
        "NaN": np.where(rng.random(n) < 0.5, np.nan, rng.normal(size=n)),
        "all-NaN": np.full(n, np.nan),
        "infinite": rng.choice([np.inf, -np.inf, 0.0, np.nan], size=n),
        "whole-number": rng.integers(0, 3, size=n),
    }
    return scores[kind]


KINDS = ("no", "constant", "one-hot", "two-peak", "random", "huge", "NaN", "all-NaN", "infinite", "whole-number")


def make_features(kind: str, n: int) -> np.ndarray:
    """Return unit vectors (n, 6): the same for four frames each, as in an index ("runs"), or of another kind.

    The other kinds are "alike" (one for all), "different" and "zero".
    """
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


def make_inputs(
    n: int,
    m: int,
    *,
    scores: str,
    features: str | None = None,
    question_id: str = "q",
) -> SelectorInput:
    """Return an input of n frames, of which m are wanted, in clips of eight; the evidence is the whole video."""
    vectors = None if features is None else make_features(features, n)
    return SelectorInput(
        np.arange(n) / 0.7,
        m,
        scores=make_scores(scores, n),
        clip_ids=np.arange(n) // 8,
        features=vectors,
        query=None if vectors is None else np.eye(1, DIMENSIONS)[0],
        video_id="v",
        question_id=question_id,
        question_text="What does the man in the red coat do?",
        evidence_seconds=(0.0, n / 0.7),
    )


def inputs_of_all_sizes(selector: Selector, kind: str) -> Iterator[SelectorInput]:
    """Yield inputs with fewer frames than M, M, M + 1 and many, for each budget M."""
    shapes = [(n, m) for m in BUDGETS for n in (max(1, m // 2), m, m + 1, 3 * m + 7)]
    feature_kinds = itertools.cycle(("runs", "different", "alike", "zero", "runs"))
    for (n, m), features in zip(shapes, feature_kinds, strict=False):
        inputs = make_inputs(n, m, scores=kind, features=features if selector.needs_features else None)
        yield from hinted(inputs, reading=selector.uses_reading, kind=selector.uses_kind)


def hinted(inputs: SelectorInput, *, reading: bool = True, kind: bool = True) -> Iterator[SelectorInput]:
    """Yield the input, and it with what may have been read of its question, and what the model may have said of it."""
    yield inputs
    if reading:
        yield from (dataclasses.replace(inputs, reading=value) for value in READINGS)
    if kind:
        yield from (dataclasses.replace(inputs, question_kind=value) for value in QUESTION_KINDS)


def _check_budget(kind: str, make: Make) -> str | None:
    """Check that it chooses exactly min(M, n) distinct times of the grid, in order; none if it shows no frames."""
    selector = make()
    shows_frames = getattr(selector, "shows_frames", True)
    for inputs in inputs_of_all_sizes(selector, kind):
        if problem := inputs.find_problem(selector.select(inputs), shows_frames=shows_frames):
            return f"it gives {problem}"
    return None


def _check_repetition(make: Make) -> str | None:
    """Check that the same input gives the same frames, whatever comes in between."""
    selector = make()
    features = "runs" if selector.needs_features else None
    inputs, other = (make_inputs(90, 9, scores="NaN", features=features, question_id=name) for name in "qr")
    first = selector.select(inputs)
    selector.select(other)
    return None if selector.select(inputs) == first == make().select(inputs) else "the same input gives other frames"


def _differ(selector: Selector, first: FrameSelection, inputs: Iterable[SelectorInput]) -> bool:
    """Return whether an input gives other frames than the first selection."""
    return any(selector.select(other) != first for other in inputs)


def _check_declared_needs(make: Make) -> str | None:
    """Check that what it needs and uses is declared: other values of what is not must give the same frames."""
    selector = make()
    features = "different" if selector.needs_features else None
    inputs, other = (make_inputs(90, 9, scores=kind, features=features) for kind in ("random", "two-peak"))
    if not selector.needs_scores and selector.select(inputs) != selector.select(other):
        return "needs_scores is false, and other scores give other frames"
    first = selector.select(inputs)
    is_steady = selector.select(inputs) == first  # else every comparison fails, and another check says why
    if is_steady and not selector.uses_reading and _differ(selector, first, hinted(inputs, kind=False)):
        return "uses_reading is false, and another reading of the question's time gives other frames"
    if is_steady and not selector.uses_kind and _differ(selector, first, hinted(inputs, reading=False)):
        return "uses_kind is false, and another kind of the question gives other frames"
    if selector.needs_features:
        try:
            selector.select(make_inputs(90, 9, scores="random"))
        except LvqaError:
            return None
        return "needs_features is true, and without features no LvqaError says so"
    return None


def choices(make: Make) -> list[float]:
    """Return the seconds that a selector chooses of two inputs, to compare processes."""
    selector = make()
    features = "runs" if selector.needs_features else None
    return [
        seconds
        for kind, question_id in (("random", "q"), ("one-hot", "r"))
        for seconds in selector.select(
            make_inputs(100, 7, scores=kind, features=features, question_id=question_id)
        ).times_seconds
    ]


def choices_of_subprocess(names: Sequence[str], hash_seed: int) -> str:
    """Return the `choices` of each of the selectors, a line each, made by another process whose hashes differ.

    Raises:
        LvqaError: The process fails, or takes longer than SUBPROCESS_TIMEOUT_SECONDS.
    """
    script = f"from lvqa.selection.contract import print_choices; print_choices(*{[*names]!r})"
    command = [sys.executable, "-c", script]
    environment = {**os.environ, "PYTHONHASHSEED": str(hash_seed), "PYTHONPATH": os.pathsep.join(sys.path)}
    try:
        completed = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False, timeout=SUBPROCESS_TIMEOUT_SECONDS
        )
    except subprocess.TimeoutExpired:
        raise LvqaError(f"another process did not choose within {SUBPROCESS_TIMEOUT_SECONDS} seconds") from None
    if completed.returncode:
        raise LvqaError(f"another process fails: {' '.join(completed.stderr.split()[-30:])}")
    lines = completed.stdout.splitlines()
    return "\n".join(lines[-len(names) :])  # a selector may have printed something of its own


def print_choices(*names: str) -> None:
    """Write a line with the choices of each selector to stdout."""
    from lvqa.selection import make_selector

    for name in names:
        sys.stdout.write(f"{choices(functools.partial(make_selector, name))}\n")


CHECKS: dict[str, Callable[[Make], str | None]] = {
    **{f"{kind} scores": functools.partial(_check_budget, kind) for kind in KINDS},
    "the same again": _check_repetition,
    "declares what it needs": _check_declared_needs,
}
"""Each check returns None, or what is wrong."""


def check_selector(name: str) -> dict[str, str | None]:
    """Run all checks on a selector.

    Args:
        name: The name of a selector, built in or a plug-in.

    Returns:
        For each check None, or what is wrong, in one line.

    Raises:
        LvqaError: The selector can't be made.
    """
    from lvqa.selection import make_selector

    make = functools.partial(make_selector, name)
    make()  # so that a selector that can't be made is one error, and not one per check
    checks = {**CHECKS, "the same in every process": lambda make: _check_processes(name, make)}
    return run_checks(checks, make)


def _check_processes(name: str, make: Make) -> str | None:
    """Check that processes with other hashes choose the same frames."""
    results = {str(choices(make)), choices_of_subprocess([name], 1), choices_of_subprocess([name], 2)}
    if len(results) == 1:
        return None
    return "processes differ; seed the random numbers yourself, and mind the order of sets"

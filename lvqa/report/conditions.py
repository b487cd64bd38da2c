"""The conditions that a report compares: each arm of each run at each budget, with its baseline."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

from lvqa.evaluation import NO_BUDGET, Arm, Row, Run, read_run, resolve_arms, settings_of
from lvqa.protocols import OWN
from lvqa.records import LvqaError, counted

ANSWERING_SETTINGS = ("model.dtype", "model.quantize", "model.max_pixels")
"""What must be equal in runs that are compared, beside the model and the settings of its answers."""
LOOKING_SETTINGS = ("answer.look_again", "answer.first_look", "answer.next_look", "answer.pool_looks")
"""The settings of answers that say in which looks the frames are seen, as a method says which frames these are."""
BASELINE = "uniform"
"""The method of the baseline, if a run does not name an arm as its baseline."""


@dataclass(frozen=True, slots=True)
class PublishedResult:
    """The accuracy that a paper reports for one method."""

    benchmark: str
    source: str
    model: str
    method: str
    accuracy: dict[int, float]
    """Number of frames -> percent."""

    def is_of(self, model: str) -> bool:
        """Return whether a model, by its hub id or its folder, is the one of this result, and no relative of it."""
        return model.rstrip("/").rpartition("/")[2] in (self.model, f"{self.model}-Instruct")


FREERET = "FreeRet paper, Table 4 (arXiv 2509.24621)"
PUBLISHED_RESULTS = (
    PublishedResult("lvbench", FREERET, "Qwen2.5-VL-7B", "uniform", {16: 36.7, 32: 39.0, 64: 39.0}),
    PublishedResult("lvbench", FREERET, "Qwen2.5-VL-7B", "freeret", {16: 42.7, 32: 44.2, 64: 44.8}),
)


@dataclass(frozen=True, slots=True)
class NamedRun:
    """A run and its name in the report."""

    name: str
    run: Run

    @property
    def benchmark(self) -> str:
        """The benchmark's name. Synthetic videos in the layout of a benchmark are another benchmark."""
        settings = self.run.config.benchmark
        return settings.name if settings.make is None else f"synthetic videos in {settings.name}'s layout"

    @property
    def way(self) -> str:
        """The benchmark, and how it was asked: by which protocol, and whether with subtitles."""
        settings = self.run.config.benchmark
        protocol = "" if settings.protocol == OWN else f" by the protocol {settings.protocol}"
        return f"{self.benchmark}{protocol}{' with subtitles' if settings.shows_subtitles else ''}"

    @property
    def model(self) -> str:
        """The model's name and, where it is known, the revision that answered."""
        revision = self.run.about.get("model_revision")
        return self.run.config.model.name + (f" ({revision})" if revision else "")

    @property
    def num_missing_answers(self) -> int:
        """The number of rows that the run still lacks."""
        num_conditions = sum(len(arm.budgets) for arm in resolve_arms(self.run.config))
        return max(0, num_conditions * self.run.num_questions - len(self.run.rows))


@dataclass(frozen=True, slots=True)
class Condition:
    """One arm at one budget."""

    run: str
    arm: str
    """The arm's name in the report: after the name of its run, if another run has an arm of the same name.

    Open questions are conditions of their own, with their judge in the name: see `judge`.
    """
    method: str
    budget: int
    """The number of frames; 0 in an arm without frames."""
    rows: tuple[Row, ...]
    baseline: tuple[Row, ...] | None
    """The rows of the baseline at the same budget: of the arm that this arm or its run names as the baseline, or else
    of the uniform arm of its run, or of another run that can be compared with it (see `why_not_comparable`).

    A uniform arm whose frames are packed or answered otherwise is none. None if there is no such arm, in an arm without
    frames, and in the baseline itself.
    """
    baseline_name: str
    """The baseline's name: "uniform frames", or the name of the arm; empty if there is no baseline."""
    judge: str | None = None
    """Who says whether the answers are correct, if all questions are open ones; None if all have options."""


def read_runs(folders: Sequence[Path]) -> list[NamedRun]:
    """Read the runs in these folders, and give each a name of its own.

    Raises:
        LvqaError: If there is no folder, or one that is not a run folder.
    """
    folders = list({folder.resolve(): folder for folder in folders}.values())
    if not folders:
        raise LvqaError("a report needs one run folder or more, got none")
    counts = Counter(folder.resolve().name for folder in folders)
    return [
        NamedRun(clean(folder.resolve().name if counts[folder.resolve().name] == 1 else str(folder)), read_run(folder))
        for folder in folders
    ]


def failed_share(runs: Sequence[NamedRun]) -> str:
    """Return the share of answers that have failed in each run, and how many of them by the machines."""
    shares = []
    for named in runs:
        num_failed, total, by_place = named.run.num_failed, len(named.run.rows), named.run.num_failed_by_place
        share = f"{num_failed} of {counted(total, 'answer')} ({100 * num_failed / max(1, total):.1f}%)"
        share += f", {by_place} by what the machines did" if by_place else ""
        shares.append(f"{named.name}: {share}" if len(runs) > 1 else share)
    num_unjudged = sum(named.run.num_unjudged for named in runs)
    unjudged = f" Not judged yet, and left out: {counted(num_unjudged, 'open answer')}." if num_unjudged else ""
    return f"Failed, and counted as wrong: {'; '.join(shares)}.{unjudged}"


_Key = tuple[str, str, int, str]
"""The name of a run, the name of an arm, a budget, and the judge of open questions, or "", identify a condition."""


def conditions_of(runs: Sequence[NamedRun]) -> list[Condition]:
    """Return all conditions that have an answer, run by run, in the order of the arms, with ascending budgets."""
    arms = {(named.name, arm.name): arm for named in runs for arm in resolve_arms(named.run.config)}
    counts = Counter(arm for _, arm in arms)
    rows: dict[_Key, list[Row]] = {}
    for named in runs:
        for row in named.run.rows:
            rows.setdefault((named.name, row["arm"], row["budget"], row["judge"] or ""), []).append(row)
    ranks = {key: i for i, key in enumerate(arms)}
    keys = sorted(rows, key=lambda key: (key[3], ranks.get(key[:2], len(ranks)), key[2]))
    reasons = why_not_comparable(runs)

    def display_name(run: str, arm: str, judge: str) -> str:
        name = clean(arm) if counts[arm] < 2 else f"{run}: {clean(arm)}"
        return f"{name}, open ({clean(judge)})" if judge else name

    def name_of_baseline(key: _Key) -> str:
        return "uniform frames" if _method(key, arms) == BASELINE else display_name(*key[:2], key[3])

    def condition(key: _Key) -> Condition:
        baseline = _baseline(key, keys, arms, reasons.keys())
        return Condition(
            run=key[0],
            arm=display_name(*key[:2], key[3]),
            method=_method(key, arms),
            budget=key[2],
            rows=tuple(rows[key]),
            baseline=None if baseline is None else tuple(rows[baseline]),
            baseline_name="" if baseline is None else name_of_baseline(baseline),
            judge=key[3] or None,
        )

    return [condition(key) for key in keys]


def _method(key: _Key, arms: Mapping[tuple[str, str], Arm]) -> str:
    """Return the method of a condition; "" if the configuration of its run does not have the arm."""
    arm = arms.get(key[:2])
    return "" if arm is None else arm.method


def _baseline(
    key: _Key, keys: Sequence[_Key], arms: Mapping[tuple[str, str], Arm], incomparable: Set[tuple[str, str]]
) -> _Key | None:
    """Return the condition with which this one is compared, preferably of the same run."""
    run, _, budget, judge = key
    candidates = [other for other in keys if other[2] == budget != NO_BUDGET and other[3] == judge]
    arm = arms.get(key[:2])
    if arm is not None and arm.baseline is not None:
        candidates = [other for other in candidates if other[:2] == (run, arm.baseline)]
    else:
        candidates = [other for other in candidates if _method(other, arms) == BASELINE]
        candidates = [other for other in candidates if _answers_alike(arm, arms.get(other[:2]))]
        candidates = [other for other in candidates if not {(run, other[0]), (other[0], run)} & incomparable]
    best = min(candidates, key=lambda other: other[0] != run, default=key)
    return None if best == key else best


def _answers_alike(arm: Arm | None, other: Arm | None) -> bool:
    """Return whether two arms give the model frames, and read its answer, in the same way."""
    return arm is None or other is None or arm.config.answer == other.config.answer


def why_not_comparable(runs: Sequence[NamedRun]) -> dict[tuple[str, str], str]:
    """Return the pairs of runs, by name, whose answers can't be compared -> in what they differ.

    Arms may select frames in any way. What must be equal is who answers from the frames, how, and what is asked.
    """
    pairs = itertools.combinations(runs, 2)
    return {(one.name, other.name): reason for one, other in pairs if (reason := _difference(one, other))}


def _difference(one: NamedRun, other: NamedRun) -> str:
    """Return in what two runs differ, so that their answers can't be compared; "" if they can."""
    if one.way != other.way:
        return f"benchmark {one.way} and {other.way}"
    if one.model != other.model:
        return f"model {one.model} and {other.model}"
    ours, theirs = _answering(one), _answering(other)
    differing = [key for key in ours if ours[key] != theirs[key]]
    if differing:
        return ", ".join(f"{key} {ours[key]} and {theirs[key]}" for key in differing)
    questions, others = _questions(one), _questions(other)
    shared = questions.keys() & others.keys()
    if not shared:
        return "no question was put in both"
    changed = sum(questions[key] != others[key] for key in shared)
    return f"{counted(changed, 'question')} with other words, options or another target" if changed else ""


def _answering(named: NamedRun) -> dict[str, str]:
    """Return the settings that decide what the model answers from given frames."""
    settings = settings_of(named.run.config)
    return {key: settings[key] for key in settings if _decides_answers(key)}


def _decides_answers(key: str) -> bool:
    """Return whether a setting decides what is answered from given frames, and not which frames these are."""
    return key in ANSWERING_SETTINGS or (key.startswith("answer.") and key not in LOOKING_SETTINGS)


def _questions(named: NamedRun) -> dict[tuple[str, str], tuple[object, ...]]:
    """Return what was put to the model; a row of lvqa 0.1 has only the target."""
    rows = named.run.rows
    return {(row["video_id"], row["question_id"]): (row["question"], *row["options"], row["target"]) for row in rows}


def by_arm(conditions: Sequence[Condition]) -> dict[str, list[Condition]]:
    """Return arm -> its conditions, in their order."""
    arms: dict[str, list[Condition]] = {}
    for condition in conditions:
        arms.setdefault(condition.arm, []).append(condition)
    return arms


def clean(text: str) -> str:
    """Return a foreign text on one line, without characters that control a terminal or break a picture."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())

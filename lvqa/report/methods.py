"""What a paper's methods section must say of a run: a paragraph, and every setting."""

from __future__ import annotations

from collections import defaultdict

from lvqa.datasets import join_names
from lvqa.evaluation import resolve_arms, settings_of
from lvqa.evaluation.run_info import RunInfo
from lvqa.records import counted
from lvqa.report.conditions import NamedRun, clean

PLACE = ("workers", "ray_address", "gpus_per_worker", "allow_missing", "store", "arms", "benchmark.folder")
"""Settings that are no part of a method: they say where the work is done, or are described in words."""


def methods_paragraph(named: NamedRun) -> str:
    """Return what was compared, on what, by which model, as a paragraph."""
    run, config = named.run, named.run.config
    arms = resolve_arms(config)
    num_videos = len({row["video_id"] for row in run.rows})
    num_questions = len({(row["video_id"], row["question_id"]) for row in run.rows})
    budgets = sorted({budget for arm in arms for budget in arm.budgets if budget})
    frames = f" at {join_names([str(budget) for budget in budgets], 'and')} frames" if budgets else ""
    names = join_names([arm.name for arm in arms], "and")
    judges = join_names(sorted({row["judge"] for row in run.rows if row["judge"]}), "and")
    judged = f"Answers to open questions were judged by {judges}, and are counted apart. " if judges else ""
    return clean(
        f"{named.name}: {named.model} answered {counted(num_questions, 'question')} about "
        f"{counted(num_videos, 'video')} of {named.way}. The frames were chosen by {names}{frames}. "
        f"{judged}Accuracy counts all questions; intervals are 95%, cluster-robust with videos as clusters (CR2 with "
        f"Satterthwaite degrees of freedom, Wilson's form); p-values are corrected by Holm's method. "
        f"Seed {config.seed}; {_made_with(run.about)}."
    )


def _made_with(about: RunInfo) -> str:
    """Return with which programs a run was made, and on what: "lvqa 9.9.0 (commit 1a2b), torch 9.9.0 on cpu"."""
    versions, git = about.get("versions", {}), about.get("git")
    commit = f" (commit {git['commit'][:12]}{', changed' if git['dirty'] else ''})" if git else ""
    programs = [f"{name} {versions[name]}" for name in ("lvqa", "torch", "transformers", "av") if name in versions]
    programs[:1] = [f"{program}{commit}" for program in programs[:1]]
    devices = about.get("devices", [])
    return (", ".join(programs) or "versions unknown") + (f" on {join_names(devices, 'and')}" if devices else "")


def settings_lines(named: NamedRun) -> list[str]:
    """Return every setting of a run, a line for each section, and one for each arm that has settings of its own."""
    sections: dict[str, list[str]] = defaultdict(list)
    for key, value in settings_of(named.run.config).items():
        if not any(key == place or key.startswith(f"{place}.") for place in PLACE):
            section, _, name = key.rpartition(".")
            sections[section].append(f"{name} {value}")
    lines = [f"{section or 'run'}: {', '.join(settings)}" for section, settings in sections.items()]
    for arm in named.run.config.arms:
        if arm.settings:
            settings = ", ".join(f"{key} {value}" for key, value in arm.settings.items())
            lines.append(f"arm {arm.name or arm.method or named.run.config.method}: {settings}")
    return [clean(line) for line in lines]

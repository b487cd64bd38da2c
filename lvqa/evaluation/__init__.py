"""Runs of a benchmark: what is compared, what came out, what it says. `evaluate.run` asks; the rest needs no model."""

from lvqa.evaluation.folder import Run, read_run, require_run
from lvqa.evaluation.rows import Row, is_correct, is_unjudged
from lvqa.evaluation.settings import (
    NO_BUDGET,
    Arm,
    ArmConfig,
    BenchmarkConfig,
    RunConfig,
    SyntheticVideos,
    join_runs,
    load_run_config,
    resolve_arms,
    settings_of,
)
from lvqa.evaluation.statistics import (
    Comparison,
    Cost,
    Share,
    accuracy,
    by_ability,
    compare,
    correct,
    cost,
    evidence_recall,
    index_cost,
)

__all__ = [
    "NO_BUDGET",
    "Arm",
    "ArmConfig",
    "BenchmarkConfig",
    "Comparison",
    "Cost",
    "Row",
    "Run",
    "RunConfig",
    "Share",
    "SyntheticVideos",
    "accuracy",
    "by_ability",
    "compare",
    "correct",
    "cost",
    "evidence_recall",
    "index_cost",
    "is_correct",
    "is_unjudged",
    "join_runs",
    "load_run_config",
    "read_run",
    "require_run",
    "resolve_arms",
    "settings_of",
]

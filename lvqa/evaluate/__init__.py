"""Runs of a benchmark: what is compared, what came out, what it says. `evaluate.run` asks; the rest needs no model."""

from lvqa.evaluate.folder import Run, read_run
from lvqa.evaluate.rows import Row
from lvqa.evaluate.settings import (
    NO_BUDGET,
    Arm,
    ArmConfig,
    BenchmarkConfig,
    MadeFilms,
    RunConfig,
    arms_of,
    joined,
    load_run_config,
)
from lvqa.evaluate.statistics import (
    Comparison,
    Cost,
    Share,
    accuracy,
    by_ability,
    compare,
    cost,
    evidence_recall,
    index_cost,
    is_right,
    official_accuracy,
)

__all__ = [
    "NO_BUDGET",
    "Arm",
    "ArmConfig",
    "BenchmarkConfig",
    "Comparison",
    "Cost",
    "MadeFilms",
    "Row",
    "Run",
    "RunConfig",
    "Share",
    "accuracy",
    "arms_of",
    "by_ability",
    "compare",
    "cost",
    "evidence_recall",
    "index_cost",
    "is_right",
    "joined",
    "load_run_config",
    "official_accuracy",
    "read_run",
]

"""Measure what each stage costs, against the least that it could cost, what the machine could do, and baselines.

`measure` is the function to begin with. `flops` counts operations from a model's configuration, `stages` has the tasks
that are measured, `baselines` the same work as other code does it, and `prediction` adds up a whole benchmark.
"""

from lvqa.profiling.comparison import Comparison, compare
from lvqa.profiling.measurement import BenchReport, BenchSettings, TaskResult, measure
from lvqa.profiling.prediction import Prediction, predict

__all__ = ["BenchReport", "BenchSettings", "Comparison", "Prediction", "TaskResult", "compare", "measure", "predict"]

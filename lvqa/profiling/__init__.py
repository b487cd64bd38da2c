"""What must be done, what is done, and what the machine could do: the costs of every stage, measured in one run.

`measure` is the place to begin. `flops` counts operations from a model's configuration, `peers` are the usual ways to
do the same work, `predict` adds up a whole benchmark.
"""

from lvqa.profiling.predict import Prediction, predict
from lvqa.profiling.stages import Bench, BenchSettings, Measured, measure

__all__ = ["Bench", "BenchSettings", "Measured", "Prediction", "measure", "predict"]

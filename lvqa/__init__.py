"""lvqa: questions about hours of video, answered from the frames that matter."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from lvqa.lazy import lazy

# Products on a CPU are rounded alike wherever their numbers lie in memory: otherwise MKL lets two processes differ in
# the last digit, and an index would tell which of them made it. It reads this at its first product.
os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")
# Threads that wait for each other sleep. By default they spin, and on a machine that is busy a question takes ten times
# as long: who spins keeps the core from who is waited for. OpenMP reads it when it is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# NumPy multiplies in one thread. In several its products end in other digits, and a worker with a share of the cores
# would not come to the scores of a process that works alone. OpenBLAS reads it when it is loaded.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

__version__ = "0.2.0"
"""The version, in this one place."""
__all__ = [
    "Answer",
    "Item",
    "LongVideoQA",
    "LvqaError",
    "Match",
    "Question",
    "RetrievalTask",
    "Retriever",
    "__version__",
]

if TYPE_CHECKING:
    from lvqa.items import Item
    from lvqa.pipeline import LongVideoQA
    from lvqa.prompts import RetrievalTask
    from lvqa.records import Answer, LvqaError, Question
    from lvqa.retriever import Match, Retriever

__getattr__ = lazy(
    "lvqa",
    {
        **{name: "records" for name in ("Answer", "LvqaError", "Question")},
        **{"Item": "items", "LongVideoQA": "pipeline", "RetrievalTask": "prompts"},
        **{"Match": "retriever", "Retriever": "retriever"},
    },
)  # `import lvqa` loads neither torch nor numpy


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

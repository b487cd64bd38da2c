"""Protocols: how others ask a benchmark's questions, read the replies and count. They govern the answer alone."""

from __future__ import annotations

from collections.abc import Mapping

from lvqa.datasets import DATASETS
from lvqa.protocols import lmms_eval, official, vlmevalkit
from lvqa.protocols.answer_format import AnswerFormat
from lvqa.records import LvqaError

OWN = "lvqa"
"""The protocol of this package, which every benchmark has."""
PROTOCOLS: Mapping[str, Mapping[str, AnswerFormat]] = {
    OWN: {},
    "official": official.FORMATS,
    "lmms-eval": lmms_eval.FORMATS,
    "vlmevalkit": vlmevalkit.FORMATS,
}
"""Protocol -> benchmark -> how its questions are asked."""


def find_format(protocol: str, benchmark: str) -> AnswerFormat | None:
    """Return how a protocol asks the questions of a benchmark; None for lvqa's own way.

    Raises:
        LvqaError: There is no such protocol, or it does not know the benchmark.
    """
    if protocol not in PROTOCOLS:
        raise LvqaError(f"benchmark.protocol must be one of {', '.join(PROTOCOLS)}, got {protocol!r}")
    if protocol == OWN:
        return None
    if benchmark not in DATASETS:
        raise LvqaError(f"no benchmark {benchmark!r}; there are: {', '.join(DATASETS)}")
    known = PROTOCOLS[protocol]
    if benchmark not in known:
        own = [name for name, formats in PROTOCOLS.items() if name == OWN or benchmark in formats]
        raise LvqaError(f"benchmark {benchmark!r} has no protocol {protocol!r}; it has: {', '.join(own)}")
    return known[benchmark]


__all__ = ["OWN", "PROTOCOLS", "AnswerFormat", "find_format"]

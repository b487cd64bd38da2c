"""Rerank the best candidates: the model judges how well each clip matches the query.

A new reranker is a class with `rerank` and a line in RERANKERS, which `lvqa.rerank.contract` then checks; or a file of
your own (`lvqa.plugins`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from lvqa.plugins import PluginPoint
from lvqa.rerank.freeret import MultipleChoice
from lvqa.rerank.plugin import UserReranker
from lvqa.rerank.protocol import ClipReader, NoReranker, Reranker, RerankRequest, as_prompt, best_first
from lvqa.rerank.retllm import PaperRetLLM, ReleasedRetLLM, RetLLM

__all__ = [
    "RERANKER",
    "RERANKERS",
    "ClipReader",
    "MultipleChoice",
    "RerankRequest",
    "Reranker",
    "as_prompt",
    "best_first",
    "make_reranker",
]

RERANKERS: dict[str, Callable[..., Reranker]] = {
    "none": NoReranker,
    "mcq": MultipleChoice,
    "retllm": RetLLM,
    "retllm_paper": PaperRetLLM,
    "retllm_released": ReleasedRetLLM,
}

RERANKER: PluginPoint[Reranker] = PluginPoint(
    name_setting="rerank.name",
    options_setting="rerank.options",
    method_name="rerank",
    parameters="model, requests",
    built_in=RERANKERS,
    entry_point_group="lvqa.rerankers",
    guard=UserReranker,
)


def make_reranker(name: str, options: Mapping[str, Any] | None = None, **shared: Any) -> Reranker:
    """Make the reranker of this name, or of this file; `shared` are FreeRet's switches. See `PluginPoint.make`."""
    return RERANKER.make(name, options, **shared)

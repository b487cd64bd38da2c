"""A reranker of your own, from a Python file or an installed package: `rerank.name: path/to/file.py`, or its name.

It is a class with `rerank(self, model, requests)`, as the Protocol `Reranker` says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lvqa.models import Model
from lvqa.plugins import PluginSource, located_errors
from lvqa.records import Candidate, LvqaError, shorten
from lvqa.rerank.protocol import RerankRequest, find_fault


@dataclass(frozen=True, slots=True, eq=False)
class UserReranker:
    """A reranker of a plug-in. What goes wrong in it is an LvqaError that names the plug-in and the line."""

    source: PluginSource
    inner: Any

    def rerank(self, model: Model, requests: Sequence[RerankRequest]) -> list[list[Candidate]]:
        """Return what the class makes of the requests, if it is an answer to them."""
        with located_errors(self.source):
            answers = self.inner.rerank(model, list(requests))
        method = f"{self.source.label}: {type(self.inner).__name__}.rerank"
        if not isinstance(answers, list) or len(answers) != len(requests):
            raise LvqaError(f"{method} gives {shorten(answers)} and no list with an item for each request")
        for request, answer in zip(requests, answers, strict=True):
            if fault := find_fault(request.candidates, answer):
                raise LvqaError(f"{method} gives {fault}")
        return answers

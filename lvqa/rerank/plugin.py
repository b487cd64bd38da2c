"""A reranker of your own, from a Python file: `rerank.name: path/to/file.py`, or `path/to/file.py:Class`.

The file has a class with `rerank(self, model, requests)`, as the Protocol `Reranker` says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lvqa.models import Model
from lvqa.plugins import located_errors
from lvqa.records import Candidate, LvqaError, shorten
from lvqa.rerank.protocol import RerankRequest, find_fault


@dataclass(frozen=True, slots=True, eq=False)
class UserReranker:
    """A reranker from a file. What goes wrong in it is an LvqaError that names the file and the line."""

    path: Path
    inner: Any

    def rerank(self, model: Model, requests: Sequence[RerankRequest]) -> list[list[Candidate]]:
        """Return what the class makes of the requests, if it is an answer to them."""
        with located_errors(self.path):
            answers = self.inner.rerank(model, list(requests))
        method = f"{self.path}: {type(self.inner).__name__}.rerank"
        if not isinstance(answers, list) or len(answers) != len(requests):
            raise LvqaError(f"{method} gives {shorten(answers)} and no list with an item for each request")
        for request, answer in zip(requests, answers, strict=True):
            if fault := find_fault(request.candidates, answer):
                raise LvqaError(f"{method} gives {fault}")
        return answers

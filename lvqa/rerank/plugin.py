"""A reranker of your own, from a Python file: `rerank.name: path/to/file.py`, or `path/to/file.py:Class`.

The file has a class with `rerank(self, backbone, query, candidates, blocks_of, beginnings=None)`, as the Protocol
`Reranker` says; with `image=()` too if queries may hold a picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lvqa.backbones import Backbone
from lvqa.plugins import told_where
from lvqa.records import Candidate, LvqaError
from lvqa.rerank.protocol import BlocksOf, fault

if TYPE_CHECKING:
    from lvqa.backbones.beginnings import Beginnings
    from lvqa.backbones.prompt import Prompt


@dataclass(frozen=True, slots=True, eq=False)
class UserReranker:
    """A reranker from a file. What goes wrong in it is an LvqaError that names the file and the line."""

    path: Path
    inner: Any

    def rerank(
        self,
        backbone: Backbone,
        query: str,
        candidates: Sequence[Candidate],
        blocks_of: BlocksOf,
        beginnings: Beginnings | None = None,
        *,
        image: Prompt = (),
    ) -> list[Candidate]:
        """What the class makes of the candidates, if it is what was asked for. It need not know of pictures."""
        shown = {"image": image} if image else {}
        with told_where(self.path):
            found = self.inner.rerank(backbone, query, list(candidates), blocks_of, beginnings, **shown)
        if wrong := fault(candidates, found):
            raise LvqaError(f"{self.path}: {type(self.inner).__name__}.rerank gives {wrong}")
        checked: list[Candidate] = found
        return checked

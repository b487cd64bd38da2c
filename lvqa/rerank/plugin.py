"""A reranker of your own, from a Python file: `rerank.name: path/to/file.py`, or `path/to/file.py:Class`.

The file has a class with `rerank(self, model, query, candidates, clip_tokens, beginnings=None)`, as the Protocol
`Reranker` says; with `image=()` too if queries may hold a picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lvqa.models import Model
from lvqa.plugins import PluginSource, located_errors
from lvqa.records import Candidate, LvqaError
from lvqa.rerank.protocol import ClipTokensOf, fault

if TYPE_CHECKING:
    from lvqa.models.prefix import PrefixCache
    from lvqa.models.prompt import Prompt


@dataclass(frozen=True, slots=True, eq=False)
class UserReranker:
    """A reranker of a plug-in. What goes wrong in it is an LvqaError that names the plug-in and the line."""

    source: PluginSource
    inner: Any

    def rerank(
        self,
        model: Model,
        query: str,
        candidates: Sequence[Candidate],
        clip_tokens: ClipTokensOf,
        beginnings: PrefixCache | None = None,
        *,
        image: Prompt = (),
    ) -> list[Candidate]:
        """What the class makes of the candidates, if it is what was asked for. It need not know of pictures."""
        shown = {"image": image} if image else {}
        with located_errors(self.source):
            found = self.inner.rerank(model, query, list(candidates), clip_tokens, beginnings, **shown)
        if wrong := fault(candidates, found):
            raise LvqaError(f"{self.source.label}: {type(self.inner).__name__}.rerank gives {wrong}")
        checked: list[Candidate] = found
        return checked

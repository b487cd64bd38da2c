"""What tells queries and candidates from others: for rows that go on, and for vectors that are kept."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from lvqa.datasets.retrieval import Content, Query, RetrievalSet
from lvqa.records import file_key

DIGITS = 16


class ContentIds:
    """The ids of a set's queries, each with its candidates."""

    def __init__(self, one: RetrievalSet) -> None:
        self._set = one
        self._candidates = {name: content_id([content]) for name, content in one.candidates.items()}
        self._all = _digest([*self._candidates.items()])

    def of(self, query: Query) -> str:
        """Return the id of a query: another one where its content, its candidates or what is right has changed."""
        chosen = query.candidates
        candidates = self._all if chosen is None else [[name, self._candidates[name]] for name in chosen]
        return _digest([content_id([query.content]), query.instruction, query.targets, candidates])


def content_id(contents: Iterable[Content], about: Mapping[str, object] | None = None) -> str:
    """Return what tells contents from others: their texts, their files as they are now, and what else is given."""
    return _digest([dict(about or {}), *map(_described, contents)])


def _described(content: Content) -> list[object]:
    times = [content.start_seconds, content.end_seconds]
    # By its last two names: the dataset's folder may move.
    return [content.text, *(["/".join(path.parts[-2:]), _state(path)] for path in content.files), times]


def _state(path: Path) -> list[int]:
    """Return the size and the time of a file, on every machine alike; nothing for a missing one."""
    with contextlib.suppress(OSError):
        return list(file_key(path)[:2])
    return []


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, default=str).encode()).hexdigest()[:DIGITS]

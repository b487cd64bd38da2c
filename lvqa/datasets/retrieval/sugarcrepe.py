"""SugarCrepe: a picture, its caption, and one that was made wrong by one change."""

from __future__ import annotations

from pathlib import Path
from typing import TypedDict

from lvqa.datasets.annotations import Text, json_value
from lvqa.datasets.retrieval.sets import Collector, Content, Nouns, RetrievalSet, inside
from lvqa.validation import require_one_of

PARTS = ("replace_obj", "replace_att", "replace_rel", "swap_obj", "swap_att", "add_obj", "add_att")
"""The changes; RetLLM prints the means of those that replace, swap and add."""


class Row(TypedDict):
    """A picture of COCO's `val2017` with both captions."""

    filename: Text
    caption: Text
    negative_caption: Text


class SugarCrepe:
    """SugarCrepe (`replace_obj.json`, ..., the pictures in `val2017/`): which of two captions is the picture's?"""

    title = "SugarCrepe"

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def names(self) -> tuple[str, ...]:
        """Return the names of the seven changes."""
        return PARTS

    def read(self, name: str, limit: int | None) -> RetrievalSet:
        """Read a change; see SetReader."""
        require_one_of(name, "a set of SugarCrepe", PARTS)
        path = self.folder / f"{name}.json"
        collector = Collector()
        for key, row in list(json_value(path, dict[str, Row]).items())[:limit]:
            image = inside(self.folder / "val2017", row["filename"], "filename", f"{path}, key {key}")
            candidates = [(text, Content(text=text)) for text in (row["caption"], row["negative_caption"])]
            collector.add(Content(image=image), candidates, [row["caption"]], id=key)
        return RetrievalSet(
            name=name,
            category="retrieval",
            modality="image",
            nouns=Nouns(query="image", candidate="caption"),
            queries=tuple(collector.queries),
            candidates=collector.candidates,
        )

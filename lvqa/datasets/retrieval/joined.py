"""Several retrieval datasets as one, so that a table of a paper is one run."""

from __future__ import annotations

from pathlib import Path

from lvqa.datasets.retrieval.captions import COCO, Flickr30K, ShareGPT4V, Urban1K
from lvqa.datasets.retrieval.sets import RetrievalSet, SetReader
from lvqa.datasets.retrieval.sugarcrepe import SugarCrepe
from lvqa.validation import require_one_of

PLACES: dict[str, type[SetReader]] = {
    "flickr30k": Flickr30K,
    "coco": COCO,
    "sharegpt4v": ShareGPT4V,
    "urban1k": Urban1K,
    "sugarcrepe": SugarCrepe,
}
"""The folder of each dataset -> its reader."""


class RetLLMSets:
    """The datasets of RetLLM's tables, each in the folder of its name in PLACES."""

    title = "RetLLM's tables"

    def __init__(self, folder: Path) -> None:
        self._readers = [reader(folder / place) for place, reader in PLACES.items()]

    def names(self) -> tuple[str, ...]:
        """Return the names of the sets of all datasets."""
        return tuple(name for reader in self._readers for name in reader.names())

    def read(self, name: str, limit: int | None) -> RetrievalSet:
        """Read a set; see SetReader."""
        require_one_of(name, "a set of RetLLM's tables", self.names())
        return next(reader for reader in self._readers if name in reader.names()).read(name, limit)

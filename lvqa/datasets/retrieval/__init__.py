"""Retrieval datasets as they are published: queries, candidates, and which candidates are right.

A dataset lies in one folder and has one or more sets. What can't be read is an LvqaError with the key, the value, what
is allowed, and file and line, as in `lvqa.datasets`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lvqa.datasets.annotations import files_read
from lvqa.datasets.retrieval.captions import COCO, Flickr30K, ShareGPT4V, Urban1K
from lvqa.datasets.retrieval.joined import RetLLMSets
from lvqa.datasets.retrieval.mmeb import MMEB
from lvqa.datasets.retrieval.mmeb_video import MMEBVideo
from lvqa.datasets.retrieval.own import OwnSets
from lvqa.datasets.retrieval.sets import CATEGORIES, Content, Nouns, Query, RetrievalSet, SetReader
from lvqa.datasets.retrieval.sugarcrepe import SugarCrepe
from lvqa.records import LvqaError
from lvqa.validation import require_one_of

RETRIEVAL_DATASETS: dict[str, type[SetReader]] = {
    "mmeb": MMEB,
    "mmeb_v2_video": MMEBVideo,
    "flickr30k": Flickr30K,
    "coco": COCO,
    "sharegpt4v": ShareGPT4V,
    "urban1k": Urban1K,
    "sugarcrepe": SugarCrepe,
    "retllm": RetLLMSets,
    "own": OwnSets,
}
"""The reader of each retrieval dataset."""


def load_sets(
    name: str, folder: Path, *, sets: Sequence[str] | None = None, limit: int | None = None
) -> tuple[list[RetrievalSet], list[Path]]:
    """Read a retrieval dataset.

    Args:
        name: A name in RETRIEVAL_DATASETS.
        folder: The folder of its files.
        sets: The sets to read; None: all that the dataset has.
        limit: Of each set the first so many queries; None: all.

    Returns:
        The sets, and the annotation files that were read.

    Raises:
        LvqaError: There is no such dataset or set, or something in it can't be read.
    """
    require_one_of(name, "dataset.name", RETRIEVAL_DATASETS)
    reader = RETRIEVAL_DATASETS[name](folder)
    known = reader.names()
    if not known:
        raise LvqaError(f"{folder} holds no set of {reader.title}: no folder in it has a queries.jsonl")
    for chosen in sets or ():
        require_one_of(chosen, f"a set of {reader.title}", known)
    try:
        with files_read() as files:
            loaded = [reader.read(chosen, limit) for chosen in sets or known]
    except OSError as error:
        raise LvqaError(f"{error.filename or folder}: {error.strerror or error}") from error
    return loaded, list(dict.fromkeys(files))


__all__ = [
    "CATEGORIES",
    "RETRIEVAL_DATASETS",
    "Content",
    "Nouns",
    "Query",
    "RetrievalSet",
    "SetReader",
    "load_sets",
]

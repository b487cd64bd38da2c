"""MMEB's 36 sets of image tasks, as VLM2Vec's evaluation reads them.

`annotations/MMEB_Test_Instruct/SET/test-*.parquet` are the test files (a set of that repository each), and the pictures
lie in `image-tasks/`, as MMEB-V2's archive of images unpacks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NotRequired, TypedDict

from lvqa.datasets.annotations import AnyText, parquet_rows
from lvqa.datasets.retrieval.sets import Collector, Content, Nouns, RetrievalSet, inside
from lvqa.records import LvqaError
from lvqa.validation import require_one_of

MAX_PARQUET_BYTES = 1 << 30
"""A bound on a published file; the largest have a quarter of it."""
IMAGE_TOKEN = "<|image_1|>"
"""Stands in the texts for the query's or the candidate's picture."""


class Row(TypedDict):
    """A query with its candidates, the first of which is the right one."""

    qry_inst: NotRequired[AnyText | None]
    qry_text: AnyText | None
    qry_img_path: AnyText | None
    tgt_inst: NotRequired[AnyText | None]
    tgt_text: list[AnyText | None]
    tgt_img_path: NotRequired[list[AnyText | None] | None]


@dataclass(frozen=True, slots=True)
class Kind:
    """What the sets of one parser of VLM2Vec have in common."""

    category: str
    candidates: str
    """How a candidate is named: by its "text", by its "image", or by "both"."""


CLASSIFICATION, ANSWERS = Kind("classification", "text"), Kind("question answering", "text")
TO_TEXT, TO_IMAGE = Kind("retrieval", "text"), Kind("retrieval", "image")
IMAGE_TO_IMAGE, GROUNDING = Kind("retrieval", "both"), Kind("grounding", "both")

SETS: dict[str, tuple[Kind, Nouns]] = {
    "ImageNet-1K": (CLASSIFICATION, Nouns(query="image", candidate="object category")),
    "N24News": (
        CLASSIFICATION,
        Nouns(query="image and news", candidate="sentence", query_topic="news", relation=("news", "topic")),
    ),
    "HatefulMemes": (CLASSIFICATION, Nouns(query="meme", candidate="answer whether it is hateful")),
    "VOC2007": (CLASSIFICATION, Nouns(query="image", candidate="object category")),
    "SUN397": (CLASSIFICATION, Nouns(query="image", candidate="scene category")),
    "Place365": (CLASSIFICATION, Nouns(query="image", candidate="scene category")),
    "ImageNet-A": (CLASSIFICATION, Nouns(query="image", candidate="object category")),
    "ImageNet-R": (CLASSIFICATION, Nouns(query="image", candidate="object category")),
    "ObjectNet": (CLASSIFICATION, Nouns(query="image", candidate="object category")),
    "Country211": (CLASSIFICATION, Nouns(query="image", candidate="country")),
    "OK-VQA": (ANSWERS, Nouns(query="image and question", candidate="answer")),
    "A-OKVQA": (ANSWERS, Nouns(query="image and question", candidate="answer")),
    "DocVQA": (ANSWERS, Nouns(query="document and question", candidate="answer")),
    "InfographicsVQA": (ANSWERS, Nouns(query="infographic and question", candidate="answer")),
    "ChartQA": (ANSWERS, Nouns(query="chart and question", candidate="answer")),
    "Visual7W": (ANSWERS, Nouns(query="image and question", candidate="answer")),
    "ScienceQA": (ANSWERS, Nouns(query="image and question", candidate="answer")),
    "VizWiz": (ANSWERS, Nouns(query="image and question", candidate="answer")),
    "GQA": (ANSWERS, Nouns(query="image and question", candidate="answer")),
    "TextVQA": (ANSWERS, Nouns(query="image and question", candidate="answer")),
    "VisDial": (TO_IMAGE, Nouns(query="dialogue", candidate="image")),
    "CIRR": (IMAGE_TO_IMAGE, Nouns(query="image and requested change", candidate="image")),
    "VisualNews_t2i": (TO_IMAGE, Nouns(query="news caption", candidate="image")),
    "VisualNews_i2t": (TO_TEXT, Nouns(query="image", candidate="news caption")),
    "MSCOCO_t2i": (TO_IMAGE, Nouns(query="caption", candidate="image")),
    "MSCOCO_i2t": (TO_TEXT, Nouns(query="image", candidate="caption")),
    "NIGHTS": (IMAGE_TO_IMAGE, Nouns(query="image", candidate="image")),
    "WebQA": (TO_IMAGE, Nouns(query="question", candidate="image and text")),
    "FashionIQ": (IMAGE_TO_IMAGE, Nouns(query="image and requested change", candidate="image")),
    "Wiki-SS-NQ": (TO_IMAGE, Nouns(query="question", candidate="document")),
    "OVEN": (IMAGE_TO_IMAGE, Nouns(query="image and question", candidate="image and text")),
    "EDIS": (TO_IMAGE, Nouns(query="news caption", candidate="image and headline")),
    "MSCOCO": (GROUNDING, Nouns(query="image and object", candidate="image")),
    "RefCOCO": (GROUNDING, Nouns(query="image and phrase", candidate="image")),
    "RefCOCO-Matching": (GROUNDING, Nouns(query="image and phrase", candidate="image and phrase")),
    "Visual7W-Pointing": (GROUNDING, Nouns(query="image and question", candidate="image")),
}
"""Set -> what it is, and what the prompts call its two sides. FreeRet prints the nouns of N24News
(Figure 3); the others are ours."""


class MMEB:
    """MMEB: 36 sets of image tasks, each query with its own candidates."""

    title = "MMEB"

    def __init__(self, folder: Path) -> None:
        self._annotations, self._images = folder / "annotations" / "MMEB_Test_Instruct", folder / "image-tasks"

    def names(self) -> tuple[str, ...]:
        """Return the names of the sets, in the order of VLM2Vec's report."""
        return tuple(SETS)

    def read(self, name: str, limit: int | None) -> RetrievalSet:
        """Read a set; see SetReader."""
        require_one_of(name, "a set of MMEB", SETS)
        kind, nouns = SETS[name]
        collector, instructions = Collector(), dict[str, None]()
        for origin, row in self._rows(name, limit):
            candidates = list(self._candidates(kind, row, origin))
            if not candidates:
                raise LvqaError(f"tgt_text is empty; the first candidate is the right one ({origin})")
            collector.add(
                self._content(row["qry_text"], row["qry_img_path"], "qry_img_path", origin),
                candidates,
                [candidates[0][0]],
                instruction=_without_token(row.get("qry_inst")),
            )
            instructions[_without_token(row.get("tgt_inst"))] = None
        return RetrievalSet(
            name=name,
            category=kind.category,
            modality="image",
            nouns=nouns,
            queries=tuple(collector.queries),
            candidates=collector.candidates,
            instruction=next(iter(instructions), ""),
        )

    def _rows(self, name: str, limit: int | None) -> Iterator[tuple[str, Row]]:
        folder = self._annotations / name
        files = sorted(folder.glob("test-*.parquet"))
        if not files:
            raise LvqaError(f"{folder} has no test-*.parquet; the set's queries are read from there")
        left = limit
        for file in files:
            for origin, row in parquet_rows(file, Row, limit=left, max_bytes=MAX_PARQUET_BYTES):
                left = None if left is None else left - 1
                yield origin, row
            if left == 0:
                return

    def _candidates(self, kind: Kind, row: Row, origin: str) -> Iterable[tuple[str, Content]]:
        """Yield the candidates of a row, by the names that VLM2Vec gives them."""
        texts, images = ([item or "" for item in items] for items in (row["tgt_text"], row.get("tgt_img_path") or []))
        if kind.candidates == "text":
            return ((text, Content(text=text.strip())) for text in texts)
        if len(images) != len(texts):
            raise LvqaError(f"tgt_text has {len(texts)} items and tgt_img_path {len(images)} ({origin})")
        names = (
            images
            if kind.candidates == "image"
            else [f"{i}:{t.strip(chr(34))}" for i, t in zip(images, texts, strict=True)]
        )
        contents = (self._content(t, i, "tgt_img_path", origin) for t, i in zip(texts, images, strict=True))
        return zip(names, contents, strict=True)

    def _content(self, text: str | None, image: str | None, key: str, origin: str) -> Content:
        path = inside(self._images, image, key, origin) if image and image.strip() else None
        return Content(text=_without_token(text), image=path)


def _without_token(text: str | None) -> str:
    return (text or "").replace(IMAGE_TOKEN, "").strip()

"""Pictures and their captions, searched in both directions: Flickr30K, COCO, ShareGPT4V, Urban1K."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NotRequired, TypedDict

from lvqa.datasets.annotations import Text, check_file, json_value
from lvqa.datasets.retrieval.sets import Content, Nouns, Query, RetrievalSet, first_json_items, inside
from lvqa.records import LvqaError
from lvqa.validation import convert, require_one_of

I2T, T2I = "i2t", "t2i"
"""The directions: a picture's captions, and a caption's picture."""
SHAREGPT4V_QUERIES = 1000
"""ShareGPT4V's retrieval test is its file's first thousand pictures, as Long-CLIP takes them."""


class Sentence(TypedDict):
    """A caption in Karpathy's files."""

    raw: Text


class Picture(TypedDict):
    """A picture in Karpathy's files; COCO's have a folder."""

    filename: Text
    filepath: NotRequired[str | None]
    split: Text
    sentences: list[Sentence]


class KarpathyFile(TypedDict):
    """Karpathy's `dataset_flickr30k.json` and `dataset_coco.json`."""

    images: list[Picture]


class Turn(TypedDict):
    """What a person or a model says in ShareGPT4V's file."""

    value: Text


class Conversation(TypedDict):
    """A picture of ShareGPT4V's file; the second turn is its caption."""

    image: Text
    conversations: list[Turn]


class CaptionPairs:
    """A dataset of pictures with captions; its two sets are the two directions."""

    title: str
    name: str
    noun = "caption"

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def pairs(self) -> Iterator[tuple[str, Path, tuple[str, ...]]]:
        """Yield each picture with its name and its captions."""
        raise NotImplementedError

    def names(self) -> tuple[str, ...]:
        """Return the names of the two sets."""
        return f"{self.name}_{I2T}", f"{self.name}_{T2I}"

    def read(self, name: str, limit: int | None) -> RetrievalSet:
        """Read a direction; see SetReader. All candidates stay, whatever the limit is."""
        require_one_of(name, f"a set of {self.title}", self.names())
        pairs = list(self.pairs())
        if not pairs:
            raise LvqaError(f"{self.folder}: the annotations hold no picture of the test split")
        pictures = {picture: Content(image=path) for picture, path, _ in pairs}
        captions = {f"{picture}#{i}": Content(text=text) for picture, _, texts in pairs for i, text in enumerate(texts)}
        if name.endswith(I2T):
            queries = [(picture, [f"{picture}#{i}" for i in range(len(texts))]) for picture, _, texts in pairs]
            sides, nouns = (pictures, captions), Nouns(query="image", candidate=self.noun)
        else:
            queries = [(caption, [caption.rpartition("#")[0]]) for caption in captions]
            sides, nouns = (captions, pictures), Nouns(query=self.noun, candidate="image")
        return RetrievalSet(
            name=name,
            category="retrieval",
            modality="image",
            nouns=nouns,
            queries=tuple(Query(id=id, content=sides[0][id], targets=tuple(t)) for id, t in queries[:limit]),
            candidates=sides[1],
        )


class Karpathy(CaptionPairs):
    """A dataset by Karpathy's file of splits, of which the test split is taken: 5 captions a picture."""

    file: str

    def pairs(self) -> Iterator[tuple[str, Path, tuple[str, ...]]]:
        """Yield the pictures of the test split."""
        path = self.folder / self.file
        for i, picture in enumerate(json_value(path, KarpathyFile, max_bytes=1 << 29)["images"]):
            if picture["split"] == "test":
                name = "/".join(part for part in (picture.get("filepath"), picture["filename"]) if part)
                file = inside(self.folder / "images", name, "filename", f"{path}, image {i + 1}")
                yield name, file, tuple(sentence["raw"].strip() for sentence in picture["sentences"])


class Flickr30K(Karpathy):
    """Flickr30K's 1,000 test pictures (`dataset_flickr30k.json`, `images/`)."""

    title, name, file = "Flickr30K", "Flickr30K", "dataset_flickr30k.json"


class COCO(Karpathy):
    """COCO's 5,000 test pictures (`dataset_coco.json`, `images/val2014/`)."""

    title, name, file = "COCO", "COCO", "dataset_coco.json"


class ShareGPT4V(CaptionPairs):
    """The first 1,000 pictures of ShareGPT4V's long captions; the pictures lie where the file says, from the folder."""

    title, name = "ShareGPT4V", "ShareGPT4V"
    file = "share-captioner_coco_lcs_sam_1246k_1107.json"

    def pairs(self) -> Iterator[tuple[str, Path, tuple[str, ...]]]:
        """Yield the first pictures of the file."""
        path = self.folder / self.file
        for i, item in enumerate(first_json_items(path, SHAREGPT4V_QUERIES)):
            origin = f"{path}, item {i + 1}"
            row = convert(item, Conversation, origin=origin)
            if len(row["conversations"]) < 2:
                raise LvqaError(f"conversations must have two turns, the second of which is the caption ({origin})")
            caption = row["conversations"][1]["value"].replace("\n", " ").strip()
            yield row["image"], inside(self.folder, row["image"], "image", origin), (caption,)


class Urban1K(CaptionPairs):
    """Urban1K's 1,000 pictures: `image/N.jpg` with `caption/N.txt`."""

    title, name = "Urban1K", "Urban1K"

    def pairs(self) -> Iterator[tuple[str, Path, tuple[str, ...]]]:
        """Yield the pictures in the order of the numbers that are their names."""
        folder = self.folder / "caption"
        files = sorted(folder.glob("*.txt"), key=lambda file: (len(file.stem), file.stem))
        if not files:
            raise LvqaError(f"{folder} has no *.txt; the captions are read from there")
        for file in files:
            check_file(file)
            try:
                caption = file.read_text(encoding="utf-8").replace("\n", " ").strip()
            except (OSError, UnicodeDecodeError) as error:
                raise LvqaError(f"cannot read {file}: {error}") from error
            yield file.stem, self.folder / "image" / f"{file.stem}.jpg", (caption,)

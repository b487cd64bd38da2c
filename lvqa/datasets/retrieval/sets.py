"""What a retrieval dataset holds: sets of queries and candidates, and which candidates are right."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from lvqa.datasets.annotations import MAX_LINE_BYTES, check_file
from lvqa.records import LvqaError, shorten
from lvqa.validation import require

CATEGORIES = ("classification", "question answering", "retrieval", "grounding")
"""The kinds of tasks, as FreeRet's Table 1 groups them; moment retrieval is grounding in time."""
PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png")
"""The suffixes of frames that stand in for a video."""
MAX_LIST_BYTES = 1 << 34
"""A bound on a file of which only the beginning is read."""
FRAMES_OF_A_VIDEO = 8
"""MMEB-V2 takes so many frames of a video."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """What a query or a candidate consists of: a text, a picture, a video or a part of one, or several of them."""

    text: str = ""
    image: Path | None = None
    video: Path | None = None
    frames: tuple[Path, ...] = ()
    """The frames of a video as pictures, in their order, where there is no video file."""
    start_seconds: float | None = None
    """Where the part of the video begins; None: the whole video."""
    end_seconds: float | None = None
    sound: Path | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that the content is read from."""
        return tuple(path for path in (self.image, self.video, self.sound, *self.frames) if path is not None)

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing in it that a model could see or read."""
        return not (self.text.strip() or self.files)


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """A query, and which candidates are right."""

    id: str
    content: Content
    targets: tuple[str, ...]
    """The names of the candidates that are right. One that is no candidate can never be found, and counts."""
    candidates: tuple[str, ...] | None = None
    """The names of the candidates among which it is searched; None: all of the set."""
    instruction: str = ""
    """What the dataset says that a model should do with the query."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Nouns:
    """What the prompts call the two sides of a task; see `lvqa.prompts.RetrievalTask`."""

    query: str
    candidate: str
    query_topic: str | None = None
    """Whose topic a query's vector favours; None: the whole query's."""
    relation: tuple[str, str] | None = None
    """The two things of which the first constraint asks if they are related; None: the two sides."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrievalSet:
    """Queries, the candidates of all of them, and what the task is."""

    name: str
    category: str
    """One of CATEGORIES."""
    modality: str
    """"image" or "video": which part of VLM2Vec's report the set belongs to."""
    nouns: Nouns
    queries: tuple[Query, ...]
    candidates: Mapping[str, Content]
    """Name -> content, in the order in which they come; a name stands for one content."""
    instruction: str = ""
    """What the dataset says that a model should do with a candidate."""

    def names_of(self, query: Query) -> tuple[str, ...]:
        """Return the names of the candidates among which a query is searched."""
        return tuple(self.candidates) if query.candidates is None else query.candidates


class SetReader(Protocol):
    """A retrieval dataset by its published files."""

    title: str
    """The dataset's name, as its paper has it."""

    def __init__(self, folder: Path) -> None: ...

    def names(self) -> tuple[str, ...]:
        """Return the names of the dataset's sets, whether their files are there or not."""

    def read(self, name: str, limit: int | None) -> RetrievalSet:
        """Read a set, with its first `limit` queries; None: all.

        Raises:
            LvqaError: A file is missing, or something in it can't be read.
        """


class Collector:
    """Collects queries with candidates of their own; a candidate that comes again under its name is taken once."""

    def __init__(self) -> None:
        self.queries: list[Query] = []
        self.candidates: dict[str, Content] = {}

    def add(
        self, content: Content, candidates: Iterable[tuple[str, Content]], targets: Sequence[str], **known: str
    ) -> None:
        """Add a query with its candidates, each a name and its content.

        Args:
            content: The query's.
            candidates: The query's candidates in their order.
            targets: The names of those that are right.
            known: More fields of the Query.
        """
        named = list(candidates)
        for name, candidate in named:
            self.candidates.setdefault(name, candidate)
        self.queries.append(
            Query(
                id=known.pop("id", str(len(self.queries))),
                content=content,
                targets=tuple(targets),
                candidates=tuple(name for name, _ in named),
                **known,
            )
        )

    def over_all(self) -> list[Query]:
        """Return the queries as they are searched among the candidates of all."""
        return [dataclasses.replace(query, candidates=None) for query in self.queries]


def inside(folder: Path, name: str, key: str, origin: str) -> Path:
    """Return the path of a file in a folder by a name from an annotation; it can't lead out of the folder.

    Raises:
        LvqaError: The name is empty, or leads out of the folder.
    """
    parts = Path(name).parts
    is_inside = bool(name.strip()) and not name.startswith("/") and ".." not in parts and "\0" not in name
    require(is_inside, key, name, "the path of a file inside the dataset's folder", origin=origin)
    return folder / name


def frames_in(folder: Path, number: int = FRAMES_OF_A_VIDEO) -> tuple[Path, ...]:
    """Return frames of a video that lie in a folder as pictures, in the order of the numbers in their names.

    Args:
        folder: The folder.
        number: Of more frames, so many at even steps are taken, the first and the last among them.

    Raises:
        LvqaError: There is no such folder, or no picture in it.
    """
    import numpy as np

    try:
        paths = [path for path in folder.iterdir() if path.suffix.lower() in PICTURE_SUFFIXES]
    except OSError as error:
        raise LvqaError(f"cannot read the frames in {folder}: {error.strerror or error}") from error
    if not paths:
        raise LvqaError(f"{folder} holds no frames; they are pictures: {', '.join(PICTURE_SUFFIXES)}")
    paths.sort(
        key=lambda path: [int(part) if part.isdigit() else part.lower() for part in re.split(r"(\d+)", path.name)]
    )
    if len(paths) < number:
        return tuple(paths)
    return tuple(paths[i] for i in np.linspace(0, len(paths) - 1, number, dtype=int))


def first_json_items(path: Path, number: int) -> Iterator[object]:
    """Yield the first items of a file that is one JSON list, which may be far larger than memory.

    Raises:
        LvqaError: The file is missing, or does not begin with such a list.
    """
    import json

    decoder, text = json.JSONDecoder(), ""
    check_file(path, max_bytes=MAX_LIST_BYTES)
    try:
        with path.open(encoding="utf-8-sig") as file:
            text = file.read(1 << 16).lstrip()
            require(text.startswith("["), "the content", text[:20], "a JSON list", origin=str(path))
            text = text[1:]
            for index in range(number):
                item, text = _next_item(decoder, text.lstrip(" \n\r\t,"), file, f"{path}, item {index + 1}")
                if item is None:
                    return
                yield item
    except UnicodeDecodeError as error:
        raise LvqaError(f"not JSON: byte {error.start} is not UTF-8 text ({path})") from None


def _next_item(decoder: object, text: str, file: object, origin: str) -> tuple[object, str]:
    """Return the next item of a list and the text after it; None at the list's end."""
    while True:
        if text.startswith("]"):
            return None, ""
        try:
            item, end = decoder.raw_decode(text)  # type: ignore[attr-defined]
            return item, text[end:]
        except ValueError as error:
            more = file.read(1 << 16)  # type: ignore[attr-defined]
            if not more or len(text) > MAX_LINE_BYTES:
                raise LvqaError(f"not JSON: {shorten(str(error))} ({origin})") from None
            text = (text + more).lstrip(" \n\r\t,")

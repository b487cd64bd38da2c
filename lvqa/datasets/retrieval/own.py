"""Retrieval sets of your own, in JSON Lines: queries, candidates, and which are right."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NotRequired, TypedDict

from lvqa.datasets.annotations import AnyText, Text, json_lines, json_value
from lvqa.datasets.retrieval.sets import CATEGORIES, Content, Nouns, Query, RetrievalSet
from lvqa.records import LvqaError, shorten
from lvqa.validation import NonNegativeFloat, require, require_one_of

QUERIES, CANDIDATES, ABOUT = "queries.jsonl", "candidates.jsonl", "set.json"


class ContentRow(TypedDict):
    """A query or a candidate: a text, a picture, a video or a part of it, a sound, or several of them."""

    id: Text
    text: NotRequired[AnyText | None]
    image: NotRequired[Text | None]
    video: NotRequired[Text | None]
    start: NotRequired[NonNegativeFloat | None]
    end: NotRequired[NonNegativeFloat | None]
    sound: NotRequired[Text | None]


class QueryRow(ContentRow):
    """A query with the ids of the candidates that are right, and of those among which it is searched."""

    positives: list[Text]
    candidates: NotRequired[list[Text] | None]
    instruction: NotRequired[AnyText | None]


class About(TypedDict):
    """What `set.json` may say of a set."""

    query: NotRequired[Text]
    candidate: NotRequired[Text]
    category: NotRequired[Text]
    modality: NotRequired[Text]


class OwnSets:
    """Sets of your own: a folder with `queries.jsonl` and `candidates.jsonl`, or folders of such, each a set.

    Files are named by their paths from the set's folder. `set.json` may say what the prompts call the two sides.
    """

    title = "Your own sets"

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def names(self) -> tuple[str, ...]:
        """Return the names of the sets: of the folders with queries, or of the folder itself."""
        if (self.folder / QUERIES).is_file():
            return (self.folder.resolve().name,)
        return tuple(sorted(path.parent.name for path in self.folder.glob(f"*/{QUERIES}")))

    def read(self, name: str, limit: int | None) -> RetrievalSet:
        """Read a set; see SetReader."""
        if not self.names():
            raise LvqaError(
                f"{self.folder} has no {QUERIES}, nor a folder that has one; your queries are read from there"
            )
        require_one_of(name, "a set", self.names())
        folder = self.folder if (self.folder / QUERIES).is_file() else self.folder / name
        about = json_value(folder / ABOUT, About) if (folder / ABOUT).is_file() else About()
        require_one_of(category := about.get("category", "retrieval"), f"category ({folder / ABOUT})", CATEGORIES)
        candidates = dict(_contents(folder))
        return RetrievalSet(
            name=name,
            category=category,
            modality=about.get("modality", "image"),
            nouns=Nouns(query=about.get("query", "query"), candidate=about.get("candidate", "candidate")),
            queries=tuple(_queries(folder, candidates, limit)),
            candidates=candidates,
        )


def _contents(folder: Path) -> Iterator[tuple[str, Content]]:
    ids = set[str]()
    for origin, row in json_lines(folder / CANDIDATES, ContentRow):
        yield _id(row, ids, origin), _content(row, folder, origin)


def _queries(folder: Path, candidates: dict[str, Content], limit: int | None) -> Iterator[Query]:
    ids = set[str]()
    for number, (origin, row) in enumerate(json_lines(folder / QUERIES, QueryRow)):
        if number == limit:
            return
        chosen = row.get("candidates")
        unknown = [id for id in (*row["positives"], *(chosen or ())) if id not in candidates]
        if unknown:
            raise LvqaError(f"{shorten(unknown[0])} is no id in {CANDIDATES} ({origin})")
        require(bool(row["positives"]), "positives", [], "one or more ids of candidates", origin=origin)
        yield Query(
            id=_id(row, ids, origin),
            content=_content(row, folder, origin),
            targets=tuple(row["positives"]),
            candidates=None if chosen is None else tuple(chosen),
            instruction=row.get("instruction") or "",
        )
    if not ids:
        raise LvqaError(f"{folder / QUERIES} holds no query")


def _id(row: ContentRow | QueryRow, ids: set[str], origin: str) -> str:
    require(row["id"] not in ids, "id", row["id"], "its own; another line has it already", origin=origin)
    ids.add(row["id"])
    return row["id"]


def _content(row: ContentRow | QueryRow, folder: Path, origin: str) -> Content:
    start, end = row.get("start"), row.get("end")
    image, video, sound = (
        None if name is None else folder / name for name in (row.get("image"), row.get("video"), row.get("sound"))
    )
    content = Content(
        text=(row.get("text") or "").strip(),
        image=image,
        video=video,
        sound=sound,
        start_seconds=start,
        end_seconds=end,
    )
    if content.is_empty:
        raise LvqaError(f"there is nothing in it; give a text, an image, a video or a sound ({origin})")
    require((start is None and end is None) or video is not None, "start and end", start, "with a video", origin=origin)
    is_span = (start is None) == (end is None) and (start is None or end is None or start < end)
    require(is_span, "start and end", [start, end], "both there, and start before end, or none", origin=origin)
    return content

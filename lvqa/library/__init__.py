"""Many videos: index them in workers; list, forget and prune what is kept of them; search and ask all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lvqa.lazy import lazy

if TYPE_CHECKING:
    from lvqa.library.batch import Indexed, index_videos
    from lvqa.library.catalog import Library, LibraryVideo, Location, Removal, StoredIndex
    from lvqa.library.indexed import ALL_VIDEOS, IndexedVideo, LibraryFilter
    from lvqa.library.search import LibraryAnswer, LibraryHit, LibraryRanking, ask_library, search_library

__all__ = [
    "ALL_VIDEOS",
    "Indexed",
    "IndexedVideo",
    "Library",
    "LibraryAnswer",
    "LibraryFilter",
    "LibraryHit",
    "LibraryRanking",
    "LibraryVideo",
    "Location",
    "Removal",
    "StoredIndex",
    "ask_library",
    "index_videos",
    "search_library",
]

__getattr__ = lazy(
    "lvqa.library",
    {
        **{name: "batch" for name in ("Indexed", "index_videos")},
        **{name: "catalog" for name in ("Library", "LibraryVideo", "Location", "Removal", "StoredIndex")},
        **{name: "indexed" for name in ("ALL_VIDEOS", "IndexedVideo", "LibraryFilter")},
        **{name: "search" for name in ("LibraryAnswer", "LibraryHit", "LibraryRanking")},
        **{name: "search" for name in ("ask_library", "search_library")},
    },
)  # a condition that a client sends to a server loads no model

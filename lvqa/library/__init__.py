"""Many videos: index them in workers; list, forget and prune what is kept of them; search and ask all of them."""

from __future__ import annotations

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

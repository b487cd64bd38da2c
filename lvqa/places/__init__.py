"""Where files lie: on this machine, in object storage (s3://, gs://) or on the web (https://).

A location elsewhere is a `RemotePath`, a Path like any other: its `stat` asks its host, and whoever opens it reads a
local copy, which is fetched first if need be. `as_path` makes one from text; no other module looks at a scheme.
"""

from __future__ import annotations

from lvqa.places.copies import copies_folder, keep_copies, make_room, user_cache
from lvqa.places.eviction import evict, hold, is_at, stored_files
from lvqa.places.hosts import PlaceError
from lvqa.places.remote_path import RemotePath, as_path, beside, fetch_seconds, files_by_folder, in_use, local_folder

__all__ = [
    "PlaceError",
    "RemotePath",
    "as_path",
    "beside",
    "copies_folder",
    "evict",
    "fetch_seconds",
    "files_by_folder",
    "hold",
    "in_use",
    "is_at",
    "keep_copies",
    "local_folder",
    "make_room",
    "stored_files",
    "user_cache",
]

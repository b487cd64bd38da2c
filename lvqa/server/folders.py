"""Which files the server may read: those in the folders that were named, wherever a link leads."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from lvqa.places import as_path
from lvqa.records import shorten
from lvqa.server.errors import ApiError


class ServedFolders:
    """Folders with their subfolders, and single files."""

    def __init__(self, paths: Iterable[Path]) -> None:
        """Name them; what a link leads to is what is served."""
        self._paths = tuple(path.resolve() for path in paths)

    def resolve(self, name: str) -> Path:
        """Return the file that an absolute path leads to.

        Raises:
            ApiError: It leads outside; whether there is something is not said. Or there is no such file inside.
        """
        path = self.inside(as_path(name))
        if path is None:
            raise ApiError(403, f"{shorten(name)} is not in the folders that are served; lvqa serve DIR names them")
        if not path.is_file():
            raise ApiError(404, f"{shorten(name)}: there is no such file")
        return path

    def inside(self, path: Path) -> Path | None:
        """Return where a path leads if that is inside, else None."""
        try:
            resolved = path.resolve()
        except (OSError, RuntimeError, ValueError):  # a loop of links, a NUL in the name
            return None
        is_inside = any(resolved == known or resolved.is_relative_to(known) for known in self._paths)
        return resolved if path.is_absolute() and is_inside else None

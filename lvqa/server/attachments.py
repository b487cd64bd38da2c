"""Files that come with requests: pictures, sounds and videos in data: URLs, and uploads."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import tempfile
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lvqa.records import VIDEO_SUFFIXES, shorten
from lvqa.server.errors import ApiError

SUFFIXES = {"image/jpeg": ".jpg", "image/png": ".png", "image/webp": ".webp", "image/gif": ".gif"}
SUFFIXES |= {"audio/wav": ".wav", "audio/x-wav": ".wav", "audio/mpeg": ".mp3", "audio/mp3": ".mp3"}
SUFFIXES |= {"audio/flac": ".flac", "audio/ogg": ".ogg", "video/mp4": ".mp4", "video/webm": ".webm"}
SUFFIXES |= {"video/quicktime": ".mov", "video/x-matroska": ".mkv"}
"""Type of a data: URL -> the suffix of its file."""

_DATA_URL = re.compile(r"data:([a-z]+/[a-z0-9.+-]+)(?:;[a-z0-9-]+=[^;,]*)*;base64,", re.IGNORECASE)
_UNSAFE = re.compile(r"[^\w.() -]+")
MAX_NAME_CHARACTERS = 120


def decode_data_url(url: str, kind: str) -> tuple[bytes, str]:
    """Return the content of a data: URL, and the suffix of its type.

    Args:
        url: The URL.
        kind: "image", "audio" or "video".

    Raises:
        ApiError: It is none, its type is another, or its content is not base64.
    """
    match = _DATA_URL.match(url)
    if match is None:
        raise ApiError(400, f"{kind}: expected a URL data:{kind}/...;base64,..., got {shorten(url[:60])}")
    suffix = SUFFIXES.get(match[1].lower())
    if suffix is None or not match[1].lower().startswith(f"{kind}/"):
        allowed = ", ".join(name for name in SUFFIXES if name.startswith(f"{kind}/"))
        raise ApiError(400, f"{kind}: type {shorten(match[1])} is not one of {allowed}")
    return decode_base64(url[match.end() :], kind), suffix


def decode_base64(text: str, kind: str) -> bytes:
    """Return the bytes of a text in base64; ApiError if it is none."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ApiError(400, f"{kind}: the content is not valid base64") from None


@contextmanager
def attached_files(*contents: tuple[bytes, str] | None) -> Iterator[list[Path | None]]:
    """Have contents with their suffixes lie in files inside the `with` block; None stays None.

    Equal contents have the same name, so that an answer that was given before is recognised.
    """
    with tempfile.TemporaryDirectory(prefix="lvqa-") as folder:
        paths: list[Path | None] = []
        for content in contents:
            path = None
            if content is not None:
                path = Path(folder, hashlib.sha256(content[0]).hexdigest() + content[1])
                path.write_bytes(content[0])
            paths.append(path)
        yield paths


def upload_name(name: str) -> str:
    """Return the name under which an upload is kept: the last part of the client's name, harmless.

    Raises:
        ApiError: It does not end as the name of a video file does.
    """
    last = re.split(r"[/\\]", name)[-1]
    path = Path(_UNSAFE.sub("_", last))
    if path.suffix.lower() not in VIDEO_SUFFIXES:
        raise ApiError(415, f"{shorten(name)} is not named as a video file: its name ends {', '.join(VIDEO_SUFFIXES)}")
    return (path.stem.strip(". ")[:MAX_NAME_CHARACTERS] or "video") + path.suffix.lower()


class UploadedFile:
    """A file that is being written: beside its place, and put there when it is whole."""

    def __init__(self, folder: Path, name: str, *, max_bytes: int) -> None:
        """Begin it.

        Args:
            folder: Where it will lie; it gets another name if there is one of this name.
            name: As `upload_name` returns it.
            max_bytes: How large it may be.
        """
        self._folder, self._name, self._left = folder, name, max_bytes
        self._max_bytes = max_bytes
        self._path = folder / f".{uuid.uuid4().hex}.tmp"

    async def write(self, chunks: AsyncIterator[bytes]) -> Path:
        """Write all of it and put it into its place; nothing is left of one that ends too early or is too large."""
        try:
            with self._path.open("xb") as file:
                async for chunk in chunks:
                    self._left -= len(chunk)
                    if self._left < 0:
                        raise ApiError(413, f"the file is larger than {self._max_bytes >> 20} MiB")
                    file.write(chunk)
            return self._place()
        except OSError as error:
            raise ApiError(507, f"the file can't be kept: {error.strerror or error}") from error
        finally:
            with suppress(OSError):
                self._path.unlink()

    def _place(self) -> Path:
        """Give the whole file a name that no other file has: an empty file takes the name first."""
        stem, suffix = Path(self._name).stem, Path(self._name).suffix
        for number in range(1, 10_000):
            place = self._folder / (self._name if number == 1 else f"{stem} ({number}){suffix}")
            with suppress(FileExistsError):
                place.open("xb").close()
                return self._path.replace(place)
        raise ApiError(409, f"there are too many files called {self._name}")

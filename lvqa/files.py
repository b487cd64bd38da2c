"""Write files so that they are whole or not there at all."""

from __future__ import annotations

import os
import uuid
from contextlib import suppress
from pathlib import Path

from lvqa.places import RemotePath


def write_output(path: Path, content: bytes) -> None:
    """Write a file that the user has named, as `write_atomically` does where it can.

    What a link leads to is written and the link stays; a device or a pipe (/dev/null, /dev/stdout) takes the content as
    it comes. A store's files are written by `write_atomically` alone: there, nobody reads from a pipe.

    Args:
        path: The file; its folder must be there.
        content: All of it.

    Raises:
        OSError: The folder, the disk or the device refuses it.
    """
    if path.exists() and not path.is_file():  # replacing the name would take the device from the whole machine
        with path.open("wb") as file:
            file.write(content)
    else:
        write_atomically(path.resolve(), content)


def write_atomically(path: Path, content: bytes | str) -> None:
    """Write a file into place in one step: a reader sees the old content or all of the new one.

    The content is flushed to the disk before its name is changed. On any failure, an interrupt too, nothing is left
    behind. What has the name already, a pipe or a link too, is replaced. An object of a bucket is written so by itself.

    Args:
        path: The file; its folder must be there.
        content: All of it; text is written as UTF-8.

    Raises:
        OSError: The folder or the disk refuses it.
    """
    if isinstance(path, RemotePath):
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return
    tmp_path = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with tmp_path.open("xb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        tmp_path.replace(path)
    except BaseException:
        with suppress(OSError):
            tmp_path.unlink()
        raise
    # The name itself reaches the disk with the folder. Some network file systems can't, and lose nothing by it.
    with suppress(OSError):
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

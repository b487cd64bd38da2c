"""Logs of a run: what workers print, and the tracebacks of what failed. Nothing depends on them."""

from __future__ import annotations

import datetime
import re
from contextlib import suppress
from pathlib import Path

FAILURES = "failures.log"


class LogFolder:
    """A folder of logs, made when the first line is written. Without a folder nothing is kept.

    A log that can't be written costs no answer: the disk that is full is named by what needs it.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def note_failure(self, node: str, reason: str, details: str) -> None:
        """Append a failure with its details, for example a traceback, to FAILURES."""
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        self.append(FAILURES, f"{now} {node}: {reason}\n{details.rstrip()}\n\n".encode())

    def append(self, name: str, content: bytes) -> None:
        """Append what was printed to the log of this name."""
        if self._folder is None or not content:
            return
        with suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True)
            with (self._folder / re.sub(r"[^\w.-]", "_", name)).open("ab") as file:
                file.write(content)

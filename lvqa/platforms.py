"""The operating systems that lvqa runs on: Linux and macOS."""

from __future__ import annotations

import sys


def require_unix() -> None:
    """Raise LvqaError on Windows, whose Python lacks calls of Unix that the store and the workers need."""
    if sys.platform == "win32":
        from lvqa.records import LvqaError

        raise LvqaError("lvqa runs on Linux and macOS, not on Windows; on Windows, install it in WSL 2")

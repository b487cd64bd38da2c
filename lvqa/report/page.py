"""What all pages and pictures share: a template filled, a figure as bytes, a file written whole."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import TYPE_CHECKING

from lvqa.files import write_atomically
from lvqa.records import LvqaError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def page(template: str, **values: object) -> bytes:
    """The template filled; whatever the values hold is shown as text, never read as HTML."""
    import jinja2

    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(template).render(**values).encode("utf-8", errors="backslashreplace")


def rendered(figure: Figure, format: str) -> bytes:
    """The figure as a file of this format: png, svg."""
    held = io.BytesIO()
    # Without the date: the same figure is the same file.
    figure.savefig(held, format=format, dpi=110, metadata={"Date": None} if format == "svg" else None)
    return held.getvalue()


def as_source(content: bytes, kind: str) -> str:
    """What an <img> shows without another file; `kind` is "image/png" or the like."""
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def write_whole(path: Path, content: bytes) -> None:
    """Write a page or a picture whole, with its folders. Raises LvqaError where that can't be done."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content)
    except (OSError, ValueError) as error:
        raise LvqaError(f"cannot write {path}: {getattr(error, 'strerror', None) or error}") from error

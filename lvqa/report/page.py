"""What all pages and pictures share: filling a template, rendering a figure, writing a file."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import TYPE_CHECKING

from lvqa.files import write_output
from lvqa.records import LvqaError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def render_page(template: str, **values: object) -> bytes:
    """Return the template, filled. The values are escaped, so nothing in them is read as HTML."""
    import jinja2

    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(template).render(**values).encode("utf-8", errors="backslashreplace")


def render_figure(figure: Figure, format: str) -> bytes:
    """Return the figure as a file of this format: "png", "svg" or "pdf"."""
    buffer = io.BytesIO()
    # Without the date: the same figure is the same file.
    metadata = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}
    figure.savefig(buffer, format=format, dpi=110, metadata=metadata.get(format))
    return buffer.getvalue()


def data_url(content: bytes, mime_type: str) -> str:
    """Return a picture as the `src` of an <img>, which then needs no other file."""
    return f"data:{mime_type};base64,{base64.b64encode(content).decode('ascii')}"


def write_file(path: Path, content: bytes) -> None:
    """Write a page or a picture as `write_output` does, and make its folders.

    Raises:
        LvqaError: If the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_output(path, content)
    except (OSError, ValueError, RuntimeError) as error:  # the last: a link to itself
        raise LvqaError(f"cannot write {path}: {getattr(error, 'strerror', None) or error}") from error

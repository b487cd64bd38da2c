"""Sphinx's settings. `make docs` builds the site; pages are Markdown, the API's are made from the docstrings."""

import re
from typing import Any

import lvqa

project = "lvqa"
copyright = "the authors of lvqa"
release = version = lvqa.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
default_role = "code"
nitpicky = False

myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence", "deflist"]

html_theme = "furo"
html_title = f"lvqa {release}"
html_show_sphinx = False
html_copy_source = False
html_theme_options = {"navigation_with_keys": True}

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True, "ignore-module-all": True}
python_maximum_signature_line_length = 100
napoleon_numpy_docstring = False
napoleon_use_rtype = False


_attributes: dict[str, list[str]] = {}


def _as_rest(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Turn a docstring of plain text and `code` into reStructuredText, in place: nothing but backticks is markup."""
    lines[:] = [_escape(line) for line in lines]
    if what in ("attribute", "data", "property"):
        _attributes[name] = list(lines)


def _without_types(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Undo what napoleon does to an attribute: it takes the words before a colon for its type."""
    lines[:] = _attributes.pop(name, lines)


def _escape(line: str) -> str:
    if line.lstrip().startswith(">>>"):
        return line
    parts = re.split(r"(``[^`]+``|`[^`]+`)", line)
    return "".join(
        f"``{part.strip('`')}``" if i % 2 else re.sub(r"([*|\\]|(?<=\w)_(?!\w))", r"\\\1", part)
        for i, part in enumerate(parts)
    )


def setup(app: Any) -> None:
    """Connect what turns docstrings into reStructuredText, before and after napoleon reads their sections."""
    app.connect("autodoc-process-docstring", _as_rest, priority=400)
    app.connect("autodoc-process-docstring", _without_types, priority=600)

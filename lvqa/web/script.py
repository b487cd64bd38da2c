"""The pages' modules as one classic script: a page from the disk may run no modules of other files."""

from __future__ import annotations

import re
from pathlib import Path

STATIC = Path(__file__).parent / "static"
"""The folder of the modules and of the style, as a server sends them."""
MAIN = "main.js"

_IMPORT = re.compile(r"^import \{[^}]*\} from \"\./([a-z_]+\.js)\";\n", re.MULTILINE)
_EXPORT = re.compile(r"^export (?=(?:async )?(?:function|class|const)\b)", re.MULTILINE)


def classic_script() -> str:
    """Return all modules, each before those that import it, in one function.

    They share its names: no two modules may declare the same one.
    """
    parts: dict[str, str] = {}
    _add(MAIN, parts)
    body = "".join(f"// --- {name}\n\n{text.strip()}\n\n" for name, text in parts.items())
    return f'(() => {{\n"use strict";\n\n{body}}})();\n'


def _add(name: str, parts: dict[str, str]) -> None:
    text = (STATIC / name).read_text(encoding="utf-8")
    for imported in _IMPORT.findall(text):
        if imported not in parts:
            _add(imported, parts)
    parts[name] = _EXPORT.sub("", _IMPORT.sub("", text))


def style() -> str:
    """Return the style of all pages."""
    return (STATIC / "style.css").read_text(encoding="utf-8")

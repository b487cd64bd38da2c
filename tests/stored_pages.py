"""What the tests of stored pages share."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any


def stored_values(path: Path) -> dict[str, Any]:
    """Return what a page that needs no server has in it: window.lvqa."""
    return json.loads(re.search(r"window\.lvqa = (.*);</script>", path.read_text(encoding="utf-8"))[1])


def stored_answer(path: Path) -> dict[str, Any]:
    """Return the first answer of a stored page."""
    return stored_values(path)["answer"]["answers"][0]["answer"]

"""What a user calls a model: a folder, a hub id or "tiny"; and one line on a name that leads to none."""

from __future__ import annotations

import difflib
import logging
import os
import re
from pathlib import Path

from huggingface_hub import constants, try_to_load_from_cache

_log = logging.getLogger(__name__)

ALLOWED = 'a hub id such as "Qwen/Qwen2.5-VL-7B-Instruct", a folder with a config.json, or "tiny"'


def find_folder(name: str) -> Path | None:
    """Return the folder that a name leads to, or None if there is none."""
    try:
        folder = Path(name).expanduser()
        return folder if folder.is_dir() else None
    except (OSError, RuntimeError, ValueError):  # too long a name, no such user, a NUL
        return None


def is_hub_id(name: str) -> bool:
    """Return whether a name has the form of a hub id, "owner/name". No model of the families here has an older form."""
    part = r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,94}[A-Za-z0-9_])?"
    return bool(re.fullmatch(f"{part}/{part}", name)) and ".." not in name and "--" not in name


def note_download(name: str) -> None:
    """Log one line if the hub must be asked for a model: without a network that takes half a minute to fail."""
    if _offline_variable() is None and not isinstance(try_to_load_from_cache(name, "config.json"), str):
        _log.info("model %s is not on this machine yet; asking the hub for it", name)


def _offline_variable() -> str | None:
    """Return the variable that keeps the library from asking the hub; None if it may ask."""
    if not constants.HF_HUB_OFFLINE:  # which newer versions of the library read from both
        return None
    other = "TRANSFORMERS_OFFLINE"
    return other if os.environ.get(other) and not os.environ.get("HF_HUB_OFFLINE") else "HF_HUB_OFFLINE"


def advice(name: str) -> str:
    """Return what to give in place of a name that leads to no folder and is no hub id."""
    if page := re.match(r"(?:https?:/+)?huggingface\.co/([^/]+/[^/?#]+)", name):
        return f"did you mean {page[1]!r}?"
    if close := difflib.get_close_matches(name.lower(), ["tiny"], cutoff=0.7):
        return f"did you mean {close[0]!r}?"
    return f"give {ALLOWED}"


def not_on_hub(name: str) -> str:
    """Return one line on a hub id that the hub does not give."""
    if variable := _offline_variable():
        return (
            f"model {name!r} is not in the hub's cache on this machine, and {variable} is set; "
            "unset it to download the model, or give a folder with its files"
        )
    return (
        f"model {name!r} is not on the hub, or the hub is out of reach; check the spelling and the network. "
        "Without one, set HF_HUB_OFFLINE=1 for a model that was downloaded before, or give a folder with its files"
    )

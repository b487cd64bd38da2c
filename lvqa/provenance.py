"""What a result was made with: the model and its revision, all settings, and the versions of what computes."""

from __future__ import annotations

import platform
import subprocess
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypedDict

import lvqa
from lvqa.config import Config, to_dict

PACKAGES = ("torch", "transformers", "av", "numpy", "faiss-cpu", "ray")
"""The packages whose versions are noted."""


def provenance(config: Config, *, model_revision: str | None) -> dict[str, Any]:
    """Return what a result was made with, as JSON holds it: in the output of commands, on a page, in run.json.

    Args:
        config: The settings.
        model_revision: The commit or the fingerprint of the model; None if no model is loaded yet.
    """
    return {
        "model": config.model.name,
        "model_revision": model_revision,
        "settings": to_dict(config),
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    """Return the versions of lvqa, of Python, and of those of PACKAGES that are installed."""
    installed = {"lvqa": lvqa.__version__, "python": platform.python_version()}
    for package in PACKAGES:
        with suppress(PackageNotFoundError):
            installed[package] = version(package)
    return installed


class GitState(TypedDict):
    """The state of a checkout."""

    commit: str
    dirty: bool
    """Whether files differ from the commit."""


def git_state() -> GitState | None:
    """Return the commit of lvqa, if it runs from a checkout of its own and git is installed."""
    folder = checkout_folder()
    if folder is None:
        return None
    with suppress(OSError, subprocess.SubprocessError):
        commit = run_git(folder, "rev-parse", "HEAD")
        return {"commit": commit, "dirty": bool(run_git(folder, "status", "--porcelain"))}
    return None


def checkout_folder() -> Path | None:
    """Return the checkout that lvqa runs from, which has its history; None if it was installed without one."""
    folder = Path(lvqa.__file__).resolve().parent.parent
    return folder if (folder / ".git").exists() else None


def run_git(folder: Path, *words: str) -> str:
    """Return what git prints in a checkout.

    Raises:
        OSError: git is not installed.
        subprocess.SubprocessError: git fails, or takes more than half a minute.
    """
    command = ["git", "-C", str(folder), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout.strip()

"""Control groups that are not there."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from lvqa import control_group


def write_group(folder: Path, monkeypatch: pytest.MonkeyPatch, membership: str, files: Mapping[str, str]) -> None:
    """Put this process into control groups, whose files lie in a folder.

    Args:
        folder: An empty folder.
        monkeypatch: Undoes it.
        membership: The groups, as /proc/self/cgroup has them.
        files: What the files of the groups say.
    """
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    (folder / "membership").write_text(f"{membership}\n")
    monkeypatch.setattr(control_group, "FOLDER", folder)
    monkeypatch.setattr(control_group, "MEMBERSHIP", folder / "membership")

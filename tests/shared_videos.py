"""Synthetic videos that all processes of a test run share, so that each is made once."""

from __future__ import annotations

import json
import os
from pathlib import Path

from filelock import FileLock

from lvqa.synthetic.videos import make_videos


def shared_folder(base: Path) -> Path:
    """Return the temporary folder that all processes of this test run share; `base` is that of this process."""
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


def shared_benchmark(base: Path, *, num_videos: int, minutes: float, num_questions: int, seed: int) -> Path:
    """Make synthetic videos, unless another process of this test run has; tests must not change them.

    Args:
        base: The temporary folder of this process.
        num_videos, minutes, num_questions, seed: As `make_videos` takes them.

    Returns:
        A folder in LVBench's layout.
    """
    folder = shared_folder(base) / f"synthetic-{num_videos}-{minutes:g}-{num_questions}-{seed}"
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            new = folder.with_suffix(".new")
            make_videos(new, num_videos=num_videos, minutes=minutes, num_questions=num_questions, seed=seed)
            new.rename(folder)
    return folder


def shared_video(base: Path, *, minutes: float, num_questions: int, seed: int) -> Path:
    """Return the one video of a benchmark of `shared_benchmark`."""
    folder = shared_benchmark(base, num_videos=1, minutes=minutes, num_questions=num_questions, seed=seed)
    entry = json.loads((folder / "video_info.meta.jsonl").read_text(encoding="utf-8"))
    return folder / "videos" / f"{entry['key']}.mp4"

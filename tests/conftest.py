"""What all tests share: the embedded model, synthetic videos, and which tests are left out where.

Markers: `slow` takes over a few seconds and is left out of `make test-fast`; `gpu` needs a CUDA device; `browser` needs
Chromium. With LVQA_REQUIRE_GPU=1 or LVQA_REQUIRE_BROWSER=1 a test that lacks its device fails, and is not skipped.
"""

from __future__ import annotations

import functools
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

signal.signal(signal.SIGINT, signal.default_int_handler)
"""Ctrl-C reaches the programs that tests start, also where a shell in the background has blocked it."""

SEED = 11
"""The seed of the synthetic videos that most tests use."""

SyntheticVideo = Callable[..., Path]


def has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def has_browser() -> bool:
    return any(map(shutil.which, ("chromium", "chromium-browser", "google-chrome")))


DEVICES = {
    "gpu": ("a CUDA device", has_gpu, "LVQA_REQUIRE_GPU"),
    "browser": ("Chromium", has_browser, "LVQA_REQUIRE_BROWSER"),
}
"""A marker -> what its tests need, whether it is here, and the variable that turns a skip into a failure."""


def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker, (device, is_here, variable) in DEVICES.items():
        if item.get_closest_marker(marker) and not is_here():
            if os.environ.get(variable) == "1":
                pytest.fail(f"{variable}=1, and there is no {device}", pytrace=False)
            pytest.skip(f"needs {device}")


@pytest.fixture(scope="session")
def tiny():
    """The embedded model, on the CPU."""
    from lvqa.models import load_model

    return load_model("tiny", device="cpu")


@pytest.fixture(scope="session")
def synthetic_video(tmp_path_factory) -> SyntheticVideo:
    """Make a synthetic video, or give the one that was made before; tests must not change it."""
    from lvqa.synthetic.videos import make_videos

    @functools.cache
    def make(*, minutes: float = 1, seed: int = SEED, num_questions: int = 1) -> Path:
        folder = tmp_path_factory.mktemp("synthetic")
        return make_videos(folder, num_videos=1, minutes=minutes, num_questions=num_questions, seed=seed)[0]

    return make

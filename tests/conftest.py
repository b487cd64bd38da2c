"""What all tests share: the embedded model, synthetic videos, and which tests are left out where.

Markers: `slow` takes nearly half a second of a core or more, and is left out of `make test-fast`; `gpu` needs a CUDA
device; `browser` needs Chromium. With LVQA_REQUIRE_GPU=1 or LVQA_REQUIRE_BROWSER=1 a test that lacks its device fails,
and is not skipped.
"""

from __future__ import annotations

import functools
import multiprocessing
import os
import shutil
import signal
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"
"""No test asks the hub: where there is no network that takes half a minute, and where there is one, gigabytes."""

signal.signal(signal.SIGINT, signal.default_int_handler)
"""Ctrl-C reaches the programs that tests start, also where a shell in the background has blocked it."""

SEED = 11
"""The seed of the synthetic videos that most tests use."""

SyntheticVideo = Callable[..., Path]


def has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def find_browser() -> str | None:
    """Return the Chromium of this machine."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def has_browser() -> bool:
    return find_browser() is not None


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    """Pause garbage collection while the tests and their libraries are imported: it took a third of that time."""
    from lvqa.startup import paused_gc

    with paused_gc():
        return (yield)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs the finished evaluation as slow: making it takes 14 s."""
    for item in items:
        if {"run", "settings"} & {*getattr(item, "fixturenames", ())}:
            item.add_marker("slow")


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


@pytest.fixture(scope="session", autouse=True)
def forked_workers() -> None:
    """Workers are forked from a process that has imported what they need; `spawned_workers` are as the product's."""
    from forked import fork_workers

    fork_workers()


@pytest.fixture
def spawned_workers(monkeypatch) -> None:
    """Workers are new interpreters."""
    monkeypatch.setattr("lvqa.workers.worker.PROCESSES", multiprocessing.get_context("spawn"))


@pytest.fixture(scope="session")
def tiny():
    """The embedded model, on the CPU."""
    from lvqa.models import load_model

    return load_model("tiny", device="cpu")


@pytest.fixture(scope="session")
def synthetic_video(tmp_path_factory) -> SyntheticVideo:
    """Make a synthetic video, or give the one that was made before; tests must not change it."""
    from shared_videos import shared_video

    def make(*, minutes: float = 1, seed: int = SEED, num_questions: int = 1) -> Path:
        return shared_video(tmp_path_factory.getbasetemp(), minutes=minutes, num_questions=num_questions, seed=seed)

    return make


@pytest.fixture(scope="session")
def browser():
    """A real browser, driven from here."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_browser(), args=["--no-sandbox"])
        yield browser
        browser.close()


# --- the main path and its evaluation: what several modules of tests share ------------------------------------------


@pytest.fixture(scope="session")
def question():
    """The first question about the synthetic video that the tests of the main path use."""
    from pipelines import MINUTES
    from pipelines import SEED as PIPELINE_SEED

    from lvqa.synthetic.videos import ask_about, write_script

    return ask_about(write_script(PIPELINE_SEED, MINUTES), 1)[0]


@pytest.fixture(scope="session")
def video(synthetic_video) -> Path:
    """The synthetic video that the tests of the main path use; tests must not change it."""
    from pipelines import MINUTES
    from pipelines import SEED as PIPELINE_SEED

    return synthetic_video(minutes=MINUTES, seed=PIPELINE_SEED)


@pytest.fixture
def write_plugin(tmp_path):
    """Write the file of a plug-in."""

    def write(source: str, name: str = "mine.py") -> Path:
        path = tmp_path / name
        path.write_text(textwrap.dedent(source), encoding="utf-8")
        return path

    return write


@pytest.fixture
def store(tmp_path) -> Path:
    """The folder of a store that is not there yet."""
    return tmp_path / "store"


@pytest.fixture
def make(tiny, store):
    """Make a fresh pipeline over the one loaded model, as a new process would."""
    from pipelines import make_pipeline

    return functools.partial(make_pipeline, tiny, store)


@pytest.fixture(scope="session")
def settings(tmp_path_factory):
    """The settings file of a small evaluation."""
    from runs import settings_file

    return settings_file(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    """A finished run of it."""
    from runs import finished_run

    return finished_run(tmp_path_factory.getbasetemp())

#!/usr/bin/env python
"""Make the pictures of the pages in docs/images, and what `lvqa ask` prints for the same question, answer.txt.

    python scripts/make_page_pictures.py [FOLDER]

Two synthetic videos are made and asked about with the embedded model, and a run of two arms is made of them. FOLDER
keeps all that. It needs Chromium, and the packages of `pip install -e '.[dev]'`.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlencode

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from lvqa.records import Question
from lvqa.synthetic.videos import ask_about, make_videos, write_script

IMAGES = Path(__file__).resolve().parent.parent / "docs" / "images"
SEED, MINUTES, QUESTION, FRAMES = 2, 60, 4, 16
"""The video, and the index of the question among the first ones about it."""
WIDE, NARROW = {"width": 1280, "height": 1180}, {"width": 390, "height": 844}


def main() -> None:
    """Make everything in a folder, start a server over it, and take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, help="keep the videos, their indexes and the run here")
    given = parser.parse_args().folder
    with tempfile.TemporaryDirectory() as temporary:
        folder = given or Path(temporary)
        make_all(folder)
        with running_server(folder) as url, sync_playwright() as playwright:
            chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
            browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            take_pictures(browser, url)
            browser.close()
        write_transcript(folder)


def make_all(folder: Path) -> None:
    """Make two videos and a run on them, unless they are there."""
    if not (folder / "data").exists():
        make_videos(folder / "data", num_videos=2, minutes=MINUTES, num_questions=20, seed=SEED)
    if not (folder / "runs" / "synthetic").exists():
        settings = ["model.name=tiny", f"benchmark.folder={folder / 'data'}", f"store.folder={folder / 'store'}"]
        settings += ["frames=[16]", "arms=[{method: uniform}, {method: freeret}, {method: apportion}]", "workers=0"]
        config = folder / "run.yaml"
        config.write_text("{}\n")
        words = [word for setting in settings for word in ("-s", setting)]
        run = [
            sys.executable,
            "-m",
            "lvqa.cli",
            "eval",
            str(config),
            *words,
            "--folder",
            str(folder / "runs" / "synthetic"),
        ]
        subprocess.run(run, check=True)


def the_question() -> Question:
    """Return the question that is asked in the pictures."""
    return ask_about(write_script(SEED, MINUTES), QUESTION + 1)[QUESTION]


def write_transcript(folder: Path) -> None:
    """Write the command that asks the question, and what it prints."""
    question, video = the_question(), min((folder / "data" / "videos").glob("*.mp4"))
    options = [word for option in question.options for word in ("--option", option)]
    words = ["ask", video.name, question.text, *options, "--model", "tiny"]
    command = [sys.executable, "-m", "lvqa.cli", *words, "--store", str(folder / "store"), "--quiet"]
    result = subprocess.run(command, cwd=video.parent, capture_output=True, text=True, check=True)
    quoted = [f'"{word}"' if " " in word else word for word in words]
    (IMAGES / "answer.txt").write_text(f"$ lvqa {' '.join(quoted)}\n{result.stdout}", encoding="utf-8")


@contextmanager
def running_server(folder: Path) -> Iterator[str]:
    """Run `lvqa serve` over the folder inside the `with` block; yields its address."""
    words = ["serve", str(folder / "data" / "videos"), "--runs", str(folder / "runs"), "--port", "0"]
    command = [sys.executable, "-m", "lvqa.cli", *words, "--model", "tiny", "--store", str(folder / "store")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        yield next(line.split("ready at ")[1].strip() for line in process.stderr if "ready at" in line)
        process.terminate()


def take_pictures(browser: Browser, url: str) -> None:
    """Take a picture of each page."""
    question = the_question()
    values = {"method": "freeret", "frames": FRAMES, "beside": "uniform", "q0": question.text, "o0": question.options}
    assert question.evidence_seconds is not None
    link = urlencode({**values, "t": question.evidence_seconds[0]}, doseq=True)
    for scheme, suffix in (("light", ""), ("dark", "-dark")):
        with opened(browser, url, WIDE, scheme) as page:
            page.wait_for_selector(".videos .card img")
            page.locator(".videos .card-play").first.click()
            page.wait_for_selector(".player video")
            address = page.url.partition("#")[0]
            page.goto(f"{address}?again#{link}")
            save(page, f"workbench{suffix}.png")
    with opened(browser, f"{address}#{link}", NARROW, "light") as page:
        save(page, "workbench-narrow.png")
    with opened(browser, url, WIDE, "light") as page:
        page.wait_for_selector(".videos .card img")
        page.get_by_role("searchbox").fill("a red boat")
        page.get_by_role("button", name="Search").click()
        page.get_by_text(re.compile(r"moments for")).wait_for()
        save(page, "library.png")
    with opened(browser, f"{url}/runs/synthetic", WIDE, "light") as page:
        page.wait_for_selector(".question-row")
        save(page, "run.png")


@contextmanager
def opened(browser: Browser, url: str, size: dict[str, int], scheme: str) -> Iterator[Page]:
    """Open a page inside the `with` block."""
    context = browser.new_context(viewport=size, color_scheme=scheme)  # type: ignore[arg-type]
    page = context.new_page()
    page.set_default_timeout(300_000)
    page.goto(url)
    yield page
    context.close()


def save(page: Page, name: str) -> None:
    """Write a picture of what the page shows, when all its pictures are there."""
    page.wait_for_function("() => !document.querySelector('.ask .primary')?.disabled")
    if page.locator(".ask").count():
        page.wait_for_function("() => document.querySelectorAll('.answer-column').length === 2")
    page.wait_for_load_state("networkidle")
    page.evaluate("() => window.scrollTo(0, 0)")
    page.wait_for_timeout(1500)
    page.screenshot(path=IMAGES / name)
    with Image.open(IMAGES / name) as picture:
        small = picture.convert("RGB").quantize(256, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    small.save(IMAGES / name, optimize=True)


if __name__ == "__main__":
    main()

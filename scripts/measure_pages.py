#!/usr/bin/env python
"""Measure the pages of a run and of a video in a real browser: first paint, scrolling, memory.

    python scripts/measure_pages.py URL/runs/NAME
    python scripts/measure_pages.py "URL/videos/ID#q0=What+is+red?"

It prints one line of JSON. "first_paint_seconds" and "content_seconds" are the times to the first pixel, and to the
list or the answer. "longest_block_ms" is the longest task of the browser's main thread while the page scrolls or the
timeline is zoomed: it can't react so long. "renderer_mib" is the memory of the page's process, all of it.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

WATCH = """() => { window.blocks = []; new PerformanceObserver((list) =>
    window.blocks.push(...list.getEntries().map((entry) => entry.duration))).observe({type: "longtask"}); }"""
STEPS = 40


def main() -> None:
    """Open the page as a reader does, scroll through it, and print what that took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    url = parser.parse_args().url
    with sync_playwright() as playwright:
        chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        print(json.dumps(measure(browser, url)))
        browser.close()


def measure(browser: Browser, url: str) -> dict[str, object]:
    """Return the figures of a page."""
    page = browser.new_page(viewport={"width": 1440, "height": 900})
    started = time.perf_counter()
    page.goto(url, wait_until="commit")
    page.wait_for_selector(".question-row, .answer-column", timeout=600_000)
    content_seconds = time.perf_counter() - started
    paint = page.wait_for_function("() => performance.getEntriesByName('first-contentful-paint')[0]?.startTime")
    page.evaluate(WATCH)
    is_run = page.locator(".long-list").count() > 0
    (scroll_list if is_run else zoom_timeline)(page)
    page.wait_for_timeout(300)
    return {
        "url": url,
        "first_paint_seconds": round(paint.json_value() / 1000, 3),
        "content_seconds": round(content_seconds, 3),
        "longest_block_ms": max(page.evaluate("() => window.blocks"), default=0),
        "elements": page.evaluate("() => document.querySelectorAll('*').length"),
        "renderer_mib": max(renderer_mib()),
    }


SCROLL = "([name, axis, share]) => { const box = document.querySelector(name); box[axis[0]] = box[axis[1]] * share; }"


def scroll(page: Page, name: str, axis: tuple[str, str]) -> None:
    """Scroll through a box from its begin to its end."""
    for step in range(STEPS):
        page.evaluate(SCROLL, [name, axis, step / STEPS])
        page.wait_for_timeout(30)


def scroll_list(page: Page) -> None:
    """Scroll through all questions."""
    scroll(page, ".long-list", ("scrollTop", "scrollHeight"))


def zoom_timeline(page: Page) -> None:
    """Make the timeline as wide as it can be, and scroll through it."""
    for _ in range(8):
        page.get_by_role("button", name="zoom in").click()
    scroll(page, ".timeline-box", ("scrollLeft", "scrollWidth"))


def renderer_mib() -> list[float]:
    """Return what each process of pages takes of the memory for itself (PSS), in MiB."""
    sizes = []
    for process in Path("/proc").iterdir():
        try:
            if "--type=renderer" in (process / "cmdline").read_text():
                line = next(
                    line for line in (process / "smaps_rollup").read_text().splitlines() if line.startswith("Pss:")
                )
                sizes.append(round(int(line.split()[1]) / 1024, 1))
        except (OSError, StopIteration):
            continue
    return sizes


if __name__ == "__main__":
    main()

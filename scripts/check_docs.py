"""Run what README.md and docs/*.md print: `python scripts/check_docs.py [PAGE ...]`, and check a built site's links.

A block of code is run if the line before its fence is a marker, a comment that no reader sees:

    <!-- run -->               the block is run: `console`, `bash` or `sh` by bash, `python` by this Python
    <!-- file: own.py -->      the block is written to that file, for the blocks that follow

The blocks of a page run in their order, in one new folder, which has the repository's `configs` and `scripts`. Pages
run beside each other, one for each core. The first block that fails ends the run, with its page, its line and its last
words: no further page is begun. The `lvqa` that runs is the one of this environment; its store is in the new folder;
the hub is out of reach.

    python scripts/check_docs.py                    run all pages
    python scripts/check_docs.py --jobs 1           one after the other
    python scripts/check_docs.py --list             say which blocks would run
    python scripts/check_docs.py --site build/docs  check every link inside a built site, and its anchors
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

from lvqa.startup import num_cores

ROOT = Path(__file__).resolve().parent.parent
SHELLS = ("console", "bash", "sh")
LANGUAGES = (*SHELLS, "python")
TIMEOUT_SECONDS = 120
"""How long one block may run."""
TAIL_LINES = 15
"""How many lines of a failed block's output are printed."""

_MARKER = re.compile(r"<!-- (?:(?P<run>run)|file: (?P<file>\S+)) -->")
_FENCE = re.compile(r"(?P<fence>`{3,}|~{3,})\s*(?P<language>[\w-]*)")


class PageError(Exception):
    """A page can't be run as it is written; the message names the page and the line."""


@dataclass(frozen=True, slots=True)
class Block:
    """A block of code that is run, or written to a file."""

    page: str
    """The page as messages name it."""
    line: int
    """The line of its fence."""
    language: str
    file: str | None
    """Where it is written to; None: it is run."""
    text: str

    @property
    def location(self) -> str:
        """The page and the line, as editors read them."""
        return f"{self.page}:{self.line}"


def read_blocks(path: Path) -> list[Block]:
    """Return the marked blocks of a page in their order.

    Raises:
        PageError: A marker stands before no block, or before one in a language that can't be run.
    """
    lines = path.read_text(encoding="utf-8").splitlines()
    page = str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else path.name
    blocks: list[Block] = []
    i = 0
    while i < len(lines):
        fence = _FENCE.fullmatch(lines[i].strip())
        if fence is None:
            if _MARKER.fullmatch(lines[i].strip()) and not (i + 1 < len(lines) and _FENCE.match(lines[i + 1])):
                raise PageError(f"{page}:{i + 1}: no block of code stands below the marker")
            i += 1
            continue
        end = next((j for j in range(i + 1, len(lines)) if lines[j].strip() == fence["fence"]), len(lines))
        marker = _MARKER.fullmatch(lines[i - 1].strip()) if i else None
        if marker is not None:
            language, text = fence["language"], "\n".join(lines[i + 1 : end]) + "\n"
            if marker["run"] and language not in LANGUAGES:
                raise PageError(f"{page}:{i + 1}: a block that is run is {', '.join(LANGUAGES)}, not {language!r}")
            blocks.append(Block(page, i + 1, language, marker["file"], text))
        i = end + 1
    return blocks


def run_pages(paths: Sequence[Path], jobs: int) -> str | None:
    """Run the marked blocks of pages, so many pages at a time. Returns what failed first, or None."""
    faults: list[str] = []

    def run(path: Path) -> None:
        try:
            fault = None if faults else run_page(path)
        except (PageError, OSError) as error:
            fault = str(error)
        if fault:
            faults.append(fault)

    with ThreadPoolExecutor(jobs) as threads:
        list(threads.map(run, paths))
    return faults[0] if faults else None


def run_page(path: Path) -> str | None:
    """Run the marked blocks of a page in a new folder. Returns what failed: the block's location, code and output."""
    blocks = read_blocks(path)
    with tempfile.TemporaryDirectory(prefix="lvqa-docs-") as name:
        folder = Path(name)
        for shared in ("configs", "scripts"):
            (folder / shared).symlink_to(ROOT / shared)
        for block in blocks:
            if block.file is not None:
                (folder / block.file).parent.mkdir(parents=True, exist_ok=True)
                (folder / block.file).write_text(block.text, encoding="utf-8")
                continue
            started = time.perf_counter()
            if fault := _run_block(block, folder):
                return fault
            _report(f"ok      {block.location} ({time.perf_counter() - started:.1f} s)")
    return None


def _run_block(block: Block, folder: Path) -> str | None:
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
        "LVQA_HOME": str(folder / "lvqa_home"),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),  # other pages have the other cores
    }
    command = ["bash", "-euo", "pipefail", "-c", block.text] if block.language in SHELLS else [sys.executable, "-"]
    try:
        result = subprocess.run(
            command,
            cwd=folder,
            env=environment,
            input=None if block.language in SHELLS else block.text,
            stdin=subprocess.DEVNULL if block.language in SHELLS else None,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            timeout=TIMEOUT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"{block.location}: the block ran longer than {TIMEOUT_SECONDS} s\n{_indented(block.text)}"
    if result.returncode == 0:
        return None
    tail = "\n".join(result.stdout.splitlines()[-TAIL_LINES:])
    return f"{block.location}: the block ended with code {result.returncode}\n{_indented(block.text)}\noutput:\n{tail}"


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.rstrip().splitlines())


class _Page(HTMLParser):
    """Collects the anchors and the links of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[tuple[int, str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note a tag's id and what it links to."""
        for name, value in attrs:
            if name in ("id", "name") and value:
                self.anchors.add(value)
            elif name in ("href", "src") and value is not None:
                self.links.append((self.getpos()[0], value))


def dead_links(site: Path) -> list[str]:
    """Return a line for each link inside a built site whose file or anchor is not there."""
    pages = {path.resolve(): _parsed(path) for path in sorted(site.rglob("*.html"))}
    return [
        f"{path.relative_to(site.resolve())}:{line}: {link} leads nowhere"
        for path, page in pages.items()
        for line, link in page.links
        if not _leads_somewhere(link, path, pages)
    ]


def _parsed(path: Path) -> _Page:
    page = _Page()
    page.feed(path.read_text(encoding="utf-8"))
    return page


def _leads_somewhere(link: str, path: Path, pages: dict[Path, _Page]) -> bool:
    parts = urlsplit(link)
    if parts.scheme or parts.netloc:
        return True
    target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
    target = target / "index.html" if target.is_dir() else target
    if not parts.fragment or target not in pages:
        return target.is_file()
    return unquote(parts.fragment) in pages[target].anchors


def all_pages() -> Iterator[Path]:
    """Yield README.md and the pages of docs/."""
    yield ROOT / "README.md"
    yield from sorted((ROOT / "docs").rglob("*.md"))


def _report(message: str) -> None:
    print(message, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run pages, list their blocks, or check a site. Returns 1 if anything is wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("pages", nargs="*", type=Path, metavar="PAGE", help="by default README.md and docs/*.md")
    parser.add_argument("--list", action="store_true", help="list the blocks that would run")
    parser.add_argument("--jobs", type=int, default=num_cores(), help="how many pages run at a time; one for each core")
    parser.add_argument("--site", type=Path, help="check the links of this built site, and run nothing")
    options = parser.parse_args(arguments)
    if options.jobs < 1:
        parser.error(f"--jobs must be 1 or more, got {options.jobs}")
    if options.site is not None:
        dead = dead_links(options.site)
        _report("\n".join(dead) or f"{options.site}: every link inside the site leads somewhere")
        return 1 if dead else 0
    try:
        paths = [path.resolve() for path in options.pages or all_pages()]
        for path in paths:
            for block in read_blocks(path) if options.list else ():
                _report(f"{block.location}: {f'written to {block.file}' if block.file else block.language}")
        if not options.list and (fault := run_pages(paths, options.jobs)):
            _report(f"FAILED  {fault}")
            return 1
    except (PageError, OSError) as error:
        _report(f"FAILED  {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

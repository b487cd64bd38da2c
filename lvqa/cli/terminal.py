"""What the door says, and how: lines, JSON, progress. Results go to stdout, everything else to stderr."""

from __future__ import annotations

import json
import logging
import math
import shutil
import sys
import time
from typing import Any

import click


def one_line(text: object) -> str:
    """The text on one line, with whatever a terminal would act on written out."""
    line = " ".join(str(text).split())
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in line)


def say(text: object) -> None:
    click.echo(f"lvqa: {one_line(text)}", err=True)


def print_json(value: dict[str, object]) -> None:
    """One line. JSON knows no NaN, so such a number is null; all that is not ASCII is escaped."""
    click.echo(json.dumps(_finite(value), allow_nan=False))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


STAGES = {
    "survey": ("look at", "videos", 1),
    "index": ("decode+index", "frames", 2),
    "rerank": ("rerank", "frames", 2),
    "film": ("make film", "s", 1),
    "answer": ("ask", "answers", 1),
}
"""A stage of work -> what it is called, the unit, and how many units one step is: a pair is two frames."""

SECONDS_BETWEEN_LINES = 1.0


class Progress:
    """A bar with a rate on a terminal, a line every tenth elsewhere, nothing if quiet."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._stage, self._done = "", 0
        self._bar: Any = None
        self._started = self._said = 0.0

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def __call__(self, stage: str, done: int, total: int) -> None:
        if self._quiet:
            return
        if stage != self._stage or done <= self._done:
            self._begin(stage, total)
        if self._bar is not None:
            self._bar.update(done - self._done)
        else:
            self._line(done, total)
        self._done = done
        if done == total:
            self._close()

    def _begin(self, stage: str, total: int) -> None:
        self._close()
        self._stage, self._done = stage, 0
        self._started = self._said = time.monotonic()
        if sys.stderr.isatty():
            from tqdm import tqdm

            label, unit, scale = STAGES[stage]
            # A terminal that does not know its size says 0, and the bar would be empty.
            columns, lines = shutil.get_terminal_size()
            self._bar = tqdm(
                total=total, desc=label, unit=f" {unit}", unit_scale=scale, file=sys.stderr, ncols=columns, nrows=lines
            )

    def _line(self, done: int, total: int) -> None:
        now = time.monotonic()
        tenth = done * 10 // total > self._done * 10 // total
        if done < total and not (tenth and now - self._said >= SECONDS_BETWEEN_LINES):
            return
        self._said = now
        label, unit, scale = STAGES[self._stage]
        rate = done * scale / max(now - self._started, 1e-3)
        say(f"{label} {done * 100 // total}% ({done * scale} of {total * scale} {unit}, {rate:.0f} {unit}/s)")

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
        self._bar, self._stage, self._done = None, "", 0


class LogLines(logging.Handler):
    """What the rooms log, as lines like the door's own."""

    def emit(self, record: logging.LogRecord) -> None:
        say(record.getMessage())

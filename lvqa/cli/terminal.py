"""How commands print: lines, JSON, progress. Results go to stdout, everything else to stderr."""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import click

from lvqa.output import finite

_log = logging.getLogger(__name__)


class Location(click.ParamType[Path]):
    """A file or a folder, here or at s3://, gs:// or https://."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Return the path."""
        from lvqa.places import as_path

        return as_path(value)


def one_line(text: object) -> str:
    """Return the text on one line, with every character that a terminal would act on escaped."""
    line = " ".join(str(text).split())
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in line)


def echo_message(text: object) -> None:
    """Print one line to stderr, after the name of the program."""
    with _bars_cleared():
        click.echo(f"lvqa: {one_line(text)}", err=True)


def echo_result(line: str) -> None:
    """Print one line to stdout while a bar may be on the terminal."""
    with _bars_cleared():
        click.echo(line)


@contextlib.contextmanager
def _bars_cleared() -> Iterator[None]:
    """Take bars off the terminal, and draw them again below what was printed in the meantime."""
    if "tqdm" not in sys.modules or not sys.stderr.isatty():  # there is no bar
        yield
        return
    from tqdm import tqdm

    with tqdm.external_write_mode(file=sys.stderr):
        yield


def print_json(value: dict[str, object]) -> None:
    """Print the object on one line. A number that JSON cannot hold is null; all that is not ASCII is escaped."""
    echo_result(json.dumps(finite(value), allow_nan=False))


STAGES = {
    "plan": ("videos", 1),
    "index": ("frames", 2),
    "rerank": ("frames", 2),
    "rerank library": ("videos", 1),
    "make videos": ("s", 1),
    "answer": ("answers", 1),
    "embed": ("items", 1),
    "rank": ("rankings", 1),
    "pictures": ("videos", 1),
}
"""Stage of work -> its unit, and how many units one step is. Steps of "index" and "rerank" are pairs of frames."""

SECONDS_BETWEEN_LINES = 1.0
MIN_RATE_SECONDS = 0.1
"""A rate is printed of work that took so long."""


class Progress:
    """Show a bar with a rate on a terminal, a line for every tenth elsewhere, and nothing if quiet."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._stage, self._num_done, self._num_before, self._scale = "", 0, 0, 1
        self._bar: Any = None
        self._started = self._last_line = 0.0

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def __call__(self, stage: str, num_done: int, total: int) -> None:
        """Report progress.

        Args:
            stage: A key of STAGES.
            num_done: How many steps of the stage are done. A number that does not grow starts the stage again.
            total: How many steps the stage has.
        """
        if self._quiet:
            return
        if stage != self._stage or num_done <= self._num_done:
            self._begin(stage, num_done, total)
        if self._bar is not None:
            self._bar.update((num_done - self._num_done) * self._scale)
        else:
            self._line(num_done, total)
        self._num_done = num_done
        if num_done == total:
            self._close()

    def status(self, line: str) -> None:
        """Show a line on how the work goes: in the bar, or on a line of its own where there is none."""
        if self._bar is not None:
            self._bar.set_postfix_str(line)
        elif not self._quiet:
            echo_message(line)

    def _begin(self, stage: str, num_done: int, total: int) -> None:
        """Begin a stage. The steps that are done when it is first reported have taken a time that nobody knows."""
        self._close()
        self._stage, self._num_before = stage, num_done
        self._started = self._last_line = time.monotonic()
        if sys.stderr.isatty():
            from tqdm import tqdm

            unit, self._scale = STAGES[stage]
            # A terminal that does not know its size reports 0, and the bar would be empty.
            columns, lines = shutil.get_terminal_size()
            self._bar = tqdm(
                total=total * self._scale,
                initial=num_done * self._scale,
                desc=stage,
                unit=f" {unit}",
                file=sys.stderr,
                ncols=columns,
                nrows=lines,
            )
            self._num_done = num_done

    def _line(self, num_done: int, total: int) -> None:
        now = time.monotonic()
        is_new_tenth = num_done * 10 // total > self._num_done * 10 // total
        if num_done < total and not (is_new_tenth and now - self._last_line >= SECONDS_BETWEEN_LINES):
            return
        self._last_line = now
        unit, scale = STAGES[self._stage]
        seconds, num_timed = now - self._started, num_done - self._num_before
        amount = f"{num_done * scale} of {total * scale} {unit}"
        if seconds >= MIN_RATE_SECONDS and num_timed:  # a stage that is reported once, at its end, has no rate
            amount += f", {_rate(num_timed * scale / seconds, unit)}"
            if num_done < total:
                from lvqa.records import clock_time

                amount += f", {clock_time(seconds / num_timed * (total - num_done))} left"
        echo_message(f"{self._stage} {num_done * 100 // total}% ({amount})")

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
        self._bar, self._stage, self._num_done = None, "", 0


def _rate(rate: float, unit: str) -> str:
    """Return a rate in two figures or more: slow work is told in minutes, or in seconds for one."""
    if rate >= 10:
        return f"{rate:.0f} {unit}/s"
    return f"{rate:.1f} {unit}/s" if rate >= 1 else f"{rate * 60:.2g} {unit}/min"


def echo_warnings(path: object, warnings: Iterable[str]) -> None:
    """Print what is wrong with a file or its result, one line each; a line that was printed before is left out."""
    for warning in warnings:
        _log.warning("%s: %s", path, warning)


class MessageHandler(logging.Handler):
    """Print what the modules log in the same form as the messages of the commands, each warning once."""

    def __init__(self) -> None:
        super().__init__()
        self._warnings: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        """Print one record."""
        message = record.getMessage()
        if record.levelno == logging.WARNING:
            if message in self._warnings:
                return
            self._warnings.add(message)
        echo_message(message)

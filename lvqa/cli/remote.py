"""Commands with `--server URL`: a running `lvqa serve` does the work, and nothing is loaded here."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lvqa.cli.answers import answer_text, choice_lines, print_moments
from lvqa.cli.main import CommonOptions
from lvqa.cli.terminal import Progress, echo_message, echo_result, echo_warnings, one_line, print_json

if TYPE_CHECKING:
    from lvqa.client import RemoteVideoQA
    from lvqa.library import LibraryFilter
    from lvqa.records import Question

INNER_KEYS = ("record", "clips", "time_spans", "history", "event")
"""What the server sends for clients, and commands do not print."""


def server_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the option `--server`."""
    text = "Have a running lvqa serve do it, at this address; LVQA_TOKEN in the environment has its token."
    return click.option("--server", metavar="URL", help=text)(command)


def check_alone(common: CommonOptions, others: dict[str, object]) -> None:
    """Refuse options that a server does not take: it has settings of its own."""
    own: dict[str, object] = {"-c": common.config_file, "-s": common.settings, "--model": common.model}
    own |= {"--store": common.store, "--device": common.device, **others}
    if given := [name for name, value in own.items() if value]:
        raise click.UsageError(f"--server goes without {', '.join(given)}: the server has settings of its own")


def ask_server(
    common: CommonOptions,
    url: str,
    path: Path | None,
    question: Question,
    *,
    frames: int | None,
    method: str | None,
    condition: LibraryFilter,
    as_json: bool,
) -> None:
    """Have a server answer, and print the answer as `lvqa ask` does."""
    from lvqa.records import Answer

    with _connect(common, url) as server:
        content = server.ask_json(_reference(path), question, frames=frames, method=method, condition=condition)
    answer = server.record_of(content, Answer)
    if as_json:
        print_json(_printed(content))
    else:
        lines = [answer_text(answer, answer.evidence[: len(content["evidence"])])]
        click.echo("\n".join([*lines, *(choice_lines(content["library"]) if "library" in content else ())]))
    echo_warnings(content["video"]["path"], answer.caveats.warnings)


def search_server(
    common: CommonOptions,
    url: str,
    path: Path | None,
    query: Question,
    options: Mapping[str, Any],
    *,
    as_json: bool,
) -> None:
    """Have a server search with these options, and print what it finds as `lvqa search` does."""
    with _connect(common, url) as server:
        content = server.search_json(_reference(path), query, **options)
    print_moments(_printed(content), as_json=as_json, quiet=common.quiet)
    echo_warnings(content["video"]["path"] if "video" in content else url, content["warnings"])


def index_server(
    common: CommonOptions, url: str, paths: Sequence[Path], *, upload: bool, rebuild: bool, as_json: bool
) -> int:
    """Have a server index videos, and print each as `lvqa index` does. Returns how many have failed."""
    from lvqa.records import LvqaError, counted

    num_failed = 0
    for path in paths:
        try:
            with _connect(common, url) as server:
                reference = str(server.upload(path)["id"]) if upload else _reference(path)
                indexed = server.index_json(reference or "", rebuild=rebuild)
            content = {**indexed.pop("video"), **indexed, "error": None}
            del content["record"]
        except LvqaError as error:
            num_failed += 1
            echo_message(f"{path}: {error}")
            content = {"path": str(path), "error": str(error)}
        if as_json:
            print_json(content)
        elif content["error"] is None:
            outcome = "already indexed" if content["reused"] else "indexed"
            echo_result(f"{one_line(path)}: {counted(content['clips'], 'clip')}, {outcome}")
    return num_failed


@contextlib.contextmanager
def _connect(common: CommonOptions, url: str) -> Iterator[RemoteVideoQA]:
    from lvqa.client import RemoteVideoQA

    with Progress(quiet=common.quiet) as progress:
        yield RemoteVideoQA(url, progress=progress)


def _reference(path: Path | None) -> str | Path | None:
    """Return how the server is told of a video: a word that is no file here may be an id there."""
    return path if path is None or path.exists() else str(path)


def _printed(content: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in content.items() if key not in INNER_KEYS}

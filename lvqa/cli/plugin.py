"""`lvqa check-plugin`: does a selector or a reranker of your own keep the contract?"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from lvqa.plugins import PluginPoint


@click.command("check-plugin", short_help="Check a selector or a reranker of your own.")
@click.argument("file")
def check_plugin(file: str) -> None:
    """Check FILE, a Python file with a selector or a reranker of your own (FILE.py or FILE.py:Class).

    Such a file is used by `--method FILE.py`, or by `-s rerank.name=FILE.py`. Its code is run as it is, with all your
    rights: check only files that you would run yourself. What passes and what fails is printed, a line each; the exit
    code is 1 if anything fails.
    """
    from lvqa.plugins import is_file_name
    from lvqa.records import LvqaError
    from lvqa.rerank import RERANKER
    from lvqa.rerank.contract import check_reranker
    from lvqa.selection import SELECTOR
    from lvqa.selection.contract import check_selector

    if not is_file_name(file):
        raise LvqaError(f"FILE must be a Python file, ending in .py or .py:Class, got {file!r}")
    contracts: dict[str, tuple[PluginPoint[Any], Callable[[str], dict[str, str | None]]]]
    contracts = {"selector": (SELECTOR, check_selector), "reranker": (RERANKER, check_reranker)}
    kinds = [kind for kind, (point, _) in contracts.items() if point.is_in(file)]
    if not kinds:
        wanted = " or ".join(f"{point.method}({point.arguments})" for point, _ in contracts.values())
        raise LvqaError(f"{file} has no class with a method {wanted}")
    found = {f"{kind}: {what}": wrong for kind in kinds for what, wrong in contracts[kind][1](file).items()}
    failed = [what for what, problem in found.items() if problem]
    for what, problem in found.items():
        click.echo(f"FAILS  {what}: {problem}" if problem else f"ok     {what}")
    if failed:
        raise LvqaError(f"{file} fails {len(failed)} of {len(found)} checks")
    click.echo(f"{file} keeps the contract of a {' and a '.join(kinds)}")

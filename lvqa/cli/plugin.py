"""`lvqa check-plugin`: does a selector or a reranker of a user keep the contract?"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from lvqa.plugins import PluginPoint


@click.command("check-plugin", short_help="Check a selector or a reranker of your own.")
@click.argument("name")
def check_plugin(name: str) -> None:
    """Check a selector or a reranker that you have written or installed.

    NAME is a Python file (FILE.py or FILE.py:Class), or the name by which an installed package adds a plug-in. It is
    used by `--method NAME`, or by `-s rerank.name=NAME`. Its code is run as it is, with all your rights: check only
    what you would run yourself. What passes and what fails is printed, a line each; the exit code is 1 if anything
    fails.
    """
    from lvqa.plugins import is_file_name
    from lvqa.records import LvqaError
    from lvqa.rerank import RERANKER
    from lvqa.rerank.contract import check_reranker
    from lvqa.selection import SELECTOR
    from lvqa.selection.contract import check_selector

    contracts: dict[str, tuple[PluginPoint[Any], Callable[[str], dict[str, str | None]]]]
    contracts = {"selector": (SELECTOR, check_selector), "reranker": (RERANKER, check_reranker)}
    kinds = [kind for kind, (point, _) in contracts.items() if point.provides(name)]
    if not kinds and is_file_name(name):
        wanted = " or ".join(point.signature for point, _ in contracts.values())
        raise LvqaError(f"{name} has no class with a method {wanted}")
    if not kinds:
        installed = sorted({plugin for point, _ in contracts.values() for plugin in point.installed()})
        names = ", ".join(installed) or "none"
        allowed = f"a Python file, ending in .py or .py:Class, or an installed plug-in ({names})"
        raise LvqaError(f"NAME must be {allowed}, got {name!r}")
    results = {f"{kind}: {check}": problem for kind in kinds for check, problem in contracts[kind][1](name).items()}
    failed = [check for check, problem in results.items() if problem]
    for check, problem in results.items():
        click.echo(f"FAILS  {check}: {problem}" if problem else f"ok     {check}")
    if failed:
        raise LvqaError(f"{name} fails {len(failed)} of {len(results)} checks")
    click.echo(f"{name} keeps the contract of a {' and a '.join(kinds)}")

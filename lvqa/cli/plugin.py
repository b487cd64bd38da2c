"""`lvqa check-plugin`: does a selector of your own keep the contract?"""

from __future__ import annotations

import click


@click.command("check-plugin")
@click.argument("file")
def check_plugin(file: str) -> None:
    """Check FILE, a Python file with a selector of your own (FILE.py or FILE.py:Class), against the contract.

    Such a file is used by `--method FILE.py`. Its code is run as it is, with all your rights: check only files that
    you would run yourself. What passes and what fails is printed, a line each; the exit code is 1 if anything fails.
    """
    from lvqa.plugins import is_file_name
    from lvqa.records import LvqaError
    from lvqa.selection.contract import check_selector

    if not is_file_name(file):
        raise LvqaError(f"FILE must be a Python file, ending in .py or .py:Class, got {file!r}")
    found = check_selector(file)
    failed = [what for what, problem in found.items() if problem]
    for what, problem in found.items():
        click.echo(f"FAILS  {what}: {problem}" if problem else f"ok     {what}")
    if failed:
        raise LvqaError(f"{file} fails {len(failed)} of {len(found)} checks")
    click.echo(f"{file} keeps the contract of a selector")

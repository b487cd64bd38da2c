"""`lvqa view`: look through the questions of evaluation runs in a browser."""

from __future__ import annotations

from pathlib import Path

import click

from lvqa.cli.serve import require_packages
from lvqa.cli.terminal import Progress, echo_message, echo_warnings


@click.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUN ...", type=click.Path(path_type=Path))
@click.option("--bundle", metavar="DIR", type=click.Path(path_type=Path), help="Write static files into this folder.")
@click.option("--max-mib", type=click.FloatRange(1), metavar="N", help="Bound on the size of a bundle.  [default: 36]")
@click.option("--port", type=click.IntRange(0, 65535), default=8765, show_default=True, help="Listen at this port.")
@click.option("--quiet", is_flag=True, help="Print no remarks and no progress.")
def view(*, runs: tuple[Path, ...], bundle: Path | None, max_mib: float | None, port: int, quiet: bool) -> None:
    """Look through the questions of evaluation runs.

    The pages show what each arm answered, and from which frames. A run that is still going is shown as it grows. No
    model is loaded. With --bundle, the same pages are written as files that open from the disk or from any web server.
    """
    if bundle is not None:
        return _write_bundle(runs, bundle, max_mib, quiet=quiet)
    if max_mib is not None:
        raise click.UsageError("--max-mib goes with --bundle")
    require_packages("lvqa view")
    from lvqa.config import Config
    from lvqa.evaluation import require_run
    from lvqa.server.run import run_server
    from lvqa.server.settings import ServerSettings

    for run in runs:
        require_run(run)
    settings = ServerSettings(config=Config(), has_model=False, runs=runs, port=port)
    run_server(settings, on_ready=lambda address: echo_message(f"ready at {address}/runs"))


def _write_bundle(runs: tuple[Path, ...], folder: Path, max_mib: float | None, *, quiet: bool) -> None:
    from lvqa.web import write_bundle
    from lvqa.web.bundle import MAX_MIB

    with Progress(quiet=quiet) as progress:
        remarks = write_bundle(runs, folder, max_mib=MAX_MIB if max_mib is None else max_mib, progress=progress)
    echo_warnings(folder, remarks)
    if not quiet:
        echo_message(f"written: open {folder / 'index.html'}")

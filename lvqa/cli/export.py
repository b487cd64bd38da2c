"""`lvqa export-embedder`: write a checkpoint that gives FreeRet's vectors in any engine of embeddings."""

from __future__ import annotations

from pathlib import Path

import click

from lvqa.cli.main import silence_libraries
from lvqa.cli.terminal import one_line


@click.command("export-embedder")
@click.argument("model", metavar="MODEL")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--revision", metavar="COMMIT", help="A commit, a tag or a branch of a model on the hub.")
def export(*, model: str, folder: Path, revision: str | None) -> None:
    """Write FreeRet's embedder of MODEL for other engines.

    DIR gets the checkpoint with the last MLP's down projections zero and the final norm one, so that the ordinary
    embedding of the last token is FreeRet's vector; with its prompts and a README.
    """
    silence_libraries(downloads=True)
    from lvqa.models.export import export_embedder

    click.echo(f"written   {one_line(str(export_embedder(model, folder, revision=revision)))}")

"""`lvqa mcp`: tools for MCP clients, over stdin and stdout or over HTTP."""

from __future__ import annotations

from pathlib import Path

import click

from lvqa.cli.main import CommonOptions, common_options
from lvqa.cli.serve import server_settings
from lvqa.cli.terminal import Location, echo_message


@click.command()
@click.argument("paths", nargs=-1, metavar="[VIDEO|DIR ...]", type=Location())
@click.option("--http", "over_http", is_flag=True, help="Answer over HTTP, at /mcp, in place of stdin and stdout.")
@click.option("--host", default="127.0.0.1", show_default=True, help="With --http: listen at this address.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8765, show_default=True, help="With --http: at this port."
)
@click.option(
    "--token", metavar="TOKEN", help="With --http: ask for this token; LVQA_TOKEN in the environment is safer."
)
@common_options
def mcp(
    common: CommonOptions, *, paths: tuple[Path, ...], over_http: bool, host: str, port: int, token: str | None
) -> None:
    """Give MCP clients tools for the videos in folders.

    They list, index and search videos, ask about them, and show frames.

    An MCP client starts it itself, with this command in its configuration. stdout belongs to the protocol.
    """
    settings = server_settings(common, "lvqa mcp", paths=paths, host=host, port=port, token=token)
    if over_http:
        from lvqa.server.run import run_server

        run_server(settings, on_ready=lambda address: echo_message(f"ready at {address}/mcp"))
    else:
        from lvqa.pipeline import LongVideoQA
        from lvqa.server.mcp import run_stdio

        run_stdio(settings, load=lambda: LongVideoQA.load(config=settings.config))

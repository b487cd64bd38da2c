"""`lvqa serve`: answer questions over HTTP, with one model that stays loaded."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lvqa.cli.main import CommonOptions, common_options, silence_libraries
from lvqa.cli.ray_options import RAY_ADDRESS_HELP
from lvqa.cli.terminal import Location, echo_message

if TYPE_CHECKING:
    from lvqa.server.settings import ServerSettings

PACKAGES = ("fastapi", "uvicorn", "python_multipart", "mcp")
"""What the extra `serve` installs."""
WORKER_PACKAGES = ("grpc", "aiohttp")
"""What the extra `serve-ray` installs, as far as it is imported at once."""
WORKERS_HELP = "Hold the model in so many processes on Ray Serve; 0: in this one."


def require_packages(command: str, *, has_workers: bool = False) -> None:
    """Raise LvqaError if a package that a server needs is missing."""
    from lvqa.records import LvqaError

    if lacking := [name for name in PACKAGES if importlib.util.find_spec(name) is None]:
        raise LvqaError(f'{command} needs {" and ".join(lacking)}: pip install "lvqa[serve]"')
    if has_workers and not all(map(importlib.util.find_spec, WORKER_PACKAGES)):
        raise LvqaError(f'{command} --workers needs Ray Serve: pip install "lvqa[serve,serve-ray]"')


def server_settings(common: CommonOptions, command: str, *, token: str | None, **options: Any) -> ServerSettings:
    """Return the settings of a server, checked before a model is loaded.

    Args:
        common: The options of all commands.
        command: The command's name, for the message.
        token: The option; without it LVQA_TOKEN in the environment is the token.
        options: More of `ServerSettings`.

    Raises:
        LvqaError: A package is missing, or a setting is not allowed.
    """
    require_packages(command, has_workers=bool(options.get("workers")))
    from lvqa.components import check_settings
    from lvqa.server.settings import ServerSettings

    token = token or os.environ.get("LVQA_TOKEN") or None
    settings = ServerSettings(config=common.config(), token=token, **options)
    check_settings(settings.config)
    silence_libraries(downloads=common.shows_downloads)
    return settings


@click.command()
@click.argument("paths", nargs=-1, metavar="[VIDEO|DIR ...]", type=Location())
@click.option("--host", default="127.0.0.1", show_default=True, help="Listen at this address; others need a token.")
@click.option("--port", type=click.IntRange(0, 65535), default=8765, show_default=True, help="Listen at this port.")
@click.option("--token", metavar="TOKEN", help="Ask for this token; LVQA_TOKEN in the environment is safer.")
@click.option("--runs", metavar="DIR", multiple=True, type=click.Path(path_type=Path), help="Show runs of lvqa eval.")
@click.option("--allow-urls", is_flag=True, help="Fetch videos from public addresses.")
@click.option("--allow-origin", "origins", metavar="URL", multiple=True, help="Let pages of this origin call the API.")
@click.option("--host-name", "host_names", metavar="NAME", multiple=True, help="Answer under this name, too.")
@click.option("--max-upload-mib", type=click.IntRange(1), default=4096, show_default=True, help="Bound on an upload.")
@click.option(
    "--max-waiting", type=click.IntRange(1), default=64, show_default=True, help="Bound on waiting questions."
)
@click.option("--workers", type=click.IntRange(0), default=0, show_default=True, help=WORKERS_HELP)
@click.option("--ray-address", metavar="ADDRESS", help=RAY_ADDRESS_HELP)
@click.option(
    "--gpus-per-worker",
    type=click.FloatRange(0, 1),
    default=0.0,
    show_default=True,
    help="Give each worker this share of a GPU, or so many GPUs.",
)
@click.option("--log-requests", is_flag=True, help="Print a line for each request: method, path, status, time.")
@common_options
def serve(
    common: CommonOptions,
    *,
    paths: tuple[Path, ...],
    host: str,
    port: int,
    token: str | None,
    runs: tuple[Path, ...],
    allow_urls: bool,
    origins: tuple[str, ...],
    host_names: tuple[str, ...],
    max_upload_mib: int,
    max_waiting: int,
    workers: int,
    ray_address: str | None,
    gpus_per_worker: float,
    log_requests: bool,
) -> None:
    """Answer questions about videos in these folders over HTTP.

    The model stays loaded. The API is described at /api/openapi.json; clients of OpenAI's API find theirs under /v1.
    """
    settings = server_settings(
        common,
        "lvqa serve",
        paths=paths,
        runs=runs,
        host=host,
        port=port,
        token=token,
        host_names=host_names,
        origins=origins,
        allow_urls=allow_urls,
        max_upload_mib=max_upload_mib,
        max_waiting=max_waiting,
        workers=workers,
        ray_address=ray_address,
        gpus_per_worker=gpus_per_worker,
        log_requests=log_requests,
    )
    from lvqa.server.run import run_server

    run_server(settings, on_ready=lambda address: echo_message(f"ready at {address}"))

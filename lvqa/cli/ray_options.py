"""The options of commands whose work workers do: `lvqa index`, `lvqa eval`, `lvqa retrieve`."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from lvqa.cli.main import CommonOptions

RAY_ADDRESS_HELP = (
    "Run the workers on this Ray cluster: HOST:PORT, auto or ray://HOST:PORT.  "
    "[default: RAY_ADDRESS, else this machine]"
)


class NumWorkers(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.4
    """A number, or "max"."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the number, or "max"."""
        return value if value == "max" else click.INT.convert(value, param, ctx)


WORKERS = NumWorkers()


def worker_options(*, default: int | None = None) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Add --workers, --ray-address, --gpus-per-worker and --runtime-env to a command.

    Args:
        default: How many workers and GPUs there are if the options do not say; None: the settings say it.
    """
    known: dict[str, Any] = {} if default is None else {"default": default, "show_default": True}
    help_text = "Number of worker processes on Ray; 0: no Ray; max: all that there is room for."
    share = "Give each worker this share of a GPU, or so many GPUs; 0.5: two workers share one."
    file = click.Path(path_type=Path)
    options = (
        click.option("--workers", metavar="N", type=WORKERS, help=help_text, **known),
        click.option("--ray-address", metavar="ADDRESS", help=RAY_ADDRESS_HELP),
        click.option("--gpus-per-worker", metavar="X", type=float, help=share, **known),
        click.option(
            "--runtime-env", metavar="FILE", type=file, help="Give the workers Ray's runtime_env of this file."
        ),
    )

    def add(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return add


def run_overrides(common: CommonOptions, options: Mapping[str, Any]) -> list[str]:
    """Return the settings of a run that its command's options say, those of -s first: the last one counts.

    Args:
        common: The options that all commands share.
        options: Setting -> value; None: the option was not given.

    Raises:
        click.UsageError: There is a -c: the command takes a file as its argument.
    """
    if common.config_file is not None:
        raise click.UsageError(f"{click.get_current_context().info_name} takes its settings as CONFIG, and no -c")
    given = {
        **options,
        "model.name": common.model,
        "model.device": common.device,
        "store.folder": common.store and str(common.store),
    }
    return [*common.settings, *(f"{key}={json.dumps(value)}" for key, value in given.items() if value is not None)]

"""What `lvqa index` and `lvqa eval` say about Ray."""

from __future__ import annotations

from typing import Any

import click

WORKERS_HELP = "Number of worker processes on Ray; 0: no Ray; max: all that there is room for."
RAY_ADDRESS_HELP = (
    "Run the workers on this Ray cluster: HOST:PORT, auto or ray://HOST:PORT.  "
    "[default: RAY_ADDRESS, else this machine]"
)
RUNTIME_ENV_HELP = "Give the workers the runtime_env of Ray in this YAML file."


class NumWorkers(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.4
    """A number, or "max"."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the number, or "max"."""
        return value if value == "max" else click.INT.convert(value, param, ctx)


WORKERS = NumWorkers()

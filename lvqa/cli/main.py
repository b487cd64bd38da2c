"""The command `lvqa`: its subcommands, the options that they share, and the exit codes.

Exit codes: 0 success; 1 an error that the user can fix, as one line on stderr; 2 wrong usage; 3 some items failed;
130 after Ctrl-C. Nothing heavy is imported before a command runs.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import lvqa
from lvqa.cli.terminal import Location, MessageHandler, Progress, echo_message
from lvqa.platforms import require_unix

if TYPE_CHECKING:
    from lvqa.config import Config
    from lvqa.pipeline import LongVideoQA
    from lvqa.records import Video


COMMANDS = {
    "ask": "ask:ask",
    "search": "search:search",
    "serve": "serve:serve",
    "view": "view:view",
    "mcp": "mcp:mcp",
    "index": "index:index",
    "eval": "evaluate:evaluate",
    "report": "evaluate:report",
    "retrieve": "retrieve:retrieve",
    "make-videos": "make_videos:make_videos",
    "demo": "make_videos:demo",
    "bench": "bench:bench",
    "doctor": "doctor:doctor",
    "export-embedder": "export:export",
    "check-plugin": "plugin:check_plugin",
    "diagnose": "diagnose:diagnose",
    "selections": "selections:selections",
    "library": "library:library",
}
"""Name of a command -> "module:function". The module is imported when the command is used."""
RENAMED_COMMANDS = {"make-film": "make-videos", "probe": "diagnose"}
"""Name of a command in lvqa 0.1 -> its name today."""


class _CommandGroup(click.Group):
    """Import a command when it is used, and print an LvqaError as one line. A bug keeps its traceback."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in RENAMED_COMMANDS:
            echo_message(f"lvqa {cmd_name} is called lvqa {RENAMED_COMMANDS[cmd_name]} since 0.2")
            ctx.exit(2)
        if cmd_name not in COMMANDS:
            return None
        module, name = COMMANDS[cmd_name].split(":")
        command: click.Command = getattr(importlib.import_module(f"lvqa.cli.{module}"), name)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            require_unix()
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except KeyboardInterrupt:
            echo_message("interrupted")
            ctx.exit(130)
        except Exception as error:
            from lvqa.records import LvqaError

            if not isinstance(error, LvqaError):
                raise
            echo_message(error)
            ctx.exit(1)


@dataclass(frozen=True, slots=True, kw_only=True)
class CommonOptions:
    """The options that all commands share, as the user gave them."""

    config_file: Path | None
    settings: tuple[str, ...]
    model: str | None
    store: Path | None
    device: str | None
    quiet: bool

    def config(self, *, default_model: str | None = None) -> Config:
        """Return the settings: the defaults, then those of the file, of -s and of the options. The last one counts."""
        from lvqa.config import Config, ModelConfig, load_config

        def defaults() -> Config:
            return Config() if default_model is None else Config(model=ModelConfig(name=default_model))

        config = load_config(self.config_file, self.settings, kind=defaults)
        if self.model is not None:
            config = dataclasses.replace(config, model=dataclasses.replace(config.model, name=self.model))
        if self.device is not None:
            config = dataclasses.replace(config, model=dataclasses.replace(config.model, device=self.device))
        if self.store is not None:
            config = dataclasses.replace(config, store=dataclasses.replace(config.store, folder=self.store))
        return config

    def embedded_config(self, store: Path | None = None) -> Config:
        """Return the settings with the embedded model and with this store, unless the user chose others."""
        config = self.config(default_model="tiny")
        if config.store.folder is None:
            config = dataclasses.replace(config, store=dataclasses.replace(config.store, folder=store))
        return config

    @property
    def shows_downloads(self) -> bool:
        """Whether bars show the download of a model from the hub."""
        return sys.stderr.isatty() and not self.quiet

    @contextlib.contextmanager
    def load_pipeline(self, config: Config) -> Iterator[LongVideoQA]:
        """Load the model of the settings and report progress. The settings are checked before anything is loaded."""
        from lvqa.startup import library_imports, quick_start

        is_own_process = click.get_current_context().find_root().obj is OWN_PROCESS
        with quick_start() if is_own_process else contextlib.nullcontext():
            from lvqa.components import check_settings
            from lvqa.pipeline import LongVideoQA

            check_settings(config)
            silence_libraries(downloads=self.shows_downloads)
            with library_imports():
                importlib.import_module("lvqa.models.decoder")  # and most of transformers with it
        with Progress(quiet=self.quiet) as progress:
            yield LongVideoQA.load(config=config, progress=progress)


def inspect_video(path: Path, config: Config) -> Video:
    """Return what the file contains; for an indexed video the store knows it.

    Commands call this before they load a model, so that a broken file is refused at once.

    Raises:
        LvqaError: If the file is not a readable video.
    """
    from lvqa import video
    from lvqa.index import Store

    return video.inspect_video(path, metadata_folder=Store(config.store.folder).folder)


def silence_libraries(*, downloads: bool) -> None:
    """Hide the progress bars and warnings of the libraries.

    Args:
        downloads: Keep the bars that show downloads.
    """
    from lvqa.startup import LOUD_LIBRARIES

    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    for name in LOUD_LIBRARIES:
        logging.getLogger(name).setLevel(logging.ERROR)
    importlib.import_module("lvqa.models.checkpoint").hide_bars(but_downloads=downloads)


def common_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that all commands share. The command gets them as one CommonOptions, its first argument."""

    @click.option(
        "-c", "config_file", metavar="FILE", type=click.Path(path_type=Path), help="Read settings from this YAML file."
    )
    @click.option("-s", "settings", metavar="KEY=VALUE", multiple=True, help="Change one setting; repeatable.")
    @click.option(
        "--model", metavar="ID|DIR|tiny", help="Use this model: a hub id, a folder, or tiny, the embedded model."
    )
    @click.option("--store", metavar="DIR", type=Location(), help="Keep the indexes in this folder.")
    @click.option("--device", metavar="NAME", help='Run the model on this torch device: "cpu", "cuda:0".')
    @click.option("--quiet", is_flag=True, help="Print neither progress nor remarks.")
    @functools.wraps(command)
    def with_common_options(
        *,
        config_file: Path | None,
        settings: tuple[str, ...],
        model: str | None,
        store: Path | None,
        device: str | None,
        quiet: bool,
        **own_options: Any,
    ) -> None:
        logging.getLogger("lvqa").setLevel(logging.WARNING if quiet else logging.INFO)
        common = CommonOptions(
            config_file=config_file, settings=settings, model=model, store=store, device=device, quiet=quiet
        )
        command(common, **own_options)

    return with_common_options


@click.group(cls=_CommandGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(lvqa.__version__, prog_name="lvqa")
def lvqa_command() -> None:
    """Ask questions about hours of video. One model finds the moments that matter, and answers from them."""
    logger, handler = logging.getLogger("lvqa"), MessageHandler()
    logger.addHandler(handler)
    click.get_current_context().call_on_close(lambda: logger.removeHandler(handler))


MAY_HANG = ("lvqa-decode", "lvqa-ray-call")
"""The names of threads that are left behind where a call never returns."""
OWN_PROCESS = object()
"""The object of click's context if the process runs only this one command."""


def main() -> None:
    """Run the command `lvqa`."""
    for stream in (sys.stdout, sys.stderr):  # a character that the encoding of the terminal lacks is escaped
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        lvqa_command(prog_name="lvqa", obj=OWN_PROCESS)
    except SystemExit as end:
        if any(thread.name in MAY_HANG for thread in threading.enumerate()):
            # A decoder hangs, or Ray waits for a head that is frozen. The interpreter would wait for it if it holds a
            # lock, or crash as it ends. All our files are written by now.
            with contextlib.suppress(OSError):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(end.code if isinstance(end.code, int) else 1)
        raise

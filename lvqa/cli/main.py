"""The door itself: exit codes, the options that all commands share, and what the command `lvqa` runs.

Exit codes: 0 done; 1 what the user can mend, as one line on stderr; 2 usage; 3 some items failed; 130 after Ctrl-C.
Nothing heavy is imported before a command runs.
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
from lvqa.cli.terminal import LogLines, Progress, say

if TYPE_CHECKING:
    from lvqa.config import Config
    from lvqa.pipeline import LongVideoQA
    from lvqa.records import Video


COMMANDS = {
    "ask": "ask:ask",
    "search": "search:search",
    "index": "index:index",
    "eval": "evaluate:evaluate",
    "report": "evaluate:report",
    "make-videos": "make_videos:make_videos",
    "demo": "make_videos:demo",
    "bench": "bench:bench",
    "doctor": "doctor:doctor",
    "check-plugin": "plugin:check_plugin",
    "diagnose": "diagnose:diagnose",
    "selections": "selections:selections",
}
"""A command's name -> the module and the function of it, imported when the command is used."""
RENAMED_COMMANDS = {"make-film": "make-videos", "probe": "diagnose"}
"""Commands of lvqa 0.1 -> what they are called now."""


class _CommandGroup(click.Group):
    """Imports a command when it is used, and turns an LvqaError into one line; a bug keeps its traceback."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in RENAMED_COMMANDS:
            ctx.fail(f"lvqa {cmd_name} is called lvqa {RENAMED_COMMANDS[cmd_name]} since 0.2")
        if cmd_name not in COMMANDS:
            return None
        module, name = COMMANDS[cmd_name].split(":")
        command: click.Command = getattr(importlib.import_module(f"lvqa.cli.{module}"), name)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except KeyboardInterrupt:
            say("interrupted")
            ctx.exit(130)
        except Exception as error:
            from lvqa.records import LvqaError

            if not isinstance(error, LvqaError):
                raise
            say(error)
            ctx.exit(1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """The common options, as given."""

    file: Path | None
    settings: tuple[str, ...]
    model: str | None
    store: Path | None
    device: str | None
    quiet: bool

    def config(self) -> Config:
        """Defaults, then the file, then -s, then the options: the later one counts."""
        from lvqa.config import load_config

        config = load_config(self.file, self.settings)
        if self.model is not None:
            config = dataclasses.replace(config, model=dataclasses.replace(config.model, name=self.model))
        if self.device is not None:
            config = dataclasses.replace(config, model=dataclasses.replace(config.model, device=self.device))
        if self.store is not None:
            config = dataclasses.replace(config, store=dataclasses.replace(config.store, folder=self.store))
        return config

    def embedded_config(self, store: Path | None = None) -> Config:
        """The same, but with the embedded model, and this store, unless the user named others."""
        from lvqa.config import Config

        config = self.config()
        if config.model.name == Config().model.name:
            config = dataclasses.replace(config, model=dataclasses.replace(config.model, name="tiny"))
        if config.store.folder is None:
            config = dataclasses.replace(config, store=dataclasses.replace(config.store, folder=store))
        return config

    @property
    def shows_downloads(self) -> bool:
        """Whether a model that comes from the hub is seen coming."""
        return sys.stderr.isatty() and not self.quiet

    @contextlib.contextmanager
    def loaded(self, config: Config) -> Iterator[LongVideoQA]:
        """The model behind the settings, with progress shown. The settings are checked before anything is loaded."""
        from lvqa.startup import paused_gc

        is_own_process = click.get_current_context().find_root().obj is OWN_PROCESS
        with paused_gc() if is_own_process else contextlib.nullcontext():
            from lvqa.components import check_settings
            from lvqa.pipeline import LongVideoQA

            check_settings(config)
            silence(downloads=self.shows_downloads)
            importlib.import_module("lvqa.models.decoder")  # and torch and transformers with it
        with Progress(quiet=self.quiet) as progress:
            yield LongVideoQA.load(config=config, progress=progress)


def probed(path: Path, config: Config) -> Video:
    """What the file holds; of an indexed film it is known. Said, or refused, before a model is loaded."""
    from lvqa.index import Store
    from lvqa.video import inspect_video

    return inspect_video(path, metadata_folder=Store(config.store.folder).folder)


def silence(*, downloads: bool) -> None:
    """No bar and no chatter from the libraries, but for the bars of downloads where they are wanted."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    importlib.import_module("lvqa.models.checkpoint").hide_bars(but_downloads=downloads)


def common(command: Callable[..., None]) -> Callable[..., None]:
    """Adds the options of every command that loads a model; they arrive as one Setup."""

    @click.option("-c", "file", metavar="FILE", type=click.Path(path_type=Path), help="Settings, a YAML file.")
    @click.option("-s", "settings", metavar="KEY=VALUE", multiple=True, help="One setting; may be repeated.")
    @click.option("--model", metavar="ID|DIR|tiny", help="A hub id, a folder, or the embedded model.")
    @click.option("--store", metavar="DIR", type=click.Path(path_type=Path), help="Where indexes are kept.")
    @click.option("--device", metavar="NAME", help='As torch names it: "cpu", "cuda:0".')
    @click.option("--quiet", is_flag=True, help="No progress, no remarks.")
    @functools.wraps(command)
    def with_setup(
        *,
        file: Path | None,
        settings: tuple[str, ...],
        model: str | None,
        store: Path | None,
        device: str | None,
        quiet: bool,
        **own: Any,
    ) -> None:
        logging.getLogger("lvqa").setLevel(logging.WARNING if quiet else logging.INFO)
        setup = Setup(file=file, settings=settings, model=model, store=store, device=device, quiet=quiet)
        command(setup, **own)

    return with_setup


@click.group(cls=_CommandGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(lvqa.__version__, prog_name="lvqa")
def lvqa_command() -> None:
    """Ask questions about hours of video. One model finds the moments that matter, and answers from them."""
    logger, handler = logging.getLogger("lvqa"), LogLines()
    logger.addHandler(handler)
    click.get_current_context().call_on_close(lambda: logger.removeHandler(handler))


OWN_PROCESS = object()
"""The object of click's context where the process does nothing but this one command."""


def main() -> None:
    """What the command `lvqa` runs."""
    for stream in (sys.stdout, sys.stderr):  # a name that the terminal's coding lacks is written out
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        lvqa_command(prog_name="lvqa", obj=OWN_PROCESS)
    except SystemExit as end:
        if any(thread.name == "lvqa-decode" for thread in threading.enumerate()):
            # A decoder hangs. The interpreter would wait for it if it holds a lock; nothing of ours is unwritten.
            with contextlib.suppress(OSError):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(end.code if isinstance(end.code, int) else 1)
        raise

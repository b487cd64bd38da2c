"""`lvqa doctor`: is all there that a question needs?"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.metadata
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

import lvqa
from lvqa.cli.main import Setup, common, silence
from lvqa.cli.terminal import one_line

if TYPE_CHECKING:
    from lvqa.config import Config


LIBRARIES = {
    "torch": ("torch", True),
    "transformers": ("transformers", True),
    "av": ("av", True),
    "faiss": ("faiss-cpu", True),
    "pyarrow": ("pyarrow", True),
    "cv2": ("opencv-python-headless", True),
    "decord": ("decord", False),
    "ray": ("ray", False),
}
"""Module -> the package it comes from, and whether asking a question needs it."""

ROOMY_BYTES = 1 << 30


@dataclass(frozen=True, slots=True)
class _Finding:
    """One line of the doctor's: `essential` says whether a question can be asked without it."""

    name: str
    told: str
    healthy: bool = True
    essential: bool = False


@click.command()
@common
def doctor(setup: Setup) -> None:
    """Check what lvqa needs: libraries, GPU, store, disk, and that the embedded model answers."""
    config = setup.embedded_config()
    silence(downloads=False)
    broken = False
    for finding in _findings(setup, config):
        word = "ok" if finding.healthy else "broken" if finding.essential else "warning"
        broken = broken or word == "broken"
        click.echo(f"{word:8} {finding.name:13} {one_line(finding.told)}")
    if broken:
        click.get_current_context().exit(1)


def _findings(setup: Setup, config: Config) -> Iterator[_Finding]:
    yield _Finding("lvqa", f"{lvqa.__version__}, Python {platform.python_version()}, {platform.platform()}")
    for module, (package, essential) in LIBRARIES.items():
        yield _library_finding(module, package, essential=essential)
    yield from _processor_findings()
    yield from _store_findings(config)
    yield _model_finding(setup, config)


def _library_finding(module: str, package: str, *, essential: bool) -> _Finding:
    try:
        loaded = importlib.import_module(module)
    except Exception as error:  # a broken library may raise anything; that is what the doctor is for
        return _Finding(module, f"cannot be imported: {type(error).__name__}: {error}", False, essential)
    try:
        version = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:  # the GPU build has another name
        version = str(getattr(loaded, "__version__", "of unknown version"))
    return _Finding(module, version)


def _processor_findings() -> Iterator[_Finding]:
    torch = sys.modules.get("torch")
    if torch is None:
        return
    yield _Finding("CPU", f"{torch.get_num_threads()} threads of {os.cpu_count()} processors")
    if not torch.cuda.is_available():
        yield _Finding("GPU", "none: the embedded model runs well without, one of 3B or 7B is slow", healthy=False)
    for place in range(torch.cuda.device_count()):
        card = torch.cuda.get_device_properties(place)
        yield _Finding("GPU", f"cuda:{place}, {card.name}, {card.total_memory / 2**30:.0f} GiB")


def _store_findings(config: Config) -> Iterator[_Finding]:
    from lvqa.index import Store, default_store
    from lvqa.records import LvqaError

    folder = (config.store.folder or default_store()).expanduser().absolute()
    try:
        Store(folder).prepare()
    except LvqaError as error:
        yield _Finding("store", str(error), healthy=False, essential=True)
    else:
        yield _Finding("store", f"{folder} can be written")
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(there).free
    yield _Finding("disk", f"{free / 2**30:.1f} GiB free at {there}", healthy=free >= ROOMY_BYTES)


def _model_finding(setup: Setup, config: Config) -> _Finding:
    """Writes a film of a minute and asks the model about it: encoder, decoder, index, model."""
    name = config.model.name
    try:
        from lvqa.synthetic.videos import ask_about, write_script, write_video

        with tempfile.TemporaryDirectory(prefix="lvqa-doctor-") as folder:
            film, script = Path(folder) / "film.mp4", write_script(0, 1)
            (question,) = ask_about(script, 1)
            write_video(script, film)
            config = dataclasses.replace(config, store=dataclasses.replace(config.store, folder=Path(folder)))
            started = time.perf_counter()
            with dataclasses.replace(setup, quiet=True).loaded(config) as qa:
                loaded = time.perf_counter()
                answer = qa.answer(film, question)
            asked = time.perf_counter()
        times = f"loaded in {loaded - started:.1f} s, answered {answer.option} from a film of a minute in"
        return _Finding("model", f"{name} {times} {asked - loaded:.1f} s")
    except Exception as error:  # whatever it is, the doctor names it
        return _Finding("model", f"{name} does not answer: {type(error).__name__}: {error}", False, essential=True)

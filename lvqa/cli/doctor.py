"""`lvqa doctor`: check that all is there that a question needs."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.metadata
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
from lvqa.cli.main import CommonOptions, common_options, silence_libraries
from lvqa.cli.terminal import one_line

if TYPE_CHECKING:
    from lvqa.config import Config
    from lvqa.pipeline import LongVideoQA


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
"""Module -> the package that contains it, and whether a question needs it."""

MIN_FREE_BYTES = 1 << 30


@dataclass(frozen=True, slots=True)
class _Finding:
    """One line of the output. No question can be asked if a finding is essential and not healthy."""

    name: str
    message: str
    healthy: bool = True
    essential: bool = False


@click.command()
@common_options
def doctor(common: CommonOptions) -> None:
    """Check what lvqa needs: libraries, GPU, store, disk.

    The embedded model must also answer a question about a synthetic video. With --model, or another model in the
    settings, that model must, and it is checked itself, on its device: whether its files are whole, whether it computes
    what the library's class computes, whether it is as FreeRet's authors found models to be, and what fits here.
    """
    config = common.embedded_config()
    silence_libraries(downloads=False)
    broken = False
    for finding in _findings(common, config):
        word = "ok" if finding.healthy else "broken" if finding.essential else "warning"
        broken = broken or word == "broken"
        click.echo(f"{word:8} {finding.name:13} {one_line(finding.message)}")
    if broken:
        click.get_current_context().exit(1)


def _findings(common: CommonOptions, config: Config) -> Iterator[_Finding]:
    yield _Finding("lvqa", f"{lvqa.__version__}, Python {platform.python_version()}, {platform.platform()}")
    for module, (package, essential) in LIBRARIES.items():
        yield _library_finding(module, package, essential=essential)
    yield from _processor_findings()
    yield from _store_findings(config)
    yield from _model_findings(common, config)


def _library_finding(module: str, package: str, *, essential: bool) -> _Finding:
    try:
        loaded = importlib.import_module(module)
    except Exception as error:  # a broken library may raise anything, and the doctor reports it
        return _Finding(module, f"cannot be imported: {type(error).__name__}: {error}", False, essential)
    try:
        version = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:  # the GPU build has another name
        version = str(getattr(loaded, "__version__", "of unknown version"))
    return _Finding(module, version)


def _processor_findings() -> Iterator[_Finding]:
    from lvqa.records import counted
    from lvqa.startup import num_cores

    torch = sys.modules.get("torch")
    if torch is None:
        return
    yield _Finding(
        "CPU", f"{counted(torch.get_num_threads(), 'thread')}, {counted(num_cores(), 'core')} of this process"
    )
    if not torch.cuda.is_available():
        yield _Finding(
            "GPU", "none: the embedded model runs well without one, a model of 3B or 7B is slow", healthy=False
        )
    for i in range(torch.cuda.device_count()):
        card = torch.cuda.get_device_properties(i)
        yield _Finding("GPU", f"cuda:{i}, {card.name}, {card.total_memory / 2**30:.0f} GiB")


def _store_findings(config: Config) -> Iterator[_Finding]:
    from lvqa.index import Store, default_store
    from lvqa.places import local_folder
    from lvqa.records import LvqaError

    try:
        folder = (config.store.folder or default_store()).absolute()
    except LvqaError as error:
        yield _Finding("store", str(error), healthy=False, essential=True)
        return
    try:
        Store(folder).prepare()
    except LvqaError as error:
        yield _Finding("store", str(error), healthy=False, essential=True)
    else:
        yield _Finding("store", f"{folder} can be written")
    here = local_folder(folder)
    existing = next(parent for parent in (here, *here.parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    yield _Finding("disk", f"{free / 2**30:.1f} GiB free at {existing}", healthy=free >= MIN_FREE_BYTES)


def _model_findings(common: CommonOptions, config: Config) -> Iterator[_Finding]:
    """Write a video of one minute and ask the model about it. This tries the encoder, decoder, index and model.

    A model that was named is then checked itself.
    """
    name = config.model.name
    try:
        from lvqa.synthetic.videos import ask_about, write_script, write_video

        with tempfile.TemporaryDirectory(prefix="lvqa-doctor-") as folder:
            video, script = Path(folder) / "video.mp4", write_script(0, 1)
            (question,) = ask_about(script, 1)
            write_video(script, video)
            config = dataclasses.replace(config, store=dataclasses.replace(config.store, folder=Path(folder)))
            started = time.perf_counter()
            with dataclasses.replace(common, quiet=True).load_pipeline(config) as qa:
                load_seconds = time.perf_counter() - started
                answer = qa.answer(video, question)
                answer_seconds = time.perf_counter() - started - load_seconds
                times = f"loaded in {load_seconds:.1f} s, answered {answer.option} from a video of one minute in"
                yield _Finding("model", f"{name} {times} {answer_seconds:.1f} s")
                if common.model is not None or name != "tiny":
                    yield from _checks_of(qa)
    except Exception as error:  # whatever it is, the doctor reports it
        yield _Finding("model", f"{name} does not answer: {type(error).__name__}: {error}", False, essential=True)


def _checks_of(qa: LongVideoQA) -> Iterator[_Finding]:
    from lvqa.checkup import check_model, decoder_of

    for check in check_model(decoder_of(qa.model)):
        yield _Finding(check.name, check.message, check.healthy, check.essential)

"""Find a model on disk or on the hub, and what it is, before any weight is read."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub.utils.tqdm import are_progress_bars_disabled, enable_progress_bars
from transformers import PreTrainedConfig
from transformers.utils.logging import disable_progress_bar

from lvqa.models.names import ALLOWED, advice, find_folder, is_hub_id, not_on_hub, note_download
from lvqa.records import LvqaError, shorten

TINY = Path(__file__).parents[1] / "synthetic" / "weights"
"""The folder of the embedded model."""
SAMPLES, SAMPLE_BYTES = 64, 65536
"""How many samples of a large file are hashed, and how large each is."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A model on disk or on the hub."""

    name: str
    """The name that the user gave."""
    source: str
    """A folder or a hub id, as `from_pretrained` takes it."""
    model_type: str
    """The architecture, as its config.json names it."""
    revision: str
    """The hub's commit hash, or a fingerprint of a folder's files."""
    cpu_dtype: str | None = None
    """The precision that config.json recommends on a CPU, if any."""


def find_checkpoint(model: str) -> Checkpoint:
    """Return the checkpoint that a user means by a hub id, a folder, or "tiny".

    Raises:
        LvqaError: There is no such folder or hub id, or it has no config.json.
    """
    folder = TINY if model == "tiny" else find_folder(model)
    if folder is not None:
        if not (folder / "config.json").is_file():
            raise LvqaError(f"model {model!r}: the folder {folder} has no config.json; give {ALLOWED}")
        return _checkpoint(model, str(folder), _read_config(folder), _fingerprint(folder))
    if not is_hub_id(model):
        raise LvqaError(f"model {shorten(model)}: there is no folder of this name; {advice(model)}")
    note_download(model)
    try:
        config, _ = PreTrainedConfig.get_config_dict(model)
    except (OSError, ValueError) as error:
        raise LvqaError(not_on_hub(model)) from error
    return _checkpoint(model, model, config, str(config.get("_commit_hash")))


def _read_config(folder: Path) -> dict[str, Any]:
    """Return the config.json of a folder, or raise LvqaError if it is no JSON object."""
    try:
        config, _ = PreTrainedConfig.get_config_dict(str(folder))
        if not isinstance(config, dict):
            raise TypeError
    except (AttributeError, OSError, TypeError, ValueError) as error:
        raise LvqaError(f"{folder / 'config.json'}: the file must hold a JSON object, and be readable") from error
    return config


def _checkpoint(name: str, source: str, config: dict[str, Any], revision: str) -> Checkpoint:
    return Checkpoint(name, source, str(config.get("model_type")), revision, config.get("cpu_dtype"))


def hide_bars(*, but_downloads: bool) -> None:
    """Switch the library's own progress bars off in this process; with `but_downloads`, those of downloads stay."""
    but_downloads = but_downloads and not are_progress_bars_disabled()  # by the user's own setting
    disable_progress_bar()  # type: ignore[no-untyped-call]  # of downloads as well
    if but_downloads:
        enable_progress_bars()


def _fingerprint(folder: Path) -> str:
    """Return 16 hexadecimal digits over the files' names, sizes and evenly spaced samples of their bytes.

    A file of up to 4 MiB is hashed in full, a larger one by 64 samples: two sets of weights differ nearly everywhere.
    """
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.suffix not in {".json", ".jinja", ".safetensors", ".txt"}:
            continue
        size = path.stat().st_size
        digest.update(f"{path.name} {size} ".encode())
        with path.open("rb") as file:
            for i in range(SAMPLES):
                file.seek(max(i * SAMPLE_BYTES, i * (size - SAMPLE_BYTES) // (SAMPLES - 1)))
                digest.update(file.read(SAMPLE_BYTES))
    return digest.hexdigest()[:16]

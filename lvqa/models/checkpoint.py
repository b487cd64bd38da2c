"""Where a model lies, and what it is, before any weight is read."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub.utils.tqdm import are_progress_bars_disabled, enable_progress_bars
from transformers import PreTrainedConfig
from transformers.utils.logging import disable_progress_bar

from lvqa.records import LvqaError

TINY = Path(__file__).parents[1] / "synthetic" / "weights"
ALLOWED = 'a hub id such as "Qwen/Qwen2.5-VL-7B-Instruct", a folder with a config.json, or "tiny"'
SAMPLES, SAMPLE_BYTES = 64, 65536


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A model on disk or on the hub."""

    name: str
    """As the user wrote it."""
    source: str
    """A folder or a hub id, as `from_pretrained` takes it."""
    model_type: str
    """The architecture, as its config.json names it."""
    revision: str
    """The hub's commit hash, or a fingerprint of a folder's files."""
    cpu_dtype: str | None = None
    """What it had better be computed in on a CPU, if its config.json says so."""


def find_checkpoint(model: str) -> Checkpoint:
    """The checkpoint that a user means by a hub id, a folder, or "tiny"."""
    folder = TINY if model == "tiny" else Path(model).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise LvqaError(f"model {model!r}: the folder {folder} has no config.json; give {ALLOWED}")
        config, _ = PreTrainedConfig.get_config_dict(str(folder))
        return _checkpoint(model, str(folder), config, _fingerprint(folder))
    if model == "tiny" or model.count("/") > 1 or model.startswith((".", "~", "/")):
        raise LvqaError(f"model {model!r}: there is no folder {folder}; give {ALLOWED}")
    try:
        config, _ = PreTrainedConfig.get_config_dict(model)
    except (OSError, ValueError) as error:
        raise LvqaError(f"model {model!r} is not on the hub, or the hub is out of reach; give {ALLOWED}") from error
    return _checkpoint(model, model, config, str(config.get("_commit_hash")))


def _checkpoint(name: str, source: str, config: dict[str, Any], revision: str) -> Checkpoint:
    return Checkpoint(name, source, str(config.get("model_type")), revision, config.get("cpu_dtype"))


def hide_bars(*, but_downloads: bool) -> None:
    """Switch the library's own progress bars off in this process; those of downloads stay if wanted and allowed."""
    but_downloads = but_downloads and not are_progress_bars_disabled()  # by the user's own setting
    disable_progress_bar()  # type: ignore[no-untyped-call]  # of downloads as well
    if but_downloads:
        enable_progress_bars()


def _fingerprint(folder: Path) -> str:
    """16 hexadecimal digits over the files' names, sizes and evenly spaced samples of their bytes.

    A file of up to 4 MiB counts in full. Of a larger one 64 samples do: two sets of weights differ nearly everywhere.
    """
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.suffix not in {".json", ".jinja", ".safetensors", ".txt"}:
            continue
        size = path.stat().st_size
        digest.update(f"{path.name} {size} ".encode())
        with path.open("rb") as file:
            for number in range(SAMPLES):
                file.seek(max(number * SAMPLE_BYTES, number * (size - SAMPLE_BYTES) // (SAMPLES - 1)))
                digest.update(file.read(SAMPLE_BYTES))
    return digest.hexdigest()[:16]

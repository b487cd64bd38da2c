"""Find a model on disk or on the hub, and what it is, before any weight is read."""

from __future__ import annotations

import hashlib
import json
import re
import struct
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    LocalEntryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils.tqdm import are_progress_bars_disabled, enable_progress_bars
from transformers import PreTrainedConfig
from transformers.utils.logging import disable_progress_bar

from lvqa.models.names import ALLOWED, advice, find_folder, is_hub_id, not_on_hub, note_download
from lvqa.records import LvqaError, shorten

TINY = Path(__file__).parents[1] / "synthetic" / "weights"
"""The folder of the embedded model."""
EXPORT_KEY = "embedder_of"
"""A config.json with this key belongs to an exported embedder; its value is the model that it was made of."""
SAMPLES, SAMPLE_BYTES = 64, 65536
"""How many samples of a large file are hashed, and how large each is."""
TENSOR_BYTES = 16384
"""So much of each tensor of a .safetensors file is hashed too."""
SUFFIXES = {".bin", ".jinja", ".json", ".model", ".pt", ".pth", ".safetensors", ".txt"}
"""The files of a folder that make the model what it is."""


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
    """The hub's commit, 40 hexadecimal digits, or a fingerprint of a folder's files."""
    is_folder: bool
    """Whether the source is a folder."""
    cpu_dtype: str | None = None
    """The precision that config.json recommends on a CPU, if any."""
    made_of: str | None = None
    """The model whose embedder it is, if it was exported: it can't answer."""
    has_code: bool = False
    """Whether it comes with Python code of its own, which is never run here."""

    @property
    def commit(self) -> str | None:
        """The commit on the hub; None for a folder."""
        return None if self.is_folder else self.revision

    @property
    def options(self) -> dict[str, str]:
        """What `from_pretrained` takes next to the source, so that all files are of one commit."""
        return {} if self.is_folder else {"revision": self.revision}


def find_checkpoint(model: str, revision: str | None = None) -> Checkpoint:
    """Return the checkpoint that a user means by a hub id, a folder, or "tiny".

    Args:
        model: A hub id, a folder, or "tiny".
        revision: A commit, a tag or a branch of a hub id; None means the main branch.

    Raises:
        LvqaError: There is no such folder, hub id or revision, it has no config.json, or a revision is given for a
            folder.
    """
    folder = TINY if model == "tiny" else find_folder(model)
    if folder is not None:
        if revision is not None:
            what = "the embedded model" if model == "tiny" else "a folder"
            raise LvqaError(f"model.revision {revision!r} is for a model of the hub, and model {model!r} is {what}")
        if not (folder / "config.json").is_file():
            raise LvqaError(f"model {model!r}: the folder {folder} has no config.json; give {ALLOWED}")
        return _checkpoint(model, str(folder), _read_config(folder), _fingerprint(folder), is_folder=True)
    if not is_hub_id(model):
        raise LvqaError(f"model {shorten(model)}: there is no folder of this name; {advice(model)}")
    note_download(model)
    commit = _find_commit(model, revision)
    try:
        config, _ = PreTrainedConfig.get_config_dict(model, revision=commit)
    except (OSError, ValueError) as error:
        raise LvqaError(f"model {model!r}: its config.json of commit {commit} can't be read") from error
    return _checkpoint(model, model, config, commit, is_folder=False)


def snapshot_folder(checkpoint: Checkpoint) -> Path:
    """Return the folder of a checkpoint's files on this machine, where a model was loaded from."""
    if checkpoint.is_folder:
        return Path(checkpoint.source)
    path = hf_hub_download(checkpoint.source, "config.json", revision=checkpoint.revision, local_files_only=True)
    return Path(path).parent


def _read_config(folder: Path) -> dict[str, Any]:
    """Return the config.json of a folder, or raise LvqaError if it is no JSON object."""
    try:
        config, _ = PreTrainedConfig.get_config_dict(str(folder))
        if not isinstance(config, dict):
            raise TypeError
    except (AttributeError, OSError, TypeError, ValueError) as error:
        raise LvqaError(f"{folder / 'config.json'}: the file must hold a JSON object, and be readable") from error
    return config


def _checkpoint(name: str, source: str, config: dict[str, Any], revision: str, *, is_folder: bool) -> Checkpoint:
    model_type, has_code = str(config.get("model_type")), "auto_map" in config
    made_of = config.get(EXPORT_KEY)
    return Checkpoint(name, source, model_type, revision, is_folder, config.get("cpu_dtype"), made_of, has_code)


def _find_commit(model: str, revision: str | None) -> str:
    """Return the commit that a hub id has under a revision, on the hub or, without it, in the cache of this machine.

    The commit is the name of the cache's folder where config.json lies.
    """
    try:
        path = hf_hub_download(model, "config.json", revision=revision)
    except Exception as error:  # the hub's client lets errors of its network library through
        raise LvqaError(_why_not_found(model, revision, error)) from error
    commit = Path(path).parent.name
    if not re.fullmatch("[0-9a-f]{40}", commit):
        raise LvqaError(f"model {model!r}: the hub's cache names no commit of it: {path}")
    return commit


def _why_not_found(model: str, revision: str | None, error: Exception) -> str:
    """Return one line for an error of the hub's client."""
    match error:
        case RevisionNotFoundError():
            return f"model {model!r} has no revision {revision!r} on the hub; give a commit, a tag or a branch of it"
        case GatedRepoError():
            return f"model {model!r} is open on the hub to those alone who asked for access; ask there, and log in"
        case LocalEntryNotFoundError() if revision is not None:
            return (
                f"model {model!r} is not in the cache of this machine under revision {revision!r}, "
                f"and the hub is out of reach; give a commit, a tag or a branch that was downloaded"
            )
        case EntryNotFoundError() if not isinstance(error, LocalEntryNotFoundError):
            return f"model {model!r} has no config.json on the hub; give {ALLOWED}"
    return not_on_hub(model)


def hide_bars(*, but_downloads: bool) -> None:
    """Switch the library's own progress bars off in this process; with `but_downloads`, those of downloads stay."""
    but_downloads = but_downloads and not are_progress_bars_disabled()  # by the user's own setting
    disable_progress_bar()  # type: ignore[no-untyped-call]  # of downloads as well
    if but_downloads:
        enable_progress_bars()


def _fingerprint(folder: Path) -> str:
    """Return 16 hexadecimal digits over the files' names, sizes and samples of their bytes.

    A file of up to 4 MiB is hashed in full. A larger one is hashed by 64 samples at even steps and, if it is in the
    .safetensors format, by the middle of every tensor: weights that were trained on differ nearly everywhere, but it
    may have been a few tensors alone.
    """
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.suffix not in SUFFIXES or not path.is_file():
            continue
        size = path.stat().st_size
        digest.update(f"{path.name} {size} ".encode())
        with path.open("rb") as file:
            for i in range(SAMPLES):
                file.seek(max(i * SAMPLE_BYTES, i * (size - SAMPLE_BYTES) // (SAMPLES - 1)))
                digest.update(file.read(SAMPLE_BYTES))
            for middle in _tensor_middles(file, size) if size > SAMPLES * SAMPLE_BYTES else ():
                file.seek(middle)
                digest.update(file.read(TENSOR_BYTES))
    return digest.hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class TensorPlace:
    """Where a tensor lies in a .safetensors file."""

    dtype: str
    """Its type, as the format names it."""
    start: int
    """The first byte in the file, and the one behind the last."""
    end: int


def tensor_places(path: Path) -> dict[str, TensorPlace]:
    """Return where the tensors of a .safetensors file lie, by their names; nothing for another file."""
    with path.open("rb") as file:
        return _tensor_places(file, path.stat().st_size)


def _tensor_places(file: IO[bytes], size: int) -> dict[str, TensorPlace]:
    file.seek(0)
    with suppress(ValueError, TypeError, LookupError, AttributeError, RecursionError, struct.error):
        (num_bytes,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(min(num_bytes, 100 << 20)))  # the format allows no more
        places = {
            name: TensorPlace(str(tensor["dtype"]), *(8 + num_bytes + int(offset) for offset in tensor["data_offsets"]))
            for name, tensor in header.items()
            if name != "__metadata__"
        }
        return {name: place for name, place in places.items() if 0 <= place.start <= place.end <= size}
    return {}


def _tensor_middles(file: IO[bytes], size: int) -> list[int]:
    """Return where the middle of each tensor lies in a .safetensors file of so many bytes; nothing in another file."""
    middles = ((place.start + place.end) // 2 for place in _tensor_places(file, size).values())
    return sorted(middle for middle in middles if middle < size)

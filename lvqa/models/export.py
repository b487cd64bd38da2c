"""Write a checkpoint whose ordinary last-token embedding is FreeRet's vector, which any engine of embeddings gives.

Two things are changed. The down projections of the last layer's MLP are zero, so that the MLP adds nothing and the
state that leaves the layer is the one before its MLP, h_L^Attn. The final norm's weights are one, so that the norm
changes the state's length alone, which a cosine does not see.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from transformers import AutoConfig

from lvqa import prompts
from lvqa.models.checkpoint import EXPORT_KEY, Checkpoint, find_checkpoint, snapshot_folder, tensor_places
from lvqa.records import LvqaError, shorten

ONE = {"F32": b"\x00\x00\x80\x3f", "BF16": b"\x80\x3f", "F16": b"\x00\x3c"}
"""The number 1 in the types that a checkpoint may have, as .safetensors names them, the lowest byte first."""
LEFT_OUT = {".gitattributes", ".md", ".png", ".jpg", ".gif", ".mp4", ".bin", ".pt", ".pth"}
"""Files with these names or endings are no part of an export."""


def export_embedder(model: str, folder: Path, *, revision: str | None = None) -> Path:
    """Write the embedder of a model into a folder, which appears whole or not at all.

    Args:
        model: A hub id whose files are on this machine or can be downloaded, a folder, or "tiny".
        folder: A folder that is not there yet, or is empty.
        revision: A commit, a tag or a branch of a hub id.

    Returns:
        The folder.

    Raises:
        LvqaError: The model's weights are quantised, are in no .safetensors file, or have no last MLP; or the folder
            can't be written.
    """
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise LvqaError(f"{shorten(str(folder))} is not an empty folder; name one that is not there yet")
    checkpoint = find_checkpoint(model, revision)
    source = _all_files(checkpoint)
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    if "quantization_config" in config:
        raise LvqaError(f"model {model!r} is quantised, so its weights can't be set to zero one by one; export another")
    changes = dict(_changes(source, _last_layer(checkpoint)))
    if len(set(changes.values())) < 2:
        raise LvqaError(f"model {model!r} has no weights of a last MLP and a final norm in its .safetensors files")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".lvqa-export-") as temporary:
            target = Path(temporary) / "export"
            _copy(source, target)
            _set_tensors(target, changes)
            _describe(target, checkpoint, config)
            if folder.is_dir():
                folder.rmdir()
            target.replace(folder)
    except OSError as error:
        raise LvqaError(f"cannot write {folder}: {error.strerror or error}") from error
    return folder


def _all_files(checkpoint: Checkpoint) -> Path:
    """Return the folder of a checkpoint's files; those of the hub are downloaded as far as they are not here."""
    if not checkpoint.is_folder:
        from huggingface_hub import snapshot_download

        try:
            return Path(snapshot_download(checkpoint.source, revision=checkpoint.revision))
        except Exception as error:  # the hub's client lets errors of its network library through
            reason = str(error).splitlines()[0]
            raise LvqaError(f"the files of model {checkpoint.name!r} are not all here: {reason}") from error
    return snapshot_folder(checkpoint)


def _last_layer(checkpoint: Checkpoint) -> int:
    config = AutoConfig.from_pretrained(checkpoint.source, **checkpoint.options)
    text = getattr(config, "thinker_config", config).get_text_config()
    return int(text.num_hidden_layers) - 1


def _changes(source: Path, last_layer: int) -> Iterator[tuple[str, str]]:
    """Yield the tensors that are changed, and what is written into them: "zero" or "one"."""
    down = re.compile(rf"(?:^|.*\.)layers\.{last_layer}\.mlp\.(?:.*\.)?down_proj(?:\.weight)?")
    norm = re.compile(r"(?:thinker\.)?(?:language_model\.)?model\.(?:language_model\.)?norm\.weight")
    for path in source.glob("*.safetensors"):
        for name in tensor_places(path):
            if down.fullmatch(name) and "visual" not in name and "vision" not in name and "audio" not in name:
                yield name, "zero"
            elif norm.fullmatch(name):
                yield name, "one"


def _copy(source: Path, target: Path) -> None:
    target.mkdir()
    for path in source.iterdir():
        if path.is_file() and path.name not in LEFT_OUT and path.suffix not in LEFT_OUT:
            shutil.copyfile(path, target / path.name)


def _set_tensors(folder: Path, changes: Mapping[str, str]) -> None:
    """Overwrite tensors in their files, in place: however large a file is, one tensor is in memory."""
    for path in folder.glob("*.safetensors"):
        for name, place in tensor_places(path).items():
            if name not in changes:
                continue
            if place.dtype not in ONE:
                raise LvqaError(f"{name} is of type {place.dtype}; it must be one of {', '.join(ONE)}")
            one = ONE[place.dtype]
            number = one if changes[name] == "one" else bytes(len(one))
            with path.open("r+b") as file:
                file.seek(place.start)
                file.write(number * ((place.end - place.start) // len(one)))


def _describe(folder: Path, checkpoint: Checkpoint, config: dict[str, Any]) -> None:
    """Write what the export is into its config.json, its prompts, and a README."""
    made_of = {EXPORT_KEY: f"{checkpoint.name} {checkpoint.revision}"}
    (folder / "config.json").write_text(json.dumps({**config, **made_of}, indent=2) + "\n", encoding="utf-8")
    wording = str(config.get("prompts", prompts.WORDINGS[0]))
    texts = {side: prompts.embedding(noun, wording=wording) for side, noun in SIDES.items()}
    (folder / "prompts.json").write_text(json.dumps(texts, indent=2) + "\n", encoding="utf-8")
    indented = {side: textwrap.indent(text, "    ") for side, text in texts.items()}
    readme = README.format(name=checkpoint.name, revision=checkpoint.revision, **indented)
    (folder / "README.md").write_text(readme, encoding="utf-8")


SIDES = {"query": prompts.QUERY, "candidate": prompts.CLIP}
README = """# FreeRet's embedder of {name}

The weights are those of {name} (revision {revision}), but for the down projections of the last MLP, which are zero, and
the final norm, which is one. The state at the last position, as any engine of embeddings returns it, is therefore the
residual stream after the last attention and before the last MLP, up to its length: FreeRet's vector (arXiv 2509.24621,
section 3.2). Nothing was trained. It can't answer: use {name} for that.

Put the content and, on a line behind it, a prompt into one user turn of the chat template, and take the last position.

For what is searched with:

    {{content}}
{query}

For what is searched, here clips of video; for other things put their nouns in place of these:

    {{content}}
{candidate}

In transformers, `model(**inputs, output_hidden_states=True).hidden_states[-1][:, -1]`; in sentence-transformers, a
pooling by the last token; in vLLM, a pooling runner (LAST, normalised). Compare by the cosine.
"""

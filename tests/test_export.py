"""`lvqa export-embedder`: the ordinary last state of the export is FreeRet's vector, in plain transformers."""

from __future__ import annotations

import json
from pathlib import Path

import hub_bench
import huggingface_hub
import pytest
import small_models
import torch
from click.testing import CliRunner
from library_reference import prompts
from transformers import AutoModelForImageTextToText

from lvqa.cli.main import lvqa_command
from lvqa.embedding import Embedder
from lvqa.models import load_model
from lvqa.models.checkpoint import TINY
from lvqa.models.decoder import Decoder
from lvqa.models.export import export_embedder
from lvqa.models.prompt import ClipTokens, Prompt
from lvqa.models.reference import library_output
from lvqa.records import LvqaError

FAMILIES = ["qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe", "internvl", "internvl_moe", "llava_onevision"]


def contents(model: Decoder) -> list[Prompt]:
    """Return prompts on a text, a picture and a clip, and others."""
    clip = next(part for part in prompts(model)[1] if isinstance(part, ClipTokens))
    picture = ClipTokens(clip.tokens[:1], clip.rows, clip.cols, is_image=True)
    embedder = Embedder(wording="paper")
    asked_with = [embedder.query_prompt("What happens?"), embedder.clip_prompt(clip), embedder.clip_prompt(picture)]
    if "llava" in model.model_type or "internvl" in model.model_type:
        asked_with.pop()  # the reference does not know a picture of one frame
    return [*asked_with, *prompts(model)]


def least_cosine(model: Decoder, exported: str) -> float:
    """Return the least cosine between our vectors and the ordinary last states of the export."""
    library = AutoModelForImageTextToText.from_pretrained(exported, dtype=torch.float32, attn_implementation="eager")
    cosines = []
    for prompt in contents(model):
        ours = model.last_hidden_states([prompt])[0]
        output = library_output(model, prompt, library=library.eval(), output_hidden_states=True)
        cosines.append(torch.cosine_similarity(ours, output.hidden_states[-1][0, -1], dim=0))
    return float(min(cosines))


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_the_exports_ordinary_embedding_is_freerets(family: str, tmp_path: Path) -> None:
    folder = small_models.save(family, tmp_path / "model")
    model = load_model(str(folder), device="cpu", dtype="float32")
    assert isinstance(model, Decoder)
    exported = export_embedder(str(folder), tmp_path / "export")
    assert least_cosine(model, str(exported)) > 0.999999
    assert least_cosine(model, str(folder)) < 0.99, "untouched, the checkpoint gives other vectors"


@pytest.mark.slow
def test_a_checkpoint_of_the_hub_is_exported_from_its_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    name = "Qwen/Qwen2.5-VL-3B-Instruct"
    source = hub_bench.write_checkpoint(tmp_path / "hub", name, hub_bench.CHECKPOINTS[name]())
    before = {path.name: path.read_bytes() for path in source.iterdir()}
    result = CliRunner().invoke(lvqa_command, ["export-embedder", name, str(tmp_path / "export")])
    assert result.exit_code == 0 and "export" in result.output
    assert {path.name: path.read_bytes() for path in source.iterdir()} == before, "the cache is left alone"
    model = load_model(name, device="cpu", dtype="float32")
    assert isinstance(model, Decoder)
    assert least_cosine(model, str(tmp_path / "export")) > 0.999999
    texts = json.loads((tmp_path / "export" / "prompts.json").read_text())
    assert (
        texts["candidate"] == Embedder(wording="paper").clip_prompt(ClipTokens(torch.zeros(1, 1, 1), 1, 1))[1].strip()
    )  # type: ignore[union-attr]
    readme = (tmp_path / "export" / "README.md").read_text()
    assert all(f"    {line}\n" in readme for text in texts.values() for line in text.splitlines())


def test_an_export_is_refused_as_a_model_that_answers(tmp_path: Path) -> None:
    exported = export_embedder("tiny", tmp_path / "export")
    with pytest.raises(LvqaError, match=r"is the embedder of tiny .*can't answer"):
        load_model(str(exported))


def test_what_cant_be_exported_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("")
    with pytest.raises(LvqaError, match="not an empty folder"):
        export_embedder("tiny", tmp_path / "full")
    quantised = tmp_path / "quantised"
    quantised.mkdir()
    config = json.loads((TINY / "config.json").read_text()) | {"quantization_config": {"quant_method": "awq"}}
    (quantised / "config.json").write_text(json.dumps(config))
    with pytest.raises(LvqaError, match="is quantised"):
        export_embedder(str(quantised), tmp_path / "one")
    (quantised / "config.json").write_bytes((TINY / "config.json").read_bytes())
    with pytest.raises(LvqaError, match="no weights of a last MLP"):
        export_embedder(str(quantised), tmp_path / "one")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["full", "quantised"]

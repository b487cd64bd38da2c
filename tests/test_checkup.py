"""`lvqa doctor --model`: all is well with a checkpoint of the hub that is whole, and what is not well has a reason."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import hub_bench
import huggingface_hub
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from lvqa import prompts
from lvqa.checkup import Check, check_model, check_weights
from lvqa.models import load_model
from lvqa.models.decoder import Decoder
from lvqa.records import LvqaError

pytestmark = pytest.mark.slow
NAME = "Qwen/Qwen2.5-VL-7B-Instruct"
PUBLISHED = hub_bench.qwen2_5_vl(128, 592, 1, 1)
"""Narrow: the checkpoint is copied, read and compared often."""


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    """Random weights that have the three properties that FreeRet's authors find in trained ones."""
    tensors = hub_bench.random_weights(PUBLISHED)
    tensors["model.language_model.layers.1.mlp.down_proj.weight"] *= 60  # the last MLP turns the state
    return tensors


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory, weights: dict[str, Tensor]) -> Iterator[Path]:
    """A cache of the hub with the checkpoint in it."""
    folder = tmp_path_factory.mktemp("hub")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(folder))
        hub_bench.write_checkpoint(folder, "someone/before", PUBLISHED, weights)
        tune_head(load("someone/before"), weights)
        shutil.rmtree(folder / "models--someone--before")
        hub_bench.write_checkpoint(folder, NAME, PUBLISHED, weights)
        yield folder


def tune_head(model: Decoder, weights: dict[str, Tensor]) -> None:
    """Make A and B equally likely, and Wrong likelier than Right, where nothing speaks for either."""
    head = weights["lm_head.weight"]
    for labels, likely in ((("Right", "Wrong"), ["Wrong"]), (("A", "B"), ["A", "B"])):
        orders: list[tuple[str]] = [(prompts.reply_only(*labels),), (prompts.reply_only(*labels[::-1]),)]
        state = model.last_hidden_states(orders, state="mlp", final_norm=True).mean(0)
        for token in model.first_tokens(likely):
            head[token] = (state / state.square().sum() * 30).bfloat16()


def load(name: str) -> Decoder:
    model = load_model(name, device="cpu", dtype="float32")
    assert isinstance(model, Decoder)
    return model


def bad(checks: list[Check]) -> dict[str, str]:
    return {check.name: check.message for check in checks if not check.healthy}


def test_all_is_well_with_a_checkpoint_that_is_whole(hub: Path) -> None:
    checks = list(check_model(load(NAME)))
    assert bad(checks) == {}
    names = "files weights template frames vectors reply probe probe probe memory speed"
    assert [check.name for check in checks] == names.split()
    lines = {check.name: check.message for check in checks}
    assert "3 equal their checksums" in lines["files"] and "cosine 1.000000" in lines["vectors"]
    assert all("\n" not in line and len(line) < 250 for line in lines.values())


def changed_checkpoint(hub: Path, name: str, change: Callable[[Path], None]) -> Decoder:
    """Copy the checkpoint under another id, change its files, and load it."""
    source, target = (hub / f"models--{one.replace('/', '--')}" for one in (NAME, name))
    shutil.copytree(source, target, symlinks=True)
    change(target / "snapshots" / hub_bench.COMMIT)
    return load(name)


def change_tensor(folder: Path, name: str, change: Callable[[Tensor], Tensor]) -> None:
    """Write a file of weights with one tensor changed in place, under the checksum of what it was."""
    file = folder / json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"][name]
    with safe_open(file, framework="pt") as opened:
        tensors = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118
    tensors[name] = change(tensors[name]).contiguous()
    save_file(tensors, file.resolve(), metadata={"format": "pt"})


TENSOR = "model.layers.0.self_attn.o_proj.weight"


def test_a_damaged_tensor_is_named(hub: Path) -> None:
    def garbage(tensor: Tensor) -> Tensor:
        noise = torch.randint(0, 1 << 16, tensor.shape, generator=torch.Generator().manual_seed(0))
        return noise.to(torch.uint16).view(torch.bfloat16)

    model = changed_checkpoint(hub, "someone/damaged", lambda folder: change_tensor(folder, TENSOR, garbage))
    checks = list(check_model(model))
    assert {*bad(checks)} == {"files", "weights"}
    assert "o_proj.weight has values that are no numbers" in bad(checks)["weights"]
    assert "checksum" in bad(checks)["files"]
    assert [check.name for check in checks][-1] == "template", "what compares numbers is left out"


def test_a_tensor_of_zeros_is_named(hub: Path) -> None:
    model = changed_checkpoint(hub, "someone/zeros", lambda folder: change_tensor(folder, TENSOR, torch.zeros_like))
    assert "o_proj.weight is zero throughout" in check_weights(model).message


def test_the_template_of_another_family_is_named(hub: Path) -> None:
    def swap(folder: Path) -> None:
        path = folder / "chat_template.json"
        path.unlink()
        path.write_text(json.dumps({"chat_template": hub_bench.INTERNVL_TEMPLATE}))

    checks = list(check_model(changed_checkpoint(hub, "someone/swapped", swap)))
    assert {*bad(checks)} == {"template"}
    assert "does not show a video as <|vision_start|><|video_pad|><|vision_end|>" in bad(checks)["template"]


def test_the_template_of_another_kind_is_refused(hub: Path) -> None:
    template = "{% for message in messages %}[INST] {{ message['content'] }} [/INST]{% endfor %}"

    def swap(folder: Path) -> None:
        path = folder / "chat_template.json"
        path.unlink()
        path.write_text(json.dumps({"chat_template": template}))

    with pytest.raises(LvqaError, match=r"chat template in .* special tokens"):
        changed_checkpoint(hub, "someone/llama", swap)


def test_a_model_that_computes_something_else_is_named(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What lvqa computes is disturbed, as a fault in its own code would."""
    model = load(NAME)
    plain = Decoder.last_hidden_states
    monkeypatch.setattr(
        Decoder, "last_hidden_states", lambda self, *args, **options: plain(self, *args, **options).roll(1, dims=1)
    )
    names = bad(list(check_model(model)))
    assert "vectors" in names and "NOT" in names["vectors"]


@pytest.mark.parametrize("name", ["Qwen/Qwen3-VL-8B-Instruct", "llava-hf/llava-onevision-qwen2-7b-ov-hf"])
def test_other_families_are_checked_too(hub: Path, name: str) -> None:
    """Random weights lack what the paper finds, which is said and is no reason to stop."""
    folder = hub_bench.write_checkpoint(hub, name, hub_bench.CHECKPOINTS[name]())
    checks = list(check_model(load(name)))
    assert {*bad(checks)} <= {"probe", "memory"}
    assert all(check.healthy or not check.essential for check in checks)
    shutil.rmtree(folder.parents[1])

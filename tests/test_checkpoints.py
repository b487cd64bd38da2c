"""What is said of a model that can't be found or loaded, or of a device that is not there. Nothing is downloaded."""

import functools
import json

import pytest
import small_models
import torch
from huggingface_hub import constants

from lvqa.models import checkpoint, load_model
from lvqa.models.checkpoint import find_checkpoint
from lvqa.models.devices import best_device
from lvqa.models.memory import batch_tokens
from lvqa.records import LvqaError


def refusal(name: str, **options: str) -> str:
    with pytest.raises(LvqaError) as caught:
        load_model(name, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- names -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("tinny", "did you mean 'tiny'?"),
        ("Tiny", "did you mean 'tiny'?"),
        ("https://huggingface.co/Qwen/Qwen2.5-VL-7B-Instruct", "did you mean 'Qwen/Qwen2.5-VL-7B-Instruct'?"),
        ("https:/huggingface.co/Qwen/Qwen3-VL-8B-Instruct/tree/main", "did you mean 'Qwen/Qwen3-VL-8B-Instruct'?"),
        ("no/such/folder", "a folder with a config.json"),
        ("x" * 5000, "a folder with a config.json"),
        ("~nobody-here/model", "a folder with a config.json"),
    ],
)
def test_a_name_that_leads_nowhere_gets_advice(name, advice):
    assert advice in refusal(name)


@pytest.mark.parametrize("variable", ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
def test_a_model_that_is_not_in_the_cache_is_refused_offline(monkeypatch, variable):
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setenv(variable, "1")
    offline = refusal("nobody/no-such-model")
    assert f"{variable} is set" in offline and "folder" in offline


def test_without_a_network_the_way_out_is_named(monkeypatch, caplog):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    # What the library ends with where the hub is out of reach, but for the half a minute for which it tries.
    unreached = functools.partial(checkpoint.hf_hub_download, local_files_only=True)
    monkeypatch.setattr(checkpoint, "hf_hub_download", unreached)
    with caplog.at_level("INFO", logger="lvqa"):
        unreachable = refusal("nobody/no-such-model")
    assert caplog.messages == ["model nobody/no-such-model is not on this machine yet; asking the hub for it"]
    assert "HF_HUB_OFFLINE=1" in unreachable and "folder" in unreachable and "a hub id such as" not in unreachable


@pytest.mark.parametrize("content", ["[]", "{", "3", "\x00"])
def test_a_config_that_is_no_object_is_named(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(LvqaError, match=r"config\.json: the file must hold a JSON object"):
        find_checkpoint(str(tmp_path))


# --- quantised models ------------------------------------------------------------------------------------------------

BLOCKS = {"group_0": {"targets": ["Linear"], "weights": {"num_bits": 4, "type": "int", "group_size": 128}}}


@pytest.mark.parametrize(
    ("quantisation", "package"),
    [
        ({"quant_method": "awq", "bits": 4, "group_size": 128, "version": "gemm"}, "gptqmodel"),
        ({"quant_method": "gptq", "bits": 4, "group_size": 128}, "optimum"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "bitsandbytes"),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, "bitsandbytes"),
        ({"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [128, 128]}, "accelerate"),
        (
            {"quant_method": "compressed-tensors", "format": "pack-quantized", "config_groups": BLOCKS},
            "compressed-tensors",
        ),
        ({"quant_method": "auto-round", "bits": 4}, "auto-round"),
        ({"quant_method": "torchao", "quant_type": "int4"}, "torchao"),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(map(str, value.values()))[:20],
)
def test_a_quantised_model_names_the_package_that_is_missing(tmp_path, monkeypatch, quantisation, package):
    monkeypatch.setattr("lvqa.models.quantisation.find_spec", lambda _: None)
    folder = small_models.save("qwen2_5_vl", tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "quantization_config": quantisation}))
    message = refusal(str(folder), device="cpu")
    assert f"quantised by {quantisation['quant_method']}" in message and package in message


def test_a_setting_of_another_kind_is_one_line(tmp_path):
    folder = small_models.save("qwen2_5_vl", tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "quantization_config": "4 bits"}))
    assert "config.json" in refusal(str(folder), device="cpu")


def test_a_mixture_of_experts_has_no_one_mlp_to_enhance(tmp_path):
    model = load_model(str(small_models.save("internvl_moe", tmp_path)), device="cpu", dtype="float32")
    with pytest.raises(LvqaError, match="experts"), model.visual_enhancement(ratio=0.3):
        pass


# --- devices ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["xpu", "hpu", "mtia", "vulkan", "ipu", "xla:1", "privateuseone", "meta", "cuda:99"])
def test_a_device_that_is_not_here_is_refused_in_one_line(name):
    with pytest.raises(LvqaError, match=f"device '{name}'.*use cpu") as caught:
        best_device(name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["abacus", "cuda:x", "\udcff", "cpu cpu", "0"])
def test_a_device_that_torch_does_not_know_is_refused_in_one_line(name):
    with pytest.raises(LvqaError, match="is unknown; use cpu"):
        best_device(name)


@pytest.mark.parametrize("name", ["cpu", "cuda", "cuda:1", "mps", "xpu", "mtia"])
def test_every_device_has_a_batch_size(name):
    assert batch_tokens(torch.device(name)) == (4096 if name == "cpu" else 16384)

"""Models that are packed, or shared out over devices: equal to the library's class, and to the model on one device."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hub_bench
import pytest
import small_models
import torch
from library_reference import pair_pixels, prompts
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForImageTextToText
from two_devices import FIRST, SECOND, absent_devices

from lvqa.config import Config
from lvqa.evaluation import load_run_config
from lvqa.evaluation.changes import settings_changes
from lvqa.models import gpu, load_model, quantisation
from lvqa.models.decoder import Decoder
from lvqa.models.devices import execution_device, loaded_weights
from lvqa.models.quantisation import is_packed, weight_bytes
from lvqa.models.reference import library_states
from lvqa.records import LvqaError
from lvqa.session import IndexSpec

pytestmark = pytest.mark.slow

accelerate = pytest.importorskip("accelerate", reason="needs the extra quantize")
pytest.importorskip("torchao", reason="needs the extra quantize")
pytest.importorskip("bitsandbytes", reason="needs the extra quantize")

LABELS = ["A", "B"]
DENSE = ["qwen2_vl", "qwen2_5_vl", "qwen2_5_omni", "qwen3_vl", "internvl", "llava_onevision"]
EXPERTS = ["qwen3_vl_moe", "internvl_moe"]
UNKNOWN_TO_ACCELERATE = pytest.mark.filterwarnings("ignore:The following device_map keys:UserWarning")
"""accelerate places LLaVA-OneVision's row for a line's end, and warns that it is no module."""


def load(folder: Path | str, **options: Any) -> Decoder:
    model = load_model(str(folder), **{"dtype": "float32", **options})
    assert isinstance(model, Decoder)
    return model


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return a small checkpoint of each family."""
    return {family: small_models.save(family, tmp_path_factory.mktemp(family)) for family in [*DENSE, *EXPERTS]}


@pytest.fixture(scope="module")
def hub_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a Qwen3-VL in the hub's layout, an eighth as wide as the real one."""
    return hub_bench.write_checkpoint(tmp_path_factory.mktemp("hub"), "Qwen/Qwen3-VL-8B", hub_bench.qwen3_vl())


# --- packed ----------------------------------------------------------------------------------------------------------


def library_packed(folder: Path, method: str) -> Any:
    """Return the library's own model with its weights packed in the same way."""
    config = json.loads((folder / "config.json").read_text())
    packed = quantisation.quantisation_config(method, name="", config=config, dtype=torch.float32)
    options = {"dtype": torch.float32, "quantization_config": packed, "device_map": {"": "cpu"}}
    return AutoModelForImageTextToText.from_pretrained(folder, attn_implementation="eager", **options).eval()


@pytest.mark.parametrize("method", ["int8", "fp8", "nf4"])
@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl", "internvl", "llava_onevision"])
def test_a_packed_model_is_the_librarys_packed_alike(folders: dict[str, Path], family: str, method: str) -> None:
    model, library = load(folders[family], quantize=method), library_packed(folders[family], method)
    assert model.quantisation == method and model.dtype == torch.float32
    for prompt in prompts(model):
        expected = library_states(model, prompt, library)
        vector = model.last_hidden_states([prompt])
        assert torch.cosine_similarity(vector, expected["attention"]).min() > 0.9999
        logits = expected["logits"][:, model.first_tokens(LABELS)]
        torch.testing.assert_close(model.next_token_logits([prompt], LABELS), logits, atol=2e-3, rtol=1e-3)


@pytest.mark.parametrize(("method", "least", "size"), [("int8", 0.999, 0.26), ("fp8", 0.99, 0.26), ("nf4", 0.9, 0.13)])
def test_a_packed_model_is_near_the_plain_one_and_smaller(
    hub_folder: Path, method: str, least: float, size: float
) -> None:
    plain, packed = load(hub_folder, device="cpu"), load(hub_folder, quantize=method)
    texts = prompts(plain)
    vectors, near = plain.last_hidden_states(texts), packed.last_hidden_states(texts)
    cosine = float(torch.cosine_similarity(vectors, near).min())
    assert least < cosine < 1 - 1e-7
    layers = [model.library.model.language_model.layers for model in (plain, packed)]
    before, after = (sum(weight_bytes(weight) for weight in layer.parameters()) for layer in layers)
    assert after < size * before


def test_what_is_packed_are_the_layers_of_the_language_model_alone(folders: dict[str, Path]) -> None:
    for family in DENSE:
        plain, packed = load(folders[family], device="cpu"), load(folders[family], quantize="int8")
        frames = pair_pixels(plain, 2)
        assert torch.equal(plain.encode_pairs(frames), packed.encode_pairs(frames))
        assert torch.equal(plain.library.lm_head.weight, packed.library.lm_head.weight)
        layer = packed.library.model.language_model.layers[0]
        assert all(is_packed(linear) for linear in (layer.self_attn.q_proj, layer.self_attn.o_proj, layer.mlp.up_proj))


@pytest.mark.parametrize("method", ["int8", "fp8", "nf4"])
def test_a_packed_models_batch_is_its_prompts_one_by_one(hub_folder: Path, method: str) -> None:
    model = load(hub_folder, quantize=method)
    texts = prompts(model)
    singles = torch.cat([model.last_hidden_states([prompt]) for prompt in texts])
    torch.testing.assert_close(model.last_hidden_states(texts), singles, atol=1e-4, rtol=1e-4)
    before, clip, after = texts[0]
    (prefix,) = model.prefill_prefix([(before, clip)])
    whole = model.next_token_logits([texts[0]], LABELS)
    torch.testing.assert_close(model.score_with_prefix([prefix], [(after,)], LABELS), whole, atol=1e-4, rtol=1e-4)


def test_nothing_touches_packed_weights(folders: dict[str, Path]) -> None:
    model = load(folders["qwen2_5_vl"], quantize="nf4")
    prompt = prompts(model)[0]
    before = model.next_token_logits([prompt], LABELS)
    gpu.fit(model.library)
    torch.testing.assert_close(model.next_token_logits([prompt], LABELS), before, atol=1e-4, rtol=1e-4)
    refused = pytest.raises(LvqaError, match='weights, which are quantised here; use formula "paper"')
    with refused, model.visual_enhancement(ratio=0.3, formula="released"):
        pass
    with model.visual_enhancement(ratio=0.3, formula="paper"):
        assert model.next_token_logits([prompt], LABELS).isfinite().all()


def test_an_index_knows_how_the_model_is_packed_and_not_where_it_is(
    folders: dict[str, Path],
) -> None:
    folder, config = folders["qwen2_5_vl"], Config()
    plain, shared = load(folder, device="cpu"), load(folder, device_map="auto")
    packed = [load(folder, quantize=method) for method in ("int8", "nf4")]
    prints = [IndexSpec.of(model, config)[0].fingerprint() for model in (plain, shared, *packed)]
    assert prints[0] == prints[1] and len(set(prints)) == 3
    before, now = load_run_config(None), load_run_config(None, ["model.quantize=int8", "model.device_map=auto"])
    assert settings_changes(before, now) == ["model.quantize: null, now 'int8'"]


@pytest.mark.parametrize("family", EXPERTS)
def test_a_mixture_of_experts_is_not_packed(folders: dict[str, Path], family: str) -> None:
    with pytest.raises(LvqaError, match=r"mixture of experts, .* can't pack; leave it null"):
        load(folders[family], quantize="int8")


def test_a_packed_checkpoint_is_read_and_not_packed_again(folders: dict[str, Path], tmp_path: Path) -> None:
    model = load(folders["qwen2_5_vl"], quantize="nf4")
    folder = copied_with(folders["qwen2_5_vl"], tmp_path / "nf4", {})
    model.library.save_pretrained(folder)
    again = load(folder)
    assert again.quantisation == "bitsandbytes"
    texts = prompts(model)
    torch.testing.assert_close(again.last_hidden_states(texts), model.last_hidden_states(texts), atol=1e-5, rtol=1e-5)
    with pytest.raises(LvqaError, match=r"quantised by bitsandbytes already; leave model\.quantize null"):
        load(folder, quantize="int8")


def test_a_missing_package_is_named(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantisation, "find_spec", lambda _: None)
    with pytest.raises(LvqaError, match=r"'int8' needs what is not installed: pip install torchao accelerate"):
        load(folders["qwen2_5_vl"], quantize="int8")
    with pytest.raises(LvqaError, match=r"model.device_map needs what is not installed: pip install accelerate"):
        load(folders["qwen2_5_vl"], device_map="auto")
    with pytest.raises(LvqaError, match=r"model.quantize 'int2' is unknown; use one of int8, fp8, nf4"):
        load(folders["qwen2_5_vl"], quantize="int2")


# --- checkpoints in fp8 ----------------------------------------------------------------------------------------------

BLOCK = 128


def copied_with(folder: Path, target: Path, quantisation_config: dict[str, Any]) -> Path:
    """Return a copy of a checkpoint without its weights."""
    target.mkdir()
    for path in folder.iterdir():
        if "safetensors" not in path.name:
            (target / path.name).write_bytes(path.read_bytes())
    if quantisation_config:
        config = json.loads((target / "config.json").read_text())
        (target / "config.json").write_text(json.dumps({**config, "quantization_config": quantisation_config}))
    return target


def in_blocks(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return a weight in fp8 and the scale of each of its blocks, as Qwen publishes them."""
    rows, cols = weight.shape[0] // BLOCK, weight.shape[1] // BLOCK
    blocks = weight.float().view(rows, BLOCK, cols, BLOCK)
    scale = blocks.abs().amax(dim=(1, 3)) / torch.finfo(torch.float8_e4m3fn).max
    return (blocks / scale[:, None, :, None]).view_as(weight).to(torch.float8_e4m3fn), scale


def test_a_checkpoint_in_fp8_is_unpacked_on_a_cpu(hub_folder: Path, tmp_path: Path) -> None:
    weights = {name: weight for path in hub_folder.glob("*.safetensors") for name, weight in load_file(path).items()}
    packed, unpacked = {}, {}
    for name, weight in weights.items():
        packed[name] = unpacked[name] = weight
        if "language_model.layers" in name and name.endswith("proj.weight"):
            packed[name], scale = in_blocks(weight)
            packed[name.replace("weight", "weight_scale_inv")] = scale
            wide = scale.repeat_interleave(BLOCK, 0).repeat_interleave(BLOCK, 1)
            unpacked[name] = packed[name].float() * wide
    assert len(packed) > len(weights)
    ignored = ["lm_head", "model.visual"]
    method = {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [BLOCK, BLOCK]}
    folder = copied_with(hub_folder, tmp_path / "fp8", {**method, "modules_to_not_convert": ignored})
    plain = copied_with(hub_folder, tmp_path / "plain", {})
    save_file(packed, folder / "model.safetensors", metadata={"format": "pt"})
    save_file(unpacked, plain / "model.safetensors", metadata={"format": "pt"})
    ours, expected = load(folder, device="cpu"), load(plain, device="cpu")
    assert ours.quantisation is None and ours.dtype == torch.float32
    texts = prompts(expected)
    torch.testing.assert_close(ours.last_hidden_states(texts), expected.last_hidden_states(texts), atol=1e-5, rtol=1e-5)


# --- several devices -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Computed:
    """All that a model is asked for, of the same frames and prompts."""

    values: dict[str, Tensor]
    texts: list[str]


def computed(model: Decoder) -> Computed:
    texts = prompts(model)
    before, clip, after = texts[0]
    (prefix,) = model.prefill_prefix([(before, clip)])
    values = {
        "tokens": model.encode_pairs(pair_pixels(model, 2)),
        "vectors": model.last_hidden_states(texts),
        "normed": model.last_hidden_states(texts, state="mlp", final_norm=True),
        "sublayers": model.sublayer_states(texts[:1]),
        "logits": model.next_token_logits(texts),
        "prefix": prefix.keys_values,
        "behind a prefix": model.score_with_prefix([prefix], [(after,)], LABELS),
        "replies": model.reply_log_probs((after,), ["red", "a blue one"], prefix=prefix),
        "head": model.lm_head.log_probs(model.last_hidden_states(texts, state="mlp")),
    }
    if hasattr(model.library.model.language_model.layers[0].mlp, "gate_proj"):
        for formula in ("released", "paper"):
            with model.visual_enhancement(ratio=0.3, formula=formula):
                values[formula] = model.next_token_logits(texts, LABELS)
    whole = model.generate(texts, max_new_tokens=4)
    return Computed(values, whole + model.generate([(after,), texts[1]], prefixes=[prefix, None], max_new_tokens=4))


def shares(model: Decoder, *, first: str, second: str) -> dict[str, str | int]:
    """Return a map of the modules: the embeddings, which a tied head shares, and every other layer on the first."""
    library, num_layers = model.library, len(model.library.model.language_model.layers)
    towers = [name for name, module in library.model.named_children() if module is not library.model.language_model]
    prefix = "" if library.model is library else "model."
    text = next(name for name, module in library.named_modules() if module is library.model.language_model)
    of_text = dict.fromkeys((f"{text}.embed_tokens", f"{text}.rotary_emb"), first) | {f"{text}.norm": second}
    of_text |= {f"{text}.layers.{i}": (first, second)[i % 2] for i in range(num_layers)}
    is_tied = library.lm_head.weight is library.model.language_model.embed_tokens.weight
    of_head = {"lm_head": first if is_tied else second}
    others = {} if not hasattr(library.model, "image_newline") else {f"{prefix}image_newline": second}
    names = [f"{prefix}{name}" for name in towers if f"{prefix}{name}" not in of_head]
    return {**dict.fromkeys(names, second), **others, **of_text, **of_head}


@UNKNOWN_TO_ACCELERATE
@pytest.mark.parametrize("family", [*DENSE, *EXPERTS])
def test_two_devices_compute_what_one_does_and_no_operation_mixes_them(folders: dict[str, Path], family: str) -> None:
    one, two = load(folders[family], device="cpu"), load(folders[family], device="cpu")
    gpu.fit(one.library)
    expected = computed(one)
    with absent_devices():
        parts = shares(two, first=FIRST, second=SECOND)
        library = accelerate.dispatch_model(two.library, parts, main_device=FIRST)
        gpu.fit(library)
        model = type(two)(library, two.tokenizer, name="two", revision="two", max_batch_tokens=None)
        assert {str(execution_device(layer)) for layer in library.model.language_model.layers} == {FIRST, SECOND}
        actual = computed(model)
        assert str(model.device) == FIRST == str(actual.values["tokens"].device) == str(actual.values["prefix"].device)
        values = {name: value.to("cpu") for name, value in actual.values.items()}
    assert actual.texts == expected.texts
    for name, value in expected.values.items():
        torch.testing.assert_close(values[name], value, atol=1e-4, rtol=1e-4, msg=name)


def test_devices_that_are_not_there_notice_a_mixture() -> None:
    with absent_devices(), pytest.raises(RuntimeError, match=f"mixes {FIRST}, {SECOND}"):
        torch.ones(2, device=FIRST) + torch.ones(2, device=SECOND)
    with absent_devices(), pytest.raises(RuntimeError, match=f"mixes cpu, {FIRST}"):
        torch.ones(2, device=FIRST) + torch.ones(2)


@UNKNOWN_TO_ACCELERATE
@pytest.mark.parametrize("family", DENSE)
def test_layers_that_lie_on_the_disk_compute_the_same_bits(folders: dict[str, Path], family: str) -> None:
    one = load(folders[family], device="cpu")
    expected = computed(one)
    model = load(folders[family], device_map=shares(one, first="disk", second="cpu"))
    assert sum(weight.is_meta for weight in model.library.parameters()) > 10
    assert model.device == torch.device("cpu")
    actual = computed(model)
    assert actual.texts == expected.texts
    for name, value in expected.values.items():
        assert torch.equal(actual.values[name], value), name
    weights = dict(loaded_weights(model.library))
    assert all(torch.equal(weights[name], weight) for name, weight in one.library.named_parameters())


def test_a_map_by_accelerate_is_one_device_where_there_is_but_one(folders: dict[str, Path]) -> None:
    one, model = load(folders["qwen2_5_vl"], device="cpu"), load(folders["qwen2_5_vl"], device_map="auto")
    texts = prompts(one)
    assert torch.equal(model.last_hidden_states(texts), one.last_hidden_states(texts))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device_map": "everywhere"}, "'everywhere' is unknown; use one of auto, balanced, sequential, or names of"),
        ({"device_map": "auto", "device": "cpu"}, "model.device 'cpu' too; give one of them"),
        ({"device_map": {"": "nowhere"}}, "device 'nowhere' is unknown"),
        ({"device_map": {"model.visual": 0, "": "cpu"}}, "device 'cuda:0': there is no usable CUDA device here"),
    ],
)
def test_a_map_that_cant_be_used_is_refused(folders: dict[str, Path], options: dict[str, Any], message: str) -> None:
    with pytest.raises(LvqaError, match=message) as caught:
        load(folders["qwen2_5_vl"], **options)
    assert "\n" not in str(caught.value)

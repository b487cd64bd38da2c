"""Checkpoints in the hub's layout, loaded by their hub id without a network: equal to the library's own classes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hub_bench
import huggingface_hub
import numpy as np
import pytest
import torch
from library_reference import pair_pixels, prompts
from torch import Tensor
from transformers import AutoTokenizer, ProcessorMixin

from lvqa.models import load_model
from lvqa.models.decoder import Decoder
from lvqa.models.forward import STATES
from lvqa.models.frame_by_frame import FrameByFrame
from lvqa.models.prompt import ClipTokens
from lvqa.models.reference import library_output, library_states, library_tower
from lvqa.records import LvqaError

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Loaded:
    """One checkpoint, loaded twice."""

    published: hub_bench.Published
    weights: dict[str, Tensor]
    ours: Decoder
    library: Any


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An empty cache of the hub."""
    folder = tmp_path_factory.mktemp("hub")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="module", params=hub_bench.CHECKPOINTS)
def loaded(request: pytest.FixtureRequest, hub: Path) -> Iterator[Loaded]:
    published = hub_bench.CHECKPOINTS[request.param]()
    weights = hub_bench.random_weights(published)
    folder = hub_bench.write_checkpoint(hub, request.param, published, weights)
    ours = load_model(request.param, device="cpu", dtype="float32")
    assert isinstance(ours, Decoder)
    library = published.library_class.from_pretrained(request.param, dtype=torch.float32, attn_implementation="eager")
    yield Loaded(published, weights, ours, library.eval().requires_grad_(False))
    shutil.rmtree(folder.parents[1])


def test_every_tensor_of_the_hub_is_where_the_library_wants_it(loaded: Loaded) -> None:
    own = loaded.library.state_dict()
    assert loaded.weights.keys() <= own.keys()
    for name, tensor in loaded.weights.items():
        assert torch.equal(own[name].bfloat16(), tensor), name
    assert loaded.ours.revision == hub_bench.COMMIT


def test_pixels_become_the_same_tokens(loaded: Loaded) -> None:
    frames = pair_pixels(loaded.ours, 2, 4, 6)
    ours = loaded.ours.encode_pairs(frames).flatten(0, 1)
    expected = library_tower(loaded.ours, frames, loaded.library)
    torch.testing.assert_close(ours, expected, atol=1e-4 * float(expected.abs().max()), rtol=1e-4)
    assert ours.std() > 0.01


def test_prompts_have_the_ids_of_the_processors_template(loaded: Loaded) -> None:
    name, ours = loaded.ours.name, loaded.ours
    processor, _ = ProcessorMixin.get_processor_dict(name)
    tokenizer = AutoTokenizer.from_pretrained(name)
    tokenizer.chat_template = processor["chat_template"]
    assert tokenizer.chat_template == loaded.published.template
    for text in ("What happens?", "\n\nthe test  in\tan", "答案是B, é", "A. red\nB. blue"):
        message = [{"role": "user", "content": [{"type": "text", "text": text}]}]
        rendered = tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True)
        assert ours.encode_prompt((text,)).ids.tolist() == tokenizer(rendered, add_special_tokens=False).input_ids
    visual = prompts(ours)[0]
    ids = ours.encode_prompt(visual).ids
    config = loaded.library.config
    pad = getattr(config, "image_token_id" if ours.model_type == "internvl" else "video_token_id", None)
    pad = pad or config.video_token_index
    assert (ids == pad).tolist() == ours.encode_prompt(visual).visual_mask.tolist()


def test_positions_are_the_librarys(loaded: Loaded) -> None:
    """A text alone and one pair: for a longer clip this library puts what follows inside of it (a fault of its own)."""
    ours = loaded.ours
    if isinstance(ours, FrameByFrame):
        pytest.skip("it counts tokens")
    frames = pair_pixels(ours, 1, 4, 6)
    clip = ClipTokens(ours.encode_pairs(frames), *ours.token_grid(*frames.shape[2:4]), seconds=((0.0, 1.0),))
    tokenized = ours.encode_prompt(("what is", clip, "and that?"))
    grid, seconds = torch.tensor([[1, 8, 12]]), torch.tensor([2.0])
    more = {"mm_token_type_ids": 2 * tokenized.visual_mask[None].int(), "second_per_grid_ts": seconds}
    if ours.model_type == "qwen2_5_omni":
        more = {"second_per_grids": seconds}
    positions, _ = loaded.library.model.get_rope_index(tokenized.ids[None], video_grid_thw=grid, **more)
    assert torch.equal(tokenized.positions, positions[:, 0])


def test_states_and_labels_are_the_librarys(loaded: Loaded) -> None:
    ours = loaded.ours
    for prompt in prompts(ours):
        expected = library_states(ours, prompt, loaded.library)
        for state in STATES:
            if state == "mlp-2" and len(loaded.library.model.language_model.layers) < 3:
                continue
            vector = ours.last_hidden_states([prompt], state=state)
            assert torch.cosine_similarity(vector, expected[state]).min() > 1 - 1e-6, state
            torch.testing.assert_close(vector, expected[state], atol=2e-3, rtol=1e-3)
        words = ["A", "B", "Yes", "No"]
        logits = expected["logits"][:, ours.first_tokens(words)]
        torch.testing.assert_close(ours.next_token_logits([prompt], words), logits, atol=2e-3, rtol=1e-3)


def test_greedy_replies_are_the_librarys(loaded: Loaded) -> None:
    prompt, reply = prompts(loaded.ours)[2], list[int]()
    loaded.ours.generate([prompt], max_new_tokens=12, on_token=lambda _, token, __: reply.append(token))
    output = library_output(loaded.ours, prompt, reply[:-1], loaded.library)
    assert output.logits[0, -len(reply) :].argmax(-1).tolist() == reply
    generation = loaded.library.generation_config.eos_token_id
    ends = {151645, *(generation if isinstance(generation, list) else [generation])}
    assert len(reply) == 12 or reply[-1] in ends


def test_batches_and_prefixes_are_the_whole_prompt(loaded: Loaded) -> None:
    ours = loaded.ours
    texts = prompts(ours)[:2]
    singles = np.stack([ours.last_hidden_states([prompt])[0].numpy() for prompt in texts])
    np.testing.assert_allclose(ours.last_hidden_states(texts).numpy(), singles, atol=2e-3, rtol=1e-3)
    before, clip, after = texts[0]
    (prefix,) = ours.prefill_prefix([(before, clip)])
    whole = ours.next_token_logits([texts[0]], ["A", "B"])
    torch.testing.assert_close(ours.score_with_prefix([prefix], [(after,)], ["A", "B"]), whole, atol=2e-3, rtol=1e-3)


# --- what is refused -------------------------------------------------------------------------------------------------


def refusal(name: str) -> str:
    with pytest.raises(LvqaError) as caught:
        load_model(name, device="cpu", dtype="float32")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_model_that_must_think_is_refused_and_one_that_may_is_asked_not_to(hub: Path) -> None:
    thinking = hub_bench.qwen3_vl(template=hub_bench.THINKING_TEMPLATE)
    hub_bench.write_checkpoint(hub, "Qwen/Qwen3-VL-8B-Thinking", thinking)
    message = refusal("Qwen/Qwen3-VL-8B-Thinking")
    assert "begins every reply with a thought" in message and "Instruct" in message
    switched = hub_bench.qwen3_vl(template=hub_bench.SWITCHED_TEMPLATE)
    hub_bench.write_checkpoint(hub, "Qwen/a-model-with-a-switch", switched)
    model = load_model("Qwen/a-model-with-a-switch", device="cpu", dtype="float32")
    assert isinstance(model, Decoder)
    assert model.tokenizer.decode(model.encode_prompt(("why?",)).ids).endswith("<think>\n\n</think>\n\n")


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"model_type": "qwen3_5"}, "linear attention"),
        ({"model_type": "qwen3_5_moe"}, "linear attention"),
        ({"model_type": "qwen3_omni_moe"}, "use a Qwen2.5-Omni"),
        ({"model_type": "internvl_chat", "auto_map": {"AutoModel": "modeling_internvl_chat.InternVLChatModel"}}, "-HF"),
        ({"model_type": "ovis2_5", "auto_map": {"AutoModel": "modeling_ovis2_5.Ovis2_5"}}, "none is run here"),
        ({"model_type": "llama"}, "the families that can be used are"),
    ],
    ids=lambda value: value["model_type"] if isinstance(value, dict) else "",
)
def test_a_family_that_cant_be_used_says_what_would_be_needed(hub: Path, config: dict[str, Any], reason: str) -> None:
    name = f"someone/{config['model_type']}"
    folder = hub / f"models--{name.replace('/', '--')}"
    (folder / "snapshots" / hub_bench.COMMIT).mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(hub_bench.COMMIT)
    (folder / "snapshots" / hub_bench.COMMIT / "config.json").write_text(json.dumps(config))
    (folder / "snapshots" / hub_bench.COMMIT / "modeling_ovis2_5.py").write_text("raise SystemExit('it was run')\n")
    message = refusal(name)
    assert reason in message and f"is a {config['model_type']}" in message


def test_code_beside_a_family_that_the_library_has_is_not_run(hub: Path) -> None:
    published = hub_bench.qwen2_5_vl(256, 1376, 2, 1, vocabulary=151936, tied=True)
    folder = hub_bench.write_checkpoint(hub, "someone/tuned", published)
    for file in ("config.json", "tokenizer_config.json"):
        content = json.loads((folder / file).read_text())
        auto_map = {
            "AutoModelForImageTextToText": "own.Own",
            "AutoConfig": "own.Own",
            "AutoTokenizer": ["own.Own", None],
        }
        (folder / file).write_text(json.dumps({**content, "auto_map": auto_map}))
    (folder / "own.py").write_text("raise SystemExit('it was run')\n")
    assert load_model("someone/tuned", device="cpu", dtype="float32").dim == 256

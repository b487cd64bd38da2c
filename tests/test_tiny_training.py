"""The training of the embedded model: its loss, and that an interrupted run gives the weights of an unbroken one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from forked import WARM
from tiny_tokenizer import tiny_tokenizer
from transformers import PreTrainedTokenizerFast

from lvqa.records import LvqaError
from tiny.batches import Batch, StepData, pack_samples
from tiny.curriculum import Stage
from tiny.frames import LabelledPairs
from tiny.generator import SampleGenerator
from tiny.losses import sample_loss
from tiny.model import build_model
from tiny.samples import COLUMNS, ROWS
from tiny.takes import random_takes
from tiny.trainer import Trainer

STAGES = (
    Stage(name="vision", steps=3, learning_rate=1e-3, pairs=4),
    Stage(name="speak", steps=4, learning_rate=2e-3, mix={"rerank": 0.5, "caption": 0.5}, rows=1, row_tokens=256),
    Stage(name="caption", steps=4, learning_rate=1e-3, mix={"caption": 1.0}, rows=1, row_tokens=128),
)


@pytest.fixture(scope="module")
def tokenizer() -> Iterator[PreTrainedTokenizerFast]:
    """The tokenizer, which all trainers share."""
    tokenizer = tiny_tokenizer()
    with pytest.MonkeyPatch.context() as patch:
        for module in ("batches", "trainer"):
            patch.setattr(f"tiny.{module}.build_tokenizer", lambda: tokenizer)
        yield tokenizer


@pytest.mark.slow
def test_samples_in_one_row_do_not_attend_to_each_other(tokenizer):
    """The packed loss is that of every sample read by itself, by the library."""
    model = build_model(tokenizer, seed=0)
    model.model.language_model.config._attn_implementation = "sdpa"
    rng = np.random.default_rng(1)
    generator = SampleGenerator(tokenizer, random_takes(np.random.default_rng(3), 300), seed=4)
    samples = [generator.tasks[task]() for task in ("answer", "rerank", "caption", "match drill", "query word")]
    pad = tokenizer.convert_tokens_to_ids("<|video_pad|>")
    batch = pack_samples(samples, rng, (2, 1024), moments=2, visual_token=pad)
    shape = (len(generator.pool.scenes), 3, ROWS * COLUMNS, 192)
    visual_tokens = torch.from_numpy(rng.normal(size=shape).astype(np.float32))
    with torch.no_grad():
        tensors = [torch.from_numpy(field) for field in batch[:-1]]
        loss, _ = sample_loss(model, visual_tokens, tensors, text_weight=0.0)
        losses = []
        for i, sample in enumerate(sorted(samples, key=lambda sample: -len(sample.ids))):
            rows, columns = np.nonzero(batch.sample == i)
            rows, columns = rows[: len(sample.ids)], columns[: len(sample.ids)]
            assert batch.ids[rows, columns].tolist() == sample.ids
            states = model.model.language_model.embed_tokens(torch.tensor([sample.ids]))
            visual = np.flatnonzero(batch.scene[rows, columns] >= 0)
            indices = (field[rows, columns][visual] for field in (batch.scene, batch.moment, batch.token))
            states[0, visual] = visual_tokens[tuple(indices)]
            positions = torch.tensor(sample.positions).T[:, None]
            output = model.model.language_model(inputs_embeds=states, position_ids=positions, use_cache=False)
            log_probs = model.lm_head(output.last_hidden_state)[0].log_softmax(-1)
            losses += [-log_probs[t.position, list(t.tokens)].mean() for t in sample.targets]
    assert len(losses) == len(batch.tasks)
    assert float(loss) == pytest.approx(float(torch.stack(losses).mean()), abs=1e-4)


class ShortTrainer(Trainer):
    """Trains on few takes."""

    takes_per_shard, num_shards, num_held_out_shards, evaluation_rows = 6, 2, 1, 1


class TrainerThatSavesOften(ShortTrainer):
    steps_between_saves = 2


def train(folder: Path, trainer_class: type[Trainer] = ShortTrainer, workers: int = 0) -> Trainer:
    trainer = trainer_class(folder, seed=1, device="cpu", stages=STAGES, workers=workers)
    trainer.run()
    return trainer


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory, tokenizer) -> Trainer:
    """A trainer that has run all stages without an interruption."""
    trainer = ShortTrainer(tmp_path_factory.mktemp("unbroken"), seed=1, device="cpu", stages=STAGES)
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    trainer.run()
    after = trainer.model.state_dict()
    changed = {name for name in after if not torch.equal(before[name], after[name])}
    assert any("visual" in name for name in changed) and any("language_model.layers" in name for name in changed)
    return trainer


def assert_same_weights(one: Trainer, two: Trainer) -> None:
    states = one.model.state_dict(), two.model.state_dict()
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


@pytest.mark.slow
def test_a_checkpoint_of_another_vocabulary_is_refused(tmp_path, unbroken):
    state = torch.load(unbroken.checkpoint, weights_only=True)
    state["vocabulary"]["lilac"] = state["vocabulary"].pop("Ġred")
    trainer = ShortTrainer(tmp_path, seed=1, device="cpu", stages=STAGES)
    torch.save(state, trainer.checkpoint)
    with pytest.raises(LvqaError, match="another vocabulary; train into another folder"):
        trainer.run()


@pytest.mark.parametrize("at", [(1, 0), (1, 2), (2, 2)])
@pytest.mark.slow
def test_an_interrupted_training_is_resumed(tmp_path, monkeypatch, unbroken, at):
    """Between two stages, where the last save has no optimizer; and within a stage, right after a save."""
    get_item = StepData.__getitem__

    def interrupt(self: StepData, key: tuple[int, int]) -> LabelledPairs | Batch:
        if key == at:
            raise KeyboardInterrupt
        return get_item(self, key)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(StepData, "__getitem__", interrupt)
        train(tmp_path, TrainerThatSavesOften)
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert (state["stage"], state["step"]) == at
    assert (state["optimizer"] is None) == (at[1] == 0)
    assert_same_weights(unbroken, train(tmp_path))
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".part"] == []


@pytest.mark.slow
def test_a_training_interrupted_before_the_save_between_stages_is_resumed(tmp_path, monkeypatch, unbroken):
    """The last step of the stage is saved, but not what follows it: the scaling of the tower."""
    save, calls = torch.save, []

    def interrupt(state: object, path: Path) -> None:
        calls.append(path)
        if len(calls) == 2:
            raise KeyboardInterrupt
        save(state, path)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(torch, "save", interrupt)
        train(tmp_path)
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert (state["stage"], state["step"]) == (0, STAGES[0].steps)
    assert_same_weights(unbroken, train(tmp_path))


@pytest.mark.slow
def test_workers_change_nothing_of_the_training(tmp_path, unbroken):
    WARM.start_server()  # else the workers' own server would be that of all later tests
    trainer = train(tmp_path, workers=1)
    assert_same_weights(unbroken, trainer)
    lines = [json.loads(line) for line in trainer.log.path.read_text().splitlines()]
    assert [(line["stage"], line.get("step")) for line in lines if line.get("split", "held out") == "held out"] == [
        ("vision", 3),
        ("encode takes", None),
        ("encode takes", None),
        ("speak", 4),
        ("caption", 4),
    ]
    assert {"rerank", "caption", "end", "loss"} <= set(lines[-2]) and "names shape" in lines[0]


@pytest.mark.slow
def test_the_command_starts_from_the_root_of_the_repository():
    root = Path(__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    command = [sys.executable, "scripts/tiny/train.py", "--help"]
    result = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=True)
    assert "--tower" in result.stdout

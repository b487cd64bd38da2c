"""The training of the embedded model, stage by stage. README.md in this folder says why it is done in this way.

The stages without a mix of tasks train the vision tower, on scenes that are rendered for each step. Then takes are
rendered, some moments of every scene, and the tower's tokens of them are kept; the other stages train the language
model on these, with samples about the same takes. Worker processes render and generate the samples.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from transformers import PreTrainedTokenizerFast, Qwen2_5_VLForConditionalGeneration

from lvqa.models.devices import default_dtype
from lvqa.models.vision import encode_pixels
from lvqa.records import LvqaError
from lvqa.synthetic.questions import HELD_OUT_SEEDS
from tiny.batches import Batch, StepData
from tiny.cuda_graph import GraphedGradients
from tiny.curriculum import Stage
from tiny.frames import LabelledPairs, TakeFrames, TakeSet
from tiny.losses import NamingLoss, sample_loss
from tiny.model import HEAD_TO_WORDS, build_model, build_tokenizer
from tiny.samples import TOKENS_PER_PAIR
from tiny.training_log import TrainingLog


class Trainer:
    """Trains the model through the stages, and resumes after an interruption.

    Args:
        folder: Where the log and the checkpoint go.
        seed: The random seed of the weights and of all data.
        device: Where the model is trained.
        stages: The curriculum.
        workers: How many processes make the data; with 0 this process does. They change nothing of the result.
    """

    takes_per_shard = 64
    num_shards = 240
    num_held_out_shards = 12
    steps_between_saves = 500
    evaluation_rows = 16

    def __init__(self, folder: Path, *, seed: int, device: str, stages: Sequence[Stage], workers: int = 0) -> None:
        self.folder, self.stages, self.workers = folder, stages, workers
        self.device = torch.device(device)
        self.tokenizer = build_tokenizer()
        self.model = build_model(self.tokenizer, seed=seed)
        nn.Module.to(self.model, self.device).train()
        self.naming_loss = NamingLoss(self.model, self.tokenizer)
        self.model.model.language_model.config._attn_implementation = "sdpa"
        self.log = TrainingLog(folder / "log.jsonl")
        self.stage = self.step = 0
        self.take_set = TakeSet(seed, self.num_shards, self.takes_per_shard)
        self.held_out = TakeSet(HELD_OUT_SEEDS, self.num_held_out_shards, self.takes_per_shard)
        self._evaluation_data = StepData(self.held_out, stages)
        self._evaluation_batches: dict[str, LabelledPairs | Batch] = {}
        self._visual_tokens: dict[TakeSet, Tensor] = {}
        """The trained tower's tokens of all takes, (scenes, moments + 1, 12, dim) bfloat16."""
        self._gradients: GraphedGradients | None = None
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def checkpoint(self) -> Path:
        """The file that holds the state between two runs."""
        return self.folder / "checkpoint.pt"

    def run(self) -> None:
        """Run all stages, from where the last run stopped.

        Raises:
            LvqaError: The checkpoint is of a model with another vocabulary.
        """
        state = torch.load(self.checkpoint, weights_only=True) if self.checkpoint.exists() else None
        if state is not None:
            if state["vocabulary"] != self.tokenizer.get_vocab():
                raise LvqaError(f"{self.checkpoint}: is of a model with another vocabulary; train into another folder")
            self.model.load_state_dict(state["model"])
            self.stage, self.step = state["stage"], state["step"]
        remaining = [
            (index, step)
            for index, stage in enumerate(self.stages)
            for step in range(stage.steps)
            if (index, step) >= (self.stage, self.step)
        ]
        steps = iter(self._loader(StepData(self.take_set, self.stages), remaining))
        while self.stage < len(self.stages):
            self._run_stage(self.stages[self.stage], steps, state)
            state = None
            self.stage, self.step = self.stage + 1, 0
            self._save(None)

    @torch.no_grad()
    def load_tower(self, folder: Path) -> None:
        """Start from the vision tower and the word vectors of a trained model."""
        trained = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).model
        self.model.model.visual.load_state_dict(trained.visual.state_dict())
        words = trained.language_model.embed_tokens.weight.to(self.device)
        self.model.model.language_model.embed_tokens.weight.copy_(words)
        self.model.lm_head.weight.copy_(HEAD_TO_WORDS * words)

    # --- the steps of a stage ---------------------------------------------------------------------------------------

    def _run_stage(self, stage: Stage, steps: Iterator[LabelledPairs | Batch], state: Mapping[str, Any] | None) -> None:
        parameters = self._trainable_parameters(stage)
        if stage.mix is not None and not self._visual_tokens:
            take_sets = (self.take_set, self.held_out)
            self._visual_tokens = {take_set: self._encode_takes(take_set) for take_set in take_sets}
        optimizer = torch.optim.AdamW(parameters, lr=stage.learning_rate, betas=(0.9, 0.98), weight_decay=0.02)
        if state is not None and state["optimizer"] is not None:
            optimizer.load_state_dict(state["optimizer"])
        while self.step < stage.steps:
            for group in optimizer.param_groups:
                warmup, progress = min(1.0, (self.step + 1) / 50), self.step / stage.steps
                group["lr"] = stage.learning_rate * warmup * (1 - 0.95 * progress)
            self._compute_gradients(next(steps), optimizer, parameters)
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            self.step += 1
            if self.step % 100 == 0:
                self.log.write(stage=stage.name, step=self.step, split="training")
            if self.step % self.steps_between_saves == 0 or self.step == stage.steps:
                self._evaluate(stage)
                self._save(optimizer)
        if stage.mix is None and any(later.mix for later in self.stages[self.stage + 1 : self.stage + 2]):
            self._match_lengths()

    def _trainable_parameters(self, stage: Stage) -> list[nn.Parameter]:
        for parameter in self.model.parameters():
            parameter.requires_grad_(stage.mix is not None)
        for parameter in self.model.model.visual.parameters():
            parameter.requires_grad_(stage.mix is None)
        # The word vectors stay as they were when the tower learnt to point at them.
        self.model.model.language_model.embed_tokens.weight.requires_grad_(False)
        return [parameter for parameter in self.model.parameters() if parameter.requires_grad]

    def _compute_gradients(
        self, data: LabelledPairs | Batch, optimizer: torch.optim.Optimizer, parameters: Sequence[nn.Parameter]
    ) -> None:
        """Set the gradients of the parameters, and log the loss and the accuracies."""
        if isinstance(data, LabelledPairs):
            optimizer.zero_grad()
            torch.autograd.backward(self._tower_loss(data))
            return
        if self._gradients is None:
            self._gradients = GraphedGradients(lambda inputs: self._sample_loss(inputs, self.take_set), parameters)
        self._log_batch(data, *self._gradients([self._to_device(field) for field in data[:-1]]))

    def _tower_loss(self, data: LabelledPairs) -> Tensor:
        """Return the loss of the vision tower, and log the accuracies."""
        with self._autocast():
            tokens = encode_pixels(self.model.model.visual, self._to_device(data.pixels))
        losses, accuracies = self.naming_loss(tokens, self._to_device(data.labels))
        self.log.add(list(accuracies), torch.stack(list(accuracies.values())))
        return torch.stack(list(losses.values())).sum() + losses["shape"]  # the hardest counts twice

    def _sample_loss(self, inputs: Sequence[Tensor], take_set: TakeSet) -> tuple[Tensor, Tensor]:
        with self._autocast():
            return sample_loss(self.model, self._visual_tokens[take_set], inputs, text_weight=0.05)

    def _log_batch(self, batch: Batch, loss: Tensor, is_correct: Tensor) -> None:
        self.log.add(["loss"], loss[None])
        self.log.add(batch.tasks, is_correct[: len(batch.tasks)])

    # --- visual tokens ----------------------------------------------------------------------------------------------

    @torch.no_grad()
    def _match_lengths(self) -> None:
        """Scale the tower's output to vectors as long as the sum of some word vectors, for the language model."""
        tokens = self._encode(TakeFrames(self.take_set)[0])
        last = self.model.model.visual.merger.mlp[-1]
        ratio = 0.8 * self.naming_loss.length() / tokens.float().norm(dim=-1).mean()
        for parameter in (last.weight, last.bias):
            parameter *= ratio

    def _encode_takes(self, take_set: TakeSet) -> Tensor:
        """Return the tower's tokens of all takes."""
        tokens = torch.cat([self._encode(pixels) for pixels in self._loader(TakeFrames(take_set), None)])
        self.log.write(stage="encode takes", scenes=len(tokens))
        return tokens

    @torch.no_grad()
    def _encode(self, pixels: np.ndarray) -> Tensor:
        """Return (scenes, moments, 12, dim) bfloat16 tokens of (scenes, moments, 2, 84, 112, 3) pixels."""
        with self._autocast():
            tokens = encode_pixels(self.model.model.visual, self._to_device(pixels).flatten(0, 1))
        return tokens.bfloat16().view(*pixels.shape[:2], TOKENS_PER_PAIR, -1)

    # --- evaluation -------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def _evaluate(self, stage: Stage) -> None:
        """Log the accuracy on scenes and takes that no stage trains on; the data is the same every time."""
        self.log.clear()
        for data in self._evaluation_sets(stage):
            if isinstance(data, LabelledPairs):
                self._tower_loss(data)
            else:
                inputs = [self._to_device(field) for field in data[:-1]]
                self._log_batch(data, *self._sample_loss(inputs, self.held_out))
        self.log.write(stage=stage.name, step=self.step, split="held out")

    def _evaluation_sets(self, stage: Stage) -> Iterator[LabelledPairs | Batch]:
        """Yield a batch of every task, or, for the vision tower, frame pairs of as many things as in training."""
        data, batches = self._evaluation_data, self._evaluation_batches
        if stage.mix is None:
            name = f"scenes of {stage.num_things}"
            if name not in batches:
                batches[name] = data.pairs(stage.num_things, 6 * stage.pairs, [])
            yield batches[name]
        for task in stage.mix or ():
            if task not in batches:
                batches[task] = data.samples({task: 1.0}, (self.evaluation_rows, stage.row_tokens), [])
            yield batches[task]

    # --- data, devices, files -----------------------------------------------------------------------------------------

    def _loader(self, items: Dataset[Any], order: Any) -> DataLoader[Any]:
        """Load the items in this order; it does not matter which worker makes one."""
        options: dict[str, Any] = {}
        if self.workers:
            context = multiprocessing.get_context("forkserver")
            # The workers are forked from a process that has loaded the libraries once. It does not know this package.
            libraries = [cls.__module__ for cls in (PreTrainedTokenizerFast, Qwen2_5_VLForConditionalGeneration)]
            context.set_forkserver_preload(["cv2", *libraries])
            options = {"multiprocessing_context": context, "prefetch_factor": 4}
        return DataLoader(
            items,
            batch_size=None,
            sampler=order,
            collate_fn=_identity,
            num_workers=self.workers,
            worker_init_fn=_limit_worker,
            **options,
        )

    def _autocast(self) -> torch.autocast:
        """Use half precision where it is fast: emulated, it takes ten times as long as float32."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=default_dtype(self.device) == "bfloat16")

    def _to_device(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(values).to(self.device)

    def _save(self, optimizer: torch.optim.Optimizer | None) -> None:
        """Write the checkpoint; the file is replaced when the new one is complete."""
        tmp_path = self.checkpoint.with_suffix(".part")
        state = {
            "vocabulary": self.tokenizer.get_vocab(),
            "model": self.model.state_dict(),
            "optimizer": None if optimizer is None else optimizer.state_dict(),
            "stage": self.stage,
            "step": self.step,
        }
        torch.save(state, tmp_path)
        tmp_path.replace(self.checkpoint)


def _identity(item: Any) -> Any:
    """Return an item as arrays: torch would put tensors into shared memory, which may be small."""
    return item


def _limit_worker(_: int) -> None:
    """Restrict a worker to one core, and to what the training itself leaves of it."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    os.nice(5)

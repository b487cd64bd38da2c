"""The training of the embedded model, stage by stage. `scripts/train_tiny.py` runs it; README.md here tells why so.

The stages without a mix of tasks train the vision tower, on scenes that are filmed for each step anew. Then takes are
filmed, some moments of every scene, and what the tower sees of them is kept; the other stages train the language model
on it, with lessons about the same takes. Other processes film and write the lessons.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Dataset
from transformers import PreTrainedTokenizerFast, Qwen2_5_VLForConditionalGeneration

from lvqa.models.devices import default_dtype
from lvqa.models.vision import encode_pixels
from lvqa.records import LvqaError
from lvqa.synthetic import material
from lvqa.synthetic.build import HEAD_TO_WORDS, build_model, build_tokenizer
from lvqa.synthetic.material import TOKENS_PER_PAIR, Batch, Footage, Material, Reels, Shoot, Stage
from lvqa.synthetic.questions import HELD_OUT_SEEDS
from lvqa.synthetic.world import ATTRIBUTES


class Naming:
    """What the vision tower is taught: to say the word vectors of the attributes' values."""

    def __init__(self, model: Qwen2_5_VLForConditionalGeneration, tokenizer: PreTrainedTokenizerFast) -> None:
        embedding = model.model.language_model.embed_tokens.weight.detach()
        ids = {a: [tokenizer.encode(f" {v}")[-1] for v in values] for a, values in ATTRIBUTES.items()}
        self.vectors = {a: embedding[index].clone() for a, index in ids.items()}  # attribute -> (values, dim)

    def losses(self, tokens: Tensor, labels: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Cross-entropy and share of hits by attribute, where a value's logit is token . word.

        `tokens` are (pairs, 12, dim), `labels` (pairs, attributes, 12). The tower sees all of a pair, so that the
        language model need not find out which tokens belong together.
        """
        losses, hits = {}, {}
        for place, (attribute, vectors) in enumerate(self.vectors.items()):
            logits = (tokens.float() @ vectors.T).flatten(0, 1)  # (pairs * 12, values)
            label = labels[:, place].flatten().long()
            losses[attribute] = cross_entropy(logits, label)
            hits[f"names {attribute}"] = (logits.argmax(-1) == label).float().mean()
        return losses, hits

    def length(self) -> float:
        """How long a token is that holds a word of each attribute."""
        return math.hypot(*(float(vectors.norm(dim=-1).mean()) for vectors in self.vectors.values()))


def lesson_loss(
    model: Qwen2_5_VLForConditionalGeneration, seen: Tensor, batch: Sequence[Tensor], *, text_weight: float
) -> tuple[Tensor, Tensor]:
    """Mean loss over the targets, and (targets,) whether the likeliest token is right.

    `seen` is (scenes, moments + 1, 12, dim), the tower's tokens of all that was filmed; `batch` the arrays of a Batch.
    `text_weight` adds the plain next-token loss over the text: prompts speak truly of the clip, so that it teaches too.
    """
    ids, positions, lesson, scene, moment, cell, places, tokens = batch
    language = model.model.language_model
    is_visual = scene >= 0
    shown = seen[scene.clamp(min=0), moment.clamp(min=0), cell.clamp(min=0)]
    hidden = torch.where(is_visual.unsqueeze(-1), shown.float(), language.embed_tokens(ids))
    sees = (lesson.unsqueeze(2) == lesson.unsqueeze(1)).tril().unsqueeze(1)  # (rows, 1, row_tokens, row_tokens)
    rotary = language.rotary_emb(hidden, positions)
    for layer in language.layers:
        hidden = layer(hidden, attention_mask=sees, position_embeddings=rotary)
    hidden = language.norm(hidden)
    # Not across lessons, and neither to visual tokens nor to what is no lesson (of tokens 0).
    is_text = (lesson[:, 1:] == lesson[:, :-1]) & ~is_visual[:, 1:] & (ids[:, 1:] > 0)
    text_logits = model.lm_head(hidden[:, :-1]).float()
    text_loss = cross_entropy(text_logits.flatten(0, 1), ids[:, 1:].masked_fill(~is_text, -100).flatten())
    logits = model.lm_head(hidden.flatten(0, 1)[places]).float()  # (targets, vocabulary)
    is_token = tokens >= 0
    chosen = logits.log_softmax(-1).gather(1, tokens.clamp(min=0)) * is_token
    loss = -(chosen.sum(1) / is_token.sum(1).clamp(min=1)).sum() / is_token.any(1).sum()
    return loss + text_weight * text_loss, (logits.argmax(-1, keepdim=True) == tokens).any(1)


class Recorded:
    """Loss and gradients of a function of tensors, whose shapes stay the same; other results are passed on.

    On a GPU it is recorded at the first call and replayed from then on: these are thousands of small kernels, and
    launching them one by one takes longer than running them.
    """

    def __init__(self, function: Callable[[Sequence[Tensor]], tuple[Tensor, ...]], trained: Sequence[nn.Parameter]):
        self.function, self.trained = function, trained
        self.graph: torch.cuda.CUDAGraph | None = None
        self.given: list[Tensor] = []
        self.found: tuple[Tensor, ...] = ()

    def __call__(self, given: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """What the function gives, its first result a loss; leaves the gradients with the parameters."""
        if not given[0].is_cuda:
            self._forget()
            return self._run(given)
        if self.graph is None:
            self._record(given)
            assert self.graph is not None
        for ours, theirs in zip(self.given, given, strict=True):
            ours.copy_(theirs)
        self.graph.replay()
        return tuple(result.clone() for result in self.found)

    def _record(self, given: Sequence[Tensor]) -> None:
        self.given = [tensor.clone() for tensor in given]
        aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(3):  # libraries choose their kernels
                self._forget()
                self._run(self.given)
        torch.cuda.current_stream().wait_stream(aside)
        self._forget()  # so that the recorded run writes the gradients anew, and adds to nothing
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.found = self._run(self.given)

    def _run(self, given: Sequence[Tensor]) -> tuple[Tensor, ...]:
        loss, *others = self.function(given)
        torch.autograd.backward(loss)
        return (loss.detach(), *others)

    def _forget(self) -> None:
        for parameter in self.trained:
            parameter.grad = None


# --- the course -------------------------------------------------------------------------------------------------------


DRILLS = {"match drill": 0.04, "scene drill": 0.28}
PRODUCT = {
    "answer": 0.30,
    "course": 0.14,
    "most": 0.04,
    "rerank": 0.14,
    "clip word": 0.02,
    "query word": 0.02,
    "caption": 0.02,
}

CURRICULUM = (
    Stage(name="see", steps=3000, learning_rate=1.5e-3, num_things=1),
    Stage(name="see several", steps=4000, learning_rate=1.2e-3),
    Stage(name="match", steps=350, learning_rate=2e-3, mix={"match drill": 0.75, "caption": 0.25}),
    Stage(name="scenes", steps=550, learning_rate=2e-3, mix={"match drill": 0.15, "scene drill": 0.85}),
    Stage(name="lessons", steps=3900, learning_rate=2e-3, mix={**DRILLS, **PRODUCT}),
)
"""The whole training. README.md in this folder tells what each stage is for and what it reached."""


class Course:
    """The model on its way through the stages, with all that is needed to go on after an interruption."""

    takes_per_reel = 64
    num_reels = 240
    num_held_out_reels = 12
    steps_between_saves = 500
    exam_rows = 16

    def __init__(self, folder: Path, *, seed: int, device: str, stages: Sequence[Stage], workers: int = 0) -> None:
        self.folder, self.stages, self.workers = folder, stages, workers
        self.device = torch.device(device)
        self.tokenizer = build_tokenizer()
        self.model = build_model(self.tokenizer, seed=seed)
        nn.Module.to(self.model, self.device).train()
        self.naming = Naming(self.model, self.tokenizer)
        self.model.model.language_model.config._attn_implementation = "sdpa"
        self.log = Log(folder / "log.jsonl")
        self.stage = self.step = 0
        self.shoot = Shoot(seed, self.num_reels, self.takes_per_reel)
        self.held_out = Shoot(HELD_OUT_SEEDS, self.num_held_out_reels, self.takes_per_reel)
        self.examiner = Material(self.held_out, stages)
        self.exams: dict[str, Footage | Batch] = {}
        self.seen: dict[Shoot, Tensor] = {}
        """(scenes, moments + 1, 12, dim) bfloat16, what the trained tower sees of the takes."""
        self.learnt: Recorded | None = None
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def checkpoint(self) -> Path:
        """Where the state lies between two runs."""
        return self.folder / "checkpoint.pt"

    def run(self) -> None:
        """All stages, from where the last run stopped."""
        saved = torch.load(self.checkpoint, weights_only=True) if self.checkpoint.exists() else None
        if saved is not None:
            if saved["vocabulary"] != self.tokenizer.get_vocab():
                raise LvqaError(f"{self.checkpoint}: is of a model with other words; train into another folder")
            self.model.load_state_dict(saved["model"])
            self.stage, self.step = saved["stage"], saved["step"]
        left = [
            (number, step)
            for number, stage in enumerate(self.stages)
            for step in range(stage.steps)
            if (number, step) >= (self.stage, self.step)
        ]
        steps = iter(self._loader(Material(self.shoot, self.stages), left))
        while self.stage < len(self.stages):
            self._run_stage(self.stages[self.stage], steps, saved)
            saved = None
            self.stage, self.step = self.stage + 1, 0
            self._save(None)

    @torch.no_grad()
    def take_tower(self, folder: Path) -> None:
        """Begin with the vision tower and the word vectors of a model that is trained."""
        tower = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).model
        self.model.model.visual.load_state_dict(tower.visual.state_dict())
        words = tower.language_model.embed_tokens.weight.to(self.device)
        self.model.model.language_model.embed_tokens.weight.copy_(words)
        self.model.lm_head.weight.copy_(HEAD_TO_WORDS * words)

    def _loader(self, items: Dataset[Any], order: Any) -> DataLoader[Any]:
        """The items in this order, made by the workers; which of them makes one changes nothing."""
        several: dict[str, Any] = {}
        if self.workers:
            context = multiprocessing.get_context("forkserver")
            context.set_forkserver_preload([material.__name__])  # loads the libraries once for all workers
            several = {"multiprocessing_context": context, "prefetch_factor": 4}
        return DataLoader(
            items,
            batch_size=None,
            sampler=order,
            collate_fn=_as_it_is,
            num_workers=self.workers,
            worker_init_fn=_use_little,
            **several,
        )

    def _run_stage(self, stage: Stage, steps: Iterator[Footage | Batch], saved: Mapping[str, Any] | None) -> None:
        trained = self._trained(stage)
        if stage.mix is not None and not self.seen:
            self.seen = {shoot: self._look(shoot) for shoot in (self.shoot, self.held_out)}
        optimizer = torch.optim.AdamW(trained, lr=stage.learning_rate, betas=(0.9, 0.98), weight_decay=0.02)
        if saved is not None and saved["optimizer"] is not None:
            optimizer.load_state_dict(saved["optimizer"])
        while self.step < stage.steps:
            for group in optimizer.param_groups:
                warm, done = min(1.0, (self.step + 1) / 50), self.step / stage.steps
                group["lr"] = stage.learning_rate * warm * (1 - 0.95 * done)
            given = next(steps)
            if isinstance(given, Footage):
                optimizer.zero_grad()
                torch.autograd.backward(self._naming_loss(given))
            else:
                self._learn_from(given, trained)
            nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            self.step += 1
            if self.step % 100 == 0:
                self.log.write(stage=stage.name, step=self.step, split="training")
            if self.step % self.steps_between_saves == 0 or self.step == stage.steps:
                self._examine(stage)
                self._save(optimizer)
        if stage.mix is None and any(later.mix for later in self.stages[self.stage + 1 : self.stage + 2]):
            self._match_lengths()

    def _trained(self, stage: Stage) -> list[nn.Parameter]:
        for parameter in self.model.parameters():
            parameter.requires_grad_(stage.mix is not None)
        for parameter in self.model.model.visual.parameters():
            parameter.requires_grad_(stage.mix is None)
        # The word vectors stay what they were when the tower learnt to say them.
        self.model.model.language_model.embed_tokens.weight.requires_grad_(False)
        return [parameter for parameter in self.model.parameters() if parameter.requires_grad]

    def _naming_loss(self, footage: Footage) -> Tensor:
        with self._quick():
            tokens = encode_pixels(self.model.model.visual, self._on_device(footage.pixels))
        losses, hits = self.naming.losses(tokens, self._on_device(footage.labels))
        self.log.add(list(hits), torch.stack(list(hits.values())))
        return torch.stack(list(losses.values())).sum() + losses["shape"]  # the hardest counts twice

    @torch.no_grad()
    def _match_lengths(self) -> None:
        """Scale the tower's output to what the language model is used to: the length of some words added up."""
        sample = self._encode(Reels(self.shoot)[0])
        last = self.model.model.visual.merger.mlp[-1]
        ratio = 0.8 * self.naming.length() / sample.float().norm(dim=-1).mean()
        for parameter in (last.weight, last.bias):
            parameter *= ratio

    def _learn_from(self, batch: Batch, trained: Sequence[nn.Parameter]) -> None:
        """Put the gradients of the mean loss over its targets to the parameters."""
        self.learnt = self.learnt or Recorded(lambda given: self._lesson_loss(given, self.shoot), trained)
        self._note(batch, *self.learnt([self._on_device(field) for field in batch[:-1]]))

    def _lesson_loss(self, given: Sequence[Tensor], shoot: Shoot) -> tuple[Tensor, Tensor]:
        with self._quick():
            return lesson_loss(self.model, self.seen[shoot], given, text_weight=0.05)

    def _note(self, batch: Batch, loss: Tensor, right: Tensor) -> None:
        self.log.add(["loss"], loss[None])
        self.log.add(batch.tasks, right[: len(batch.tasks)])

    def _look(self, shoot: Shoot) -> Tensor:
        """Let the tower see all of it."""
        seen = torch.cat([self._encode(pixels) for pixels in self._loader(Reels(shoot), None)])
        self.log.write(stage="look", scenes=len(seen))
        return seen

    @torch.no_grad()
    def _encode(self, pixels: np.ndarray) -> Tensor:
        """(scenes, moments, 12, dim) bfloat16, of (scenes, moments, 2, 84, 112, 3)."""
        with self._quick():
            tokens = encode_pixels(self.model.model.visual, self._on_device(pixels).flatten(0, 1))
        return tokens.bfloat16().view(*pixels.shape[:2], TOKENS_PER_PAIR, -1)

    @torch.no_grad()
    def _examine(self, stage: Stage) -> None:
        """Accuracy on scenes and takes that no stage has seen, always with the same questions; into the log."""
        self.log.clear()
        for exam in self._exams(stage):
            if isinstance(exam, Footage):
                self._naming_loss(exam)
            else:
                given = [self._on_device(field) for field in exam[:-1]]
                self._note(exam, *self._lesson_loss(given, self.held_out))
        self.log.write(stage=stage.name, step=self.step, split="held out")

    def _exams(self, stage: Stage) -> Iterator[Footage | Batch]:
        """Of every task by itself; or of scenes of one to three things."""
        if stage.mix is None:
            name = f"scenes of {stage.num_things}"
            if name not in self.exams:
                self.exams[name] = self.examiner.scenes(stage.num_things, 6 * stage.pairs, [])
            yield self.exams[name]
        for task in stage.mix or ():
            if task not in self.exams:
                self.exams[task] = self.examiner.lessons({task: 1.0}, (self.exam_rows, stage.row_tokens), [])
            yield self.exams[task]

    def _quick(self) -> torch.autocast:
        """Half precision where it is quick: emulated, it takes ten times as long as float32."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=default_dtype(self.device) == "bfloat16")

    def _on_device(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(values).to(self.device)

    def _save(self, optimizer: torch.optim.Optimizer | None) -> None:
        beside = self.checkpoint.with_suffix(".part")
        state = {
            "vocabulary": self.tokenizer.get_vocab(),
            "model": self.model.state_dict(),
            "optimizer": None if optimizer is None else optimizer.state_dict(),
            "stage": self.stage,
            "step": self.step,
        }
        torch.save(state, beside)
        beside.replace(self.checkpoint)


def _as_it_is(item: Any) -> Any:
    """A worker's item goes through a pipe as arrays: torch would put tensors into shared memory, which may be small."""
    return item


def _use_little(_: int) -> None:
    """Of a worker: one core, and that only when the training itself does not need it."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    os.nice(5)


class Log:
    """Means of figures by name, appended to a JSON-lines file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.started = time.time()
        self.noted: list[tuple[Sequence[str], Tensor]] = []

    def add(self, names: Sequence[str], values: Tensor) -> None:
        """Note a value under each name. They stay on their device until they are written."""
        self.noted.append((names, values))

    def clear(self) -> None:
        """Forget what is not written."""
        self.noted.clear()

    def write(self, **fields: float | str) -> None:
        """Write the means since the last call."""
        values: dict[str, list[float]] = defaultdict(list)
        for names, figures in self.noted:
            for name, figure in zip(names, figures.tolist(), strict=True):
                values[name].append(figure)
        means = {name: round(float(np.mean(figures)), 4) for name, figures in sorted(values.items())}
        line = {**fields, "seconds": round(time.time() - self.started, 1), **means}
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")
        self.clear()

"""The training of the embedded model, stage by stage. `scripts/train_tiny.py` runs it; README.md here tells why so.

Takes are filmed once: some moments of every scene, as frame pairs. The stages without a mix of tasks train the vision
tower on them; the others train the language model on the tokens that the trained tower sees, with lessons about the
same takes. Other processes film and write the lessons.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Dataset
from transformers import PreTrainedTokenizerFast, Qwen2_5_VLForConditionalGeneration

from lvqa.backbones.decoder import usual_dtype
from lvqa.backbones.vision import encode_pixels
from lvqa.records import LvqaError
from lvqa.tiny.build import build_model, build_tokenizer, token_id
from lvqa.tiny.lessons import COLUMNS, ROWS, Lesson, Teacher
from lvqa.tiny.questions import HELD_OUT_SEEDS
from lvqa.tiny.script import FRAMES_PER_SECOND, TAKE_SECONDS, Take, random_take
from lvqa.tiny.world import ATTRIBUTES, HEIGHT, WIDTH, Scene, draw, nearest_things

TOKENS_PER_PAIR = ROWS * COLUMNS

# --- what is filmed ---------------------------------------------------------------------------------------------------

TAKES_PER_REEL = 64


def random_takes(rng: np.random.Generator, num: int) -> list[Take]:
    """Takes of 8 to 40 seconds, as films have them, but evenly drawn."""
    ends = (rng.uniform(*TAKE_SECONDS, num) * FRAMES_PER_SECOND).round() / FRAMES_PER_SECOND
    return [random_take(rng, 0.0, end) for end in ends.tolist()]


def takes_of_reel(seed: int, reel: int) -> list[Take]:
    """The same for the same numbers, in every process."""
    return random_takes(np.random.default_rng([seed, 1, reel]), TAKES_PER_REEL)


class Footage(NamedTuple):
    """What was filmed of some scenes: a number of moments of each and, last, one that is a single frame shown twice."""

    pixels: np.ndarray  # (scenes, moments + 1, 2, 84, 112, 3) uint8
    labels: np.ndarray  # (scenes, moments + 1, attributes, 12) uint8: see `film`
    num_things: np.ndarray  # (scenes,) uint8


class Reels(Dataset[Footage]):
    """The footage of a reel, by (seed, reel)."""

    def __init__(self, moments: int) -> None:
        self.moments = moments

    def __getitem__(self, place: tuple[int, int]) -> Footage:
        seed, reel = place
        scenes = [shot.scene for take in takes_of_reel(seed, reel) for shot in take.shots]
        rng = np.random.default_rng([seed, 2, reel])
        steps = [1.0] * self.moments + [0.0]
        pixels, labels = zip(*(film(rng, scenes, step_seconds=step) for step in steps), strict=True)
        num_things = np.array([len(scene.things) for scene in scenes], np.uint8)
        return Footage(np.stack(pixels, 1), np.stack(labels, 1), num_things)


def film(rng: np.random.Generator, scenes: Sequence[Scene], *, step_seconds: float) -> tuple[np.ndarray, np.ndarray]:
    """(scenes, 2, 84, 112, 3) uint8, a frame pair at a random moment of each; (scenes, attributes, 12) uint8 labels.

    A label is the place in ATTRIBUTES of the value that a token is to name: that of the scene, and of the thing nearest
    to the token.
    """
    pixels = np.empty((len(scenes), 2, 28 * ROWS, 28 * COLUMNS, 3), np.uint8)
    labels = np.empty((len(scenes), len(ATTRIBUTES), TOKENS_PER_PAIR), np.uint8)
    first = rng.uniform(0, 30, len(scenes))
    for row, names, scene, seconds in zip(pixels, labels, scenes, first.tolist(), strict=True):
        for frame, moment in zip(row, (seconds, seconds + step_seconds), strict=True):
            frame[:] = _as_decoded(rng, draw(scene, moment))
        nearest = nearest_things(scene, seconds + step_seconds / 2, ROWS, COLUMNS)
        for name, (attribute, values) in zip(names, ATTRIBUTES.items(), strict=True):
            name[:] = np.array([values.index(subject.value(attribute)) for subject in scene.subjects])[nearest]
    return pixels, labels


def _as_decoded(rng: np.random.Generator, frame: np.ndarray) -> np.ndarray:
    """A drawn frame at the model's size, often marred as by a film's compression."""
    if rng.random() < 0.6:
        # At half the size, which takes a quarter of the time.
        frame = cv2.resize(frame, (WIDTH // 2, HEIGHT // 2), interpolation=cv2.INTER_AREA)
        encoded = cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(50, 96))])[1]
        frame = np.asarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR))
    scaling = cv2.INTER_AREA if rng.random() < 0.5 else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(frame, (28 * COLUMNS, 28 * ROWS), interpolation=scaling))


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


# --- what is asked about it -------------------------------------------------------------------------------------------

LESSON_TOKENS = {
    "match drill": 114,
    "scene drill": 202,
    "answer": 430,
    "course": 430,
    "most": 330,
    "rerank": 150,
    "clip word": 120,
    "query word": 76,
    "caption": 70,
}
"""Rough length of a lesson by task, so that a mix can be told in shares of all tokens."""


ROW_TOKENS = 1024
"""Lessons stand one after the other in rows of this length; longer ones are not told."""


class Batch(NamedTuple):
    """Rows of lessons, each of which sees itself alone. What is left of a row is one more, without targets."""

    ids: np.ndarray  # (rows, 1024)
    positions: np.ndarray  # (3, rows, 1024)
    lesson: np.ndarray  # (rows, 1024) number of the lesson in its row
    scene: np.ndarray  # (rows, 1024) that a visual token shows; -1 for text
    moment: np.ndarray  # (rows, 1024) at which of its filmed moments
    cell: np.ndarray  # (rows, 1024) which of the pair's 12 tokens it is
    target_places: np.ndarray  # (targets,) index into rows * 1024
    target_tokens: np.ndarray  # (targets, 24) padded with -1
    tasks: tuple[str, ...]
    """Of each target; there may be more targets than tasks, without tokens."""


MOST_TOKENS = 24
"""That are right in one place."""


def pack(
    lessons: Sequence[Lesson], rng: np.random.Generator, *, rows: int, moments: int, visual_token: int, targets: int
) -> Batch:
    """The longest lessons first, each into the first row that has room; what finds none is left out."""
    shape = rows, ROW_TOKENS
    batch = Batch(
        ids=np.zeros(shape, np.int64),
        positions=np.zeros((3, *shape), np.int64),
        lesson=np.full(shape, len(lessons)),
        scene=np.full(shape, -1),
        moment=np.full(shape, -1),
        cell=np.full(shape, -1),
        target_places=np.zeros(targets, np.int64),
        target_tokens=np.full((targets, MOST_TOKENS), -1),
        tasks=(),
    )
    used, tasks = [0] * rows, list[str]()
    for number, lesson in enumerate(sorted(lessons, key=lambda lesson: -len(lesson.ids))):
        size = len(lesson.ids)
        row = next((row for row in range(rows) if used[row] + size <= ROW_TOKENS), None)
        if row is None:
            continue
        here = slice(used[row], used[row] + size)
        batch.ids[row, here] = lesson.ids
        batch.positions[:, row, here] = np.array(lesson.positions).T
        batch.lesson[row, here] = number
        visual = used[row] + np.flatnonzero(np.array(lesson.ids) == visual_token)
        pairs = np.array(lesson.pairs, np.int64)
        shown = np.where(pairs < 0, moments, rng.integers(moments, size=len(pairs)))
        batch.scene[row, visual] = np.where(pairs < 0, ~pairs, pairs).repeat(TOKENS_PER_PAIR)
        batch.moment[row, visual] = shown.repeat(TOKENS_PER_PAIR)
        batch.cell[row, visual] = np.tile(np.arange(TOKENS_PER_PAIR), len(pairs))
        for target in lesson.targets[: targets - len(tasks)]:
            batch.target_places[len(tasks)] = row * ROW_TOKENS + used[row] + target.position
            batch.target_tokens[len(tasks), : len(target.tokens)] = target.tokens[:MOST_TOKENS]
            tasks.append(target.task)
        used[row] += size
    return batch._replace(tasks=tuple(tasks))


class Lessons(Dataset[Batch]):
    """The lessons of a step, by (stage, step): they depend on nothing else, so that a resumed run sees the same."""

    def __init__(self, seed: int, num_reels: int, moments: int, stages: Sequence[Stage]) -> None:
        self.seed, self.num_reels, self.moments, self.stages = seed, num_reels, moments, stages
        self._teacher: Teacher | None = None
        self._visual_token = 0

    def __getitem__(self, place: tuple[int, int]) -> Batch:
        stage, step = place
        return self.draw(self.stages[stage], [stage, step])

    def draw(self, stage: Stage, key: Sequence[int]) -> Batch:
        """Lessons by their shares in the mix of this stage, as many as its rows hold."""
        assert stage.mix is not None
        if self._teacher is None:  # in the process that needs it
            tokenizer = build_tokenizer()
            takes = [take for reel in range(self.num_reels) for take in takes_of_reel(self.seed, reel)]
            self._teacher = Teacher(tokenizer, takes, seed=self.seed)
            self._visual_token = token_id(tokenizer, "<|video_pad|>")
        teacher, room = self._teacher, stage.rows * ROW_TOKENS
        teacher.rng = rng = np.random.default_rng([self.seed, 3, *key])
        chances = np.array([share / LESSON_TOKENS[task] for task, share in stage.mix.items()])
        lessons: list[Lesson] = []
        drawn = 0
        while drawn < room:
            lesson = teacher.tasks[str(rng.choice(list(stage.mix), p=chances / chances.sum()))]()
            if len(lesson.ids) <= ROW_TOKENS:
                lessons.append(lesson)
                drawn += len(lesson.ids)
        return pack(
            lessons, rng, rows=stage.rows, moments=self.moments, visual_token=self._visual_token, targets=room // 3
        )


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
    sees = (lesson.unsqueeze(2) == lesson.unsqueeze(1)).tril().unsqueeze(1)  # (rows, 1, 1024, 1024)
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One part of the training."""

    name: str
    steps: int
    learning_rate: float
    mix: Mapping[str, float] | None = None
    """Tasks and their shares of the tokens; None trains the vision tower alone."""
    rows: int = 48
    """Of 1,024 tokens, a step."""
    pairs: int = 2048
    """A step of the vision tower."""
    num_things: int | None = None
    """In the scenes that the vision tower is shown; None: one to three."""


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
    Stage(name="see", steps=300, learning_rate=1.5e-3, num_things=1),
    Stage(name="see several", steps=1500, learning_rate=1.5e-3),
    Stage(name="match", steps=400, learning_rate=2e-3, mix={"match drill": 0.75, "caption": 0.25}),
    Stage(name="scenes", steps=600, learning_rate=2e-3, mix={"match drill": 0.15, "scene drill": 0.85}),
    Stage(name="lessons", steps=3900, learning_rate=2e-3, mix={**DRILLS, **PRODUCT}),
)
"""The whole training. README.md in this folder tells what each stage is for and what it reached."""


class Course:
    """The model on its way through the stages, with all that is needed to go on after an interruption."""

    num_reels = 320
    num_held_out_reels = 12
    moments = 3
    steps_between_saves = 500
    exam_rows = 16

    def __init__(self, folder: Path, *, seed: int, device: str, stages: Sequence[Stage], workers: int = 0) -> None:
        self.folder, self.seed, self.stages, self.workers = folder, seed, stages, workers
        self.device = torch.device(device)
        self.tokenizer = build_tokenizer()
        self.model = build_model(self.tokenizer, seed=seed)
        nn.Module.to(self.model, self.device).train()
        self.naming = Naming(self.model, self.tokenizer)
        self.model.model.language_model.config._attn_implementation = "sdpa"
        self.log = Log(folder / "log.jsonl")
        self.stage = self.step = 0
        self.examiner = Lessons(HELD_OUT_SEEDS, self.num_held_out_reels, self.moments, stages)
        self.exams: dict[str, Batch] = {}
        self.footage: dict[int, tuple[Tensor, ...]] = {}
        """By seed: the fields of Footage, on the device."""
        self.seen: dict[int, Tensor] = {}
        """By seed: (scenes, moments + 1, 12, dim) bfloat16, what the trained tower makes of the footage."""
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
        if self.stage == len(self.stages):
            return
        lessons = self._lessons()  # begun now, so that the first ones are there when they are needed
        self._film({self.seed: self.num_reels, HELD_OUT_SEEDS: self.num_held_out_reels})
        while self.stage < len(self.stages):
            self._run_stage(self.stages[self.stage], lessons, saved)
            saved = None
            self.stage, self.step = self.stage + 1, 0
            self._save(None)

    def _film(self, num_reels: Mapping[int, int]) -> None:
        """All reels of each seed one after the other."""
        order = [(seed, reel) for seed, num in num_reels.items() for reel in range(num)]
        filmed: dict[int, list[list[Tensor]]] = {seed: [] for seed in num_reels}
        for (seed, _), footage in zip(order, self._loader(Reels(self.moments), order), strict=True):
            filmed[seed].append([self._on_device(field) for field in footage])
        for seed, reels in filmed.items():
            self.footage[seed] = tuple(torch.cat(fields) for fields in zip(*reels, strict=True))
        self.log.write(stage="film", scenes=len(self.footage[self.seed][0]))

    def _lessons(self) -> Iterator[Batch]:
        """Of all steps that are left, in order."""
        left = [
            (number, step)
            for number, stage in enumerate(self.stages)
            for step in range(stage.steps if stage.mix else 0)
            if (number, step) >= (self.stage, self.step)
        ]
        drawn = Lessons(self.seed, self.num_reels, self.moments, self.stages)
        return iter(self._loader(drawn, left)) if left else iter(())

    def _loader(self, items: Dataset[Any], order: Any) -> DataLoader[Any]:
        """The items in this order, made by the workers; which of them makes one changes nothing."""
        several: dict[str, Any] = {}
        if self.workers:
            context = multiprocessing.get_context("forkserver")
            context.set_forkserver_preload([__name__])  # loads the libraries once for all workers
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

    def _run_stage(self, stage: Stage, lessons: Iterator[Batch], saved: Mapping[str, Any] | None) -> None:
        trained = self._trained(stage)
        optimizer = torch.optim.AdamW(trained, lr=stage.learning_rate, betas=(0.9, 0.98), weight_decay=0.02)
        if saved is not None and saved["optimizer"] is not None:
            optimizer.load_state_dict(saved["optimizer"])
        while self.step < stage.steps:
            for group in optimizer.param_groups:
                warm, done = min(1.0, (self.step + 1) / 50), self.step / stage.steps
                group["lr"] = stage.learning_rate * warm * (1 - 0.95 * done)
            if stage.mix is None:
                optimizer.zero_grad()
                self._learn_to_see(stage, np.random.default_rng([self.seed, self.stage, self.step]))
            else:
                self._learn_from(next(lessons), trained)
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

    def _learn_to_see(self, stage: Stage, rng: np.random.Generator) -> None:
        """Add the gradients of the loss over random moments."""
        pixels, labels, num_things = self.footage[self.seed]
        scenes = torch.arange(len(pixels), device=self.device)
        if stage.num_things is not None:
            scenes = scenes[num_things == stage.num_things]
        chosen = scenes[self._on_device(rng.integers(len(scenes), size=stage.pairs))]
        moments = self._on_device(rng.integers(pixels.shape[1], size=stage.pairs))
        torch.autograd.backward(self._naming_loss(pixels[chosen, moments], labels[chosen, moments]))

    def _naming_loss(self, pixels: Tensor, labels: Tensor) -> Tensor:
        with self._quick():
            tokens = encode_pixels(self.model.model.visual, pixels)
        losses, hits = self.naming.losses(tokens, labels)
        self.log.add(list(hits), torch.stack(list(hits.values())))
        return torch.stack(list(losses.values())).sum() + losses["shape"]  # the hardest counts twice

    @torch.no_grad()
    def _match_lengths(self) -> None:
        """Scale the tower's output to what the language model is used to: the length of some words added up."""
        sample = self.footage[self.seed][0][: 2 * TAKES_PER_REEL]
        last = self.model.model.visual.merger.mlp[-1]
        ratio = 0.8 * self.naming.length() / self._encode(sample).float().norm(dim=-1).mean()
        for parameter in (last.weight, last.bias):
            parameter *= ratio

    def _learn_from(self, batch: Batch, trained: Sequence[nn.Parameter]) -> None:
        """Put the gradients of the mean loss over its targets to the parameters."""
        self.learnt = self.learnt or Recorded(lambda given: self._lesson_loss(given, self.seed), trained)
        self._note(batch, *self.learnt([self._on_device(field) for field in batch[:-1]]))

    def _lesson_loss(self, given: Sequence[Tensor], seed: int) -> tuple[Tensor, Tensor]:
        if seed not in self.seen:
            self.seen[seed] = self._encode(self.footage[seed][0])
        with self._quick():
            return lesson_loss(self.model, self.seen[seed], given, text_weight=0.05)

    def _note(self, batch: Batch, loss: Tensor, right: Tensor) -> None:
        self.log.add(["loss"], loss[None])
        self.log.add(batch.tasks, right[: len(batch.tasks)])

    @torch.no_grad()
    def _encode(self, pixels: Tensor) -> Tensor:
        """(scenes, moments + 1, 12, dim) bfloat16."""
        visual, encoded = self.model.model.visual, []
        for first in range(0, len(pixels), 128):
            with self._quick():
                encoded.append(encode_pixels(visual, pixels[first : first + 128].flatten(0, 1)).bfloat16())
        return torch.cat(encoded).view(*pixels.shape[:2], TOKENS_PER_PAIR, -1)

    @torch.no_grad()
    def _examine(self, stage: Stage) -> None:
        """Accuracy of every task on takes that no stage has seen, always with the same questions; into the log."""
        self.log.clear()
        if stage.mix is None:
            pixels, labels, num_things = self.footage[HELD_OUT_SEEDS]
            for number in (1, 2, 3):
                these = num_things == number
                self._naming_loss(pixels[these].flatten(0, 1)[:4000], labels[these].flatten(0, 1)[:4000])
                self.log.write(stage=stage.name, step=self.step, split=f"held out, {number} in a scene")
            return
        for task in stage.mix:
            batch = self._exam(task)
            self._note(batch, *self._lesson_loss([self._on_device(field) for field in batch[:-1]], HELD_OUT_SEEDS))
        self.log.write(stage=stage.name, step=self.step, split="held out")

    def _exam(self, task: str) -> Batch:
        if task not in self.exams:
            mix = Stage(name=task, steps=1, learning_rate=0.0, mix={task: 1.0}, rows=self.exam_rows)
            self.exams[task] = self.examiner.draw(mix, [])
        return self.exams[task]

    def _quick(self) -> torch.autocast:
        """Half precision where it is quick: emulated, it takes ten times as long as float32."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=usual_dtype(self.device) == "bfloat16")

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

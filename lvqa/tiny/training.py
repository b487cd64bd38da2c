"""The training of the embedded model, stage by stage. `scripts/train_tiny.py` runs it; README.md here tells why so.

1. *language*: the language model alone, on lessons whose visual tokens are ideal (sums of word vectors).
2. *vision*: the vision tower alone; each pair's tokens must hold the word vectors of what is seen.
3. *together*: the same lessons on the tower's own tokens.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from transformers import (
    AttentionInterface,
    AttentionMaskInterface,
    PreTrainedTokenizerFast,
    Qwen2_5_VLForConditionalGeneration,
)

from lvqa.backbones.vision import encode_pixels
from lvqa.records import LvqaError
from lvqa.tiny.build import build_model, build_tokenizer, token_id
from lvqa.tiny.lessons import COLUMNS, ROWS, Lesson, Teacher
from lvqa.tiny.questions import HELD_OUT_SEEDS
from lvqa.tiny.script import FRAMES_PER_SECOND, TAKE_SECONDS, Take, random_take
from lvqa.tiny.world import ATTRIBUTES, Scene, draw, nearest_things, random_scene

TOKENS_PER_PAIR = ROWS * COLUMNS
_ROWS_TOGETHER = 160


@dataclass(frozen=True, slots=True)
class Batch:
    """Lessons side by side, padded on the right (a causal model never looks there)."""

    ids: Tensor  # (batch, sequence)
    positions: Tensor  # (3, batch, sequence)
    visual: Tensor  # (batch, sequence) bool
    pairs: Tensor  # (pairs,) scene of each pair, in order
    target_rows: Tensor  # (targets,) index into batch * sequence
    target_tokens: Tensor  # (targets, most) padded with -1
    tasks: tuple[str, ...]
    letters: tuple[int, ...]
    """The tokens of A to D."""

    def to(self, device: torch.device) -> Batch:
        """The same batch there."""
        values: dict[str, Any] = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        moved: dict[str, Any] = {n: v.to(device) if isinstance(v, Tensor) else v for n, v in values.items()}
        return Batch(**moved)

    @classmethod
    def of(cls, lessons: Sequence[Lesson], tokenizer: PreTrainedTokenizerFast) -> Batch:
        """Pad and stack."""
        longest = max(len(lesson.ids) for lesson in lessons)
        ids = np.zeros((len(lessons), longest), np.int64)
        positions = np.zeros((3, len(lessons), longest), np.int64)
        rows, tokens, tasks = [], [], []
        for i, lesson in enumerate(lessons):
            ids[i, : len(lesson.ids)] = lesson.ids
            positions[:, i, : len(lesson.ids)] = np.array(lesson.positions).T
            for target in lesson.targets:
                rows.append(i * longest + target.position)
                tokens.append(target.tokens)
                tasks.append(target.task)
        most = max(map(len, tokens))
        padded = [list(t) + [-1] * (most - len(t)) for t in tokens]
        return cls(
            torch.from_numpy(ids),
            torch.from_numpy(positions),
            torch.from_numpy(ids == token_id(tokenizer, "<|video_pad|>")),
            torch.tensor([pair for lesson in lessons for pair in lesson.pairs], dtype=torch.int64),
            torch.tensor(rows),
            torch.tensor(padded),
            tuple(tasks),
            tuple(token_id(tokenizer, letter) for letter in "ABCD"),
        )


class WordVectors:
    """The word vectors of the attributes' values: what the vision tower is taught to say."""

    def __init__(
        self, model: Qwen2_5_VLForConditionalGeneration, tokenizer: PreTrainedTokenizerFast, device: torch.device
    ) -> None:
        self.device = device
        embedding = model.model.language_model.embed_tokens.weight
        ids = {a: [tokenizer.encode(f" {v}")[-1] for v in values] for a, values in ATTRIBUTES.items()}
        self.vectors = {a: embedding[index].detach().clone() for a, index in ids.items()}  # attribute -> (values, dim)

    def labels(self, scenes: Sequence[Scene], seconds: np.ndarray) -> dict[str, Tensor]:
        """Attribute -> (scenes, 12): the place in ATTRIBUTES of the value that each token is to name.

        Of the scene, and of the thing nearest to the token at that moment; `seconds` is (scenes,).
        """
        nearest = [nearest_things(scene, moment, ROWS, COLUMNS) for scene, moment in zip(scenes, seconds, strict=True)]
        found = {}
        for attribute, values in ATTRIBUTES.items():
            rows = [
                np.array([values.index(subject.value(attribute)) for subject in scene.subjects])[places]
                for scene, places in zip(scenes, nearest, strict=True)
            ]
            found[attribute] = torch.from_numpy(np.stack(rows))
        return found

    def ideal_tokens(self, labels: Mapping[str, Tensor], generator: torch.Generator) -> Tensor:
        """(pairs, 12, dim): as a good tower would see them: all words in every token, unevenly strong, with noise, and
        one value in fifty misread."""
        num, dim = len(next(iter(labels.values()))), self.vectors["colour"].shape[1]
        tokens = 0.06 * torch.randn(num, TOKENS_PER_PAIR, dim, generator=generator)
        for attribute, vectors in self.vectors.items():
            misread = torch.rand(num, TOKENS_PER_PAIR, generator=generator) < 0.02
            other = torch.randint(len(vectors), (num, TOKENS_PER_PAIR), generator=generator)
            value = torch.where(misread, other, labels[attribute])
            tokens += (0.3 + torch.rand(num, TOKENS_PER_PAIR, 1, generator=generator)) * vectors[value]
        return tokens

    def naming_losses(
        self, tokens: Tensor, labels: Mapping[str, Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Cross-entropy and hits by attribute, where a value's logit is token . word.

        Each token of a pair is to name the scene and the thing nearest to it. The tower sees all of the pair, so the
        language model need not find out which tokens belong together.
        """
        losses, hits = {}, {}
        for attribute, vectors in self.vectors.items():
            logits = (tokens.float() @ vectors.T.to(self.device)).flatten(0, 1)  # (pairs * tokens, values)
            label = labels[attribute].to(self.device).flatten()
            losses[attribute] = nn.functional.cross_entropy(logits, label)
            hits[attribute] = (logits.argmax(-1) == label).float()
        return losses, hits


def lesson_loss(
    model: Qwen2_5_VLForConditionalGeneration, batch: Batch, visual_tokens: Tensor, *, text_weight: float
) -> tuple[Tensor, Tensor]:
    """Mean loss over the targets, and (targets,) whether the likeliest token is right.

    `text_weight` adds the plain next-token loss over the text: prompts speak truly of the clip, so that it teaches too.
    """
    language = model.model.language_model
    embeds = language.embed_tokens(batch.ids)
    embeds = embeds.masked_scatter(batch.visual.unsqueeze(-1), visual_tokens.to(embeds.dtype))
    hidden = language(inputs_embeds=embeds, position_ids=batch.positions, use_cache=False).last_hidden_state
    text_loss: Tensor | float = 0.0
    if text_weight:
        next_ids = batch.ids[:, 1:].masked_fill(batch.visual[:, 1:] | (batch.ids[:, 1:] == 0), -100)
        text_logits = model.lm_head(hidden[:, :-1]).float()
        text_loss = nn.functional.cross_entropy(text_logits.flatten(0, 1), next_ids.flatten())
    logits = model.lm_head(hidden.flatten(0, 1)[batch.target_rows]).float()  # (targets, vocabulary)
    log_probs = logits.log_softmax(-1)
    mask = batch.target_tokens >= 0
    chosen = log_probs.gather(1, batch.target_tokens.clamp(min=0)) * mask
    losses = -chosen.sum(1) / mask.sum(1)
    # A verdict is read among the letters alone, as the product reads it.
    letters = torch.tensor(batch.letters, device=logits.device)
    verdicts = torch.isin(batch.target_tokens[:, 0], letters)
    best = torch.where(verdicts, letters[logits[:, letters].argmax(-1)], logits.argmax(-1))
    right = (best.unsqueeze(1) == batch.target_tokens).any(1)
    return losses.mean() + text_weight * text_loss, right.float()


BATCH_TOKENS = {
    "match drill": 110,
    "scene drill": 210,
    "answer": 440,
    "course": 430,
    "most": 350,
    "rerank": 150,
    "clip word": 130,
    "query word": 80,
    "caption": 80,
}
"""Rough length of a lesson by task, so that batches are of about the same cost."""


def lesson_batch(
    teacher: Teacher, mix: Mapping[str, float], tokenizer: PreTrainedTokenizerFast, *, tokens: int
) -> Batch:
    """A batch of about `tokens` tokens of one task (so that lengths are alike), drawn by the weights of `mix`."""
    names = list(mix)
    weights = np.array([mix[name] for name in names])
    name = str(teacher.rng.choice(names, p=weights / weights.sum()))
    size = max(1, tokens // BATCH_TOKENS[name])
    return Batch.of([teacher.tasks[name]() for _ in range(size)], tokenizer)


# --- pixels ---------------------------------------------------------------------------------------------------------


def draw_pairs(
    rng: np.random.Generator, scenes: Sequence[Scene], *, step_seconds: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """(scenes, 2, 84, 112, 3) uint8: at a random moment of each, marred as by a film's compression; and the moments."""
    pixels = np.empty((len(scenes), 2, 28 * ROWS, 28 * COLUMNS, 3), np.uint8)
    first = rng.uniform(0, 30, len(scenes))
    for row, scene, seconds in zip(pixels, scenes, first.tolist(), strict=True):
        for frame, moment in zip(row, (seconds, seconds + step_seconds), strict=True):
            frame[:] = _as_decoded(rng, draw(scene, moment))
    return pixels, first + step_seconds / 2


def _as_decoded(rng: np.random.Generator, frame: np.ndarray) -> np.ndarray:
    if rng.random() < 0.7:
        quality = int(rng.integers(35, 95))
        encoded = cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        frame = np.asarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR))
    scaling = cv2.INTER_AREA if rng.random() < 0.5 else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(frame, (28 * COLUMNS, 28 * ROWS), interpolation=scaling))


def random_takes(rng: np.random.Generator, num: int) -> list[Take]:
    """Takes of 8 to 40 seconds, as films have them, but evenly drawn."""
    ends = (rng.uniform(*TAKE_SECONDS, num) * FRAMES_PER_SECOND).round() / FRAMES_PER_SECOND
    return [random_take(rng, 0.0, end) for end in ends.tolist()]


# --- the course -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One part of the training."""

    name: str
    steps: int
    learning_rate: float
    mix: Mapping[str, float] | None = None
    """Weights of the tasks; None trains the vision tower alone."""
    tokens: int = 4000
    """Text tokens a batch."""
    seen: bool = False
    """Lessons on the tower's own tokens instead of ideal ones."""
    num_things: int | None = None
    """In the scenes that the vision tower is shown; None: one to three."""


DRILLS = {"match drill": 0.05, "scene drill": 0.45}
PRODUCT = {
    "answer": 0.26,
    "course": 0.08,
    "most": 0.02,
    "rerank": 0.08,
    "clip word": 0.02,
    "query word": 0.02,
    "caption": 0.02,
}

CURRICULUM = (
    Stage(name="see", steps=3000, learning_rate=1.5e-3, num_things=1),
    Stage(name="see several", steps=4000, learning_rate=1.2e-3),
    Stage(name="match", steps=1500, learning_rate=2e-3, mix={"match drill": 0.75, "caption": 0.25}),
    Stage(name="scenes", steps=1500, learning_rate=1.5e-3, mix={"match drill": 0.15, "scene drill": 0.85}),
    Stage(name="lessons", steps=1500, learning_rate=1.5e-3, mix={**DRILLS, **PRODUCT}),
    Stage(name="together", steps=4000, learning_rate=1.4e-3, mix={**DRILLS, **PRODUCT}, tokens=5000, seen=True),
)
"""The whole training. README.md in this folder tells what each stage is for and what it reached."""


class Course:
    """The model on its way through the stages, with all that is needed to go on after an interruption."""

    num_takes = 8_000
    moments_per_scene = 2
    steps_between_saves = 500
    pairs_per_batch = 96

    def __init__(self, folder: Path, *, seed: int, device: str, stages: Sequence[Stage]) -> None:
        self.folder, self.seed, self.stages = folder, seed, stages
        self.device = torch.device(device)
        self.tokenizer = build_tokenizer()
        self.model = build_model(self.tokenizer, seed=seed)
        self.words = WordVectors(self.model, self.tokenizer, self.device)
        nn.Module.to(self.model, self.device).train()
        _use_quick_attention(self.model)
        self.seen_tokens: Tensor | None = None
        self.log = Log(folder / "log.jsonl")
        self.stage = self.step = 0
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
        while self.stage < len(self.stages):
            self._run_stage(self.stages[self.stage], saved)
            saved = None
            self.stage, self.step = self.stage + 1, 0
            self._save(None)

    def _run_stage(self, stage: Stage, saved: Mapping[str, Any] | None) -> None:
        self._begin(stage)
        trained = self._trained(stage)
        optimizer = torch.optim.AdamW(trained, lr=stage.learning_rate, betas=(0.9, 0.98), weight_decay=0.02)
        if saved is not None and saved["optimizer"] is not None:
            optimizer.load_state_dict(saved["optimizer"])
        while self.step < stage.steps:
            # Draws depend on the step alone, so that a resumed run sees what an unbroken one would have seen.
            self.teacher.rng = np.random.default_rng([self.seed, self.stage, self.step])
            for group in optimizer.param_groups:
                warm, done = min(1.0, (self.step + 1) / 50), self.step / stage.steps
                group["lr"] = stage.learning_rate * warm * (1 - 0.95 * done)
            with torch.autocast(self.device.type, torch.bfloat16):
                loss = self._lesson_loss(stage) if stage.mix else self._vision_loss(stage, self.teacher.rng)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            self.step += 1
            self.log.add(["loss"], [loss.item()])
            if self.step % 50 == 0:
                self.log.write(stage=stage.name, step=self.step, split="training")
            if self.step % self.steps_between_saves == 0 or self.step == stage.steps:
                self._examine(stage)
                self._save(optimizer)

    def _begin(self, stage: Stage) -> None:
        rng = np.random.default_rng([self.seed, 1, self.stage])
        self._take_up(random_takes(rng, self.num_takes), seed=self.seed)
        if stage.seen:
            self._match_lengths(rng, is_done=self.step > 0)
        self.seen_tokens = self._encode(rng, self.teacher.scenes) if stage.seen else None

    def _take_up(self, takes: Sequence[Take], *, seed: int) -> None:
        """What the lessons are about from now on."""
        self.teacher = Teacher(self.tokenizer, takes, seed=seed)
        self.seen_tokens = None

    @torch.no_grad()
    def _match_lengths(self, rng: np.random.Generator, *, is_done: bool) -> None:
        """Scale the tower's output to the length of the ideal tokens, which the language model is used to.

        Where that is done already, its draws are made all the same: what is drawn next depends on them.
        """
        scenes = self.teacher.scenes[:100]
        seen = self._encode(rng, scenes).float().norm(dim=-1).mean()
        ideal = self._visual_tokens(torch.arange(len(scenes)), rng).norm(dim=-1).mean()
        if is_done:
            return
        last = self.model.model.visual.merger.mlp[-1]
        for parameter in (last.weight, last.bias):
            parameter *= (ideal / seen).item()

    def _trained(self, stage: Stage) -> list[nn.Parameter]:
        visual = self.model.model.visual
        for parameter in self.model.parameters():
            parameter.requires_grad_(stage.mix is not None)
        for parameter in visual.parameters():
            parameter.requires_grad_(stage.mix is None)
        # The word vectors stay what they were when the tower learnt to say them.
        self.model.model.language_model.embed_tokens.weight.requires_grad_(False)
        return [parameter for parameter in self.model.parameters() if parameter.requires_grad]

    def _vision_loss(self, stage: Stage, rng: np.random.Generator) -> Tensor:
        scenes = [random_scene(rng, stage.num_things) for _ in range(self.pairs_per_batch)]
        pixels, seconds = draw_pairs(rng, scenes)
        tokens = encode_pixels(self.model.model.visual, torch.from_numpy(pixels).to(self.device))
        losses, hits = self.words.naming_losses(tokens, self.words.labels(scenes, seconds))
        self.log.add([f"names {name}" for name in hits], [hit.mean().item() for hit in hits.values()])
        return torch.stack(list(losses.values())).sum() + losses["shape"]  # the hardest counts twice

    def _lesson_loss(self, stage: Stage) -> Tensor:
        assert stage.mix is not None
        batch = lesson_batch(self.teacher, stage.mix, self.tokenizer, tokens=stage.tokens)
        tokens = self._visual_tokens(batch.pairs, self.teacher.rng)
        loss, right = lesson_loss(self.model, batch.to(self.device), tokens, text_weight=0.05)
        self.log.add(list(batch.tasks), right.tolist())
        return loss

    def _visual_tokens(self, pairs: Tensor, rng: np.random.Generator) -> Tensor:
        """(pairs, 12, dim) for the scenes named: one of a scene's encoded moments, or ideal tokens."""
        is_alone = pairs < 0
        pairs = torch.where(is_alone, ~pairs, pairs)
        if self.seen_tokens is not None:
            moments = torch.from_numpy(rng.integers(self.moments_per_scene, size=len(pairs)))
            moments[is_alone] = self.moments_per_scene
            return self.seen_tokens[pairs, moments].to(self.device).float()
        labels = self.words.labels(
            [self.teacher.scenes[pair] for pair in pairs.tolist()], rng.uniform(0, 30, len(pairs))
        )
        generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
        return self.words.ideal_tokens(labels, generator).to(self.device)

    @torch.no_grad()
    def _encode(self, rng: np.random.Generator, scenes: Sequence[Scene]) -> Tensor:
        """(scenes, moments, 12, dim) bfloat16; the last moment is a single frame shown twice."""
        encoded = []
        for first in range(0, len(scenes), 64):
            chunk = scenes[first : first + 64]
            drawn = [draw_pairs(rng, chunk)[0] for _ in range(self.moments_per_scene)]
            drawn.append(draw_pairs(rng, chunk, step_seconds=0.0)[0])
            pixels = torch.from_numpy(np.stack(drawn, 1).reshape(-1, *drawn[0].shape[1:])).to(self.device)
            with torch.autocast(self.device.type, torch.bfloat16):
                tokens = encode_pixels(self.model.model.visual, pixels)
            encoded.append(tokens.bfloat16().cpu().view(len(chunk), -1, *tokens.shape[1:]))
        return torch.cat(encoded)

    @torch.no_grad()
    def _examine(self, stage: Stage) -> None:
        """Accuracy of every task on scenes that no stage has seen, always with the same questions; into the log."""
        rng = np.random.default_rng([HELD_OUT_SEEDS, self.seed])
        kept = self.teacher, self.seen_tokens
        self.log.values.clear()
        self._take_up(random_takes(rng, 1000), seed=HELD_OUT_SEEDS)
        with torch.autocast(self.device.type, torch.bfloat16):
            if stage.mix is None:
                for _ in range(5):
                    self._vision_loss(stage, rng)
            else:
                self.seen_tokens = self._encode(rng, self.teacher.scenes) if stage.seen else None
                for task in stage.mix:
                    self._lesson_loss(dataclasses.replace(stage, mix={task: 1.0}, tokens=16_000))
        self.log.write(stage=stage.name, step=self.step, split="held out")
        self.teacher, self.seen_tokens = kept

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


def _use_quick_attention(model: Qwen2_5_VLForConditionalGeneration) -> None:
    """Plain causal attention by matrix products, some rows at a time: twice as fast on a CPU as the fused one.

    Rows together are multiplied with no key that is later than all of them: half of the work is left out.
    """

    def rows(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        size, seen = query.shape[1], key.shape[1]
        future = torch.full((size, seen), -1e4, dtype=query.dtype, device=query.device).triu(1 + seen - size)
        scores = torch.baddbmm(future.expand(len(key), -1, -1), query, key.transpose(1, 2))
        return torch.bmm(torch._softmax(scores, -1, False), value)  # in half precision: no copy in float32

    def attend(
        module: Any, query: Tensor, key: Tensor, value: Tensor, mask: None, *, scaling: float, **_: object
    ) -> tuple[Tensor, None]:
        groups, shape = module.num_key_value_groups, query.shape
        query = (query * scaling).flatten(0, 1)
        key, value = (part.repeat_interleave(groups, 1).flatten(0, 1) for part in (key, value))
        ends = range(_ROWS_TOGETHER, shape[2] + _ROWS_TOGETHER, _ROWS_TOGETHER)
        mixed = [rows(query[:, end - _ROWS_TOGETHER : end], key[:, :end], value[:, :end]) for end in ends]
        return torch.cat(mixed, 1).view(shape).transpose(1, 2), None

    AttentionInterface.register("quick_causal", attend)
    AttentionMaskInterface.register("quick_causal", lambda *_, **__: None)
    model.model.language_model.config._attn_implementation = "quick_causal"


class Log:
    """Means of figures by name, appended to a JSON-lines file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.started = time.time()
        self.values: dict[str, list[float]] = defaultdict(list)

    def add(self, names: Sequence[str], values: Sequence[float]) -> None:
        """Note a value under each name."""
        for name, value in zip(names, values, strict=True):
            self.values[name].append(value)

    def write(self, **fields: float | str) -> None:
        """Write the means since the last call."""
        means = {name: round(float(np.mean(values)), 4) for name, values in sorted(self.values.items())}
        line = {**fields, "seconds": round(time.time() - self.started, 1), **means}
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")
        self.values.clear()

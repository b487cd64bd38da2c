"""The tasks of lvqa's own stages, with the least that each can cost, and the tasks that measure the machine."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np
import torch

from lvqa import prompts
from lvqa.answering import Answerer, AnswerRequest
from lvqa.embedding import Embedder
from lvqa.models.prefix import PrefixCache
from lvqa.models.prompt import ClipTokens
from lvqa.models.qwen_vl import Qwen25VL
from lvqa.pairs import aligned_pairs
from lvqa.profiling.baselines import decode_with_ffmpeg
from lvqa.profiling.flops import LanguageCost, VisionCost
from lvqa.profiling.sample import CLIP_PAIRS, Sample, sample_questions
from lvqa.profiling.task import Task
from lvqa.records import Candidate, Clip, Counts, Question
from lvqa.rerank import MultipleChoice, RerankRequest
from lvqa.startup import num_threads
from lvqa.video import decode_all

MATRIX, DECODE = "matrix product", "decode all"
"""The names of the machine's ceilings: a large product in the model's type; every frame decoded, none scaled."""
_MATRIX_SIZE = {"cpu": 3072, "cuda": 8192}
_NUM_PRODUCTS = {"cpu": 1, "cuda": 20}


# --- the machine, and reading ----------------------------------------------------------------------------------------


def ceiling_tasks(model: Qwen25VL, sample: Sample) -> list[Task]:
    """Return the tasks that measure what the machine can do; without a file there is nothing to decode."""
    return [_matrix_product(model)] if sample.is_noise else [_matrix_product(model), _decode_all(sample)]


def _matrix_product(model: Qwen25VL) -> Task:
    size, num_products = _MATRIX_SIZE[model.device.type], _NUM_PRODUCTS[model.device.type]
    left, right = (torch.randn(size, size, device=model.device).to(model.library.dtype) for _ in range(2))

    def multiply() -> None:
        for _ in range(num_products):
            left @ right

    flops = 2.0 * num_products * size**3
    return Task(name=MATRIX, unit="product", units=num_products, run=multiply, lower_bound_flops=flops)


def _decode_all(sample: Sample) -> Task:
    """Return a task of FFmpeg's program, with as many threads as reading has; or of its libraries, with one."""
    video, until_seconds = sample.video, sample.times_seconds[-1]
    if shutil.which("ffmpeg"):
        run: Callable[[], object] = partial(decode_with_ffmpeg, video, until_seconds, threads=num_threads())
    else:
        run = partial(decode_all, video, until_seconds)
    return Task(name=DECODE, unit="frame wanted", units=len(sample.times_seconds), run=run)


def reading_tasks(sample: Sample) -> list[Task]:
    """Return the task of reading the frames of the sample; without a file there is none."""
    if sample.is_noise:
        return []
    num_frames = len(sample.times_seconds)
    share = sample.times_seconds[-1] / sample.video.duration_seconds
    return [
        Task(
            name="read frames",
            unit="frame",
            units=num_frames,
            lower_bound=Counts(frames_decoded=num_frames),
            lower_bound_bytes=round(sample.video.path.stat().st_size * share),
            run=sample.read,
            ceiling=DECODE,
        )
    ]


# --- the stages of the model -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class EncodedClips:
    """Clips whose visual tokens are there: a `rerank.ClipReader`."""

    tokens: Mapping[Clip, ClipTokens]
    prefix_cache: PrefixCache | None

    def read(self, clips: Sequence[Clip]) -> Iterator[ClipTokens]:
        """Yield the visual tokens of each clip."""
        return map(self.tokens.__getitem__, clips)


class StageTasks:
    """The tasks of the stages that run the model."""

    def __init__(self, model: Qwen25VL, sample: Sample, *, num_questions: int, num_frames: int) -> None:
        self._model, self._sample = model, sample
        self._questions = sample_questions(num_questions)
        self._num_frames = num_frames
        self._language = LanguageCost.from_config(model.library.config.text_config)
        self._vision = VisionCost.from_config(model.library.config.vision_config)
        self._embedder, self._answerer = Embedder(), Answerer(mode="logits")
        self._vision_bytes = _num_bytes(model.library.model.visual)
        self._language_bytes = _num_bytes(model.library.model.language_model.layers)
        self._token_bytes = sum(block.tokens.nbytes for block in sample.blocks)
        self._pixels = np.concatenate(sample.pixels)

    def all(self) -> list[Task]:
        """Return the tasks in the order in which the stages follow each other."""
        return [
            self._encode_pairs(),
            self._embed_clips(),
            self._index_clips(),
            self._rerank_question_first(),
            self._rerank_clip_first(),
            self._answer(),
        ]

    @cached_property
    def _clip_lengths(self) -> list[int]:
        text = prompts.embedding(prompts.CLIP)
        return [len(self._model.encode_prompt((block, text))) for block in self._sample.blocks]

    @property
    def _encoding_flops(self) -> float:
        return self._sample.num_pairs * self._vision.pair(self._sample.tokens.height, self._sample.tokens.width)

    @property
    def _embedding_flops(self) -> float:
        return sum(self._language.last_position(length, with_last_mlp=False) for length in self._clip_lengths)

    def _encode_pairs(self) -> Task:
        return Task(
            name="encode pairs",
            unit="pair",
            units=self._sample.num_pairs,
            lower_bound=Counts(pairs_encoded=self._sample.num_pairs),
            lower_bound_flops=self._encoding_flops,
            lower_bound_bytes=self._pixels.nbytes + self._vision_bytes,
            run=lambda: self._model.encode_pairs(self._pixels),
            ceiling=MATRIX,
        )

    def _embed_clips(self) -> Task:
        return Task(
            name="embed clips",
            unit="clip",
            units=len(self._sample.clips),
            lower_bound=Counts(tokens_prefilled=sum(self._clip_lengths)),
            lower_bound_flops=self._embedding_flops,
            lower_bound_bytes=self._token_bytes + self._language_bytes,
            run=lambda: self._embedder.clips(self._model, self._sample.blocks),
            ceiling=MATRIX,
        )

    def _index_clips(self) -> Task:
        """Return the task of encoding the pairs and embedding the clips together."""

        def run() -> None:
            num_pairs = [len(pixels) for pixels in self._sample.pixels]
            encoded = torch.split(self._model.encode_pairs(self._pixels), num_pairs)
            blocks = [replace(block, tokens=pairs) for block, pairs in zip(self._sample.blocks, encoded, strict=True)]
            self._embedder.clips(self._model, blocks)

        return Task(
            name="index clips",
            unit="clip",
            units=len(self._sample.clips),
            lower_bound=Counts(pairs_encoded=self._sample.num_pairs, tokens_prefilled=sum(self._clip_lengths)),
            lower_bound_flops=self._encoding_flops + self._embedding_flops,
            lower_bound_bytes=self._pixels.nbytes + (self._vision_bytes + self._language_bytes),
            run=run,
            ceiling=MATRIX,
        )

    def _rerank_question_first(self) -> Task:
        """Return the task of reranking the clips for one question, since each question costs the same."""
        before, after = prompts.rerank(self._questions[0].text)
        lengths = [len(self._model.encode_prompt((before, block, after))) for block in self._sample.blocks]
        head = self._language.head(1, words=2)
        return Task(
            name="rerank, question first",
            unit="question and clip",
            units=len(lengths),
            lower_bound=Counts(tokens_prefilled=sum(lengths)),
            lower_bound_flops=sum(map(self._language.last_position, lengths)) + head * len(lengths),
            lower_bound_bytes=self._token_bytes + self._language_bytes,
            run=partial(self._rerank, "question_first", self._questions[:1]),
            ceiling=MATRIX,
        )

    def _rerank_clip_first(self) -> Task:
        """Return the task of reranking for all questions: each clip, and the text behind it, is prefilled once."""
        model, language, blocks = self._model, self._language, self._sample.blocks
        before = prompts.rerank("", clip_first=True)[0]
        prefix_lengths = [len(model.encode_prefix((before, block), prompts.RERANK_TASK)) for block in blocks]
        suffixes: list[tuple[int, int]] = []
        """The lengths of each prompt's suffix, which is the question's, and of its prefix, which is the clip's."""
        for question in self._questions:
            before, after = prompts.rerank(question.text, clip_first=True)
            lengths = [len(model.encode_prompt((before, block, after))) for block in blocks]
            suffixes += [(n - prefix, prefix) for n, prefix in zip(lengths, prefix_lengths, strict=True)]
        return Task(
            name="rerank, clip first",
            unit="question and clip",
            units=len(suffixes),
            lower_bound=Counts(tokens_prefilled=sum(prefix_lengths) + sum(length for length, _ in suffixes)),
            lower_bound_flops=sum(map(language.keys_values, prefix_lengths))
            + sum(language.last_position(length, past=prefix) for length, prefix in suffixes)
            + language.head(1, words=2) * len(suffixes),
            lower_bound_bytes=self._token_bytes + self._language_bytes,
            run=partial(self._rerank, "clip_first", self._questions),
            ceiling=MATRIX,
        )

    def _rerank(self, layout: str, questions: Sequence[Question]) -> None:
        candidates = [Candidate(clip, 0.0) for clip in self._sample.clips]
        reader = EncodedClips(dict(zip(self._sample.clips, self._sample.blocks, strict=True)), PrefixCache(8 << 30))
        requests = [RerankRequest(question.text, candidates, reader) for question in questions]
        MultipleChoice(layout=layout).rerank(self._model, requests)

    def _answer(self) -> Task:
        """Return the task of answering all questions from the same frames, which are prefilled once."""
        model, language, tokens = self._model, self._language, self._sample.tokens
        num_frames = min(self._num_frames, 2 * CLIP_PAIRS * len(self._sample.clips))
        pairs = aligned_pairs(range(num_frames), tokens.grid)
        frames = self._answerer.frame_parts(pairs, tokens)
        prefix = len(model.encode_prefix(tuple(frames)))
        texts = [prompts.answer(question) for question in self._questions]
        lengths = [model.prompt_length((*frames, text))[0] - prefix for text in texts]
        requests = [AnswerRequest(question, pairs) for question in self._questions]
        frame_bytes = sum(run.tokens.nbytes for run in frames if isinstance(run, ClipTokens))
        return Task(
            name="answer",
            unit="question",
            units=len(self._questions),
            lower_bound=Counts(tokens_prefilled=prefix + sum(lengths)),
            lower_bound_flops=language.keys_values(prefix)
            + sum(language.last_position(length, past=prefix) for length in lengths)
            + language.head(1, words=3) * len(lengths),
            lower_bound_bytes=frame_bytes + self._language_bytes,
            run=lambda: self._answerer.answer_requests(model, requests, tokens),
            ceiling=MATRIX,
        )


def _num_bytes(module: torch.nn.Module) -> int:
    return sum(parameter.nbytes for parameter in module.parameters())

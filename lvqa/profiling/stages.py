"""Every stage, its floor and its peers, measured in the same rounds of one run."""

from __future__ import annotations

import itertools
import os
import platform
import shutil
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from lvqa import prompts
from lvqa.answering import Answerer, Asked
from lvqa.embedding import Embedder
from lvqa.models.prefix import PrefixCache
from lvqa.models.prompt import ClipTokens
from lvqa.models.qwen_vl import Qwen25VL
from lvqa.profiling.baselines import PlainLoop, decode_with_ffmpeg, read_with_opencv, read_with_qwen_vl_utils
from lvqa.profiling.flops import LanguageCost, VisionCost
from lvqa.records import Candidate, Clip, Counts, LvqaError, Question, Video, shorten
from lvqa.rerank import MultipleChoice, RerankRequest, rerank_each
from lvqa.video import FrameGrid, cut_clips, decode_all, read_frames, usual_threads
from lvqa.visual_tokens import VisualTokens, pairs_of_clip, pairs_of_frames

MATRIX, DECODE = "matrix product", "decode all"
"""The machine's own ceilings: a large product in the model's type; every frame decoded, none scaled."""
_MATRIX_SIZE = {"cpu": 3072, "cuda": 8192}
_PRODUCTS = {"cpu": 1, "cuda": 20}
_GENERATED_TOKENS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchSettings:
    """How much is measured. A median of `repeats` rounds, each of which runs everything once."""

    minutes: float = 2.0
    """Of the film, from its start, that are read."""
    clips: int = 4
    """That are embedded, and looked at again for every question."""
    peer_clips: int = 4
    """As many of them, at most, as the plain loops go through; they take each by itself, so more cost as much more."""
    questions: int = 15
    frames: int = 32
    """Of an answer."""
    repeats: int = 5
    peers: bool = True
    only: tuple[str, ...] = ()
    """Names of what is measured beside the machine's ceilings; none: everything."""
    max_pixels: int | None = None

    def __post_init__(self) -> None:
        for name in ("minutes", "clips", "peer_clips", "questions", "frames", "repeats"):
            if not getattr(self, name) > 0:
                raise LvqaError(f"{name} must be above 0, got {getattr(self, name)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A piece of work that is timed."""

    name: str
    unit: str
    units: int
    """How many of them a call of `run` does."""
    run: Callable[[], object]
    must: Counts = field(default_factory=Counts)
    """What can't be avoided."""
    flops: float = 0.0
    """Operations that can't be avoided."""
    num_bytes: int = 0
    """That go in: of the file, of pixels, or of visual tokens and weights, each once."""
    ceiling: str | None = None
    """The job whose rate bounds it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A job and what it took."""

    name: str
    unit: str
    units: int
    must: Counts
    must_flops: float
    must_bytes: int
    done: Counts
    done_flops: float
    """As torch counts the products that were run; an attention kernel counts whole, its upper triangle too."""
    seconds: float
    """Median over the rounds."""
    all_seconds: tuple[float, ...]
    processor_seconds: float
    """Of all threads and programs. On a CPU shares and ratios go by it: it suffers less from what else is running."""
    of_ceiling: float | None = None
    """Share of what the machine could do: of its operations a second, or of its decoding."""

    @property
    def units_per_second(self) -> float:
        return self.units / self.seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """All that was measured in one run."""

    model: str
    video: str
    machine: str
    threads: int
    frame_size: tuple[int, int]
    """Height and width of a frame as the model sees it."""
    settings: BenchSettings
    measured: tuple[Measured, ...]
    ratios: dict[str, float]
    """Ours to a peer's: how many times as many units a second."""

    def of(self, name: str) -> Measured:
        """The job of this name."""
        return next(job for job in self.measured if job.name == name)

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def measure(
    model: Qwen25VL, video: Video | None, settings: BenchSettings, *, tell: Callable[[str], None] = lambda _: None
) -> Bench:
    """Time every stage on the start of a film, between one warm-up round, which is counted, and the median of others.

    Without a film the frames are noise of its usual size, and nothing is read. `tell` is told what is done. Raises
    LvqaError if the film is shorter than the clips that are asked for.
    """
    material = _Material.of(model, video, settings)
    jobs = [*_ceilings(model, material), *_stages(model, material, settings)]
    if settings.peers:
        jobs += _peers(model, material, settings)
    unknown = set(settings.only) - {job.name for job in jobs}
    if unknown:
        raise LvqaError(f"nothing is called {shorten(min(unknown))}; known: {'; '.join(job.name for job in jobs)}")
    if settings.only:
        jobs = [job for job in jobs if job.name in (MATRIX, DECODE, *settings.only)]
    counted = {}
    for job in jobs:
        before = replace(model.counts)
        with counting() as flops:
            job.run()
        counted[job.name] = (model.counts - before, float(flops.get_total_flops()))
        if model.device.type == "cuda":
            job.run()  # what is compiled is not compiled while it is counted
        tell(f"counted: {job.name}")
    seconds: dict[str, list[float]] = {job.name: [] for job in jobs}
    processor: dict[str, list[float]] = {job.name: [] for job in jobs}
    for number in range(settings.repeats):
        for job in jobs:
            _finish(model)
            started, used = time.perf_counter(), _processor_seconds()
            job.run()
            _finish(model)
            seconds[job.name].append(time.perf_counter() - started)
            processor[job.name].append(_processor_seconds() - used)
            took = f"{job.units} x {job.unit} in {seconds[job.name][-1]:.3f} s"
            tell(f"round {number + 1} of {settings.repeats}: {job.name}: {took}")
    middle, middle_used = (
        {name: statistics.median(values) for name, values in of.items()} for of in (seconds, processor)
    )
    compared = middle_used if model.device.type == "cpu" else middle
    by_name = {job.name: job for job in jobs}
    measured = tuple(
        Measured(
            name=job.name,
            unit=job.unit,
            units=job.units,
            must=job.must,
            must_flops=job.flops,
            must_bytes=job.num_bytes,
            done=counted[job.name][0],
            done_flops=counted[job.name][1],
            seconds=middle[job.name],
            all_seconds=tuple(seconds[job.name]),
            processor_seconds=middle_used[job.name],
            of_ceiling=_share(job, by_name, compared),
        )
        for job in jobs
    )
    return Bench(
        model=model.name,
        video=material.video.path.name,
        machine=_machine(model),
        threads=torch.get_num_threads(),
        frame_size=(material.tokens.height, material.tokens.width),
        settings=settings,
        measured=measured,
        ratios=_ratios(by_name, compared),
    )


def _share(job: Job, by_name: dict[str, Job], seconds: dict[str, float]) -> float | None:
    if job.ceiling is None:
        return None
    bound, took = by_name[job.ceiling], max(seconds[job.name], 1e-9)
    if job.ceiling == DECODE:
        return seconds[DECODE] / took
    return (job.flops / took) / (bound.flops / max(seconds[bound.name], 1e-9))


_PEERS = (
    ("read frames", "read frames: decord"),
    ("read frames", "read frames: OpenCV"),
    ("read frames", "read frames: qwen-vl-utils"),
    ("index clips", "index clips: plain loop"),
    ("rerank, question first", "rerank: plain loop"),
    ("rerank, question first", "rerank: generated text"),
    ("rerank, clip first", "rerank: plain loop"),
    ("rerank, clip first", "rerank: generated text"),
)


def _ratios(jobs: dict[str, Job], seconds: dict[str, float]) -> dict[str, float]:
    rates = {name: job.units / max(seconds[name], 1e-9) for name, job in jobs.items()}
    pairs = [(ours, peer) for ours, peer in _PEERS if {ours, peer} <= jobs.keys()]
    return {f"{ours} to {peer}": rates[ours] / rates[peer] for ours, peer in pairs}


# --- what is worked on ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class _Material:
    """The start of a film as the stages need it."""

    video: Video
    is_film: bool
    """Or noise."""
    grid: FrameGrid
    tokens: VisualTokens
    times_seconds: tuple[float, ...]
    """Of the frames that are read."""
    clips: tuple[Clip, ...]
    pixels: tuple[np.ndarray, ...]
    """(pairs, 2, height, width, 3) uint8 of each clip."""
    blocks: tuple[ClipTokens, ...]

    @classmethod
    def of(cls, model: Qwen25VL, film: Video | None, settings: BenchSettings) -> _Material:
        video = film or Video(Path("noise"), "noise", 16.0 * settings.clips, 360, 640, 25.0)
        grid = FrameGrid.of(video, 1.0)
        tokens = VisualTokens(video, grid, model, max_pixels=settings.max_pixels, memory_bytes=4 << 30)
        whole = [clip for clip in cut_clips(video, grid, 16.0) if len(pairs_of_clip(clip, grid)) == 8]
        if len(whole) < settings.clips:
            raise LvqaError(f"{video.path}: has {len(whole)} clips of 16 s, {settings.clips} are to be measured")
        clips = tuple(whole[: settings.clips])
        times = [grid.seconds_of(k) for k in range(grid.num_frames) if grid.seconds_of(k) < settings.minutes * 60]
        shape = (settings.clips, 8, 2, tokens.height, tokens.width, 3)
        if film is None:
            pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        else:
            in_clips = [grid.seconds_of(k) for k in range(16 * settings.clips)]
            batches = read_frames(video, in_clips, height=tokens.height, width=tokens.width)
            pixels = np.concatenate([batch.pixels for batch in batches]).reshape(shape)
        groups = [pairs_of_clip(clip, grid) for clip in clips]
        encoded = model.encode_pairs(pixels.reshape(-1, *shape[2:]))
        tokens.keep(dict(zip(itertools.chain.from_iterable(groups), encoded, strict=True)))
        blocks = tuple(tokens.clips(groups))
        return cls(video, film is not None, grid, tokens, tuple(times), clips, tuple(pixels), blocks)

    @property
    def pairs(self) -> int:
        return sum(len(pixels) for pixels in self.pixels)


def _questions(num: int) -> list[Question]:
    things = ("door", "car", "letter", "dog", "window", "boat", "sign", "hat")
    return [
        Question(f"What happened to the {things[i % len(things)]} after minute {i}?", ("nothing", "it left", "it fell"))
        for i in range(num)
    ]


# --- what is timed ----------------------------------------------------------------------------------------------------


def _ceilings(model: Qwen25VL, material: _Material) -> list[Job]:
    size = _MATRIX_SIZE[model.device.type]
    left, right = (torch.randn(size, size, device=model.device).to(model.library.dtype) for _ in range(2))
    products = _PRODUCTS[model.device.type]

    def multiply() -> None:
        for _ in range(products):
            left @ right

    product = Job(name=MATRIX, unit="product", units=products, run=multiply, flops=2.0 * products * size**3)
    return [product, *_decoding(material)]


def _decoding(material: _Material) -> list[Job]:
    if not material.is_film:
        return []
    share = material.times_seconds[-1] / material.video.duration_seconds
    num = len(material.times_seconds)
    return [
        Job(
            name=DECODE,
            unit="frame wanted",
            units=num,
            run=lambda: _decode_all(material),
        ),
        Job(
            name="read frames",
            unit="frame",
            units=num,
            must=Counts(frames_decoded=num),
            num_bytes=round(material.video.path.stat().st_size * share),
            run=lambda: _read(material),
            ceiling=DECODE,
        ),
    ]


def _stages(model: Qwen25VL, material: _Material, settings: BenchSettings) -> list[Job]:
    language = LanguageCost.of(model.library.config.text_config)
    vision = VisionCost.of(model.library.config.vision_config)
    embedder, questions = Embedder(), _questions(settings.questions)
    towers = _bytes_of(model.library.model.visual), _bytes_of(model.library.model.language_model.layers)
    token_bytes = sum(block.tokens.nbytes for block in material.blocks)
    height, width = material.tokens.height, material.tokens.width
    clip_length = [len(model.encode_prompt((block, prompts.embedding(prompts.CLIP)))) for block in material.blocks]
    encoding = material.pairs * vision.pair(height, width)
    embedding = sum(language.last_position(length, with_last_mlp=False) for length in clip_length)
    stacked = np.concatenate(material.pixels)

    def index() -> None:
        encoded = torch.split(model.encode_pairs(stacked), [len(pixels) for pixels in material.pixels])
        blocks = [replace(block, tokens=of) for block, of in zip(material.blocks, encoded, strict=True)]
        embedder.clips(model, blocks)

    candidates = [Candidate(clip, 0.0) for clip in material.clips]
    block_of = dict(zip(material.clips, material.blocks, strict=True))

    def rerank(layout: str, questions: Sequence[Question]) -> Callable[[], None]:
        def run() -> None:
            sought = [RerankRequest(question.text, candidates) for question in questions]
            reranker, beginnings = MultipleChoice(layout=layout), PrefixCache(8 << 30)
            rerank_each(reranker, model, sought, lambda clips: map(block_of.__getitem__, clips), beginnings)

        return run

    pairs = pairs_of_frames(range(min(settings.frames, 16 * settings.clips)))
    answerer = Answerer(read="logits")

    def answer() -> None:
        answerer.answer(model, [Asked(question, pairs) for question in questions], material.tokens)

    whole = [
        len(model.encode_prompt((before, block, after)))
        for before, after in [prompts.rerank(questions[0].text)]
        for block in material.blocks
    ]
    read = [len(model.encode_prefix((prompts.rerank("", clip_first=True)[0], block))) for block in material.blocks]
    both = [
        len(model.encode_prompt((before, block, after)))
        for question in questions
        for before, after in [prompts.rerank(question.text, clip_first=True)]
        for block in material.blocks
    ]
    behind = [total - read[place % len(read)] for place, total in enumerate(both)]
    film = answerer.frame_parts(pairs, material.tokens)
    answered = [len(model.encode_prompt((*film, prompts.answer(question)))) for question in questions]
    num = len(questions) * len(material.clips)
    head = language.head(1, words=2)
    return [
        Job(
            name="encode pairs",
            unit="pair",
            units=material.pairs,
            must=Counts(pairs_encoded=material.pairs),
            flops=encoding,
            num_bytes=stacked.nbytes + towers[0],
            run=lambda: model.encode_pairs(stacked),
            ceiling=MATRIX,
        ),
        Job(
            name="embed clips",
            unit="clip",
            units=len(material.clips),
            must=Counts(tokens_prefilled=sum(clip_length)),
            flops=embedding,
            num_bytes=token_bytes + towers[1],
            run=lambda: embedder.clips(model, material.blocks),
            ceiling=MATRIX,
        ),
        Job(
            name="index clips",
            unit="clip",
            units=len(material.clips),
            must=Counts(pairs_encoded=material.pairs, tokens_prefilled=sum(clip_length)),
            flops=encoding + embedding,
            num_bytes=stacked.nbytes + sum(towers),
            run=index,
            ceiling=MATRIX,
        ),
        Job(
            name="rerank, question first",
            unit="question and clip",
            units=len(whole),  # of one question: each costs the same
            must=Counts(tokens_prefilled=sum(whole)),
            flops=sum(map(language.last_position, whole)) + head * len(whole),
            num_bytes=token_bytes + towers[1],
            run=rerank("question_first", questions[:1]),
            ceiling=MATRIX,
        ),
        Job(
            name="rerank, clip first",
            unit="question and clip",
            units=num,
            must=Counts(tokens_prefilled=sum(read) + sum(behind)),
            flops=sum(map(language.keys_values, read))
            + sum(language.last_position(n, past=read[place % len(read)]) for place, n in enumerate(behind))
            + head * num,
            num_bytes=token_bytes + towers[1],
            run=rerank("clip_first", questions),
            ceiling=MATRIX,
        ),
        Job(
            name="answer",
            unit="question",
            units=len(questions),
            must=Counts(tokens_prefilled=sum(answered)),
            flops=sum(map(language.last_position, answered)) + language.head(1, words=3) * len(questions),
            num_bytes=sum(part.tokens.nbytes for part in film if isinstance(part, ClipTokens)) + towers[1],
            run=answer,
            ceiling=MATRIX,
        ),
    ]


def _peers(model: Qwen25VL, material: _Material, settings: BenchSettings) -> list[Job]:
    plain = PlainLoop(model)
    (question,) = _questions(1)
    of_clips = material.pixels[: settings.peer_clips], material.blocks[: settings.peer_clips]
    num = len(of_clips[0])
    return [
        *_reading_peers(material),
        Job(name="index clips: plain loop", unit="clip", units=num, run=lambda: plain.embed(*of_clips)),
        Job(
            name="rerank: plain loop",
            unit="question and clip",
            units=num,
            run=lambda: plain.rerank(question.text, *of_clips),
        ),
        Job(
            name="rerank: generated text",
            unit="question and clip",
            units=num,
            run=lambda: plain.rerank_by_text(question.text, *of_clips, num_tokens=_GENERATED_TOKENS),
        ),
    ]


def _reading_peers(material: _Material) -> list[Job]:
    if not material.is_film:
        return []
    size = {"height": material.tokens.height, "width": material.tokens.width}
    frames = len(material.times_seconds)
    jobs = [
        Job(name="read frames: decord", unit="frame", units=frames, run=lambda: _read(material, "decord")),
        Job(
            name="read frames: OpenCV",
            unit="frame",
            units=frames,
            run=lambda: read_with_opencv(material.video, material.times_seconds, **size),
        ),
    ]
    if all(find_spec(name) for name in ("qwen_vl_utils", "torchvision")):
        qwen = partial(read_with_qwen_vl_utils, material.video, material.times_seconds[-1], **size)
        jobs.append(Job(name="read frames: qwen-vl-utils", unit="frame", units=frames, run=qwen))
    return jobs


def _decode_all(material: _Material) -> None:
    """By FFmpeg's program with as many threads as reading has; without it by its libraries, in one."""
    if shutil.which("ffmpeg"):
        decode_with_ffmpeg(material.video, material.times_seconds[-1], threads=usual_threads())
    else:
        decode_all(material.video, material.times_seconds[-1])


def _read(material: _Material, decoder: str = "pyav") -> None:
    size = {"height": material.tokens.height, "width": material.tokens.width}
    for _ in read_frames(material.video, material.times_seconds, decoder=decoder, **size):
        pass


# --- counting and the machine -----------------------------------------------------------------------------------------


def counting() -> FlopCounterMode:
    """torch's counter of operations, told about all attention kernels, and that they share keys among query heads."""

    def attention(query: Sequence[int], key: Sequence[int], value: Sequence[int], *_: Any, **__: Any) -> int:
        shared = [(*query[:2], *shape[2:]) for shape in (key, value)]
        return int(sdpa_flop_count(query, *shared))  # type: ignore[no-untyped-call]

    kernels = ("flash_attention", "flash_attention_for_cpu", "efficient_attention", "cudnn_attention")
    told = {getattr(torch.ops.aten, f"_scaled_dot_product_{kernel}"): attention for kernel in kernels}
    return FlopCounterMode(display=False, custom_mapping=told)


def _bytes_of(module: torch.nn.Module) -> int:
    return sum(parameter.nbytes for parameter in module.parameters())


def _processor_seconds() -> float:
    """Of this process and its children."""
    return time.process_time() + sum(os.times()[2:4])


def _finish(model: Qwen25VL) -> None:
    if model.device.type == "cuda":
        torch.cuda.synchronize()


def _machine(model: Qwen25VL) -> str:
    if model.device.type == "cuda":
        return torch.cuda.get_device_name(model.device)
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        models = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if "model name" in line]
        name = models[0] if models else name
    return f"{name}, {len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()} cores"

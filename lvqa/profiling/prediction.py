"""Predict the cost of a whole benchmark from counted operations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lvqa.models.random_weights import real_config
from lvqa.profiling.flops import LanguageCost, VisionCost
from lvqa.profiling.measurement import BenchReport

PROMPT_TOKENS = {"embed": 90, "query": 110, "rerank": 130, "answer": 120, "timestamp": 7}
"""How many of Qwen's tokens the text around the visual tokens has, rounded up."""
LVBENCH_VIDEOS, LVBENCH_MINUTES, LVBENCH_QUESTIONS = 103, 68, 15
"""How many videos LVBench has, how long they are at the mean, and how many questions each has."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """The operations that a benchmark needs, by stage."""

    flops: Mapping[str, float]
    """Stage -> operations for all videos together."""

    @property
    def total(self) -> float:
        """Return the operations of all stages."""
        return sum(self.flops.values())

    def seconds(self, shares: Mapping[str, float], peak: float) -> float:
        """Return the seconds on a device of this rate (operations a second), if each stage reaches its share of it."""
        return sum(flops / (shares[stage] * peak) for stage, flops in self.flops.items())


def predict(
    language: LanguageCost,
    vision: VisionCost,
    *,
    height: int,
    width: int,
    minutes: float,
    questions: int,
    frames: int,
    videos: int = 1,
    pool: int = 50,
    clip_pairs: int = 8,
    clip_first: bool = False,
) -> Prediction:
    """Predict the cost of FreeRet at one frame a second.

    Args:
        language: The language model.
        vision: The vision tower.
        height: The height of a frame in pixels.
        width: The width of a frame in pixels.
        minutes: The length of each video.
        questions: How many questions each video has.
        frames: How many frames an answer is given.
        videos: How many videos there are.
        pool: How many clips are reranked for each question.
        clip_pairs: How many frame pairs a clip has.
        clip_first: Whether a clip is prefilled once for all questions that share it, or with each question. Each pair
            is encoded once in either case.
    """
    pairs = round(minutes * 60) / 2
    clips = pairs / clip_pairs
    token_size = vision.patch * vision.merge
    tokens = (height // token_size) * (width // token_size)
    clip_tokens = clip_pairs * tokens
    prefills = min(clips, questions * pool)
    if clip_first:
        query_tokens = PROMPT_TOKENS["rerank"]
        rerank = prefills * language.keys_values(clip_tokens) + questions * pool * language.last_position(
            query_tokens, past=clip_tokens
        )
    else:
        rerank = questions * pool * language.last_position(clip_tokens + PROMPT_TOKENS["rerank"])
    rerank += questions * pool * language.head(1, words=2)
    runs = frames / 4
    answer_tokens = round(frames / 2 * tokens + runs * PROMPT_TOKENS["timestamp"] + PROMPT_TOKENS["answer"])
    flops_per_video = {
        "encode pairs": pairs * vision.pair(height, width),
        "embed clips": clips * language.last_position(clip_tokens + PROMPT_TOKENS["embed"], with_last_mlp=False),
        "embed questions": questions * language.last_position(PROMPT_TOKENS["query"], with_last_mlp=False),
        "rerank": rerank,
        "answer": questions * (language.last_position(answer_tokens) + language.head(1, words=4)),
    }
    return Prediction({stage: videos * flops for stage, flops in flops_per_video.items()})


@dataclass(frozen=True, slots=True)
class VideoPrediction:
    """What a video of LVBench's mean length needs, with its questions, on the device that was measured."""

    flops: Mapping[str, float]
    """Stage -> operations, with all layers."""
    seconds: float


def predict_lvbench(report: BenchReport, shape: str) -> dict[str, VideoPrediction]:
    """Predict a video of LVBench from the rates that a report has measured, on the same device.

    Args:
        report: The measured rates, of the same widths at any depth; each stage keeps its operations a second.
        shape: A name in `lvqa.models.random_weights.SHAPES`; it is predicted with all layers.

    Returns:
        The prediction for each layout of reranking.
    """
    config = real_config(shape)
    height, width = report.frame_size
    predictions = {}
    for layout in ("question first", "clip first"):
        prediction = predict(
            LanguageCost.from_config(config.text_config),
            VisionCost.from_config(config.vision_config),
            height=height,
            width=width,
            minutes=LVBENCH_MINUTES,
            questions=LVBENCH_QUESTIONS,
            frames=report.settings.frames,
            clip_first=layout == "clip first",
        )
        seconds = prediction.seconds(_shares(report, layout), report.product_rate)
        predictions[layout] = VideoPrediction(prediction.flops, seconds)
    return predictions


def _shares(report: BenchReport, layout: str) -> dict[str, float]:
    """Return the share of the ceiling that each stage of a prediction has reached."""
    tasks = {
        "encode pairs": "encode pairs",
        "embed clips": "embed clips",
        "embed questions": "embed clips",
        "rerank": f"rerank, {layout}",
        "answer": "answer",
    }
    return {stage: report.result(task).share_of_ceiling or 1.0 for stage, task in tasks.items()}

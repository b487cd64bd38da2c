"""Whole benchmarks, added up from counted operations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lvqa.profiling.flops import LanguageCost, VisionCost

H100_FLOPS = 989e12
"""Dense bfloat16 operations a second of an H100 SXM by its data sheet."""
PROMPT_TOKENS = {"embed": 90, "query": 110, "rerank": 130, "answer": 120, "timestamp": 7}
"""Words around the visual tokens, in Qwen's tokens, rounded up."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a benchmark needs, by stage."""

    flops: Mapping[str, float]
    """Stage -> operations, of all videos together."""

    @property
    def total(self) -> float:
        """Operations of all stages."""
        return sum(self.flops.values())

    def seconds(self, shares: Mapping[str, float], peak: float = H100_FLOPS) -> float:
        """On a card of this peak, if each stage reaches its share of it."""
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
    """FreeRet on videos of so many minutes, at one frame a second, with so many questions on each.

    Each pair is encoded once. `clip_first` reads each clip once for all questions (of the whole pool, if the questions
    share none); question first reads it for each.
    """
    pairs = round(minutes * 60) / 2
    clips = pairs / clip_pairs
    cell = vision.patch * vision.merge
    tokens = (height // cell) * (width // cell)
    clip_tokens = clip_pairs * tokens
    reads = min(clips, questions * pool)
    if clip_first:
        asked = PROMPT_TOKENS["rerank"]
        rerank = reads * language.keys_values(clip_tokens) + questions * pool * language.last_position(
            asked, past=clip_tokens
        )
    else:
        rerank = questions * pool * language.last_position(clip_tokens + PROMPT_TOKENS["rerank"])
    rerank += questions * pool * language.head(1, words=2)
    runs = frames / 4
    shown = round(frames / 2 * tokens + runs * PROMPT_TOKENS["timestamp"] + PROMPT_TOKENS["answer"])
    of_one = {
        "encode pairs": pairs * vision.pair(height, width),
        "embed clips": clips * language.last_position(clip_tokens + PROMPT_TOKENS["embed"], with_last_mlp=False),
        "embed questions": questions * language.last_position(PROMPT_TOKENS["query"], with_last_mlp=False),
        "rerank": rerank,
        "answer": questions * (language.last_position(shown) + language.head(1, words=4)),
    }
    return Prediction({stage: videos * flops for stage, flops in of_one.items()})

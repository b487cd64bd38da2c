"""Qwen2.5-Omni, of which the thinker is used: it sees, hears questions and reads, and does not speak."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
from transformers import Qwen2_5OmniThinkerForConditionalGeneration, WhisperFeatureExtractor

from lvqa.models.chat import PromptPart, SpecialToken
from lvqa.models.exclusive import exclusive
from lvqa.models.positions import AudioTokenSpan
from lvqa.models.prompt import AudioTokens, ClipTokens
from lvqa.models.qwen_vl import Qwen25VL

MAX_AUDIO_SECONDS = 300
"""The published feature extractor pads audio with silence to so many seconds."""


class Qwen25Omni(Qwen25VL):
    """Qwen2.5-VL with audio, other special tokens and a temporal axis as fast as its audio (TMRoPE, arXiv 2503.20215).

    The two-second chunks of the paper only set the audio between the pairs; without it the pairs follow each other. A
    question by voice stands by itself, and its positions go on as those of text.
    """

    model_type: ClassVar[str] = "qwen2_5_omni"
    library_class: ClassVar[Any] = Qwen2_5OmniThinkerForConditionalGeneration
    start, end = SpecialToken("<|vision_bos|>"), SpecialToken("<|vision_eos|>")
    audio_start, audio_end = SpecialToken("<|audio_bos|>"), SpecialToken("<|audio_eos|>")
    pad: ClassVar[SpecialToken] = SpecialToken("<|VIDEO|>")
    delimiters: ClassVar[tuple[SpecialToken, ...]] = (start, end, audio_start, audio_end)
    video_in_template: ClassVar[str] = start.text + pad.text + end.text
    audio_pad: ClassVar[SpecialToken | None] = SpecialToken("<|AUDIO|>")

    @property
    def positions_per_second(self) -> float:
        """How many temporal positions a second has: 25, as published, one for the 40 ms of an audio token."""
        return self.library.config.position_id_per_seconds  # type: ignore[no-any-return]

    @exclusive
    def encode_audio(self, samples: np.ndarray) -> AudioTokens:
        """Return the audio tokens, 25 a second, by the library's feature extractor, as published, and its tower."""
        bins = self.library.config.audio_config.num_mel_bins
        extractor: Any = WhisperFeatureExtractor(feature_size=bins, chunk_length=MAX_AUDIO_SECONDS)  # type: ignore[no-untyped-call]
        inputs = extractor(
            samples, sampling_rate=extractor.sampling_rate, return_attention_mask=True, return_tensors="pt"
        ).to(self.device)
        features = inputs.input_features.to(self.library.dtype)
        tokens = self.library.get_audio_features(features, inputs.attention_mask).pooler_output  # (tokens, dim)
        return AudioTokens(tokens[:, None].to(self.device), 1, 1)

    def lay_out(self, clip: ClipTokens) -> Iterator[PromptPart]:
        """Return video as Qwen2.5-VL lays it out; audio stands between delimiters of its own."""
        if isinstance(clip, AudioTokens):
            yield from (self.audio_start, AudioTokenSpan(clip.num_pairs), self.audio_end)
        else:
            yield from super().lay_out(clip)

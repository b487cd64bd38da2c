"""Qwen2.5-Omni, of which the thinker is used: it sees, hears questions and reads, and does not speak."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import torch
from transformers import Qwen2_5OmniThinkerForConditionalGeneration, WhisperFeatureExtractor

from lvqa.models.chat import Shown, Special
from lvqa.models.positions import Heard
from lvqa.models.prompt import AudioTokens, ClipTokens
from lvqa.models.qwen_vl import Qwen25VL

LONGEST_SOUND = 300
"""Seconds, to which the published feature extractor fills a sound up with silence."""


class Qwen25Omni(Qwen25VL):
    """Qwen2.5-VL with ears, other special tokens and a temporal axis as fast as its sound (TMRoPE, arXiv 2503.20215).

    The two-second chunks of the paper only set the sound between the pairs; without it the pairs follow each other. A
    question by voice stands by itself, and its positions go on as those of text.
    """

    model_type: ClassVar[str] = "qwen2_5_omni"
    library_class: ClassVar[Any] = Qwen2_5OmniThinkerForConditionalGeneration
    start, end = Special("<|vision_bos|>"), Special("<|vision_eos|>")
    sound_start, sound_end = Special("<|audio_bos|>"), Special("<|audio_eos|>")
    pad: ClassVar[Special] = Special("<|VIDEO|>")
    delimiters: ClassVar[tuple[Special, ...]] = (start, end, sound_start, sound_end)
    sound_pad: ClassVar[Special | None] = Special("<|AUDIO|>")

    @property
    def positions_per_second(self) -> float:
        """25, as published: the 40 ms of a token of sound."""
        return self._model.config.position_id_per_seconds  # type: ignore[no-any-return]

    @torch.no_grad()
    def encode_audio(self, samples: np.ndarray) -> AudioTokens:
        """By the library's feature extractor, as published, and its tower: 25 tokens a second."""
        bins = self._model.config.audio_config.num_mel_bins
        extractor: Any = WhisperFeatureExtractor(feature_size=bins, chunk_length=LONGEST_SOUND)  # type: ignore[no-untyped-call]
        heard = extractor(
            samples, sampling_rate=extractor.sampling_rate, return_attention_mask=True, return_tensors="pt"
        ).to(self.device)
        features = heard.input_features.to(self._model.dtype)
        tokens = self._model.get_audio_features(features, heard.attention_mask).pooler_output  # (tokens, dim)
        return AudioTokens(tokens[:, None], 1, 1)

    def show(self, block: ClipTokens) -> Iterator[Shown]:
        """As Qwen2.5-VL shows film; sound between delimiters of its own."""
        if isinstance(block, AudioTokens):
            yield from (self.sound_start, Heard(block.num_pairs), self.sound_end)
        else:
            yield from super().show(block)

"""Qwen2.5-Omni, of which the thinker's eyes and words are used: it neither hears nor speaks here."""

from __future__ import annotations

from typing import Any, ClassVar

from transformers import Qwen2_5OmniThinkerForConditionalGeneration

from lvqa.backbones.chat import Special
from lvqa.backbones.qwen_vl import Qwen25VL


class Qwen25Omni(Qwen25VL):
    """Qwen2.5-VL with other special tokens and a temporal axis as fast as its sound (TMRoPE, arXiv 2503.20215).

    The two-second chunks of the paper only set the sound between the pairs; without it the pairs follow each other.
    """

    model_type: ClassVar[str] = "qwen2_5_omni"
    library_class: ClassVar[Any] = Qwen2_5OmniThinkerForConditionalGeneration
    start, end = Special("<|vision_bos|>"), Special("<|vision_eos|>")
    pad, delimiters = Special("<|VIDEO|>"), (start, end)

    @property
    def positions_per_second(self) -> float:
        """25, as published: the 40 ms of a token of sound."""
        return self._model.config.position_id_per_seconds  # type: ignore[no-any-return]

"""The embedded model's tokenizer, built once a process."""

from __future__ import annotations

import functools

from transformers import PreTrainedTokenizerFast

from tiny.model import build_tokenizer


@functools.cache
def tiny_tokenizer() -> PreTrainedTokenizerFast:
    return build_tokenizer()

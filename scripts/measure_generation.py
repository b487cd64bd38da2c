"""Measure how fast replies are written, beside the library's `generate`: `python scripts/measure_generation.py`.

Both write as many tokens to the same text prompts, in turn, after a round that is not counted; the library attends by
its own code. Printed are tokens by processor time and by wall time, medians of the rounds, and the library's to ours.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch

from lvqa.models import load_model
from lvqa.models.chat import collate
from lvqa.models.decoder import Decoder
from lvqa.models.prompt import Prompt
from lvqa.models.random_weights import random_model
from lvqa.models.reference import own_attention

WORDS = ["the", "red", "car", "goes", "left", "and", "a", "blue", "ball", "falls", "down", "near", "the", "door"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, help="3B's widths with random weights and so many layers; else tiny")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--words", type=int, default=30, help="words of the longest prompt; others are shorter")
    parser.add_argument("--tokens", type=int, default=64, help="tokens of a reply")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    a = parser.parse_args()
    options = {"device": a.device, "dtype": a.dtype}
    random = {"layers": a.layers, "vision_layers": 1, **options}
    model = load_model("tiny", **options) if a.layers is None else random_model("3b", **random)
    assert isinstance(model, Decoder)
    # What no reply has ends replies, so that all have the same length.
    model.tokenizer.eos_token = model.pad.text
    model.library.generation_config.eos_token_id = model.tokenizer.eos_token_id
    for batch in a.batches:
        measure(model, batch, num_words=a.words, num_tokens=a.tokens, rounds=a.rounds)


def measure(model: Decoder, batch: int, *, num_words: int, num_tokens: int, rounds: int) -> None:
    """Print the rates of both for a batch of so many prompts."""
    rng = np.random.default_rng(0)
    prompts: list[Prompt] = [(" ".join(rng.choice(WORDS, max(1, num_words - 2 * i))),) for i in range(batch)]
    arms = {
        "lvqa": lambda: model.generate(prompts, max_new_tokens=num_tokens),
        "library": lambda: generate_by_library(model, prompts, num_tokens),
    }
    taken = in_turn(arms, rounds)
    total = batch * num_tokens
    print(f"{model.name}, {model.dtype}, {batch} prompts of up to {num_words} words, {num_tokens} tokens each:")
    for name, seconds in taken.items():
        processor, wall = (total / statistics.median(column) for column in zip(*seconds, strict=True))
        print(f"  {name:8} {processor:8.1f} tokens a processor second, {wall:8.1f} tokens a second", flush=True)
    ratios = [theirs[0] / ours[0] for ours, theirs in zip(taken["lvqa"], taken["library"], strict=True)]
    print(f"  library to lvqa by processor time: {statistics.median(ratios):.2f}", flush=True)


def generate_by_library(model: Decoder, prompts: Sequence[Prompt], num_tokens: int) -> None:
    """Let the library's own `generate` write replies to the same tokens."""
    batch = collate([model.encode_prompt(prompt) for prompt in prompts])
    mask = torch.ones_like(batch.ids) if batch.attention_mask is None else batch.attention_mask.long()
    ids, mask = batch.ids.to(model.device), mask.to(model.device)
    bounds = {"max_new_tokens": num_tokens, "min_new_tokens": num_tokens, "do_sample": False, "pad_token_id": 0}
    with torch.no_grad(), own_attention(model.library):
        model.library.generate(input_ids=ids, attention_mask=mask, eos_token_id=None, **bounds)


def in_turn(arms: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[tuple[float, float]]]:
    """Return processor and wall time of each arm in each round but the first."""
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in arms}
    for i in range(rounds + 1):
        for name, work in arms.items():
            processor, wall = time.process_time(), time.perf_counter()
            work()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if i:
                taken[name].append((time.process_time() - processor, time.perf_counter() - wall))
    return taken


if __name__ == "__main__":
    main()

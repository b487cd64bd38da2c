"""Measure what it takes to keep an hour of visual tokens on disk: `python scripts/measure_token_file.py FOLDER VIDEO`.

Tokens of a few pairs are computed with random weights in the real widths, as bfloat16, and written and read as if they
were those of 1,800 pairs an hour, with compression and without, in turn. Seconds are those of the processor and, in
brackets, those of the clock, medians of --rounds; the file is dropped from the system's memory before it is read.
Random weights leave out what trained ones do to the numbers' exponents, so real tokens compress otherwise.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

import torch

from lvqa.models.random_weights import SHAPES, random_model
from lvqa.token_file import TokenBound, TokenFile
from lvqa.video import FrameGrid, inspect_video
from lvqa.visual_tokens import VisualTokens
from measure_second_process import drop_from_memory

PAIRS_PER_HOUR, NUM_ENCODED = 1800, 12
BOUND = TokenBound(32 << 30)
FORMS = {"as it is": 4, "compressed": 2}
"""How tokens are written, and the size of a number with which a file does that."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the files are written")
    parser.add_argument("video", type=Path, help="the video whose first frames are encoded")
    parser.add_argument("--sizes", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--vision-layers", type=int, default=2)
    parser.add_argument("--hours", type=int, default=1, help="how long the video is of which tokens are kept")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    path = arguments.folder / "hour.tokens"
    num_pairs = arguments.hours * PAIRS_PER_HOUR
    for size in arguments.sizes:
        width, data = encoded_pairs(size, arguments.vision_layers, arguments.video)
        runs: dict[str, list[tuple[float, ...]]] = {form: [] for form in FORMS}
        sizes = {}
        for _ in range(arguments.rounds):
            for form, element_bytes in FORMS.items():
                file = TokenFile(path, num_pairs=num_pairs, width=width, bound=BOUND, element_bytes=element_bytes)
                written = seconds_of(partial(write, file, data, num_pairs))
                drop_from_memory(arguments.folder)
                runs[form].append((*written, *seconds_of(partial(read, file, num_pairs))))
                sizes[form] = path.stat().st_blocks * 512
                file.close()
                path.unlink()
        for form, rounds in runs.items():
            written, written_wall, was_read, read_wall = map(median, zip(*rounds, strict=True))
            ratio = num_pairs * len(data[0]) / sizes[form]
            print(
                f"{size} {form}: {sizes[form] / 2**30:.2f} GiB ({ratio:.2f}), written in {written:.2f} s "
                f"({written_wall:.2f}), read in {was_read:.2f} s ({read_wall:.2f})",
                flush=True,
            )


def encoded_pairs(size: str, vision_layers: int, path: Path) -> tuple[int, list[bytes]]:
    """Return the model's width, and what is written for the first pairs of the video."""
    model = random_model(size, layers=1, vision_layers=vision_layers, dtype="float32")
    video = inspect_video(path)
    grid = FrameGrid.exact(video, 1.0)
    tokens = VisualTokens(video, grid, model).stream([[grid.pair(i)] for i in range(NUM_ENCODED)])
    return model.dim, [pair.cpu().bfloat16().view(torch.uint8).numpy().tobytes() + b"\0" for (pair,) in tokens]


def write(file: TokenFile, data: list[bytes], num_pairs: int) -> None:
    for first in range(0, num_pairs, 8):
        file.write({number: data[number % len(data)] for number in range(first, first + 8)})


def read(file: TokenFile, num_pairs: int) -> None:
    if any(file.read(number) is None for number in range(num_pairs)):
        raise OSError("a pair was not kept")


def seconds_of(work: Callable[[], None]) -> tuple[float, float]:
    """Return the processor seconds of some work, and those of the clock."""
    started, clock = time.process_time(), time.perf_counter()
    work()
    return time.process_time() - started, time.perf_counter() - clock


if __name__ == "__main__":
    main()

"""Train the embedded model: `python scripts/train_tiny.py`. It goes on where an interrupted run stopped.

Writes `log.jsonl` and `checkpoint.pt` into --folder, and at the end the weights into --weights.
lvqa/synthetic/README.md has the recipe and what was measured.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import replace
from pathlib import Path

import torch

from lvqa.synthetic.build import WEIGHTS, save
from lvqa.synthetic.training import CURRICULUM, Course


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("runs/train_tiny"), help="log and checkpoint")
    parser.add_argument("--weights", type=Path, default=WEIGHTS, help="where the trained model goes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=1, help="on a CPU: more than one is rarely quicker")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes that film and write the lessons")
    parser.add_argument("--tower", type=Path, help="a model whose vision tower and words are taken over")
    parser.add_argument("--scale", type=float, default=1.0, help="share of each stage's steps, for a trial")
    arguments = parser.parse_args()

    torch.set_num_threads(arguments.threads)
    stages = [replace(stage, steps=max(1, round(stage.steps * arguments.scale))) for stage in CURRICULUM]
    if arguments.tower is not None:
        stages = [stage for stage in stages if stage.mix]
    course = Course(
        arguments.folder, seed=arguments.seed, device=arguments.device, stages=stages, workers=arguments.workers
    )
    if arguments.tower is not None:
        course.take_tower(arguments.tower)
    course.run()
    save(course.model, course.tokenizer, arguments.weights)
    print(f"wrote {arguments.weights}")


if __name__ == "__main__":
    main()

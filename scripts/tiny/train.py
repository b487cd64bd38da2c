"""Train the embedded model: `python scripts/tiny/train.py`. An interrupted run is resumed.

Writes `log.jsonl` and `checkpoint.pt` into --folder, and at the end the weights into --weights.
scripts/tiny/README.md has the recipe and the measurements.
"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import replace
from pathlib import Path

import torch

# Python puts the folder of this file on the path; the package is one level above.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tiny.curriculum import CURRICULUM
from tiny.model import WEIGHTS, save
from tiny.trainer import Trainer


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("runs/train_tiny"), help="where log and checkpoint go")
    parser.add_argument("--weights", type=Path, default=WEIGHTS, help="where the trained model goes")
    parser.add_argument("--seed", type=int, default=0, help="random seed of weights and data")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="where to train")
    parser.add_argument("--threads", type=int, default=1, help="threads on a CPU; more than one is rarely faster")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes that make the training data")
    parser.add_argument("--tower", type=Path, help="folder of a model whose vision tower and word vectors are used")
    parser.add_argument("--scale", type=float, default=1.0, help="share of each stage's steps to run, for a trial")
    return parser.parse_args()


def main() -> None:
    """Train the model, and write its weights."""
    arguments = parse_arguments()
    torch.set_num_threads(arguments.threads)
    stages = [replace(stage, steps=max(1, round(stage.steps * arguments.scale))) for stage in CURRICULUM]
    if arguments.tower is not None:
        stages = [stage for stage in stages if stage.mix]
    trainer = Trainer(
        arguments.folder, seed=arguments.seed, device=arguments.device, stages=stages, workers=arguments.workers
    )
    if arguments.tower is not None:
        trainer.load_tower(arguments.tower)
    trainer.run()
    save(trainer.model, trainer.tokenizer, arguments.weights)
    print(f"wrote {arguments.weights}")


if __name__ == "__main__":
    main()

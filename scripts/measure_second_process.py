"""Measure what a second process needs for an indexed video: `python scripts/measure_second_process.py FOLDER VIDEO`.

Each step is a process of its own on one store, with random weights in a real width: index and answer; index with
another `embedding.state`, which needs all visual tokens; answer again with the first settings; answer without tokens
on the disk. Before each step the system drops the store's files from memory, so that they come from the disk. Scores,
frames and letters of all steps with the same settings must be equal to the last bit.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

STEPS = {
    "index and answer": [],
    "index with another state": ["embedding.state=mlp"],
    "answer": [],
    "answer without tokens on the disk": ["store.disk_mib=0"],
}
"""The steps in order, with the settings that they change."""
QUESTION, OPTIONS = "What happens after the door is closed?", ("a ball falls", "a bell rings")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the store is; it must be new")
    parser.add_argument("video", type=Path)
    parser.add_argument("--size", default="3b")
    parser.add_argument("--layers", type=int, default=2, help="of the language model and of the tower")
    parser.add_argument("-s", "--set", action="append", default=[], metavar="KEY=VALUE", help="change a setting")
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.step:
        print(json.dumps(run_step(arguments, arguments.step)))
        return
    arguments.folder.mkdir(parents=True)
    answers = {}
    for step, changes in STEPS.items():
        drop_from_memory(arguments.folder)
        command = [sys.executable, *sys.argv, "--step", step]
        output = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
        result = json.loads(output.splitlines()[-1])
        print(json.dumps(result), flush=True)
        if "embedding.state=mlp" not in changes:
            answers[step] = result["bits"]
    assert len(set(answers.values())) == 1, f"the steps differ: {answers}"


def run_step(arguments: argparse.Namespace, step: str) -> dict[str, Any]:
    """Return what a step counted, and how long it took."""
    from lvqa import LongVideoQA
    from lvqa.config import load_config
    from lvqa.models.random_weights import random_model

    options = {"layers": arguments.layers, "vision_layers": arguments.layers, "dtype": "float32"}
    model = random_model(arguments.size, device="cpu", **options)
    overrides = [f"store.folder={arguments.folder / 'store'}", *arguments.set, *STEPS[step]]
    qa = LongVideoQA(model, load_config(overrides=overrides))
    result: dict[str, Any] = {"step": step}
    started, processor = time.perf_counter(), time.process_time()
    qa.index(arguments.video)
    if step != "index with another state":
        result["seconds to index"] = round(time.perf_counter() - started, 1)
        answer = qa.ask(arguments.video, QUESTION, options=OPTIONS)
        evidence = [(c.clip.start_seconds, c.embed_score, c.rerank_score) for c in answer.evidence]
        seen = repr((evidence, answer.frames, answer.text, answer.option_scores))
        result["bits"] = hashlib.sha256(seen.encode()).hexdigest()[:16]
        result["stages"] = {stage: round(seconds, 2) for stage, seconds in answer.seconds.items()}
    spent = model.counts
    result |= {"frames decoded": spent.frames_decoded, "pairs encoded": spent.pairs_encoded}
    result |= {"seconds": round(time.perf_counter() - started, 1)}
    result |= {"processor seconds": round(time.process_time() - processor, 1)}
    return result


def drop_from_memory(folder: Path) -> None:
    """Have the system drop files from memory, so that they are read from the disk; first they are written out."""
    os.sync()
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


if __name__ == "__main__":
    main()

"""Measure on one GPU, in at most eight minutes, all that lvqa's speed there rests on; print one JSON object.

    python scripts/gpu_check.py --save gpu.json         random weights of Qwen2.5-VL-7B's shape, in full depth
    python scripts/gpu_check.py --model DIR|ID          a model of your own

Without a GPU it runs at 3B's widths with one layer of each kind, which tries the script and says nothing about a GPU.
The parts are listed in PARTS. One that fails, or that the time no longer suffices for, is in `left_out` with the
reason, and the others go on.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch

from lvqa import LongVideoQA, __version__
from lvqa.config import load_config
from lvqa.models import gpu
from lvqa.models.devices import best_device
from lvqa.models.prompt import ClipTokens
from lvqa.models.quantisation import quantisation_config, weight_bytes
from lvqa.models.qwen_vl import Qwen25VL
from lvqa.models.random_weights import random_model
from lvqa.profiling import BenchReport, BenchSettings, measure
from lvqa.profiling.machine import machine_name, synchronize
from lvqa.profiling.prediction import LVBENCH_VIDEOS, predict_lvbench
from lvqa.provenance import git_state, versions

STAGES = ("encode pairs", "embed clips", "index clips", "rerank, question first", "rerank, clip first", "answer")
FRAME = (360, 640)
"""The height and width of a video's frames, before they are scaled for the model."""
NUM_REPLIES, REPLY_TOKENS = 8, 32
RATE = 25
SECONDS_AT_ONCE = 20
"""So much of a video is encoded; the rest repeats it."""


@dataclass
class Check:
    """What is measured, and what was found so far."""

    make: Callable[[], Qwen25VL]
    """Loads the model."""
    settings: BenchSettings
    minutes: float
    """How long the video is that is indexed."""
    shape: str | None
    """The shape of the random weights; None: the model has its own."""
    stages: BenchReport | None = None
    parts: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.model = self.make()

    def seconds(self, run: Callable[[], object], *, repeats: int = 3) -> float:
        """Return the median of some runs, after one that does not count."""
        run()
        times = []
        for _ in range(repeats):
            synchronize(self.model.device)
            started = time.perf_counter()
            run()
            synchronize(self.model.device)
            times.append(time.perf_counter() - started)
        return statistics.median(times)


def stages(check: Check) -> dict[str, Any]:
    """Measure every stage in batches of clips and of questions: its share of the measured product, LVBench's time."""
    report = check.stages = measure(check.model, None, check.settings)
    figures: dict[str, Any] = {
        result.name: {
            "unit": result.unit,
            "units": result.units,
            "seconds": result.seconds,
            "units_per_second": result.units_per_second,
            "share_of_product": result.share_of_ceiling,
        }
        for result in report.results
    }
    product = figures["matrix product"]
    product["tflops"] = report.product_rate / 1e12
    if check.shape is not None:
        videos = predict_lvbench(report, check.shape)
        hours = {layout: LVBENCH_VIDEOS * video.seconds / 3600 for layout, video in videos.items()}
        figures["lvbench_hours"] = hours
    return figures


def aligned_rows(check: Check) -> dict[str, Any]:
    """Compare the vision tower with MLPs of 3,420 rows and with rows filled up to a multiple of 8."""
    plain = deepcopy(check.model.library.model.visual)
    if check.model.device.type == "cuda":
        for block in plain.blocks:  # they were filled up as the model was loaded
            cut_rows(block.mlp, check.model.library.config.vision_config.intermediate_size)
    filled = deepcopy(plain)
    gpu.fit(filled)
    states = torch.randn(4096, plain.blocks[0].mlp.gate_proj.in_features, device=check.model.device)
    states = states.to(check.model.library.dtype)
    run = {"rows_as_they_are": plain.blocks[0].mlp, "rows_filled_up": filled.blocks[0].mlp}
    with torch.no_grad():
        seconds = {name: check.seconds(lambda mlp=mlp: [mlp(states) for _ in range(20)]) for name, mlp in run.items()}
    return {**seconds, "ratio": seconds["rows_as_they_are"] / seconds["rows_filled_up"]}


def cut_rows(mlp: Any, rows: int) -> None:
    """Take the zeros away that `gpu.fit` has filled an MLP up with."""
    for linear in (mlp.gate_proj, mlp.up_proj):
        linear.weight = torch.nn.Parameter(linear.weight[:rows].clone(), requires_grad=False)
        if linear.bias is not None:
            linear.bias = torch.nn.Parameter(linear.bias[:rows].clone(), requires_grad=False)
    mlp.down_proj.weight = torch.nn.Parameter(mlp.down_proj.weight[:, :rows].clone(), requires_grad=False)


def replies(check: Check) -> dict[str, Any]:
    """Write free answers to eight questions on one clip: one by one, and together."""
    model = check.model
    height, width = model.frame_size(*FRAME, max_pixels=model.max_pixels)
    pixels = np.random.default_rng(0).integers(0, 256, (8, 2, height, width, 3), dtype=np.uint8)
    clip = ClipTokens(model.encode_pairs(pixels), *model.token_grid(height, width))
    whole = [(clip, f"What is seen {'and done ' * i}here?") for i in range(NUM_REPLIES)]

    def rate(batches: list[list[Any]]) -> float:
        """Return the tokens a second."""
        tokens: list[int] = []
        model.generate(whole, max_new_tokens=REPLY_TOKENS, on_token=lambda _, token, __: tokens.append(token))
        seconds = check.seconds(lambda: [model.generate(batch, max_new_tokens=REPLY_TOKENS) for batch in batches])
        return len(tokens) / seconds

    one, together = rate([[prompt] for prompt in whole]), rate([whole])
    return {"tokens_per_second": {"one by one": one, "together": together}, "ratio": together / one}


def hour(check: Check) -> dict[str, Any]:
    """Index a video of an hour, 640 x 360 in H.264, from the file to the vectors."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "hour.mp4"
        write_long_video(path, minutes=check.minutes)
        qa = LongVideoQA(check.model, load_config(overrides=[f"store.folder={folder}/store"]))
        started = time.perf_counter()
        use = qa.index(path)
        synchronize(check.model.device)
        seconds = time.perf_counter() - started
    return {"minutes": check.minutes, "seconds": seconds, "clips": use.clips, "clips_per_second": use.clips / seconds}


def fewer_bits(check: Check) -> dict[str, Any]:
    """Pack the language model of a second copy in fp8, and measure its stages and how far its vectors are."""
    from torchao.quantization import quantize_

    if check.stages is None:
        raise RuntimeError("the stages were not measured before")
    packed = check.make()
    plain_bytes = sum(weight.nbytes for weight in packed.library.parameters())
    way = quantisation_config("fp8", name=packed.name, config={}, dtype=packed.dtype)
    quantize_(packed.library.model.language_model, way.get_apply_tensor_subclass())
    report = measure(packed, None, check.settings)
    text = [("a red car goes left",), ("two balls fall down near the door",)]
    vectors = [model.last_hidden_states(text) for model in (check.model, packed)]
    return {
        "gigabytes": {"plain": plain_bytes / 1e9, "fp8": sum(map(weight_bytes, packed.library.parameters())) / 1e9},
        "cosine": float(torch.cosine_similarity(*vectors).min()),
        "times_as_fast": {name: check.stages.result(name).seconds / report.result(name).seconds for name in STAGES},
    }


def compiled(check: Check) -> dict[str, Any]:
    """Compile the layers, and measure the stages again: the last part, for the model stays compiled."""
    if check.stages is None:
        raise RuntimeError("the stages were not measured before")
    started = time.perf_counter()
    check.model.compile()
    report = measure(check.model, None, check.settings)
    before = {name: check.stages.result(name).seconds for name in STAGES}
    return {
        "seconds_with_compiling": time.perf_counter() - started,
        "times_as_fast": {name: before[name] / report.result(name).seconds for name in STAGES},
    }


PARTS: dict[str, Callable[[Check], dict[str, Any]]] = {
    "stages": stages,
    "aligned rows": aligned_rows,
    "replies": replies,
    "hour": hour,
    "fewer bits": fewer_bits,
    "compiled": compiled,
}
"""What is measured, in this order."""


def write_long_video(path: Path, *, minutes: float) -> None:
    """Write a video as long as this: some seconds are encoded, and their packets follow each other again and again."""
    rng = np.random.default_rng(0)
    picture = np.kron(rng.integers(0, 256, (45, 120, 3), dtype=np.uint8), np.ones((8, 8, 1), np.uint8))
    num_frames = RATE * SECONDS_AT_ONCE
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=RATE, options={"preset": "veryfast", "g": "250"})
        stream.width, stream.height, stream.pix_fmt = 640, 360, "yuv420p"
        packets = []
        for i in range(num_frames):
            pixels = np.ascontiguousarray(picture[:, i % 320 : i % 320 + 640])
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = i, Fraction(1, RATE)
            packets += stream.encode(frame)
        packets += stream.encode(None)
        taken = [(bytes(packet), packet.pts, packet.dts, packet.is_keyframe, packet.time_base) for packet in packets]
        for lap in range(max(1, round(minutes * 60 / SECONDS_AT_ONCE))):
            for data, pts, dts, is_keyframe, time_base in taken:
                offset = round(lap * SECONDS_AT_ONCE / time_base)
                packet = av.Packet(data)
                packet.stream, packet.time_base, packet.is_keyframe = stream, time_base, is_keyframe
                packet.pts, packet.dts = pts + offset, dts + offset
                container.mux(packet)


def run_parts(check: Check, *, limit_seconds: float) -> dict[str, Any]:
    """Run all parts that the time suffices for, and return what they found."""
    started, left_out = time.perf_counter(), dict[str, str]()
    for name, part in PARTS.items():
        since = time.perf_counter()
        if since - started > limit_seconds:
            left_out[name] = f"{limit_seconds:g} s are over"
            continue
        print(f"{since - started:5.0f} s: {name}", file=sys.stderr, flush=True)
        try:
            check.parts[name] = {**part(check), "took_seconds": time.perf_counter() - since}
        except Exception as error:  # whatever it is, the other parts go on
            left_out[name] = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        if check.model.device.type == "cuda":
            torch.cuda.empty_cache()
    return {
        "lvqa": __version__,
        "git": git_state(),
        "versions": versions(),
        "machine": machine_name(check.model.device),
        "device": str(check.model.device),
        "model": check.model.name,
        "dtype": str(check.model.dtype).removeprefix("torch."),
        "seconds": time.perf_counter() - started,
        "parts": check.parts,
        "left_out": left_out,
    }


def main() -> None:
    """Load the model, run the parts, print and write the JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a Qwen2.5-VL of your own, in place of random weights")
    parser.add_argument("--random", choices=("3b", "7b"), help="the shape of the random weights")
    parser.add_argument("--device", help="as torch names it; by default the best there is")
    parser.add_argument("--limit-seconds", type=float, default=480, help="no part begins after so many seconds")
    parser.add_argument("--save", type=Path, help="write the JSON object to this file too")
    arguments = parser.parse_args()

    device = best_device(arguments.device)
    is_small = device.type == "cpu"
    shape = None if arguments.model else arguments.random or ("3b" if is_small else "7b")
    layers = 1 if is_small else None

    def make() -> Qwen25VL:
        if shape is None:
            return Qwen25VL.load(arguments.model, device=str(device))
        return random_model(shape, layers=layers, vision_layers=layers, device=str(device))

    if is_small:
        settings = BenchSettings(clips=2, questions=2, frames=8, repeats=1, baselines=False)
    else:
        settings = BenchSettings(clips=50, questions=15, frames=32, repeats=5, baselines=False)
    check = Check(make, settings, 1 if is_small else 60, shape)
    text = json.dumps(run_parts(check, limit_seconds=arguments.limit_seconds), indent=1)
    print(text)
    if arguments.save:
        arguments.save.write_text(text + "\n")


if __name__ == "__main__":
    main()

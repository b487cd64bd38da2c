"""`lvqa bench`: measure every stage, and compare it with its lower bound and with baselines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lvqa.cli.main import silence_libraries
from lvqa.cli.terminal import Location, echo_message, one_line, print_json

if TYPE_CHECKING:
    from lvqa.models.qwen_vl import Qwen25VL
    from lvqa.profiling import BenchReport, TaskResult


@click.command(short_help="Measure how long each stage of the work takes.")
@click.argument("video", metavar="[VIDEO]", type=Location(), required=False)
@click.option("--model", metavar="ID|DIR|tiny", help="The Qwen2.5-VL to measure.  [default: tiny]")
@click.option("--random", "shape", metavar="3b|7b", help="Measure random weights of Qwen2.5-VL's real widths instead.")
@click.option("--layers", type=int, metavar="N", help="Number of language layers with --random; default: all.")
@click.option("--vision-layers", type=int, metavar="N", help="Number of vision layers with --random; default: all.")
@click.option("--device", metavar="NAME", help='The device as torch names it: "cpu", "cuda:0".')
@click.option("--dtype", metavar="NAME", help="The type of the weights: bfloat16, float16 or float32.")
@click.option("--compile", "compiled", is_flag=True, help="Compile the model's layers.")
@click.option("--minutes", type=float, default=2, show_default=True, help="Minutes of the video to decode.")
@click.option("--clips", type=int, default=4, show_default=True, help="Number of clips to embed and rerank.")
@click.option("--baseline-clips", type=int, default=4, show_default=True, help="Number of clips for the baselines.")
@click.option("--questions", type=int, default=15, show_default=True, help="Number of questions to rerank and answer.")
@click.option("--frames", type=int, default=32, show_default=True, help="Number of frames that an answer is given.")
@click.option("--repeats", type=int, default=5, show_default=True, help="Number of rounds; the median is printed.")
@click.option("--baselines/--no-baselines", default=True, show_default=True, help="Whether to measure the baselines.")
@click.option("--only", multiple=True, metavar="NAME", help="Measure only the task of this name; may be repeated.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--save", metavar="F.json", type=click.Path(path_type=Path), help="Write the JSON object to this file.")
@click.option("--quiet", is_flag=True, help="Show no progress.")
def bench(
    *,
    video: Path | None,
    model: str | None,
    shape: str | None,
    layers: int | None,
    vision_layers: int | None,
    device: str | None,
    dtype: str | None,
    compiled: bool,
    as_json: bool,
    save: Path | None,
    quiet: bool,
    **settings: Any,
) -> None:
    """Measure each stage on the start of VIDEO: its lower bound, its measured cost, and how long it takes.

    The machine's own ceilings are measured in the same rounds: a large matrix product, and decoding every frame.
    Without VIDEO the frames are noise, and reading is left out.
    """
    from lvqa.profiling import BenchSettings, measure
    from lvqa.video import inspect_video

    checked_settings = BenchSettings(**settings)
    inspected = None if video is None else inspect_video(video)
    silence_libraries(downloads=False)
    loaded = _load(model, shape, layers=layers, vision_layers=vision_layers, device=device, dtype=dtype)
    if compiled:
        loaded.compile()
    report = measure(loaded, inspected, checked_settings, progress=(lambda _: None) if quiet else echo_message)
    if as_json:
        print_json(report.as_json())
    else:
        click.echo(table(report))
        if shape is not None and not checked_settings.only:
            click.echo("\n" + whole_benchmark(report, shape))
    if save is not None:  # last, since it may fail
        from lvqa.report.page import write_file

        write_file(save, json.dumps(report.as_json()).encode())


def _load(
    model: str | None,
    shape: str | None,
    *,
    layers: int | None,
    vision_layers: int | None,
    device: str | None,
    dtype: str | None,
) -> Qwen25VL:
    from lvqa.models.qwen_vl import Qwen25VL
    from lvqa.models.random_weights import random_model
    from lvqa.records import LvqaError

    if shape is None:
        if layers is not None or vision_layers is not None:
            raise LvqaError("--layers and --vision-layers need --random; a trained model has the layers that it has")
        return Qwen25VL.load(model or "tiny", device=device, dtype=dtype)
    if model is not None:
        raise LvqaError(f"--model {model} and --random {shape} exclude each other; leave one of them out")
    return random_model(shape, layers=layers, vision_layers=vision_layers, device=device, dtype=dtype)


def whole_benchmark(
    report: BenchReport, shape: str, *, minutes: float = 68, questions: int = 15, videos: int = 103
) -> str:
    """Return the operations of LVBench's size with all layers, and the time that follows for the device measured."""
    from lvqa.models.random_weights import real_config
    from lvqa.profiling import predict
    from lvqa.profiling.flops import LanguageCost, VisionCost
    from lvqa.profiling.stages import MATRIX

    config = real_config(shape)
    costs = LanguageCost.from_config(config.text_config), VisionCost.from_config(config.vision_config)
    height, width = report.frame_size
    frames, product = report.settings.frames, report.result(MATRIX)
    rate = product.lower_bound_flops / product.seconds
    lines = [
        f"LVBench with {shape} in full depth: {videos} videos of {minutes:g} minutes, {questions} questions each, "
        f"a pool of 50, {frames} frames;",
        f"here, if each stage has its share of the product above, {rate / 1e12:.3g} TFLOP/s, in full depth too",
    ]
    for layout in ("question first", "clip first"):
        prediction = predict(
            *costs,
            height=height,
            width=width,
            minutes=minutes,
            questions=questions,
            frames=frames,
            clip_first=layout == "clip first",
        )
        seconds = prediction.seconds(_shares(report, layout), rate)
        stages = ", ".join(f"{stage} {flops / 1e15:.3g}" for stage, flops in prediction.flops.items())
        lines.append(
            f"  {layout}: a video {prediction.total / 1e15:.3g} PFLOP ({stages}), {seconds:.0f} s; "
            f"all of it {videos * prediction.total / 1e18:.3g} EFLOP, {videos * seconds / 3600:.1f} h"
        )
    return "\n".join(lines)


def _shares(report: BenchReport, layout: str) -> dict[str, float]:
    """Return the share of the ceiling that each stage of a prediction has reached."""
    tasks = {
        "encode pairs": "encode pairs",
        "embed clips": "embed clips",
        "embed questions": "embed clips",
        "rerank": f"rerank, {layout}",
        "answer": "answer",
    }
    return {stage: report.result(task).share_of_ceiling or 1.0 for stage, task in tasks.items()}


def table(report: BenchReport) -> str:
    """Return the results in columns."""
    height, width = report.frame_size
    lines = [
        f"{one_line(report.video)}, frames of {height} x {width}; {report.model}",
        f"{report.machine}, {report.threads} threads; medians of {report.settings.repeats}",
        "",
        f"{'':26}{'units':>8} {'unit':18}{'seconds':>9}{'CPU s':>9}{'a second':>10}"
        f"{'MB in':>9}{'GFLOP bound':>13}{'measured':>10}{'of ceiling':>12}",
    ]
    lines += [_row(result) for result in report.results]
    lines += ["", *(f"{name}: {ratio:.2f} times" for name, ratio in report.ratios.items())]
    return "\n".join(lines)


def _row(result: TaskResult) -> str:
    bound = f"{result.lower_bound_flops / 1e9:.1f}" if result.lower_bound_flops else ""
    measured = f"{result.measured_flops / 1e9:.1f}" if result.measured_flops else ""
    size = f"{result.lower_bound_bytes / 1e6:.1f}" if result.lower_bound_bytes else ""
    share = "" if result.share_of_ceiling is None else f"{result.share_of_ceiling:.0%}"
    return (
        f"{result.name:26}{result.units:8} {result.unit:18}{result.seconds:9.3f}{result.processor_seconds:9.2f}"
        f"{result.units_per_second:10.2f}{size:>9}{bound:>13}{measured:>10}{share:>12}"
    )

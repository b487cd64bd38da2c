"""`lvqa bench`: measure every stage, and compare it with its lower bound and with baselines."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from lvqa.cli.main import silence_libraries
from lvqa.cli.terminal import Location, echo_message, one_line, print_json

if TYPE_CHECKING:
    from lvqa.models.qwen_vl import Qwen25VL
    from lvqa.profiling import BenchReport, Comparison, TaskResult


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
@click.option(
    "--compare",
    "revisions",
    multiple=True,
    metavar="REVISION",
    help="Measure this commit, tag or branch of lvqa's checkout in turn with this one; may be repeated.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--save", metavar="F.json", type=click.Path(path_type=Path), help="Write the JSON object to this file.")
@click.option("--quiet", is_flag=True, help="Show no progress.")
@click.pass_context
def bench(
    context: click.Context,
    /,
    *,
    video: Path | None,
    model: str | None,
    shape: str | None,
    layers: int | None,
    vision_layers: int | None,
    device: str | None,
    dtype: str | None,
    compiled: bool,
    revisions: tuple[str, ...],
    as_json: bool,
    save: Path | None,
    quiet: bool,
    **settings: Any,
) -> None:
    """Measure each stage on the start of VIDEO: its lower bound, its measured cost, and how long it takes.

    The machine's own ceilings are measured in the same rounds: a large matrix product, and decoding every frame.
    Without VIDEO the frames are noise, and reading is left out. With --compare, --repeats is the number of rounds, and
    the ratios say how many times as long each revision takes.
    """
    silence_libraries(downloads=False)
    from lvqa.profiling import BenchSettings, compare, measure
    from lvqa.video import inspect_video

    checked_settings = BenchSettings(**settings)
    progress = (lambda _: None) if quiet else echo_message
    if revisions:
        rounds = checked_settings.repeats
        comparison = compare(
            revisions,
            _given_arguments(context),
            rounds=rounds,
            progress=progress,
            on_round=lambda so_far: _save(so_far.as_json(), save),  # a comparison may take hours
        )
        _print(comparison.as_json(), ratio_table(comparison), as_json=as_json)
        return
    inspected = None if video is None else inspect_video(video)
    loaded = _load(model, shape, layers=layers, vision_layers=vision_layers, device=device, dtype=dtype)
    if compiled:
        loaded.compile()
    report = measure(loaded, inspected, checked_settings, progress=progress)
    text = table(report)
    if shape is not None and not checked_settings.only:
        text += "\n\n" + whole_benchmark(report, shape)
    values = report.as_json()
    _print(values, text, as_json=as_json)
    _save(values, save)  # last, since it may fail


def _print(report: dict[str, Any], text: str, *, as_json: bool) -> None:
    """Print a report as JSON or as text."""
    if as_json:
        print_json(report)
    else:
        click.echo(text)


def _save(report: dict[str, Any], path: Path | None) -> None:
    """Write a report to a file, if one is wanted."""
    if path is not None:
        from lvqa.report.page import write_file

        write_file(path, json.dumps(report).encode())


def _given_arguments(context: click.Context) -> list[str]:
    """Return the arguments that say what is measured, as they were given: an older revision may know no others."""
    arguments: list[str] = []
    for parameter in context.command.params:
        name, value = parameter.name or "", context.params[parameter.name or ""]
        if name in _OF_COMPARISON or context.get_parameter_source(name) != ParameterSource.COMMANDLINE:
            continue
        if isinstance(parameter, click.Argument):
            arguments.append(str(value))
        elif isinstance(value, bool):
            arguments.append((parameter.opts if value else parameter.secondary_opts)[0])
        else:
            for single in value if isinstance(value, tuple) else (value,):
                arguments += [parameter.opts[0], str(single)]
    return arguments


_OF_COMPARISON = {"revisions", "repeats", "as_json", "save", "quiet"}
"""The options that govern the comparison, and not what is measured."""


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


def whole_benchmark(report: BenchReport, shape: str) -> str:
    """Return the operations of LVBench's size with all layers, and the time that follows for the device measured."""
    from lvqa.profiling.prediction import LVBENCH_MINUTES, LVBENCH_QUESTIONS, LVBENCH_VIDEOS, predict_lvbench

    lines = [
        f"LVBench with {shape} in full depth: {LVBENCH_VIDEOS} videos of {LVBENCH_MINUTES} minutes, "
        f"{LVBENCH_QUESTIONS} questions each, a pool of 50, {report.settings.frames} frames;",
        f"here, if each stage has its share of the product above, {report.product_rate / 1e12:.3g} TFLOP/s, "
        "in full depth too",
    ]
    for layout, prediction in predict_lvbench(report, shape).items():
        total = sum(prediction.flops.values())
        stages = ", ".join(f"{stage} {flops / 1e15:.3g}" for stage, flops in prediction.flops.items())
        lines.append(
            f"  {layout}: a video {total / 1e15:.3g} PFLOP ({stages}), {prediction.seconds:.0f} s; "
            f"all of it {LVBENCH_VIDEOS * total / 1e18:.3g} EFLOP, {LVBENCH_VIDEOS * prediction.seconds / 3600:.1f} h"
        )
    return "\n".join(lines)


def table(report: BenchReport) -> str:
    """Return the results in columns."""
    height, width = report.frame_size
    lines = [
        f"{one_line(report.video)}, frames of {height} x {width}; {report.model}",
        f"{report.dtype}; {report.machine}, {report.threads} threads; medians of {report.settings.repeats}",
        "",
        f"{'':26}{'units':>8} {'unit':18}{'seconds':>9}{'CPU s':>9}{'a second':>10}"
        f"{'MB in':>9}{'GFLOP bound':>13}{'measured':>10}{'of ceiling':>12}",
    ]
    lines += [_row(result) for result in report.results]
    lines += ["", *(f"{name}: {ratio:.2f} times" for name, ratio in report.ratios.items())]
    return "\n".join(lines)


def ratio_table(comparison: Comparison) -> str:
    """Return the ratios in columns: a revision's seconds to this tree's, the median and the range of the rounds."""
    from lvqa.profiling.comparison import HERE

    rounds = len(next(iter(comparison.seconds.values()))[HERE])
    lines = [
        f"{comparison.machine}; {comparison.clock} seconds, to those of {HERE}: medians of {rounds} rounds (the range)",
        "",
        f"{'':26}{HERE + ', s':>14}" + "".join(f"{one_line(name):>24}" for name in comparison.commits),
    ]
    for task, seconds in comparison.seconds.items():
        cells = (comparison.ratio(task, name) for name in comparison.commits)
        lines.append(
            f"{task:26}{statistics.median(seconds[HERE]):14.4f}"
            + "".join(
                f"{f'{r.median:.2f} ({r.lowest:.2f} to {r.highest:.2f})' if r else 'not measured':>24}" for r in cells
            )
        )
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

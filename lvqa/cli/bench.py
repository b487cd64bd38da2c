"""`lvqa bench`: every stage against its floor, and against the usual ways to do it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lvqa.cli.main import silence_libraries
from lvqa.cli.terminal import echo_message, one_line, print_json

if TYPE_CHECKING:
    from lvqa.models.qwen_vl import Qwen25VL
    from lvqa.profiling import Bench, Measured


@click.command(short_help="Measure how long each stage of the work takes.")
@click.argument("video", metavar="[VIDEO]", type=click.Path(path_type=Path), required=False)
@click.option("--model", default="tiny", show_default=True, metavar="ID|DIR|tiny", help="A Qwen2.5-VL.")
@click.option("--random", "shape", metavar="3b|7b", help="Instead: Qwen2.5-VL's real widths with random weights.")
@click.option("--layers", type=int, metavar="N", help="With --random, of its language model; all by default.")
@click.option("--vision-layers", type=int, metavar="N", help="With --random, of its vision tower; all by default.")
@click.option("--device", metavar="NAME", help='As torch names it: "cpu", "cuda:0".')
@click.option("--dtype", metavar="NAME", help="bfloat16, float16 or float32.")
@click.option("--compile", "compiled", is_flag=True, help="Have the model's layers compiled.")
@click.option("--minutes", type=float, default=2, show_default=True, help="Of the film that are decoded.")
@click.option("--clips", type=int, default=4, show_default=True, help="That are embedded and looked at again.")
@click.option("--peer-clips", type=int, default=4, show_default=True, help="Of them, that the plain loops go through.")
@click.option("--questions", type=int, default=15, show_default=True)
@click.option("--frames", type=int, default=32, show_default=True, help="Of an answer.")
@click.option("--repeats", type=int, default=5, show_default=True, help="Rounds; their median counts.")
@click.option("--peers/--no-peers", default=True, show_default=True, help="Measure the usual ways as well.")
@click.option("--only", multiple=True, metavar="NAME", help="Measure this alone, by its name in the table; repeatable.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--save", metavar="F.json", type=click.Path(path_type=Path), help="Write that object there as well.")
@click.option("--quiet", is_flag=True, help="No progress.")
def bench(
    *,
    video: Path | None,
    model: str,
    shape: str | None,
    layers: int | None,
    vision_layers: int | None,
    device: str | None,
    dtype: str | None,
    compiled: bool,
    minutes: float,
    clips: int,
    peer_clips: int,
    questions: int,
    frames: int,
    repeats: int,
    peers: bool,
    only: tuple[str, ...],
    as_json: bool,
    save: Path | None,
    quiet: bool,
) -> None:
    """Measure each stage on the start of VIDEO: what must be done, what is done, how long it takes.

    The machine's own ceilings are measured in the same rounds: a large matrix product, and decoding every frame.
    Without VIDEO the frames are noise, and reading is left out.
    """
    from lvqa.profiling import BenchSettings, measure
    from lvqa.video import inspect_video

    settings = BenchSettings(
        minutes=minutes,
        clips=clips,
        peer_clips=peer_clips,
        questions=questions,
        frames=frames,
        repeats=repeats,
        peers=peers,
        only=only,
    )
    film = None if video is None else inspect_video(video)
    silence_libraries(downloads=False)
    loaded = _load(model, shape, layers=layers, vision_layers=vision_layers, device=device, dtype=dtype)
    if compiled:
        loaded.compile()
    found = measure(loaded, film, settings, tell=(lambda _: None) if quiet else echo_message)
    if save is not None:
        save.write_text(json.dumps(found.as_json()), encoding="utf-8")
    if as_json:
        print_json(found.as_json())
        return
    click.echo(table(found))
    if shape is not None and not only:
        click.echo("\n" + whole_benchmark(found, shape))


def _load(
    model: str,
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
        return Qwen25VL.load(model, device=device, dtype=dtype)
    return random_model(shape, layers=layers, vision_layers=vision_layers, device=device, dtype=dtype)


def whole_benchmark(bench: Bench, shape: str, *, minutes: float = 68, questions: int = 15, videos: int = 103) -> str:
    """LVBench's size with all layers, in operations, and the time that follows for an H100."""
    from lvqa.models.random_weights import real_config
    from lvqa.profiling.flops import LanguageCost, VisionCost
    from lvqa.profiling.predict import H100_FLOPS, predict

    config = real_config(shape)
    costs = LanguageCost.of(config.text_config), VisionCost.of(config.vision_config)
    height, width = bench.frame_size
    lines = [
        f"LVBench with {shape} in full depth: {videos} videos of {minutes:g} minutes, {questions} questions each, "
        f"a pool of 50, {bench.settings.frames} frames;",
        f"on an H100 of {H100_FLOPS / 1e12:g} TFLOP/s, if each stage has the share that it has of the product above",
    ]
    for layout in ("question first", "clip first"):
        shares = {
            "encode pairs": bench.of("encode pairs").of_ceiling,
            "embed clips": bench.of("embed clips").of_ceiling,
            "embed questions": bench.of("embed clips").of_ceiling,
            "rerank": bench.of(f"rerank, {layout}").of_ceiling,
            "answer": bench.of("answer").of_ceiling,
        }
        whole = predict(
            *costs,
            height=height,
            width=width,
            minutes=minutes,
            questions=questions,
            frames=bench.settings.frames,
            clip_first=layout == "clip first",
        )
        seconds = whole.seconds({stage: share or 1.0 for stage, share in shares.items()})
        parts = ", ".join(f"{stage} {flops / 1e15:.3g}" for stage, flops in whole.flops.items())
        lines.append(
            f"  {layout}: a video {whole.total / 1e15:.3g} PFLOP ({parts}), {seconds:.0f} s; "
            f"all of it {videos * whole.total / 1e18:.3g} EFLOP, {videos * seconds / 3600:.1f} h"
        )
    return "\n".join(lines)


def table(bench: Bench) -> str:
    """What was measured, in columns."""
    height, width = bench.frame_size
    lines = [
        f"{one_line(bench.video)}, frames of {height} x {width}; {bench.model}",
        f"{bench.machine}, {bench.threads} threads; medians of {bench.settings.repeats}",
        "",
        f"{'':26}{'units':>8} {'unit':18}{'seconds':>9}{'CPU s':>9}{'a second':>10}"
        f"{'MB in':>9}{'GFLOP must':>12}{'done':>9}{'of ceiling':>12}",
    ]
    lines += [_row(job) for job in bench.measured]
    lines += ["", *(f"{name}: {ratio:.2f} times" for name, ratio in bench.ratios.items())]
    return "\n".join(lines)


def _row(job: Measured) -> str:
    must = f"{job.must_flops / 1e9:.1f}" if job.must_flops else ""
    done = f"{job.done_flops / 1e9:.1f}" if job.done_flops else ""
    size = f"{job.must_bytes / 1e6:.1f}" if job.must_bytes else ""
    share = "" if job.of_ceiling is None else f"{job.of_ceiling:.0%}"
    return (
        f"{job.name:26}{job.units:8} {job.unit:18}{job.seconds:9.3f}{job.processor_seconds:9.2f}"
        f"{job.units_per_second:10.2f}{size:>9}{must:>12}{done:>9}{share:>12}"
    )

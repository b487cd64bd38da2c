"""`lvqa selections`: convert selected frames between the files of several projects, and export those of a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from lvqa.cli.terminal import one_line

if TYPE_CHECKING:
    from lvqa.datasets import VideoTask
    from lvqa.selection.files import Selections


@click.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("target", type=click.Path(path_type=Path))
@click.option(
    "--benchmark", default="lvbench", show_default=True, help="Benchmark whose questions the frames belong to."
)
@click.option(
    "--folder", metavar="DIR", type=click.Path(path_type=Path), required=True, help="Folder of the benchmark's files."
)
@click.option(
    "--format",
    default="bolt",
    show_default=True,
    help="Format of TARGET: aks, bolt, videoitg or wfs; lmms-eval or vlmevalkit, and TARGET is a folder.",
)
@click.option("--arm", metavar="NAME", help="Take the frames of this arm; SOURCE is then a run folder.")
@click.option(
    "--frames", type=int, metavar="N", help="Take the frames of this budget of the arm, or N of VideoITG's ranking."
)
def selections(
    *, source: Path, target: Path, benchmark: str, folder: Path, format: str, arm: str | None, frames: int | None
) -> None:
    """Convert the frames that another project selected.

    SOURCE is a file of AKS, BOLT, VideoITG or WFS; TARGET is written in the format that --format names. A file in the
    format `bolt` names its questions and counts in seconds: it can be used as a method (`--method TARGET`, or an
    arm's). With --arm, SOURCE is a run folder, and TARGET gets the frames that this arm selected.

    With the formats `lmms-eval` and `vlmevalkit`, TARGET is a folder that gets the frames as pictures, and the files
    from which that harness asks any of its models the same questions about them.
    """
    from lvqa.datasets import load_dataset
    from lvqa.harness_files import HARNESSES, export_frames
    from lvqa.records import LvqaError, counted
    from lvqa.selection.files import WRITERS, read_selections, write_selections
    from lvqa.video import inspect_video

    if format not in (formats := (*WRITERS, *HARNESSES)):
        raise LvqaError(f"the format must be one of {', '.join(formats)}, got {format!r}")
    tasks = load_dataset(benchmark, folder).tasks
    order = [(task.video_id, question.id) for task in tasks for question in task.questions]
    rates = {task.video_id: inspect_video(task.path).frames_per_second for task in tasks if task.path.is_file()}
    if arm is not None:
        if frames is None:
            raise LvqaError("--arm needs the budget whose frames are taken: --frames N")
        selected = _selections_of_run(source, arm, frames)
    else:
        selected = read_selections(source, order=order, frames_per_second=rates, num_frames=frames)
    unknown = [key for key in selected if key not in {*order}]
    if unknown:
        raise LvqaError(f"{source}: video {unknown[0][0]!r} has no question {unknown[0][1]!r} in {benchmark}")
    in_order = {key: selected[key] for key in order if key in selected}
    if format in HARNESSES:
        num_written = export_frames(target, tasks, in_order, format=format)
    else:
        num_written = len(in_order)
        write_selections(target, in_order, format=format, frames_per_second=rates, texts=_texts(tasks))
    click.echo(f"wrote the frames of {num_written} of {counted(len(order), 'question')} to {one_line(target)}")


def _texts(tasks: tuple[VideoTask, ...]) -> dict[tuple[str, str], str]:
    return {(task.video_id, question.id): question.text for task in tasks for question in task.questions}


def _selections_of_run(folder: Path, arm: str, frames: int) -> Selections:
    from lvqa.evaluation import read_run
    from lvqa.records import LvqaError

    rows = [row for row in read_run(folder).rows if row["arm"] == arm and row["budget"] == frames and not row["error"]]
    if not rows:
        raise LvqaError(f"{folder} has no answers of arm {arm!r} at {frames} frames")
    return {(row["video_id"], row["question_id"]): tuple(row["times_seconds"]) for row in rows}

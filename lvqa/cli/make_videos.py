"""`lvqa make-videos` and `lvqa demo`: make synthetic videos, and ask the embedded model about one of them."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lvqa.cli.main import CommonOptions, common_options
from lvqa.cli.terminal import Progress, one_line

if TYPE_CHECKING:
    from lvqa.evaluation import SyntheticVideos
    from lvqa.pipeline import LongVideoQA
    from lvqa.records import Answer, Question

TINY_WARNING = (
    "the embedded model knows only the synthetic world of these videos; its answers about others mean nothing"
)


def make_videos_with_progress(folder: Path, wanted: SyntheticVideos, *, quiet: bool) -> list[Path]:
    """Call `lvqa.synthetic.videos.make_videos` and report its progress."""
    from lvqa.synthetic.script import USUAL, Variety
    from lvqa.synthetic.videos import make_videos

    seconds = 0
    with Progress(quiet=quiet) as progress:

        def on_second() -> None:
            nonlocal seconds
            seconds += 1
            progress("make videos", seconds, max(seconds, math.ceil(wanted.minutes * 60) * wanted.videos))

        return make_videos(
            folder,
            num_videos=wanted.videos,
            minutes=wanted.minutes,
            num_questions=wanted.questions,
            seed=wanted.seed,
            variety=Variety(wanted.take_seconds or USUAL.take_seconds, wanted.lookalikes),
            on_second=on_second,
        )


@click.command("make-videos")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--videos", type=int, default=1, show_default=True, help="Number of videos to make.")
@click.option("--minutes", type=float, default=60, show_default=True, help="Length of each video in minutes.")
@click.option("--questions", type=int, default=20, show_default=True, help="Number of questions about each video.")
@click.option(
    "--seed",
    type=int,
    default=0,
    show_default=True,
    help="Seed of the first video, the next one has the next seed; seeds from 900000 are held out from training.",
)
@click.option(
    "--take-seconds",
    type=(float, float),
    metavar="FROM TO",
    help="The shortest and the longest scene in seconds.  [default: 8 40]",
)
@click.option(
    "--lookalikes",
    type=float,
    default=1.0,
    show_default=True,
    help="How many times as likely a scene has the video's favourite place and things.",
)
@click.option("--quiet", is_flag=True, help="Print no progress.")
def make_videos(*, folder: Path, quiet: bool, **wanted: Any) -> None:
    """Make synthetic videos and questions about them.

    They are written in LVBench's layout: the videos into DIR/videos, the questions into DIR/video_info.meta.jsonl.
    """
    from lvqa.evaluation import SyntheticVideos

    paths = make_videos_with_progress(folder, SyntheticVideos(**wanted), quiet=quiet)
    for path in paths:
        click.echo(one_line(path))


DEMO_QUESTIONS, DEMO_FRAMES = 4, 16
DEMO_METHODS = ("uniform", "freeret")


@click.command()
@click.option("--minutes", type=float, default=20, show_default=True, help="Length of the video in minutes.")
@click.option(
    "--folder",
    type=click.Path(path_type=Path),
    default="demo",
    show_default=True,
    help="Write the video, the index and the picture into this folder.",
)
@click.option("--seed", type=int, default=1, show_default=True, help="Seed of the video, below 900000.")
@common_options
def demo(common: CommonOptions, *, minutes: float, folder: Path, seed: int) -> None:
    """Make a video, index it and ask questions about it.

    The embedded model answers each question twice: from uniform frames and from selected frames.
    """
    from lvqa.evaluation import SyntheticVideos
    from lvqa.records import LvqaError, counted
    from lvqa.report import is_correct
    from lvqa.synthetic.videos import HELD_OUT_SEEDS, ask_about, write_script

    if not 0 <= seed < HELD_OUT_SEEDS:
        raise LvqaError(f"seed must be 0 to {HELD_OUT_SEEDS - 1} in a demo (the rest is held out), got {seed}")
    config = common.embedded_config(store=folder / "store")
    wanted = SyntheticVideos(videos=1, minutes=minutes, questions=DEMO_QUESTIONS, seed=seed)
    (video,) = make_videos_with_progress(folder, wanted, quiet=common.quiet)
    questions = ask_about(write_script(seed, minutes), DEMO_QUESTIONS)
    click.echo(f"video     {one_line(video)}, {minutes:g} minutes, synthetic")
    with common.load_pipeline(config) as qa:
        started = time.perf_counter()
        use = qa.index(video)
        outcome = "reused from the store" if use.reused else f"built in {time.perf_counter() - started:.0f} s"
        click.echo(f"index     {counted(use.clips, 'clip')}, {outcome}")
        click.echo(f"model     {config.model.name}" + (f": {TINY_WARNING}" if config.model.name == "tiny" else ""))
        pairs = [_demo_question(qa, video, i, question) for i, question in enumerate(questions, start=1)]
    num_correct = [sum(map(is_correct, answers)) for answers in zip(*pairs, strict=True)]
    scores = ", ".join(f"{method} {n} of {len(pairs)}" for method, n in zip(DEMO_METHODS, num_correct, strict=True))
    click.echo(
        f"\ncorrect at {DEMO_FRAMES} frames: {scores}"
        f" (guessing: 1 of 4; {len(pairs)} questions show how it works, not how well)"
    )
    _write_demo_picture(folder / "demo.png", video, pairs)


def _demo_question(qa: LongVideoQA, video: Path, i: int, question: Question) -> tuple[Answer, Answer]:
    """Print a question and its answers from uniform and from selected frames, and return the answers."""
    from lvqa.report import clock, is_correct, num_inside, span_text

    assert question.evidence_seconds is not None and question.answer is not None
    start, end = question.evidence_seconds
    target = question.options[question.letters.index(question.answer)]
    click.echo(f"\n{i}. {question.text}\n   {_on_one_line(question)}")
    click.echo(f"   truth    {question.answer}. {target}, seen {clock(start)}-{clock(end)}")
    uniform, selected = (qa.answer(video, question, frames=DEMO_FRAMES, method=method) for method in DEMO_METHODS)
    for answer in (uniform, selected):
        best = ", ".join(map(span_text, answer.evidence[:3]))
        line = f"   {answer.method:8} {answer.option}. {answer.text:8} {'correct' if is_correct(answer) else 'wrong':7}"
        line += f"   {num_inside(answer, (start, end)):2} of {len(answer.frames)} frames there"
        click.echo(line + (f"; evidence {best}" if best else ""))
    return uniform, selected


def _on_one_line(question: Question) -> str:
    """Return the options of a question: "A. red   B. blue"."""
    from lvqa.prompts import options

    return options(question.options).replace("\n", "   ")


def demo_example(pairs: Sequence[tuple[Answer, Answer]]) -> int:
    """Return the index of the question to draw, given each question's answers from uniform and from selected frames.

    It is one that the selected frames answer and uniform frames miss, if there is one; of several, the one with the
    largest difference of frames in the annotated time.
    """
    from lvqa.report import is_correct, num_inside

    def difference(i: int) -> tuple[bool, int]:
        uniform, selected = pairs[i]
        span = selected.question.evidence_seconds
        assert span is not None
        is_missed = is_correct(selected) and not is_correct(uniform)
        return is_missed, num_inside(selected, span) - num_inside(uniform, span)

    return max(range(len(pairs)), key=difference)


def _write_demo_picture(path: Path, video: Path, pairs: Sequence[tuple[Answer, Answer]]) -> None:
    """Write the contact sheet of one question, with the selected frames and below them the uniform ones."""
    from lvqa.report import clock, is_correct, write_contact_sheet
    from lvqa.video import inspect_video

    index = demo_example(pairs)
    uniform, selected = pairs[index]
    question = selected.question
    assert question.evidence_seconds is not None and question.answer is not None
    start, end = question.evidence_seconds
    target = question.options[question.letters.index(question.answer)]
    write_contact_sheet(
        path,
        selected,
        inspect_video(video),
        title=f"{index + 1}. {question.text}",
        subtitle=f"{_on_one_line(question)}\ntruth: {question.answer}. {target}, seen {clock(start)}-{clock(end)}",
        truth_seconds=(start, end),
        comparison=uniform,
    )
    is_missed = is_correct(selected) and not is_correct(uniform)
    reason = f"question {index + 1}" + (", which uniform frames miss" if is_missed else "")
    click.echo(f"picture   {one_line(path)} ({reason})")

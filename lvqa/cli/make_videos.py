"""`lvqa make-videos` and `lvqa demo`: films of the made world, and what the embedded model knows of them."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lvqa.cli.main import Setup, common
from lvqa.cli.terminal import Progress, one_line

if TYPE_CHECKING:
    from lvqa.pipeline import LongVideoQA
    from lvqa.records import Answer, Question

TINY_WARNING = "the embedded model knows only the made world of these films; it says nothing about real ones"


def make_videos_with_progress(
    folder: Path, *, num_videos: int, minutes: float, num_questions: int, seed: int, quiet: bool
) -> list[Path]:
    """`tiny.films.make_videos` with its progress."""
    from lvqa.synthetic.videos import make_videos

    seconds = 0
    with Progress(quiet=quiet) as progress:

        def on_second() -> None:
            nonlocal seconds
            seconds += 1
            progress("film", seconds, max(seconds, math.ceil(minutes * 60) * num_videos))

        return make_videos(
            folder, num_videos=num_videos, minutes=minutes, num_questions=num_questions, seed=seed, on_second=on_second
        )


@click.command("make-videos")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--films", type=int, default=1, show_default=True, help="How many.")
@click.option("--minutes", type=float, default=60, show_default=True, help="How long each.")
@click.option("--questions", type=int, default=20, show_default=True, help="How many about each.")
@click.option("--seed", type=int, default=0, show_default=True, help="The first film's; 900000 and above is held out.")
@click.option("--quiet", is_flag=True, help="No progress.")
def make_videos(*, folder: Path, films: int, minutes: float, questions: int, seed: int, quiet: bool) -> None:
    """Make films with questions about them, in LVBench's layout: DIR/videos and DIR/video_info.meta.jsonl."""
    paths = make_videos_with_progress(
        folder, num_videos=films, minutes=minutes, num_questions=questions, seed=seed, quiet=quiet
    )
    for path in paths:
        click.echo(one_line(path))


DEMO_QUESTIONS, DEMO_FRAMES = 4, 16


@click.command()
@click.option("--minutes", type=float, default=20, show_default=True, help="How long the film is.")
@click.option("--folder", type=click.Path(path_type=Path), default="demo", show_default=True, help="For all of it.")
@click.option("--seed", type=int, default=1, show_default=True, help="Which film; below 900000.")
@common
def demo(setup: Setup, *, minutes: float, folder: Path, seed: int) -> None:
    """Make a film, index it, and ask it questions with uniform and with chosen frames, on the embedded model."""
    from lvqa.records import LvqaError
    from lvqa.synthetic.videos import HELD_OUT_SEEDS, ask_about, write_script

    if not 0 <= seed < HELD_OUT_SEEDS:
        raise LvqaError(f"seed must be 0 to {HELD_OUT_SEEDS - 1} in a demo (the rest is held out), got {seed}")
    config = setup.embedded_config(store=folder / "store")
    (film,) = make_videos_with_progress(
        folder, num_videos=1, minutes=minutes, num_questions=DEMO_QUESTIONS, seed=seed, quiet=setup.quiet
    )
    questions = ask_about(write_script(seed, minutes), DEMO_QUESTIONS)
    click.echo(f"film      {one_line(film)}, {minutes:g} minutes, made")
    with setup.loaded(config) as qa:
        started = time.perf_counter()
        use = qa.index(film)
        done = "found in the store" if use.reused else f"made in {time.perf_counter() - started:.0f} s"
        click.echo(f"index     {use.clips} clips, {done}")
        click.echo(f"model     {config.model.name}" + (f": {TINY_WARNING}" if config.model.name == "tiny" else ""))
        pairs = [_demo_question(qa, film, number, question) for number, question in enumerate(questions, 1)]
    rights = [sum(_is_right(pair[arm]) for pair in pairs) for arm in (0, 1)]
    click.echo(
        f"\nright at {DEMO_FRAMES} frames: uniform {rights[0]} of {len(pairs)}, freeret {rights[1]} of {len(pairs)}"
        f" (guessing: 1 of 4; {len(pairs)} questions show how it works, not how well)"
    )
    _demo_picture(folder / "demo.png", film, [pair[1] for pair in pairs])


def _demo_question(qa: LongVideoQA, film: Path, number: int, question: Question) -> tuple[Answer, Answer]:
    """The answers from uniform and from chosen frames, told as they come."""
    from lvqa.prompts import options
    from lvqa.report import clock, span_text

    assert question.evidence_seconds is not None and question.answer is not None
    start, end = question.evidence_seconds
    right = question.options[question.letters.index(question.answer)]
    click.echo(f"\n{number}. {question.text}\n   {options(question.options).replace(chr(10), '   ')}")
    click.echo(f"   truth    {question.answer}. {right}, seen {clock(start)}-{clock(end)}")
    answers = [qa.answer(film, question, frames=DEMO_FRAMES, method=method) for method in ("uniform", "freeret")]
    for answer in answers:
        best = ", ".join(map(span_text, answer.evidence[:3]))
        click.echo(
            f"   {answer.method:8} {answer.option}. {answer.text:8} {'right' if _is_right(answer) else 'wrong'}"
            f"   {_num_inside(answer):2} of {len(answer.frames)} frames there" + (f"; evidence {best}" if best else "")
        )
    return answers[0], answers[1]


def _is_right(answer: Answer) -> bool:
    return answer.option == answer.question.answer


def _num_inside(answer: Answer) -> int:
    """How many of the frames lie where the answer is."""
    assert answer.question.evidence_seconds is not None
    start, end = answer.question.evidence_seconds
    return sum(start <= seconds < end for seconds in answer.frames)


def _demo_picture(path: Path, film: Path, answers: Sequence[Answer]) -> None:
    """Of the question that shows most: answered rightly, and with most frames from where the answer is."""
    from lvqa.report import clock, write_contact_sheet
    from lvqa.video import inspect_video

    place = max(range(len(answers)), key=lambda place: (_is_right(answers[place]), _num_inside(answers[place])))
    answer = answers[place]
    assert answer.question.evidence_seconds is not None
    start, end = answer.question.evidence_seconds
    verdict = "right" if _is_right(answer) else f"wrong, it is {answer.question.answer}"
    write_contact_sheet(
        path,
        answer,
        inspect_video(film),
        title=f"{place + 1}. {answer.question.text}",
        subtitle=f"{answer.option}. {answer.text} ({verdict}); seen {clock(start)}-{clock(end)}",
        truth_seconds=(start, end),
    )
    click.echo(f"picture   {one_line(path)} (question {place + 1})")
